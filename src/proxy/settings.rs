//! What the operator decides about the proxy. Checked by `config` before it gets here; the defaults are those of the
//! documented keys.

use std::{
    net::{Ipv4Addr, SocketAddr},
    path::PathBuf,
    time::Duration,
};

use url::Url;

use super::socket::Address;

/// Everything the proxy is configured with.
#[derive(Clone, Debug)]
pub struct Settings {
    /// `listen`: where clients connect; at least one.
    pub listen: Vec<Address>,
    /// `tls.*`; `None` = plain text.
    pub tls: Option<TlsSettings>,
    /// `upstream.*`: the gateway.
    pub upstream: UpstreamSettings,
    /// `snapshot.control_plane.url`: where the admin paths go; `None` = they answer 404.
    pub control_plane: Option<UpstreamSettings>,
    /// `provenance_header`: whether answers say where their credentials came from.
    pub provenance: bool,
    /// `limits.*`.
    pub limits: Limits,
    /// `recovery.*`, as far as it is about requests; `None` = a refused credential is not looked after.
    pub recovery: Option<RecoverySettings>,
}

/// `upstream.*`.
#[derive(Clone, Debug)]
pub struct UpstreamSettings {
    /// `url`: scheme, host and port; http or https. Or `unix:` and the path of a socket.
    pub url: Url,
    /// `ca_file`: PEM certificates trusted beside the system's roots; re-read when the file changes.
    pub ca_file: Option<PathBuf>,
    /// `connect_timeout_secs`: name look-up, TCP and TLS together. More is 502 `upstream_unreachable`.
    pub connect_timeout: Duration,
    /// `response_head_timeout_secs`: from the last byte of the request to the response head. More is 504
    /// `upstream_timeout`. A body that has begun has no limit.
    pub response_head_timeout: Duration,
    /// `max_head_bytes`: request line and headers as they are written. More is 431 `head_too_large`.
    pub max_head_bytes: usize,
}

/// `recovery.*`: what is kept of requests that may have to be sent again.
#[derive(Clone, Copy, Debug)]
pub struct RecoverySettings {
    /// `max_body_bytes`: of one body. A larger one is not sent again.
    pub max_body_bytes: usize,
    /// `max_kept_bytes`: of all bodies that wait for their replies. One that finds no room is not sent again.
    pub max_kept_bytes: usize,
}

/// `tls.*` of the client listener.
#[derive(Clone, Debug)]
pub struct TlsSettings {
    /// `cert_file`: PEM chain, leaf first; re-read when it changes, as are the others.
    pub cert_file: PathBuf,
    /// `key_file`: PEM private key of the leaf.
    pub key_file: PathBuf,
    /// `client_ca_file`: clients must show a certificate of one of these authorities.
    pub client_ca_file: Option<PathBuf>,
}

/// `limits.*`: what one client, or all of them together, may take.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// `max_connections`: client connections served at once. A few more are answered 503 `overloaded`, the rest waits
    /// in the kernel's queue.
    pub max_connections: usize,
    /// `max_in_flight`: requests served at once, on all connections; more are answered 503 `overloaded`.
    pub max_in_flight: usize,
    /// `max_head_bytes`: request line and headers of a client. More is 431 `head_too_large`.
    pub max_head_bytes: usize,
    /// `model_peek_bytes`: how much of a body is kept while looking for the model. A larger one counts as unmatched.
    pub model_peek_bytes: usize,
    /// `head_timeout_secs`: from the first byte of a head to its end, and between two pieces of a body that is looked
    /// into. More is 408 `request_timeout`.
    pub head_timeout: Duration,
    /// `stall_timeout_secs`: how long a client may take nothing while bytes wait for it, and send nothing while the gateway
    /// waits for the rest of its body. More ends the connection or the stream, or is 408 `request_timeout`.
    pub stall_timeout: Duration,
    /// `drain_delay_secs`: how long accepting goes on after the signal, until load balancers have noticed.
    pub drain_delay: Duration,
    /// `drain_secs`: how long running requests and sessions may take after that before they are cut.
    pub drain: Duration,
    /// `session_max_secs`: longest WebSocket session; `None` = no end.
    pub session_max: Option<Duration>,
}

// === impl UpstreamSettings ===

impl UpstreamSettings {
    /// The documented defaults for `url`.
    pub fn new(url: Url) -> Self {
        Self {
            url,
            ca_file: None,
            connect_timeout: Duration::from_secs(3),
            response_head_timeout: Duration::from_secs(600),
            max_head_bytes: 16 * 1024,
        }
    }
}

// === impl Settings ===

impl Settings {
    /// The documented defaults in front of the gateway at `upstream`.
    pub fn new(upstream: Url) -> Self {
        Self {
            listen: vec![SocketAddr::from((Ipv4Addr::LOCALHOST, 8900)).into()],
            tls: None,
            upstream: UpstreamSettings::new(upstream),
            control_plane: None,
            provenance: false,
            limits: Limits::default(),
            recovery: Some(RecoverySettings::default()),
        }
    }
}

// === impl RecoverySettings ===

impl Default for RecoverySettings {
    fn default() -> Self {
        Self { max_body_bytes: 1 << 20, max_kept_bytes: 64 << 20 }
    }
}

// === impl Limits ===

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_connections: 4096,
            // Two for each connection: HTTP/1.1 has one, HTTP/2 up to 256.
            max_in_flight: 8192,
            max_head_bytes: 32 * 1024,
            // Vision requests carry megabytes of images, and SDKs write `messages` before `model`.
            model_peek_bytes: 8 * 1024 * 1024,
            head_timeout: Duration::from_secs(10),
            stall_timeout: Duration::from_secs(60),
            drain_delay: Duration::from_secs(5),
            drain: Duration::from_secs(25),
            session_max: Some(Duration::from_secs(4 * 3600)),
        }
    }
}
