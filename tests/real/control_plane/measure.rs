//! How fast a write arrives, and what waiting and many entities cost. The numbers are in `docs/control-plane.md`; that page has
//! the commands, which set more than CI has time for (`REAL_TESTS_WRITES`, `REAL_TESTS_POLLS`, `REAL_TESTS_ENTITIES`) and a
//! release build (`REAL_TESTS_PROGRAM`). Whoever waits is a plain client of HTTP on a connection that is kept.

use std::{fmt::Write as _, fs, net::SocketAddr, sync::Arc, time::Duration};

use http::{Request, StatusCode};
use http_body_util::{BodyExt, Empty};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use sidekey::{
    control::store::{Action, Change, Kind, Location, Object, Store},
    model::{LinkRules, link},
};
use tokio::{
    net::TcpStream,
    sync::watch,
    task::JoinSet,
    time::{Instant, sleep},
};

use super::{ControlPlane, Home, TOKEN, Written, number, state};
use crate::harness;

/// Sidecars of the promise.
const SIDECARS: usize = 50;
/// What 99 of 100 writes may take to reach a sidecar.
const REACH: Duration = Duration::from_secs(1);
/// What a restart may take to reach all of them.
const RECONVERGED: Duration = Duration::from_secs(10);
/// Until a data plane that was cut off tries again.
const RETRY: Duration = Duration::from_millis(100);
/// Objects of one write.
const BATCH: usize = 10_000;

/// When a waiting client had which version.
type Told = watch::Sender<Vec<(i64, Instant)>>;

/// Clients that wait for the feed, one connection each, and come again when it breaks.
struct Fleet {
    told: Vec<Arc<Told>>,
    _tasks: JoinSet<()>,
}

/// 50 sidecars, writes one after the other; then the control plane is killed and comes again.
pub async fn a_write_reaches_fifty_and_so_does_a_restart() {
    let home = Home::on_sqlite(&harness::folder());
    let mut control = home.start("control-plane").await;
    let fleet = Fleet::start(control.address, SIDECARS).await;
    let mut version = version(&control).await;
    let (mut samples, writes) = (Vec::new(), number("REAL_TESTS_WRITES", 60));
    for index in 0..writes {
        let begun = Instant::now();
        assert_eq!(control.write(&format!("ws-{index:05}")).await, Written::Acknowledged);
        version += 1;
        samples.extend(fleet.reached(version).await.into_iter().map(|at| at - begun));
    }
    println!("{writes} writes, {SIDECARS} sidecars: from the call to its effect {}", Spread(&mut samples));
    assert!(percentile(&mut samples, 99) < REACH);

    control.kill().await;
    let killed = Instant::now();
    control = home.start_at("control-plane", control.address).await;
    assert_eq!(control.write("ws-after").await, Written::Acknowledged);
    let reached = fleet.reached(version + 1).await;
    let reconverged = reached.into_iter().max().expect("sidecars") - killed;
    println!("restart: all {SIDECARS} have the next write {} ms after the kill", reconverged.as_millis());
    assert!(reconverged < RECONVERGED, "{reconverged:?}");
}

/// Thousands who wait: their memory, and a write that wakes them all.
pub async fn thousands_wait() {
    let polls = number("REAL_TESTS_POLLS", 200);
    let home = Home::on_sqlite(&harness::folder());
    let control = home.start("control-plane").await;
    let mut version = version(&control).await;
    let before = Usage::of(&control);
    let fleet = Fleet::start(control.address, polls).await;
    let waiting = Usage::of(&control);
    let mut samples = Vec::new();
    let writes = 20;
    for index in 0..writes {
        let begun = Instant::now();
        assert_eq!(control.write(&format!("ws-{index:05}")).await, Written::Acknowledged);
        version += 1;
        samples.extend(fleet.reached(version).await.into_iter().map(|at| at - begun));
    }
    let after = Usage::of(&control);
    println!("{polls} long-polls, {writes} writes: from the call to its effect {}", Spread(&mut samples));
    println!(
        "memory {} MiB without and {} MiB with them waiting, {} MiB at the end ({} KiB each); {} ms of processor a wake",
        before.kib / 1024,
        waiting.kib / 1024,
        after.kib / 1024,
        (after.kib.saturating_sub(before.kib)) / polls as u64,
        (after.cpu - waiting.cpu).as_millis() / writes,
    );
    assert!(percentile(&mut samples, 99) < REACH);
}

