//! The composition root: settings → a running sidecar, and its end.
//!
//! Everything is bound and read before anything is spawned, so that a start either fails as a whole or runs. What is
//! spawned ends with the [`Sidecar`].

mod control_plane;
mod hardening;
mod prewarm;
mod signals;

pub use control_plane::{ControlPlane, ControlPlaneError};
pub use hardening::harden;
pub use signals::{Signal, Signals};

use std::{
    error::Error,
    io,
    net::SocketAddr,
    sync::{Arc, atomic::AtomicBool},
    time::Duration,
};

use tokio::{
    task::JoinHandle,
    time::{MissedTickBehavior, interval, timeout},
};
use tokio_util::{
    sync::{CancellationToken, DropGuard},
    task::TaskTracker,
};
use tracing::{error, info, warn};

use crate::{
    admin::{Admin, Operator, OperatorError, Vitals},
    clients::{Clients, ClientsError},
    config::Config,
    dialect::portkey::Portkey,
    egress::{Transport, TrustError},
    feed::{
        Admit, Feed, Linker, Source,
        control_plane::{ControlPlaneSource, Reporter},
        file::{FileSource, Reload},
    },
    manager::registry::{Registry, RegistrySettings},
    metric::Metrics,
    proxy::{self, BindError, Proxy, Server, Shutdown, UpstreamError, audit::Audit},
    push::{Push, PushError},
    resolve::{Resolver, prewarm::Choice},
    seal::opener::{IdentityFileError, Opener},
    telemetry::{AuditFile, AuditWriter, Exporter},
};

/// How long the first snapshot may take before clients are served without it (503 `no_snapshot`).
const FIRST_SNAPSHOT: Duration = Duration::from_secs(10);
/// How often the identity file is looked at.
const IDENTITIES: Duration = Duration::from_secs(10);
/// How often the control plane is told what is used.
const REPORTS: Duration = Duration::from_secs(10);
/// How long background tasks may take to end after serving has ended.
const FAREWELL: Duration = Duration::from_secs(2);

/// A running sidecar. Dropping it ends what it spawned without waiting; [`Sidecar::run`] and [`Sidecar::stop`] end it in
/// order.
#[derive(Debug)]
pub struct Sidecar {
    addresses: Vec<SocketAddr>,
    admin_address: SocketAddr,
    webhook_address: Option<SocketAddr>,
    feed: Arc<Feed>,
    resolver: Arc<Resolver>,
    metrics: Arc<Metrics>,
    shutdown: Shutdown,
    reload: Option<Reload>,
    opener: Option<Arc<Opener>>,
    audit: Option<(Audit, AuditWriter)>,
    serving: JoinHandle<()>,
    background: TaskTracker,
    end: CancellationToken,
    _end_with_me: DropGuard,
}

