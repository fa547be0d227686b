//! The real servers: where `tests/components/install` put them, and how each is started for one test.

mod drongo;
mod gateway;
pub mod kube;
mod ministack;
mod openbao;
mod postgres;
mod redis;

use std::{
    net::{Ipv4Addr, SocketAddr},
    path::PathBuf,
};

pub use drongo::Drongo;
pub use gateway::Gateway;
pub use kube::KubeApiserver;
pub use ministack::MiniStack;
pub use openbao::OpenBao;
pub use postgres::Postgres;
pub use redis::Redis;

use crate::harness;

const VERSIONS: &str = include_str!("../components/versions");

/// Something in the components' cache; the test is skipped (in CI: fails) when it is not there.
pub fn installed(path: &str) -> PathBuf {
    let found = cache().join(path);
    if !found.exists() {
        harness::skip(&format!("{path} is not in {}: run tests/run install", cache().display()));
    }
    found
}

/// The pinned version called `name` in `tests/components/versions`.
pub fn version(name: &str) -> &'static str {
    VERSIONS
        .lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix('='))
        .unwrap_or_else(|| panic!("{name} is not in tests/components/versions"))
}

/// An address of loopback that is free now. On the network of a test nobody else can take it.
pub fn free_address() -> SocketAddr {
    let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
    listener.local_addr().expect("an address")
}

fn cache() -> PathBuf {
    ["REAL_TESTS_CACHE", "SIDEKEY_TEST_CACHE"]
        .iter()
        .find_map(std::env::var_os)
        .map_or_else(|| PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/target/components")), PathBuf::from)
}
