//! The attack list: what one client, or one tenant, can do to the others, and the bound that held.
//!
//! Each attack runs against a running sidecar while a well-behaved client goes on asking. A row says how it ended, how much
//! memory and how many connections it took, and what the other client saw beside a quiet moment. docs/bounds.md has the table.

mod attacker;

use std::{
    convert::Infallible,
    fs,
    future::Future,
    net::{Ipv4Addr, SocketAddr},
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use bytes::Bytes;
use futures_util::{StreamExt, stream};
use http::{Request, Response, StatusCode, header::UPGRADE};
use http_body_util::{BodyExt, StreamBody, combinators::BoxBody};
use hyper::{
    body::{Frame, Incoming},
    service::service_fn,
};
use hyper_util::rt::TokioIo;
use serde_json::json;
use tokio::{
    net::TcpListener,
    time::{Instant, sleep},
};

use self::attacker::Victim;
use crate::{
    client::Call,
    components::free_address,
    harness,
    world::{Setup, Sidekey, mapping, reference},
};

const CONNECTIONS: usize = 200;
const IN_FLIGHT: usize = 100;
const HEAD_SECS: u64 = 1;
const STALL_SECS: u64 = 2;
const SESSION_SECS: u64 = 2;
/// What an attack may cost beyond what the sidecar had before, MiB. The largest, bodies that are looked into, has 60 of them.
const MEMORY_MIB: u64 = 100;
/// Beyond this for one request in a hundred, the other client was not left alone. Generous: machines that test are busy.
const USUAL: Duration = Duration::from_secs(1);
/// Nobody waits longer for anything. A burst of answers that fills every buffer has two cores of a debug build to itself for a while.
const PATIENCE: Duration = Duration::from_secs(10);

/// The sidecar, its gateway, and what the gateway has to do.
pub struct Stage {
    sidekey: Sidekey,
    pid: u32,
    running: Arc<AtomicUsize>,
    reached: Arc<AtomicUsize>,
}

/// An attack that ends sooner is looked after for this long.
const LEAST: Duration = Duration::from_secs(1);

type Attack = for<'a> fn(&'a Stage) -> Pin<Box<dyn Future<Output = String> + 'a>>;

/// A row of the list.
macro_rules! attack {
    ($what:literal, $attack:path) => {{
        let attack: Attack = |stage| Box::pin($attack(stage));
        ($what, attack)
    }};
}

pub async fn is_bounded_attack_by_attack() {
    let stage = Stage::start().await;
    println!("| attack | what held | memory, MiB | connections | the others: p50, p99, longest (ms) |");
    println!("|---|---|---|---|---|");
    let (before, _) = stage.watched(async { sleep(Duration::from_secs(2)).await }).await;
    println!("| none | | | | {before} |");
    let attacks = [
        attack!("connections, 600 of them", attacker::many_connections),
        attack!("heads of a byte now and then (slowloris)", attacker::slow_heads),
        attack!("heads of 1 MiB", attacker::large_heads),
        attack!("bodies of a byte now and then", attacker::slow_bodies),
        attack!("bodies that stop on their way to the gateway", attacker::stopped_bodies),
        attack!("900 KiB of bodies that do not end, 60 times", attacker::held_bodies),
        attack!("answers that nobody reads", attacker::deaf_readers),
        attack!("HTTP/2: answers without a window", attacker::no_window),
        attack!("HTTP/2: rapid reset, 20,000 streams", attacker::rapid_reset),
        attack!("HTTP/2: CONTINUATION without end", attacker::continuation),
        attack!("HTTP/2: PING, 3 s", attacker::pings),
        attack!("HTTP/2: SETTINGS, 3 s", attacker::settings),
        attack!("HTTP/2: empty DATA, 3 s", attacker::empty_data),
        attack!("WebSockets that stay", attacker::sessions),
        attack!("a tenant's manager that does not answer", attacker::slow_manager),
    ];
    for (what, attack) in attacks {
        let memory = stage.memory();
        let watching = Arc::new(AtomicBool::new(true));
        let peak = tokio::spawn(peak(stage.pid, stage.sidekey.admin, Arc::clone(&watching)));
        let (others, held) = stage.watched(attack(&stage)).await;
        watching.store(false, Relaxed);
        let (most, connections) = peak.await.expect("it only reads");
        let grown = most.saturating_sub(memory) / 1024;
        println!("| {what} | {held} | {grown} | {connections} | {others} |");
        assert!(grown < MEMORY_MIB, "{what}: {grown} MiB");
        assert!(connections as usize <= CONNECTIONS + 64, "{what}: {connections} connections");
        assert!(others.usual() < USUAL && others.longest < PATIENCE, "{what}: {others}");
        stage.at_rest().await;
    }
    // The places themselves: whoever has none hears it at once, and probes do not need one.
    let held = attacker::many_requests(&stage).await;
    println!("| HTTP/2: 400 requests at once | {held} | | | 503 `overloaded` meanwhile |");
    stage.at_rest().await;
    Call::get("/v1/models").send(stage.sidekey.address).await.expect(200);
}