/// Why a sidecar cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// `managers.*` or `egress.*` name something that cannot be used.
    #[error("secret managers cannot be set up: {0}")]
    Managers(String),
    /// `upstream.*` cannot be used.
    #[error("the gateway cannot be reached as configured")]
    Upstream(#[from] UpstreamError),
    /// `api_key_hash_file` or `limits.price_file`.
    #[error("API keys cannot be checked")]
    Keys(#[from] ClientsError),
    /// `sealing.identity_file`.
    #[error("sealed values cannot be opened")]
    Identities(#[from] IdentityFileError),
    /// `listen` or `tls.*`.
    #[error("clients cannot be served")]
    Clients(#[from] BindError),
    /// `tracing.*`.
    #[error("the collector of traces cannot be reached as configured")]
    Traces(#[source] UpstreamError),
    /// `audit.file`.
    #[error("audit.file cannot be written")]
    Audit(#[source] io::Error),
    /// `admin_token_file` or `fingerprint_key_file`.
    #[error("the operator API cannot be set up")]
    Operator(#[from] OperatorError),
    /// `webhook_listen`, `webhooks.*`.
    #[error("webhooks cannot be served")]
    Webhooks(#[from] PushError),
    /// `egress.extra_ca_files`, on the way to those who issue tokens for webhooks.
    #[error("the issuers of webhook tokens cannot be reached")]
    Issuers(#[from] TrustError),
    /// `admin_listen`.
    #[error("admin_listen {address} cannot be listened on")]
    Admin {
        /// The address.
        address: SocketAddr,
        /// Why.
        source: io::Error,
    },
}

// === impl Sidecar ===

impl Sidecar {
    /// Builds every room, binds every address, waits a moment for the first snapshot, and serves.
    ///
    /// # Errors
    /// [`StartError`]; nothing runs then.
    pub async fn start(config: Config) -> Result<Self, StartError> {
        let metrics = Arc::new(Metrics::new());
        let issuers = config.webhooks.as_ref().map(|_| outward(&config.managers)).transpose()?;
        let alerted = config.clients.alerts.as_ref().map(|_| outward(&config.managers)).transpose()?;
        let registry = Registry::new(config.managers, Arc::clone(&metrics)).map_err(StartError::Managers)?;
        let registry = Arc::new(registry);
        let operator = Operator::new(config.admin.token_file.clone(), config.fingerprint_key_file)?;
        let resolver = Arc::new(Resolver::new(config.cache, Arc::clone(&registry) as _, Arc::clone(&metrics)));
        let opener = config.identity_file.map(Opener::load).transpose()?.map(Arc::new);
        let feed = Arc::new(Feed::default());
        let dialect = Portkey::new(config.dialect);
        let authenticates = config.clients.authenticates();
        let mut settings = config.clients;
        // Whoever has made the keys wants to know what is done with them.
        settings.reports = matches!(config.snapshot, Some(Source::ControlPlane(_))).then_some(REPORTS);
        let clients = Arc::new(Clients::new(settings, Arc::clone(&metrics))?);
        let metered = Arc::clone(&metrics);
        let counting = Arc::clone(&clients);
        let proxy = Proxy::new(&config.proxy, Arc::clone(&feed), dialect, Arc::clone(&resolver), clients, metered)?;
        let audit = audit(&config.audit, &metrics).map_err(StartError::Audit)?;
        let proxy = match &audit {
            Some((audit, _)) => proxy.audited(audit.clone()),
            None => proxy,
        };
        let traces = config.tracing.map(|settings| Exporter::new(&settings, Arc::clone(&metrics)));
        let (proxy, exporter) = match traces.transpose().map_err(StartError::Traces)? {
            Some((tracer, exporter)) => (proxy.traced(tracer), Some(exporter)),
            None => (proxy, None),
        };
        let proxy = Arc::new(proxy);
        let server = Server::bind(&config.proxy)?;
        let address = config.admin.listen;
        let admin = Admin::bind(&config.admin).await.map_err(|source| StartError::Admin { address, source })?;
        let admin_address = admin.address().map_err(|source| StartError::Admin { address, source })?;
        let addresses = server.addresses();
        let push = match (&config.webhooks, issuers) {
            (Some(settings), Some(issuers)) => {
                let (feed, metrics) = (Arc::clone(&feed), Arc::clone(&metrics));
                Some(Push::bind(settings, &issuers, feed, resolver.expiry(), metrics).await?)
            }
            (Some(_) | None, _) => None,
        };
        let webhook_address = push.as_ref().and_then(|push| push.address().ok());

        let (background, end, shutdown) = (TaskTracker::new(), CancellationToken::new(), Shutdown::new());
        if let Some(transport) = alerted {
            let (alerting, end) = (Arc::clone(&counting), end.clone());
            background.spawn(async move { alerting.alert(transport, end).await });
        }
        if let Some(exporter) = exporter {
            background.spawn(exporter.run(end.clone()));
        }
        let (shared, sharing) = (Arc::clone(&counting), end.clone());
        background.spawn(async move { shared.share(sharing).await });
        background.spawn(keep_cache(Arc::clone(&feed), Arc::clone(&resolver), end.clone()));
        let linker = Linker { admit: admit(registry), opener: opener.clone() };
        if let Some(opener) = &opener {
            background.spawn(keep_identities(Arc::clone(opener), end.clone()));
        }
        let (source, stop) = (Arc::clone(&feed), end.clone());
        let reload = match config.snapshot {
            Some(Source::File(settings)) => {
                let file = FileSource::new(settings, linker, Arc::clone(&metrics));
                let reload = file.reload();
                background.spawn(file.run(source, stop));
                Some(reload)
            }
            Some(Source::ControlPlane(settings)) => {
                let (reporter, end) = (Reporter::new(settings.address.clone()), end.clone());
                background.spawn(async move { counting.report(reporter, end).await });
                let control_plane = ControlPlaneSource::new(settings, linker, Arc::clone(&metrics));
                let reload = control_plane.reload();
                background.spawn(control_plane.run(source, stop));
                Some(reload)
            }
            None => None,
        };
        match reload {
            Some(_) => first_attempt(&feed).await,
            None => warn!("No snapshot is configured, every request is answered 503."),
        }
        let prewarming = Arc::new(AtomicBool::new(config.prewarm.choice != Choice::None));
        let (ahead, pending) = (Arc::clone(&resolver), Arc::clone(&prewarming));
        background.spawn(prewarm::run(config.prewarm, Arc::clone(&feed), ahead, pending, end.clone()));
        let vitals = Vitals {
            proxy: Arc::clone(&proxy),
            feed: Arc::clone(&feed),
            resolver: Arc::clone(&resolver),
            metrics: Arc::clone(&metrics),
            shutdown: shutdown.clone(),
            heartbeats: vec![("acceptor", server.heartbeat())],
            operator,
            prewarming,
            opener: opener.clone(),
        };
        background.spawn(admin.run(vitals, end.clone().cancelled_owned()));
        if let Some(push) = push {
            background.spawn(push.run(end.clone().cancelled_owned()));
        }
        background.close();
        let serving = tokio::spawn(server.run(proxy, shutdown.clone()));
        announce(&config.proxy, authenticates, &addresses, admin_address);
        if let Some(webhook_listen) = webhook_address {
            info!(%webhook_listen, "Taking webhooks.");
        }
        let _end_with_me = end.clone().drop_guard();
        Ok(Self {
            addresses: addresses.iter().filter_map(proxy::Address::tcp).collect(),
            admin_address,
            webhook_address,
            feed,
            resolver,
            metrics,
            shutdown,
            reload,
            opener,
            audit,
            serving,
            background,
            end,
            _end_with_me,
        })
    }

    /// Where clients connect by TCP, with the ports that were picked, in the order of `listen`.
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// Where health and metrics are, with the port that was picked.
    pub fn admin_address(&self) -> SocketAddr {
        self.admin_address
    }

    /// Where webhooks are taken, with the port that was picked; `None` = nowhere.
    pub fn webhook_address(&self) -> Option<SocketAddr> {
        self.webhook_address
    }

    /// The current snapshot.
    pub fn feed(&self) -> &Arc<Feed> {
        &self.feed
    }

    /// Everything that is counted.
    pub fn metrics(&self) -> &Arc<Metrics> {
        &self.metrics
    }

    /// Moves the stages of the end.
    pub fn shutdown(&self) -> &Shutdown {
        &self.shutdown
    }

    /// Reads every file again, changed or not, and every secret in memory, and opens the audit file anew; returns at once.
    pub fn reload(&self) {
        if let Some((_, writer)) = &self.audit {
            writer.reopen();
        }
        info!("Reading files and secrets again.");
        if let Some(reload) = &self.reload {
            reload.request();
        }
        if let Some(opener) = self.opener.clone() {
            self.background.spawn_blocking(move || opener.refresh());
        }
        let (resolver, end) = (Arc::clone(&self.resolver), self.end.clone());
        self.background.spawn(async move { end.run_until_cancelled(resolver.refresh_all()).await });
    }

    /// Serves until it is signalled to stop: the first SIGTERM or SIGINT drains, the second cuts, SIGHUP reloads. False
    /// when serving ended by itself, which is a fault.
    pub async fn run(mut self, signals: &mut Signals) -> bool {
        let mut stopping = false;
        let served = loop {
            tokio::select! {
                signal = signals.next() => match signal {
                    Signal::Reload => self.reload(),
                    Signal::Stop if stopping => self.shutdown.cut(),
                    Signal::Stop => {
                        stopping = true;
                        self.shutdown.drain();
                    }
                },
                served = &mut self.serving => break served,
            }
        };
        self.end().await;
        if let Err(error) = &served {
            error!(%error, "Serving ended by a fault.");
        }
        stopping && served.is_ok()
    }

    /// Drains, as after SIGTERM, and returns when everything has ended.
    pub async fn stop(mut self) {
        self.shutdown.drain();
        if let Err(error) = (&mut self.serving).await {
            error!(%error, "Serving ended by a fault.");
        }
        self.end().await;
    }

    async fn end(&self) {
        self.end.cancel();
        if timeout(FAREWELL, self.background.wait()).await.is_err() {
            warn!(tasks = self.background.len(), "Background tasks are left to the end of the process.");
        }
        if let Some((audit, _)) = &self.audit
            && timeout(FAREWELL, audit.flush()).await.is_err()
        {
            warn!("The last lines of the use audit are lost, its file does not take them.");
        }
    }
}

// === impl StartError ===

impl StartError {
    /// Whether the configuration has to change; otherwise it is the machine, as when an address is in use.
    pub fn is_configuration(&self) -> bool {
        match self {
            Self::Managers(_)
            | Self::Upstream(_)
            | Self::Operator(_)
            | Self::Keys(_)
            | Self::Identities(_)
            | Self::Audit(_)
            | Self::Traces(_)
            | Self::Issuers(_)
            | Self::Clients(BindError::Tls(_)) => true,
            Self::Webhooks(error) => error.is_configuration(),
            Self::Clients(BindError::Listen { .. }) | Self::Admin { .. } => false,
        }
    }
}

/// `error` and everything behind it, on one line.
pub fn chain(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut behind = error.source();
    while let Some(cause) = behind {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        behind = cause.source();
    }
    text
}

/// The way to addresses of the operator's, which no reference can name: who issues tokens for webhooks, who is told of alerts.
fn outward(managers: &RegistrySettings) -> Result<Arc<Transport>, TrustError> {
    let patience = managers.bounds.attempt_timeout;
    Transport::new(managers.policy.clone(), managers.extra_ca_files.clone(), patience).map(Arc::new)
}

/// Where uses are recorded, and who writes them; `None` when nobody is to.
fn audit(file: &AuditFile, metrics: &Arc<Metrics>) -> io::Result<Option<(Audit, AuditWriter)>> {
    let (audit, messages) = Audit::queue(Arc::clone(metrics));
    Ok(AuditWriter::start(file, messages, Arc::clone(metrics))?.map(|writer| (audit, writer)))
}

/// Whether this process may use a reference.
fn admit(registry: Arc<Registry>) -> Admit {
    Arc::new(move |manager, auth, location| registry.admit(manager, auth, location))
}

/// Drops what no snapshot names any more, after each swap.
async fn keep_cache(feed: Arc<Feed>, resolver: Arc<Resolver>, end: CancellationToken) {
    let mut changes = feed.subscribe();
    let mut generation = 0;
    loop {
        let swapped = changes.wait_for(|status| status.generation != generation);
        tokio::select! {
            () = end.cancelled() => return,
            swapped = swapped => match swapped {
                Ok(status) => generation = status.generation,
                // The feed is held above, so that it cannot be gone.
                Err(_) => return,
            },
        }
        if let Some(snapshot) = feed.current() {
            resolver.retain(&snapshot);
        }
    }
}

/// Reads the identity file again when it changes.
async fn keep_identities(opener: Arc<Opener>, end: CancellationToken) {
    let mut look = interval(IDENTITIES);
    look.set_missed_tick_behavior(MissedTickBehavior::Delay);
    look.reset();
    while end.run_until_cancelled(look.tick()).await.is_some() {
        let opener = Arc::clone(&opener);
        // A file system may hang; the next look waits for this one.
        let _ = tokio::task::spawn_blocking(move || opener.refresh()).await;
    }
}

/// Waits until the first snapshot was loaded or refused.
async fn first_attempt(feed: &Feed) {
    let mut changes = feed.subscribe();
    let attempted = changes.wait_for(|status| status.generation > 0 || status.refused.is_some());
    if timeout(FIRST_SNAPSHOT, attempted).await.is_err() {
        warn!("The snapshot takes long to load, requests are answered 503 until then.");
    }
}

fn announce(settings: &proxy::Settings, keys: bool, addresses: &[proxy::Address], admin_address: SocketAddr) {
    let upstream = settings.upstream.url.as_str();
    info!(listen = ?addresses, admin_listen = %admin_address, upstream, "Serving.");
    let authenticated = keys || settings.tls.as_ref().is_some_and(|tls| tls.client_ca_file.is_some());
    if !authenticated && addresses.iter().filter_map(proxy::Address::tcp).any(|address| !address.ip().is_loopback()) {
        warn!("Clients off this machine are not authenticated, as configured: whoever connects uses the credentials.");
    }
}
