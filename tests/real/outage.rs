//! OpenBao, and the way to it, broken in every way: requests are served from memory within the bound at the pace of a hit,
//! refused with the right code after it, and served again when it is over, by the same process.
//!
//! Short as part of `tests/run`. `benches/outage` runs the same with more time and prints what it saw; the numbers come from
//! `OUTAGE_TTL_SECS`, `OUTAGE_STALE_SECS`, `OUTAGE_ROTATIONS` and `OUTAGE_SECS`, the time for which each latency is measured.

mod fault;
mod load;
pub mod rotated;
pub mod slow;
pub mod withdrawn;

use std::{collections::BTreeSet, net::SocketAddr, time::Duration};

use futures_util::future::join_all;
use rustix::process::Signal;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use self::{
    fault::{Fault, Proxy},
    load::{Got, Line, Times},
};
use crate::{
    client::Call,
    components::{OpenBao, free_address},
    harness,
    world::{Setup, Sidekey, World, find, mapping, push, reference, virtual_key},
};

/// How long anything may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(30);
/// `managers.timeout_secs` and `.deadline_secs`: whoever waits for a manager that is silent waits so long.
const ATTEMPT_SECS: u64 = 2;
const DEADLINE_SECS: u64 = 3;
/// An answer that took this long has waited for the manager.
const WAITED: Duration = Duration::from_millis(1500);
/// What a manager may take beyond its deadline, and what a busy machine adds.
const SLACK: Duration = Duration::from_secs(3);
/// Requests a second of one kind, and turns of each kind, where latencies are measured.
const RATE: u32 = 200;
const SLICES: u32 = 5;
/// `prewarm_max_secs` of a sidecar that starts in an outage.
const PREWARM_SECS: u64 = 4;

/// What breaks, and what a client is told when nothing may be served any more.
struct Row {
    name: &'static str,
    breaks: Breaks,
    codes: &'static [&'static str],
}

#[derive(Clone, Copy)]
enum Breaks {
    /// The server stands still: connections open, nothing is answered.
    Frozen,
    Sealed,
    Between(Fault),
}

#[rustfmt::skip]
const ROWS: &[Row] = &[
    Row { name: "frozen", breaks: Breaks::Frozen, codes: &["manager_timeout", "manager_unavailable"] },
    Row { name: "reset", breaks: Breaks::Between(Fault::Reset), codes: &["manager_unavailable"] },
    Row { name: "unreachable", breaks: Breaks::Between(Fault::Unreachable), codes: &["manager_unavailable"] },
    Row { name: "sealed", breaks: Breaks::Sealed, codes: &["manager_unavailable"] },
    Row { name: "429", breaks: Breaks::Between(Fault::Limited), codes: &["manager_throttled"] },
    Row { name: "500", breaks: Breaks::Between(Fault::Failing), codes: &["manager_unavailable"] },
    Row { name: "html", breaks: Breaks::Between(Fault::Garbage), codes: &["secret_malformed"] },
    Row { name: "no-backend", breaks: Breaks::Between(Fault::NoBackend), codes: &["secret_malformed"] },
    Row { name: "filtered", breaks: Breaks::Between(Fault::Filtered), codes: &["secret_malformed"] },
    Row { name: "noise", breaks: Breaks::Between(Fault::Noise), codes: &["manager_unavailable"] },
    Row { name: "trickle", breaks: Breaks::Between(Fault::Trickle), codes: &["manager_timeout", "manager_unavailable"] },
];

/// A row with the identity of its own that it breaks.
struct Case {
    row: &'static Row,
    proxy: Proxy,
    /// The server behind it, where that is what breaks.
    server: Option<OpenBao>,
}

/// What was served while the manager was broken, and for how long.
struct Bridged {
    served: Vec<Got>,
    lasted: Duration,
}