// === impl Stage ===

impl Stage {
    async fn start() -> Self {
        let (running, reached) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let gateway = gateway(Arc::clone(&running), Arc::clone(&reached)).await;
        // A vault that takes connections and says nothing.
        let silent = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a port");
        let vault = silent.local_addr().expect("an address");
        tokio::spawn(async move {
            let mut held = Vec::new();
            while let Ok((stream, _)) = silent.accept().await {
                held.push(stream);
            }
        });
        let auth = json!({"vault_auth_type": "token", "vault_addr": format!("http://{vault}"), "vault_token": "t"});
        let setup = Setup {
            config: json!({
                "listen": free_address().to_string(),
                "admin_listen": free_address().to_string(),
                "upstream": {"url": format!("http://{gateway}")},
                "snapshot": {"file": harness::folder().join("snapshot.json")},
                "egress": {"allow_cidrs": ["127.0.0.0/8"]},
                "limits": {"max_connections": CONNECTIONS, "max_in_flight": IN_FLIGHT, "head_timeout_secs": HEAD_SECS,
                    "stall_timeout_secs": STALL_SECS, "session_max_secs": SESSION_SECS, "model_peek_bytes": 1 << 20,
                    "drain_delay_secs": 0},
                "log": {"level": "warn", "format": "json"},
            }),
            snapshot: json!({"schema_version": 1, "version": 1, "organisation_id": "o",
                "secret_references": [reference("slow", auth, "secret/data/slow", Some("key"))],
                "virtual_keys": [{"id": "slow", "slug": "slow", "provider": "openai", "secret_mappings": [mapping("key", "slow", None)]}]}),
            environment: Vec::new(),
        };
        let mut sidekey = Sidekey::start(&setup).await;
        let pid = sidekey.process().pid();
        Self { sidekey, pid, running, reached }
    }

    /// Resident memory, KiB.
    fn memory(&self) -> u64 {
        resident(self.pid)
    }

    /// What a well-behaved client sees while `attack` runs, and how that ended.
    async fn watched<T>(&self, attack: impl Future<Output = T>) -> (Victim, T) {
        let stop = Arc::new(AtomicBool::new(false));
        let victim = Victim::begin(self.sidekey.address).await;
        let asking = tokio::spawn(Victim::go_on(victim, Arc::clone(&stop)));
        let (held, ()) = tokio::join!(attack, sleep(LEAST));
        stop.store(true, Relaxed);
        (asking.await.expect("every request is answered 200"), held)
    }

    /// Waits until nothing of an attack is left.
    async fn at_rest(&self) {
        let deadline = Instant::now() + Duration::from_secs(STALL_SECS * 4);
        loop {
            let (open, running) = (
                self.sidekey.metric("sidekey_connections").await,
                self.sidekey.metric("sidekey_requests_in_flight").await,
            );
            let behind = self.running.load(Relaxed);
            if (open, running, behind) == (0, 0, 0) {
                return;
            }
            assert!(
                Instant::now() < deadline,
                "{open} connections, {running} requests, {behind} at the gateway are left"
            );
            sleep(Duration::from_millis(50)).await;
        }
    }

