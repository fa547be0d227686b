//! A running control plane: its rooms joined, its files looked after, its end.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use rustls::ServerConfig;
use tokio::{
    task::JoinHandle,
    time::{Instant, sleep},
};
use tokio_util::sync::{CancellationToken, DropGuard};
use tracing::{error, info, warn};

use super::{Signal, Signals, chain};
use crate::{
    config::ControlPlaneConfig,
    control::{AdmitAddress, BootstrapError, Control, Judges, Server, TlsSource, api_key},
    dialect::portkey,
    egress::Policy,
    proxy::{Reloaded, TLS_POLL, TlsError},
};

/// A running control plane. Dropping it ends it without waiting.
#[derive(Debug)]
pub struct ControlPlane {
    address: SocketAddr,
    control: Arc<Control>,
    serving: JoinHandle<()>,
    looking: JoinHandle<()>,
    rotating: JoinHandle<()>,
    drain_delay: Duration,
    end: CancellationToken,
    _end_with_me: DropGuard,
}

/// Why a control plane cannot start.
#[derive(Debug, thiserror::Error)]
pub enum ControlPlaneError {
    /// The database or a key file.
    #[error("what it keeps cannot be used")]
    Bootstrap(#[from] BootstrapError),
    /// `tls.*`.
    #[error("TLS cannot be set up")]
    Tls(#[from] TlsError),
    /// `listen`.
    #[error("{address} cannot be listened on")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// Why.
        source: io::Error,
    },
}

// === impl ControlPlane ===

impl ControlPlane {
    /// Opens the store, binds the address, and serves.
    ///
    /// # Errors
    /// [`ControlPlaneError`]; nothing runs then.
    pub async fn start(config: ControlPlaneConfig) -> Result<Self, ControlPlaneError> {
        let ControlPlaneConfig { control: settings, tls, policy, restrict_base_urls, log: _ } = config;
        let tls = tls.as_ref().map(Reloaded::server).transpose()?.map(Arc::new);
        let control = Arc::new(Control::open(&settings, judges(policy, restrict_base_urls)).await?);
        let address = settings.listen;
        let listen = |source| ControlPlaneError::Listen { address, source };
        let server = Server::bind(&settings, tls.clone().map(tls_source)).await.map_err(listen)?;
        let address = server.address().map_err(listen)?;
        let end = CancellationToken::new();
        let serving = tokio::spawn(server.run(Arc::clone(&control), end.clone()));
        let looking = tokio::spawn(look_after(Arc::clone(&control), settings.clone(), tls.clone(), end.clone()));
        let rotating = tokio::spawn(api_key::keep_rotating(Arc::clone(&control), end.clone()));
        info!(listen = %address, "Serving the admin API.");
        if settings.recipients.is_none() {
            warn!("There is no data plane to seal to (sealing.recipients): posted credentials are refused.");
        }
        if tls.is_none() && !address.ip().is_loopback() {
            warn!(
                "Keys and credentials travel in clear on this listener (no tls.cert_file): something in front must encrypt."
            );
        }
        let _end_with_me = end.clone().drop_guard();
        let drain_delay = settings.drain_delay;
        Ok(Self { address, control, serving, looking, rotating, drain_delay, end, _end_with_me })
    }

    /// Where it listens, with the port that was picked.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// What it answers with.
    pub fn control(&self) -> &Arc<Control> {
        &self.control
    }

    /// Serves until it is signalled to stop: after the first SIGTERM or SIGINT calls are taken for `limits.drain_delay_secs`, and
    /// what runs is finished; the second ends at once. False when serving ended by itself, which is a fault.
    pub async fn run(mut self, signals: &mut Signals) -> bool {
        let mut stopping = false;
        let delay = sleep(self.drain_delay);
        tokio::pin!(delay);
        loop {
            tokio::select! {
                signal = signals.next() => match signal {
                    Signal::Reload => info!("Files are read again when they change; nothing else is."),
                    Signal::Stop if stopping => return true,
                    Signal::Stop => {
                        stopping = true;
                        info!("Shutting down.");
                        self.control.leave();
                        delay.as_mut().reset(Instant::now() + self.drain_delay);
                    }
                },
                () = &mut delay, if stopping && !self.end.is_cancelled() => self.end.cancel(),
                served = &mut self.serving => {
                    if let Err(error) = &served {
                        error!(%error, "Serving ended by a fault.");
                    }
                    return stopping && served.is_ok();
                }
            }
        }
    }

    /// Finishes what runs and returns when everything has ended.
    pub async fn stop(mut self) {
        self.end.cancel();
        if let Err(error) = (&mut self.serving).await {
            error!(%error, "Serving ended by a fault.");
        }
        let _ = (&mut self.looking).await;
        let _ = (&mut self.rotating).await;
    }
}

// === impl ControlPlaneError ===

impl ControlPlaneError {
    /// Whether the configuration has to change; otherwise it is the machine, as when an address is in use.
    pub fn is_configuration(&self) -> bool {
        match self {
            Self::Tls(_) => true,
            Self::Bootstrap(error) => error.is_configuration(),
            Self::Listen { .. } => false,
        }
    }
}

/// What the sidecar's policy says of an address, without asking for its addresses; what its dialect says of a config.
fn judges(policy: Policy, restrict_base_urls: bool) -> Judges {
    let admit_address: AdmitAddress = Arc::new(move |url| policy.check_url(url).map_err(|refused| refused.reason));
    Judges {
        admit_base_url: if restrict_base_urls { Arc::clone(&admit_address) } else { Arc::new(|_| Ok(())) },
        admit_address,
        check_config: Arc::new(portkey::check_stored_config),
    }
}

fn tls_source(tls: Arc<Reloaded<ServerConfig>>) -> TlsSource {
    Arc::new(move || tls.current())
}

/// Reads certificates and the hash file again when they change.
async fn look_after(
    control: Arc<Control>,
    settings: crate::control::Settings,
    tls: Option<Arc<Reloaded<ServerConfig>>>,
    end: CancellationToken,
) {
    let mut look = tokio::time::interval(TLS_POLL);
    while end.run_until_cancelled(look.tick()).await.is_some() {
        if let Some(tls) = &tls {
            tls.refresh();
        }
        if let Err(error) = control.refresh_hashes(&settings) {
            warn!(error = chain(&error), "The hash file cannot be used, the last one stays.");
        }
    }
}