/// Every row at once, each an identity of its own, and beside them a healthy one that must not notice. A sidecar that starts
/// meanwhile is ready without the secrets and gets them when they can be had.
pub async fn is_bridged_within_the_bound_and_over_without_a_restart() {
    let (ttl, stale) = (number("OUTAGE_TTL_SECS", 2), number("OUTAGE_STALE_SECS", 4));
    let bound = Duration::from_secs(ttl + stale);
    let mut cases = Case::all().await;
    let mut newcomer = None;
    let mut world = World::with(|setup| {
        prepare(setup, &cases, ttl, stale);
        let mut config = setup.config.clone();
        config["listen"] = json!(free_address().to_string());
        config["admin_listen"] = json!(free_address().to_string());
        config["snapshot"]["file"] = json!(harness::folder().join("snapshot-newcomer.json"));
        let all: Vec<String> =
            ROWS.iter().map(|row| format!("{}-key", row.name)).chain(["openai-key".to_owned()]).collect();
        config["prewarm"] = json!("list");
        config["prewarm_list"] = json!(all);
        config["prewarm_max_secs"] = json!(PREWARM_SECS);
        newcomer = Some(Setup { config, snapshot: setup.snapshot.clone(), environment: Vec::new() });
    })
    .await;
    let newcomer = newcomer.expect("it was made");
    let (address, admin) = (world.sidekey.address, world.sidekey.admin);
    let pid = world.sidekey.process().pid();
    for case in &cases {
        let first = Line::open(address, case.row.name).await.send().await;
        assert_eq!(first.status, 200, "{}: {}", case.row.name, first.head);
    }

    let mut broken_at = Vec::new();
    for case in &mut cases {
        case.begin().await;
        broken_at.push(Instant::now());
    }
    let alive = tokio::spawn(stays_alive(admin));
    let healthy = tokio::spawn(async move {
        let mut line = Line::open(address, "openai-prod").await;
        let end = Instant::now() + bound;
        while Instant::now() < end {
            let got = line.send().await;
            assert!(got.status == 200 && got.took < WAITED, "the healthy identity notices: {got:?}");
            sleep(Duration::from_millis(100)).await;
        }
    });
    let (bridged, mut newcomer, ()) = tokio::join!(
        join_all(cases.iter().zip(&broken_at).map(|(case, at)| case.until_refused(address, *at, bound))),
        starts_in_an_outage(&newcomer, &cases),
        is_told(admin, &cases, bound),
    );
    healthy.await.expect("the healthy identity is served");
    let refused = join_all(cases.iter().map(|case| case.while_refused(address))).await;
    Call::get("/readyz").send(admin).await.expect(200);

    let mut mended_at = Vec::new();
    for case in &mut cases {
        case.end().await;
        mended_at.push(Instant::now());
    }
    let back = join_all(cases.iter().zip(&mended_at).map(|(case, at)| case.until_back(address, *at))).await;
    join_all(cases.iter().zip(&mended_at).map(|(case, at)| case.until_back(newcomer.address, *at))).await;
    assert_eq!(world.sidekey.process().pid(), pid, "by itself");
    newcomer.process().pid();
    alive.abort();
    assert!(alive.await.unwrap_err().is_cancelled(), "/healthz stays green");

    println!("| fault | served | slowest | for | oldest | then | slowest | back after |");
    for (((case, bridged), refused), back_after) in cases.iter().zip(&bridged).zip(&refused).zip(back) {
        let codes: BTreeSet<_> = refused.iter().map(Got::code).collect();
        println!(
            "| {} | {} | {:.1} ms | {:.1} s | {} s | {} | {:.1} s | {:.1} s |",
            case.row.name,
            bridged.served.len(),
            slowest(&bridged.served).as_secs_f64() * 1e3,
            bridged.lasted.as_secs_f64(),
            bridged.served.iter().filter_map(Got::age).max().unwrap_or_default(),
            Vec::from_iter(codes).join(", "),
            slowest(refused).as_secs_f64(),
            back_after.as_secs_f64(),
        );
    }
}

