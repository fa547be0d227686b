//! Health and metrics on a listener of their own.

use std::{
    net::{Ipv4Addr, SocketAddr},
    time::Duration,
};

/// What the operator decides about the admin listener.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// `admin_listen`; port 0 picks a free one.
    pub listen: SocketAddr,
    /// How often the gateway is probed for `/readyz`. Not configurable; tests shorten it.
    pub probe_interval: Duration,
}

// === impl Settings ===

impl Default for Settings {
    fn default() -> Self {
        Self { listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 8901)), probe_interval: Duration::from_secs(5) }
    }
}
