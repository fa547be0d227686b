//! What the operator decides about the control plane.

use std::{
    net::{Ipv4Addr, SocketAddr},
    path::PathBuf,
    time::Duration,
};

use super::store::Location;
use crate::seal::recipient::Recipients;

/// `listen`, `database_*`, `sealing.*`, `data_planes`, …
#[derive(Clone, Debug)]
pub struct Settings {
    /// `listen`; port 0 picks a free one.
    pub listen: SocketAddr,
    /// `database_file`, or what `database_url_file` holds.
    pub database: Location,
    /// `sealing.recipients`; `None` = a posted credential is refused.
    pub recipients: Option<Recipients>,
    /// `bootstrap_key_file`.
    pub bootstrap_key_file: PathBuf,
    /// `api_key_hash_file`.
    pub api_key_hash_file: PathBuf,
    /// `signing_key_file`.
    pub signing_key_file: PathBuf,
    /// Whether the two above may be made when they are missing: beside a SQLite file, where one process has both.
    pub make_key_files: bool,
    /// `data_planes`.
    pub data_planes: Vec<DataPlane>,
    /// `limits.max_connections`.
    pub max_connections: usize,
    /// `limits.feed_connections`: of one data plane.
    pub feed_connections: usize,
    /// `limits.drain_delay_secs`: how long calls are taken after the signal to stop, until load balancers have read `/readyz`.
    pub drain_delay: Duration,
    /// `limits.drain_secs`: how long calls that run may take to end.
    pub drain: Duration,
}

/// A row of `data_planes`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DataPlane {
    /// `name`.
    pub name: String,
    /// `token_sha256`: in hex, lower case.
    pub token_sha256: String,
}

// === impl Settings ===

impl Settings {
    /// Everything by default, with its files in `folder`.
    pub fn in_folder(folder: &std::path::Path) -> Self {
        Self {
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 8902)),
            database: Location::File(folder.join("sidekey-control.db")),
            recipients: None,
            bootstrap_key_file: folder.join("bootstrap-key"),
            api_key_hash_file: folder.join("api-key-hash"),
            signing_key_file: folder.join("signing-key.pem"),
            make_key_files: true,
            data_planes: Vec::new(),
            max_connections: 4096,
            feed_connections: 3000,
            drain_delay: Duration::ZERO,
            drain: Duration::from_secs(25),
        }
    }
}
