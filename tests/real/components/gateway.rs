//! The Portkey AI gateway, as npm ships it, with the web server version that can stream.

use std::{net::SocketAddr, path::Path};

use super::installed;
use crate::{
    client::Call,
    process::{Process, command},
};

/// A running gateway. It listens on all interfaces, which on a test's network is nobody else's business.
pub struct Gateway {
    pub address: SocketAddr,
    process: Process,
}

impl Gateway {
    /// Starts the gateway; it trusts `authority` (a PEM file) beside the public certificate authorities.
    pub async fn start(authority: &Path) -> Self {
        let program = installed("npm-portkey/node_modules/@portkey-ai/gateway/build/start-server.js");
        let address = super::free_address();
        let mut server = command("node");
        server.arg(program).arg(format!("--port={}", address.port())).arg("--headless");
        server.env("NODE_ENV", "production").env("NODE_EXTRA_CA_CERTS", authority);
        let mut process = Process::start("gateway", server);
        process.until("listening", async || tokio::net::TcpStream::connect(address).await.ok()).await;
        // The first request compiles most of it; better here than inside somebody's measurement.
        Call::get("/").send(address).await.expect(200);
        Self { address, process }
    }

    /// `http://address`, as in `upstream.url`.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// What it logged.
    pub fn log(&self) -> String {
        self.process.log()
    }

    /// The process, to stop or pause it.
    pub fn process(&mut self) -> &mut Process {
        &mut self.process
    }
}