/// The time of a request while its manager fails, beside that of a hit, for one fault after the other.
pub async fn costs_a_request_no_more_than_a_hit() {
    let time = Duration::from_secs_f64(number("OUTAGE_SECS", 0.3));
    let gateway = load::quick_gateway().await;
    let mut cases = Case::all().await;
    let world = World::with(|setup| {
        prepare(setup, &cases, 1, 600);
        setup.config["upstream"]["url"] = json!(format!("http://{gateway}"));
        setup.config["log"]["level"] = json!("info");
    })
    .await;
    let (address, admin) = (world.sidekey.address, world.sidekey.admin);
    for case in &cases {
        Line::open(address, case.row.name).await.send().await;
    }
    for case in &mut cases {
        case.begin().await;
    }
    println!("| fault | without Sidekey p50 | p99 | a hit p50 | p99 | in the outage p50 | p99 | slowest | requests |");
    for case in &cases {
        let name = case.row.name;
        until_failing(address, admin, name).await;
        let (mut direct, mut hits, mut during) = (Vec::new(), Vec::new(), Vec::new());
        // In turn, so that whatever else the machine does falls on all alike.
        for _ in 0..SLICES {
            direct.extend(load::run(gateway, name, 4, RATE, time / SLICES).await);
            hits.extend(load::run(address, "openai-prod", 4, RATE, time / SLICES).await);
            during.extend(load::run(address, name, 4, RATE, time / SLICES).await);
        }
        for got in hits.iter().chain(&during) {
            assert!(got.status == 200 && got.took < WAITED, "{name}: {got:?}");
        }
        assert!(during.iter().all(|got| got.header("x-sidekey-provenance").contains("outcome=stale")), "{name}");
        let [direct, hit, outage] = [&direct, &hits, &during].map(|all| Times::of(all));
        println!(
            "| {name:12} | {direct} | {hit} | {outage} | {:.1} | {} |",
            outage.part(1.0).as_secs_f64() * 1e3,
            during.len()
        );
        assert!(outage.part(0.5) < 3 * hit.part(0.5) + Duration::from_millis(20), "{name}: {outage} instead of {hit}");
    }
}

/// Gives every case a reference and a virtual key of its name.
fn prepare(setup: &mut Setup, cases: &[Case], ttl: u64, stale: u64) {
    setup.config["cache"] = json!({"ttl_secs": ttl, "stale_secs": stale, "negative_ttl_secs": 1});
    setup.config["managers"] = json!({"timeout_secs": ATTEMPT_SECS, "deadline_secs": DEADLINE_SECS});
    setup.config["egress"]["allow_cidrs"] = json!(["127.0.0.1/32", fault::NETWORK]);
    setup.config["provenance_header"] = json!(true);
    let ordinary = find(&mut setup.snapshot, "secret_references", "openai-key")["auth_config"].clone();
    let shared = ordinary["vault_addr"].as_str().and_then(|url| url.strip_prefix("http://")?.parse().ok());
    for case in cases {
        case.proxy.lead_to(case.server.as_ref().map_or(shared.expect("an address"), |server| server.address));
        let mut auth = case.server.as_ref().map_or(ordinary.clone(), OpenBao::token_auth);
        auth["vault_addr"] = json!(case.proxy.url());
        add(setup, case.row.name, auth, "secret/data/openai");
    }
}

/// A reference, and a virtual key that uses it.
fn add(setup: &mut Setup, name: &str, auth: Value, path: &str) {
    let key = format!("{name}-key");
    push(&mut setup.snapshot, "secret_references", reference(&key, auth, path, Some("api_key")));
    let mappings = json!([mapping("key", &key, None)]);
    push(&mut setup.snapshot, "virtual_keys", virtual_key(name, None, Some("openai"), json!({}), mappings));
}