    /// Requests at the gateway fell to none within what the bound says.
    async fn gateway_is_left(&self, began: Instant) -> f32 {
        while self.running.load(Relaxed) > IN_FLIGHT / 10 {
            assert!(began.elapsed() < Duration::from_secs(STALL_SECS * 5), "{} remain", self.running.load(Relaxed));
            sleep(Duration::from_millis(20)).await;
        }
        began.elapsed().as_secs_f32()
    }
}

fn resident(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("it runs");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("a line");
    line.trim().trim_end_matches(" kB").parse().expect("a number")
}

/// The most memory (KiB) and connections of a sidecar until told to stop; its probes answer all the while.
async fn peak(pid: u32, admin: SocketAddr, watching: Arc<AtomicBool>) -> (u64, u64) {
    let (mut memory, mut connections) = (0, 0);
    while watching.load(Relaxed) {
        memory = memory.max(resident(pid));
        let asked = Instant::now();
        let text = Call::get("/metrics").send(admin).await.expect(200).text();
        assert!(asked.elapsed() < PATIENCE, "probes are never shed");
        let open = text.lines().find_map(|line| line.strip_prefix("sidekey_connections ")).expect("a metric");
        connections = connections.max(open.parse().expect("a number"));
        sleep(Duration::from_millis(50)).await;
    }
    (memory, connections)
}

type Body = BoxBody<Bytes, Infallible>;

/// Counts a request as running until its answer ends.
struct Running(Arc<AtomicUsize>);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}

/// `/v1/endless` never ends, `/v1/silent` begins and says nothing more, `/v1/session` switches, the rest is a small answer.
async fn gateway(running: Arc<AtomicUsize>, reached: Arc<AtomicUsize>) -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a port");
    let address = listener.local_addr().expect("an address");
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let (running, reached) = (Arc::clone(&running), Arc::clone(&reached));
            let service = service_fn(move |request: Request<Incoming>| {
                reached.fetch_add(1, Relaxed);
                running.fetch_add(1, Relaxed);
                let running = Running(Arc::clone(&running));
                async move { Ok::<_, Infallible>(answer(request, running).await) }
            });
            let server = hyper::server::conn::http1::Builder::new();
            tokio::spawn(server.serve_connection(TokioIo::new(stream), service).with_upgrades());
        }
    });
    address
}

async fn answer(mut request: Request<Incoming>, running: Running) -> Response<Body> {
    let piece = |size| Ok::<_, Infallible>(Frame::data(Bytes::from(vec![b'x'; size])));
    let body = match request.uri().path() {
        "/v1/endless" => BodyExt::boxed(StreamBody::new(stream::repeat_with(move || {
            let _held = &running;
            piece(16 * 1024)
        }))),
        "/v1/silent" => {
            BodyExt::boxed(StreamBody::new(stream::iter([piece(8)]).chain(stream::pending()).map(move |piece| {
                let _held = &running;
                piece
            })))
        }
        "/v1/session" => {
            let upgrade = hyper::upgrade::on(&mut request);
            tokio::spawn(async move {
                let _held = running;
                if let Ok(session) = upgrade.await {
                    let _ = tokio::io::copy(&mut TokioIo::new(session), &mut tokio::io::sink()).await;
                }
            });
            let response = Response::builder().status(StatusCode::SWITCHING_PROTOCOLS);
            let response = response.header("connection", "upgrade").header(UPGRADE, "websocket");
            return response.body(BodyExt::boxed(http_body_util::Empty::new())).expect("a head");
        }
        _ => {
            let _ = request.into_body().collect().await;
            BodyExt::boxed(http_body_util::Full::from(r#"{"ok": true}"#))
        }
    };
    Response::new(body)
}
