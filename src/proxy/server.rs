//! Listens, accepts, and lets go: connections and sessions up to `limits.max_connections`, drained in stages.
//!
//! Beyond the limit [`SHED_CONNECTIONS`] more are served 503 `overloaded`, so that clients hear it; after those nothing is
//! accepted and the kernel's queue fills. What happens on a connection is [`super::connection`]'s.

use std::{io, sync::Arc, time::Duration};

use rustls::ServerConfig;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::timeout,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::{info, warn};

use super::{
    Proxy,
    connection::{Connections, Purpose},
    heartbeat::Heartbeat,
    settings::{Limits, Settings},
    shutdown::{Shutdown, Stage},
    socket::{Address, Listener},
    tls::{self, Reloaded, TlsError},
};

/// Connections beyond the limit that are told so.
const SHED_CONNECTIONS: usize = 64;
/// Pause after an error of accepting: usually there are no file descriptors left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// How long the end of what was cut may take.
const FAREWELL: Duration = Duration::from_secs(1);

/// Bound listeners that do not accept yet.
#[derive(Debug)]
pub struct Server {
    listeners: Vec<Listener>,
    tls: Option<Arc<Reloaded<ServerConfig>>>,
    limits: Limits,
    heartbeat: Arc<Heartbeat>,
}

/// Why the server cannot start.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// An address cannot be listened on.
    #[error("cannot listen on {address}")]
    Listen {
        /// Which one.
        address: Address,
        /// Why.
        source: io::Error,
    },
    /// `tls.*` cannot be used.
    #[error("TLS cannot be set up")]
    Tls(#[from] TlsError),
}

/// What the acceptors share.
#[derive(Debug)]
struct Reception {
    connections: Arc<Connections>,
    running: TaskTracker,
    closing: CancellationToken,
    heartbeat: Arc<Heartbeat>,
    serve: Arc<Semaphore>,
    shed: Arc<Semaphore>,
}

// === impl Server ===

impl Server {
    /// Binds every address of `settings` and reads its certificates.
    ///
    /// # Errors
    /// [`BindError`] for the first that fails.
    pub fn bind(settings: &Settings) -> Result<Self, BindError> {
        let listeners = settings.listen.iter().map(|address| {
            let bound = Listener::bind(address, &settings.listen);
            bound.map_err(|source| BindError::Listen { address: address.clone(), source })
        });
        Ok(Self {
            listeners: listeners.collect::<Result<_, _>>()?,
            tls: settings.tls.as_ref().map(Reloaded::server).transpose()?.map(Arc::new),
            limits: settings.limits,
            heartbeat: Arc::default(),
        })
    }

    /// Where it listens, with the ports that were picked.
    pub fn addresses(&self) -> Vec<Address> {
        self.listeners.iter().filter_map(Listener::address).collect()
    }

    /// Beats while connections are accepted, or could be.
    pub fn heartbeat(&self) -> Arc<Heartbeat> {
        self.heartbeat.clone()
    }

    /// Serves until `shutdown` has been gone through: accepting for `limits.drain_delay` after its first stage, then finishing
    /// for `limits.drain`, then cutting; or cutting at once at its second.
    pub async fn run(self, proxy: Arc<Proxy>, shutdown: Shutdown) {
        let Self { listeners, tls, limits, heartbeat } = self;
        let closing = CancellationToken::new();
        let cut = CancellationToken::new();
        let connections = Connections::new(proxy.clone(), tls.clone(), limits, closing.clone(), cut.clone());
        let running = TaskTracker::new();
        let reception = Arc::new(Reception {
            connections: Arc::new(connections),
            running: running.clone(),
            closing: closing.clone(),
            heartbeat,
            serve: Arc::new(Semaphore::new(limits.max_connections)),
            shed: Arc::new(Semaphore::new(SHED_CONNECTIONS)),
        });
        let acceptors = TaskTracker::new();
        for listener in listeners {
            acceptors.spawn(reception.clone().accept(listener));
        }
        acceptors.spawn(refresh(proxy.clone(), tls, closing.clone()));
        acceptors.close();

        shutdown.reached(Stage::Draining).await;
        info!(delay_secs = limits.drain_delay.as_secs(), "Shutting down, still accepting for a while.");
        let _ = timeout(limits.drain_delay, shutdown.reached(Stage::Cut)).await;
        closing.cancel();
        acceptors.wait().await;
        running.close();
        let finished = async { tokio::join!(running.wait(), proxy.sessions().ended()) };
        tokio::pin!(finished);
        let stopped = tokio::select! {
            _ = finished.as_mut() => true,
            () = tokio::time::sleep(limits.drain) => false,
            () = shutdown.reached(Stage::Cut) => false,
        };
        if !stopped {
            warn!(connections = running.len(), "Cutting what still runs.");
            cut.cancel();
            proxy.sessions().cut();
            // Tasks end at their next step; one that does not is left to the end of the process.
            let _ = timeout(FAREWELL, finished).await;
        }
        info!("Stopped serving.");
    }
}

// === impl Reception ===

impl Reception {
    async fn accept(self: Arc<Self>, listener: Listener) {
        let mut beat = tokio::time::interval(Heartbeat::INTERVAL);
        let mut place = None;
        loop {
            let accepted = tokio::select! {
                () = self.closing.cancelled() => return,
                _ = beat.tick() => {
                    self.heartbeat.beat();
                    continue;
                }
                found = self.place(), if place.is_none() => {
                    place = Some(found);
                    continue;
                }
                accepted = listener.accept(), if place.is_some() => accepted,
            };
            match (accepted, place.take()) {
                (Ok(stream), Some(place)) => {
                    // A better place may have become free while nobody came.
                    let (permit, purpose) = match place {
                        (permit, Purpose::Serve) => (permit, Purpose::Serve),
                        (permit, Purpose::Shed) => self.serving_place().unwrap_or((permit, Purpose::Shed)),
                    };
                    self.running.spawn(self.connections.clone().run(stream, permit, purpose));
                }
                (Ok(_), None) => {}
                (Err(error), _) => {
                    warn!(%error, "Accepting a connection failed.");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    fn serving_place(&self) -> Option<(OwnedSemaphorePermit, Purpose)> {
        self.serve.clone().try_acquire_owned().ok().map(|permit| (permit, Purpose::Serve))
    }

    /// A place for one more connection, and what is done with it.
    async fn place(&self) -> (OwnedSemaphorePermit, Purpose) {
        let (serve, shed) = (self.serve.clone(), self.shed.clone());
        tokio::select! {
            biased;
            Ok(permit) = serve.acquire_owned() => (permit, Purpose::Serve),
            Ok(permit) = shed.acquire_owned() => (permit, Purpose::Shed),
            // Nobody closes the semaphores.
            else => std::future::pending().await,
        }
    }
}

/// Looks for changed certificates until the server closes.
async fn refresh(proxy: Arc<Proxy>, tls: Option<Arc<Reloaded<ServerConfig>>>, closing: CancellationToken) {
    let mut look = tokio::time::interval(tls::POLL);
    loop {
        tokio::select! {
            () = closing.cancelled() => return,
            _ = look.tick() => {
                if let Some(tls) = &tls {
                    tls.refresh();
                }
                proxy.refresh();
            }
        }
    }
}