/// What a rolling update in an outage is like: alive at once, ready when reading ahead has been given up, serving what can be
/// had and refusing the rest, without a request that waits longer than a read may take.
async fn starts_in_an_outage(setup: &Setup, cases: &[Case]) -> Sidekey {
    let mut newcomer = Sidekey::launch(setup);
    let (address, admin) = (newcomer.address, newcomer.admin);
    let alive = async || {
        let up = tokio::net::TcpStream::connect(admin).await.is_ok();
        (up && Call::get("/healthz").send(admin).await.status == 200).then(Instant::now)
    };
    let alive = newcomer.process().until("alive", alive).await;
    let mut reasons = BTreeSet::new();
    let ready = async || {
        let reply = Call::get("/readyz").send(admin).await;
        reasons.extend(reply.json()["reasons"].as_array().expect("a list").iter().map(Value::to_string));
        (reply.status == 200).then_some(())
    };
    newcomer.process().until("ready", ready).await;
    let took = alive.elapsed();
    assert!(took < Duration::from_secs(PREWARM_SECS) + SLACK, "it waits too long for what cannot be had: {took:?}");
    println!(
        "a sidecar that starts meanwhile is ready {:.1} s after it is alive; until then: {reasons:?}",
        took.as_secs_f64()
    );

    let healthy = Line::open(address, "openai-prod").await.send().await;
    assert_eq!(healthy.status, 200, "{healthy:?}");
    assert!(!healthy.header("x-sidekey-provenance").contains("outcome=miss"), "it was read ahead: {healthy:?}");
    for refused in join_all(cases.iter().map(async |case| Line::open(address, case.row.name).await.send().await)).await
    {
        assert!((502..=504).contains(&refused.status), "{refused:?}");
        assert!(refused.took < Duration::from_secs(DEADLINE_SECS) + SLACK, "{refused:?}");
    }
    newcomer
}

/// Never returns: asks for `/healthz` and panics when it is not green at once.
async fn stays_alive(admin: SocketAddr) {
    loop {
        let asked = Instant::now();
        Call::get("/healthz").send(admin).await.expect(200);
        assert!(asked.elapsed() < WAITED, "/healthz took {:?}", asked.elapsed());
        sleep(Duration::from_millis(50)).await;
    }
}

/// `/readyz` stays green and names every reference that lives on its old value.
async fn is_told(admin: SocketAddr, cases: &[Case], bound: Duration) {
    let end = Instant::now() + bound;
    let mut untold: BTreeSet<String> = cases.iter().map(|case| format!("{}-key", case.row.name)).collect();
    while !untold.is_empty() {
        let ready = Call::get("/readyz").send(admin).await.expect(200).json();
        for row in degraded(&ready).filter(|row| row["serves"] == "stale") {
            untold.remove(row["reference"].as_str().unwrap_or_default());
        }
        assert!(Instant::now() < end, "/readyz does not tell of {untold:?}: {ready}");
        sleep(Duration::from_millis(50)).await;
    }
}

/// Sends until a read has failed.
async fn until_failing(address: SocketAddr, admin: SocketAddr, name: &str) {
    let (deadline, reference) = (Instant::now() + PATIENCE, format!("{name}-key"));
    let mut line = Line::open(address, name).await;
    while !degraded(&Call::get("/readyz").send(admin).await.expect(200).json())
        .any(|row| row["reference"] == *reference)
    {
        assert!(Instant::now() < deadline, "{name}: nothing fails");
        line.send().await;
        sleep(Duration::from_millis(20)).await;
    }
}

fn degraded(ready: &Value) -> impl Iterator<Item = &Value> {
    ready["degraded"]["first"].as_array().expect("a list").iter()
}

fn slowest(all: &[Got]) -> Duration {
    all.iter().map(|got| got.took).max().unwrap_or_default()
}