/// Many entities: the whole and a delta of it, at the control plane and at a sidecar.
pub async fn many_entities() {
    let entities = number("REAL_TESTS_ENTITIES", 2_000);
    let folder = harness::folder();
    let home = Home::on_sqlite(&folder);
    home.start("control-plane").await.kill().await;
    let begun = Instant::now();
    insert(&Location::File(folder.join("control.db")), entities).await;
    println!("{entities} entities, written in {} s", begun.elapsed().as_secs());

    let control = home.start("control-plane").await;
    let before = Usage::of(&control);
    let (whole, first) = timed(control.feed("")).await;
    let whole = whole.expect(200);
    let built = Usage::of(&control);
    let (_, again) = timed(control.feed("")).await;
    let size = whole.body.len();
    println!(
        "whole: {} KiB, {} bytes an entity; {} ms when it is built for it, {} ms when it is there; memory {} MiB before, {} MiB after",
        size / 1024,
        size / entities,
        first.as_millis(),
        again.as_millis(),
        before.kib / 1024,
        built.kib / 1024,
    );
    let since = state(&whole);
    let waiting = tokio::spawn({
        let address = control.address;
        async move { Waiting::connect(address).await.expect("a connection").ask(&since).await }
    });
    sleep(Duration::from_millis(300)).await;
    let begun = Instant::now();
    assert_eq!(control.write("ws-delta").await, Written::Acknowledged);
    let (_, delta) = waiting.await.expect("a client").expect("an answer");
    println!(
        "delta of one write: {} bytes, {} ms from the call to its effect",
        delta.len(),
        begun.elapsed().as_millis()
    );
    assert!(begun.elapsed() < REACH && delta.len() < 2_000, "{}", String::from_utf8_lossy(&delta));

    // While the next whole is built and sent, nobody else waits for it.
    let other = tokio::spawn({
        let address = control.address;
        async move {
            let mut slowest = Duration::ZERO;
            for _ in 0..20 {
                let call = crate::client::Call::get("/v1/admin/workspaces").header("x-portkey-api-key", super::OWNER);
                slowest = slowest.max(timed(call.send(address)).await.1);
            }
            slowest
        }
    });
    let (_, rebuilt) = timed(control.feed("")).await;
    let slowest = other.await.expect("calls");
    println!("built anew in {} ms; the slowest other call meanwhile {} ms", rebuilt.as_millis(), slowest.as_millis());

    let before = resident(std::process::id());
    let begun = Instant::now();
    let rules = LinkRules { strict: false, ..LinkRules::STRICT };
    let linked = link(&whole.body, &rules).unwrap_or_else(|error| panic!("{:#?}", error.problems));
    let (elapsed, after) = (begun.elapsed(), resident(std::process::id()));
    assert_eq!(linked.entities().count(), entities);
    println!(
        "linked by a sidecar in {} ms (this build), {} bytes an entity",
        elapsed.as_millis(),
        (after.saturating_sub(before)) * 1024 / entities as u64
    );
}

// === impl Fleet ===

impl Fleet {
    /// Returns when all have the current state, and wait for the next.
    async fn start(address: SocketAddr, size: usize) -> Self {
        let mut tasks = JoinSet::new();
        let told: Vec<_> = (0..size).map(|_| Arc::new(Told::new(Vec::new()))).collect();
        for told in &told {
            tasks.spawn(wait_for_ever(address, Arc::clone(told)));
        }
        let fleet = Self { told, _tasks: tasks };
        fleet.reached(0).await;
        fleet
    }

    /// When each had `version`, or a later one; waits for those who have not.
    async fn reached(&self, version: i64) -> Vec<Instant> {
        let mut at = Vec::with_capacity(self.told.len());
        let find = |told: &Vec<(i64, Instant)>| told.iter().find(|(known, _)| *known >= version).map(|(_, at)| *at);
        for told in &self.told {
            let mut told = told.subscribe();
            let told = told.wait_for(|told| find(told).is_some()).await.expect("a client");
            at.extend(find(&told));
        }
        at
    }
}

async fn wait_for_ever(address: SocketAddr, told: Arc<Told>) {
    let mut since = "0-0".to_owned();
    loop {
        if let Some(mut waiting) = Waiting::connect(address).await {
            while let Some((etag, _)) = waiting.ask(&since).await {
                let now = Instant::now();
                let version = etag.rsplit('-').next().and_then(|version| version.parse().ok()).expect("a version");
                if etag != since {
                    since = etag;
                    told.send_modify(|told| told.push((version, now)));
                }
            }
        }
        sleep(RETRY).await;
    }
}

