//! The sidecar in this process, between a gateway and clients that a test plays. Ports are picked by the system, logs are
//! captured, and nothing sleeps: a test waits for what it expects, and gives up after [`PATIENCE`].
//!
//! ```ignore
//! let world = World::start(Setup { snapshot: Some(json!({ … })), ..Setup::default() }).await;
//! world.secrets.script("secret/data/openai", [Answer::text("sk-1")]);
//! let reply = world.post("/v1/chat/completions").header("x-portkey-provider", "@openai-prod").json(&json!({ … })).send().await;
//! assert_eq!(reply.status, 200, "{reply:?}");
//! assert_eq!(world.gateway.last().header("authorization"), Some("Bearer sk-1"));
//! ```
//!
//! [`Gateway`] echoes what it receives, or answers as told. Where the bytes themselves matter, [`Wire`] is either end of a
//! connection, and [`Raw`] a gateway made of it.
//!
//! Tests run on one thread each (`#[tokio::test]`), so that the captured log is that of the test.

#![allow(dead_code, unused_imports, reason = "a test takes what it needs")]

mod client;
mod gateway;
mod wire;

pub use self::{
    client::{Call, Reply},
    gateway::{Answer, Gateway, Seen},
    wire::{Raw, Wire},
};

use std::{
    fmt,
    net::{Ipv4Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use http::{HeaderMap, Method};
use serde_json::Value;
use sidekey::{
    admin::{self, Admin, Operator, Vitals},
    clients::{self, Clients},
    dialect::portkey::{self, Portkey},
    feed::Feed,
    manager::{
        Managers,
        fake::{Fake, FakeManagers},
    },
    metric::Metrics,
    model::{LinkRules, Snapshot, link},
    proxy::{Address, Heartbeat, Proxy, Server, Settings, Shutdown, audit::Audit},
    resolve::{self, Resolver},
    seal::opener::Opener,
    telemetry::{self, Capture, Level},
};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tracing::subscriber::DefaultGuard;

/// Longest wait for anything. Only a failing test waits this long.
pub const PATIENCE: Duration = Duration::from_secs(10);

/// How often the gateway is probed, once [`World::admin`] has been called.
const PROBE_INTERVAL: Duration = Duration::from_millis(10);

/// What a [`World`] is made of. Write the fields that matter, and `..Setup::default()`.
pub struct Setup {
    /// The snapshot; `None` = an empty one. See [`Setup::no_snapshot`].
    pub snapshot: Option<Value>,
    /// Whether a fault in it sets an object aside, instead of failing the test.
    pub lenient: bool,
    /// Start without any snapshot.
    pub no_snapshot: bool,
    /// Settings of the dialect.
    pub dialect: portkey::Settings,
    /// Settings of the cache.
    pub cache: resolve::Settings,
    /// Who may come.
    pub clients: clients::Settings,
    /// Who resolves; `None` = [`World::secrets`].
    pub managers: Option<Arc<dyn Managers>>,
    /// The gateway, when it is not the echoing one.
    pub upstream: Option<SocketAddr>,
    /// Where uses are recorded.
    pub audit: Option<Audit>,
    /// Who opens sealed values.
    pub opener: Option<Arc<Opener>>,
    /// Where traces go.
    pub tracing: Option<telemetry::TracingSettings>,
    /// Last changes to the proxy's settings.
    pub proxy: Box<dyn FnOnce(&mut Settings)>,
}

/// A running sidecar.
pub struct World {
    /// Where clients connect: the first of [`World::addresses`].
    pub address: SocketAddr,
    /// Everywhere they can.
    pub addresses: Vec<SocketAddr>,
    /// The gateway behind it; idle if [`Setup::upstream`] was given.
    pub gateway: Gateway,
    /// What the secret manager answers; nothing is there until a test has put it there.
    pub secrets: Fake,
    /// The log so far, JSON lines, from `trace` on.
    pub logs: Capture,
    /// The proxy itself.
    pub proxy: Arc<Proxy>,
    /// Beats while it accepts.
    pub heartbeat: Arc<Heartbeat>,
    /// What it remembers.
    pub resolver: Arc<Resolver>,
    /// All metrics.
    pub metrics: Arc<Metrics>,
    /// The current snapshot.
    pub feed: Arc<Feed>,
    /// Who opens sealed values.
    pub opener: Option<Arc<Opener>>,
    /// Starts the end.
    pub shutdown: Shutdown,
    /// Ends when everything has been drained or cut.
    pub served: JoinHandle<()>,
    _log: DefaultGuard,
}

// === impl Setup ===

impl Default for Setup {
    fn default() -> Self {
        Self {
            snapshot: None,
            lenient: false,
            no_snapshot: false,
            dialect: portkey::Settings::default(),
            cache: cache(),
            clients: clients::Settings::default(),
            managers: None,
            upstream: None,
            audit: None,
            opener: None,
            tracing: None,
            proxy: Box::new(|_| {}),
        }
    }
}

// === impl World ===

impl World {
    /// Starts everything; returns when clients can connect.
    pub async fn start(setup: Setup) -> Self {
        let logs = Capture::default();
        let subscriber =
            telemetry::subscriber(Level::TRACE, Some("trace"), telemetry::Format::Json, logs.clone()).unwrap();
        let log = tracing::subscriber::set_default(subscriber);

        let gateway = Gateway::start().await;
        let metrics = Arc::new(Metrics::new());
        let feed = Arc::new(Feed::default());
        if !setup.no_snapshot {
            let strict = !setup.lenient;
            feed.swap(Arc::new(
                setup.snapshot.map_or_else(Snapshot::default, |it| linked_by(&it, strict, setup.opener.as_ref())),
            ));
        }
        let upstream = setup.upstream.unwrap_or(gateway.address);
        let mut settings = Settings::new(format!("http://{upstream}").parse().unwrap());
        settings.listen = vec![SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into()];
        settings.limits.drain_delay = Duration::ZERO;
        (setup.proxy)(&mut settings);
        let secrets = Fake::new();
        let managers = setup.managers.unwrap_or_else(|| Arc::new(FakeManagers::new(&secrets)));
        let resolver = Arc::new(Resolver::new(setup.cache, managers, metrics.clone()));
        let (dialect, clients) =
            (Portkey::new(setup.dialect), Arc::new(Clients::new(setup.clients, metrics.clone()).unwrap()));
        let proxy = Proxy::new(&settings, feed.clone(), dialect, resolver.clone(), clients, metrics.clone()).unwrap();
        let proxy = match setup.audit {
            Some(audit) => proxy.audited(audit),
            None => proxy,
        };
        let proxy = match setup.tracing {
            Some(tracing) => {
                let (tracer, exporter) = telemetry::Exporter::new(&tracing, metrics.clone()).unwrap();
                tokio::spawn(exporter.run(CancellationToken::new()));
                proxy.traced(tracer)
            }
            None => proxy,
        };
        let server = Server::bind(&settings).unwrap();
        let addresses: Vec<_> = server.addresses().iter().filter_map(Address::tcp).collect();
        let shutdown = Shutdown::new();
        let (proxy, heartbeat) = (Arc::new(proxy), server.heartbeat());
        let served = tokio::spawn(server.run(proxy.clone(), shutdown.clone()));
        Self {
            address: addresses[0],
            addresses,
            gateway,
            secrets,
            logs,
            proxy,
            heartbeat,
            resolver,
            metrics,
            feed,
            opener: setup.opener,
            shutdown,
            served,
            _log: log,
        }
    }

    /// Starts the admin listener, which begins to probe the gateway.
    pub async fn admin(&self) -> SocketAddr {
        self.admin_watching(vec![("acceptor", self.heartbeat.clone())]).await
    }

    /// As [`World::admin`], with heartbeats of the test's own.
    pub async fn admin_watching(&self, heartbeats: Vec<(&'static str, Arc<Heartbeat>)>) -> SocketAddr {
        self.admin_with(heartbeats, Operator::new(None, None).unwrap()).await
    }

    /// As [`World::admin`], with an operator API.
    pub async fn operated(&self, operator: Operator) -> SocketAddr {
        self.admin_with(vec![("acceptor", self.heartbeat.clone())], operator).await
    }

    async fn admin_with(&self, heartbeats: Vec<(&'static str, Arc<Heartbeat>)>, operator: Operator) -> SocketAddr {
        let listen = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let settings = admin::Settings { listen, probe_interval: PROBE_INTERVAL, ..admin::Settings::default() };
        let admin = Admin::bind(&settings).await.unwrap();
        let address = admin.address().unwrap();
        let vitals = Vitals {
            proxy: self.proxy.clone(),
            feed: self.feed.clone(),
            resolver: self.resolver.clone(),
            metrics: self.metrics.clone(),
            shutdown: self.shutdown.clone(),
            heartbeats,
            operator,
            prewarming: Arc::default(),
            opener: self.opener.clone(),
        };
        tokio::spawn(admin.run(vitals, std::future::pending()));
        address
    }

    /// A `GET`.
    pub fn get(&self, target: &str) -> Call {
        self.call(Method::GET, target)
    }

    /// A `POST`; give it a body.
    pub fn post(&self, target: &str) -> Call {
        self.call(Method::POST, target)
    }

    /// Any request.
    pub fn call(&self, method: Method, target: &str) -> Call {
        Call::to(self.address, method, target)
    }

    /// A connection to the sidecar.
    pub async fn wire(&self) -> Wire {
        Wire::connect(self.address).await
    }

    /// Waits until the log has `text` in it.
    pub async fn logged(&self, text: &str) {
        let found = async {
            while !self.logs.text().contains(text) {
                tokio::task::yield_now().await;
            }
        };
        let patience = tokio::time::timeout(PATIENCE, found).await;
        assert!(patience.is_ok(), "not logged: {text:?}, but {}", self.logs.text());
    }

    /// The access lines of the log, parsed.
    pub fn access(&self) -> Vec<Value> {
        self.log_lines("sidekey::access")
    }

    /// The lines of one log target, parsed.
    pub fn log_lines(&self, target: &str) -> Vec<Value> {
        let parsed = |line: &str| serde_json::from_str::<Value>(line).unwrap();
        self.logs.text().lines().map(parsed).filter(|line| line["target"] == target).collect()
    }
}

impl fmt::Debug for World {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("World").field("address", &self.address).finish_non_exhaustive()
    }
}

/// Gives up after [`PATIENCE`].
pub async fn within<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future).await.expect("it did not happen in time")
}

/// Lets this much time pass at once, and those run who waited for it. What waits for a socket under a time limit sees that
/// limit exceeded.
pub async fn pass(time: Duration) {
    tokio::time::pause();
    tokio::time::advance(time).await;
    tokio::time::resume();
    for _ in 0..16 {
        tokio::task::yield_now().await;
    }
}

/// Runs `future` while time stands still, so that what happens in it does not depend on how fast the machine is. Nothing in it
/// may wait for time to pass.
pub async fn still<T>(future: impl Future<Output = T>) -> T {
    tokio::time::pause();
    // While a thread is at work a paused clock does not run ahead of those who wait for sockets.
    let (done, waiting) = std::sync::mpsc::channel::<()>();
    let thread = tokio::task::spawn_blocking(move || waiting.recv_timeout(6 * PATIENCE));
    let output = future.await;
    tokio::time::resume();
    drop(done);
    let _ = thread.await.expect("it only waits");
    output
}

/// The linked form of a snapshot, in which no fault is allowed.
pub fn linked(snapshot: &Value) -> Snapshot {
    linked_by(snapshot, true, None)
}

fn linked_by(snapshot: &Value, strict: bool, opener: Option<&Arc<Opener>>) -> Snapshot {
    let rules = LinkRules { strict, admit: &|_, _, _| Ok(()), opener };
    link(snapshot.to_string().as_bytes(), &rules).unwrap_or_else(|error| panic!("{:#?}", error.problems))
}

/// The documented defaults of `cache.*`.
pub fn cache() -> resolve::Settings {
    resolve::Settings {
        ttl: Duration::from_secs(300),
        jitter_ratio: 0.1,
        refresh_ahead_ratio: 0.8,
        stale: Duration::from_secs(3600),
        negative_ttl: Duration::from_secs(5),
        max_entries: 10_000,
        max_bytes: 64 << 20,
        suspicion: resolve::Suspicion::DEFAULT,
        deadline: Duration::from_secs(8),
    }
}

pub(crate) fn only<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    let mut values = headers.get_all(name).iter();
    let value = values.next()?.to_str().unwrap();
    assert!(values.next().is_none(), "{name} stands more than once");
    Some(value)
}