fn number<T: std::str::FromStr>(name: &str, default: T) -> T {
    std::env::var(name).ok().map_or(default, |text| text.parse().ok().unwrap_or_else(|| panic!("{name} is a number")))
}

// === impl Case ===

impl Case {
    /// Every row with its proxy, and a server where it needs one for itself.
    async fn all() -> Vec<Self> {
        join_all(ROWS.iter().zip(1..).map(async |(row, number)| {
            let server = match row.breaks {
                Breaks::Frozen | Breaks::Sealed => {
                    let server = OpenBao::start().await;
                    server.put("openai", json!({"api_key": format!("sk-{}", row.name)})).await;
                    Some(server)
                }
                Breaks::Between(_) => None,
            };
            Self { row, proxy: Proxy::start(number).await, server }
        }))
        .await
    }

    async fn begin(&mut self) {
        match (self.row.breaks, &mut self.server) {
            (Breaks::Between(fault), _) => self.proxy.set(fault),
            (Breaks::Frozen, Some(server)) => server.process().pause(),
            (Breaks::Sealed, Some(server)) => server.seal().await,
            (Breaks::Frozen | Breaks::Sealed, None) => unreachable!("it has a server"),
        }
    }

    async fn end(&mut self) {
        match (self.row.breaks, &mut self.server) {
            (Breaks::Between(_), _) => self.proxy.set(Fault::None),
            (Breaks::Frozen, Some(server)) => server.process().signal(Signal::CONT),
            (Breaks::Sealed, Some(server)) => server.unseal().await,
            (Breaks::Frozen | Breaks::Sealed, None) => unreachable!("it has a server"),
        }
    }

    /// Sends until a request is refused. No value is older than the bound, the last one is nearly so old, nobody waits.
    async fn until_refused(&self, to: SocketAddr, broken_at: Instant, bound: Duration) -> Bridged {
        let name = self.row.name;
        let (mut line, mut served) = (Line::open(to, name).await, Vec::new());
        loop {
            let got = line.send().await;
            if got.status != 200 {
                let oldest = served.iter().filter_map(Got::age).max().unwrap_or_default();
                assert!(oldest + 2 >= bound.as_secs(), "{name}: refused when the value was {oldest} s old: {got:?}");
                return Bridged { served, lasted: got.sent - broken_at };
            }
            assert!(got.took < WAITED, "{name}: waits for the manager: {got:?}");
            assert!(got.age().is_some_and(|age| age < bound.as_secs()), "{name}: {got:?}");
            // Whatever was read, was read before it broke.
            assert!(got.sent < broken_at + bound, "{name}: past the bound: {got:?}");
            served.push(got);
            sleep(Duration::from_millis(100)).await;
        }
    }

    /// Sends for a while in which everything is refused as promised.
    async fn while_refused(&self, to: SocketAddr) -> Vec<Got> {
        let Row { name, codes, .. } = self.row;
        let (mut line, mut refused, end) =
            (Line::open(to, name).await, Vec::new(), Instant::now() + Duration::from_secs(2));
        while Instant::now() < end {
            let got = line.send().await;
            assert!(codes.contains(&got.code()), "{name}: {got:?}");
            assert!(got.took < Duration::from_secs(DEADLINE_SECS) + SLACK, "{name}: {got:?}");
            assert_eq!(got.status == 503, !got.header("retry-after").is_empty(), "{name}: {got:?}");
            refused.push(got);
            sleep(Duration::from_millis(100)).await;
        }
        refused
    }

    /// Sends until a request is served; the time since the manager was mended.
    async fn until_back(&self, to: SocketAddr, mended_at: Instant) -> Duration {
        let mut line = Line::open(to, self.row.name).await;
        loop {
            let got = line.send().await;
            if got.status == 200 {
                return mended_at.elapsed();
            }
            assert!(mended_at.elapsed() < PATIENCE, "{}: it does not recover: {got:?}", self.row.name);
            sleep(Duration::from_millis(50)).await;
        }
    }
}