/// A connection to the feed.
struct Waiting(SendRequest<Empty<&'static [u8]>>);

impl Waiting {
    async fn connect(address: SocketAddr) -> Option<Self> {
        let stream = TcpStream::connect(address).await.ok()?;
        let (sender, connection) = handshake(TokioIo::new(stream)).await.ok()?;
        tokio::spawn(connection);
        Some(Self(sender))
    }

    /// The next state after `since`, and what was said of it.
    async fn ask(&mut self, since: &str) -> Option<(String, Vec<u8>)> {
        let request = Request::get(format!("/v1/snapshot?wait=60&since={since}"))
            .header("host", "control-plane")
            .header("authorization", format!("Bearer {TOKEN}"))
            .body(Empty::new())
            .expect("a request");
        self.0.ready().await.ok()?;
        let reply = self.0.send_request(request).await.ok()?;
        assert!(matches!(reply.status(), StatusCode::OK | StatusCode::NOT_MODIFIED), "{}", reply.status());
        let etag = reply.headers()["etag"].to_str().expect("text").trim_matches('"').to_owned();
        let body = reply.into_body().collect().await.ok()?.to_bytes();
        Some((etag, body.to_vec()))
    }
}

/// A workspace's worth of integrations, each with virtual keys that a reference fills.
async fn insert(location: &Location, entities: usize) {
    let store = Store::open(location).await.expect("a database");
    let organisation = store.organisations().await.expect("organisations").remove(0);
    let reference = Object::new_id();
    let mut left = entities;
    let mut first = true;
    while left > 0 {
        let mut write = store.write(&organisation, "measure").await.expect("a write");
        let mut last = None;
        if std::mem::take(&mut first) {
            let body = json!({"manager_type": "aws_sm", "auth_config": {"aws_auth_type": "serviceRole",
                "aws_region": "eu-west-1"}, "secret_path": "app", "description": null, "secret_key": null,
                "allow_all_workspaces": true, "allowed_workspaces": [], "tags": null, "ttl_secs": null,
                "allowed_providers": [], "allowed_hosts": []});
            let mut object = Object::new(Kind::SecretReference, reference.clone(), "app".to_owned(), "app".to_owned());
            object.body = body.to_string();
            write.insert(&mut object).await.expect("a row");
        }
        for index in 0..left.min(BATCH) {
            let (id, slug) = (Object::new_id(), format!("key-{:06}", left - index));
            let mut object = Object::new(Kind::VirtualKey, id, slug, "A virtual key".to_owned());
            object.body = virtual_key(&reference).to_string();
            write.insert(&mut object).await.expect("a row");
            last = Some(object);
        }
        let last = last.expect("an object");
        write.commit(Change::of(Action::Created, &last, Vec::new())).await.expect("a commit");
        left -= left.min(BATCH);
    }
    store.close().await;
}

fn virtual_key(reference: &str) -> Value {
    json!({"provider": "openai", "integration_id": null, "description": null, "fields": {"mappings": [{
        "target_field": "key", "secret_reference_id": reference, "secret_key": "api_key", "value_format": null,
        "reference": reference}]}})
}

async fn version(control: &ControlPlane) -> i64 {
    control.feed("").await.expect(200).json()["version"].as_i64().expect("a version")
}

async fn timed<T>(what: impl Future<Output = T>) -> (T, Duration) {
    let begun = Instant::now();
    let done = what.await;
    (done, begun.elapsed())
}

/// What a process has used.
struct Usage {
    /// Resident memory.
    kib: u64,
    /// Time of processors.
    cpu: Duration,
}

impl Usage {
    fn of(control: &ControlPlane) -> Self {
        let pid = control.process.pid();
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).expect("a process");
        // After the name, which may hold anything: utime and stime are the 12th and 13th, in hundredths of a second.
        let after = stat.rsplit(')').next().expect("fields").split_ascii_whitespace();
        let ticks: u64 = after.skip(11).take(2).map(|field| field.parse::<u64>().expect("a number")).sum();
        Self { kib: resident(pid), cpu: Duration::from_millis(ticks * 10) }
    }
}

/// Resident memory of a process, in KiB.
pub fn resident(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("a process");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("a line");
    line.split_ascii_whitespace().next().and_then(|kib| kib.parse().ok()).expect("a number")
}

/// `p50 … p99 … max …`, in milliseconds.
struct Spread<'a>(&'a mut Vec<Duration>);

impl std::fmt::Display for Spread<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut samples = self.0.clone();
        let mut text = String::new();
        for percent in [50, 90, 99, 100] {
            let _ = write!(text, "p{percent} {} ms  ", percentile(&mut samples, percent).as_millis());
        }
        f.write_str(text.trim_end())
    }
}

pub fn percentile(samples: &mut [Duration], percent: usize) -> Duration {
    samples.sort_unstable();
    samples[(samples.len() * percent / 100).min(samples.len() - 1)]
}
