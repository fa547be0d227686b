//! Keys that rotate under load, through the real gateway, with a provider that checks them: how many client requests fail.
//!
//! Short as part of `tests/run`. `benches/rotation` runs the whole measurement and prints what it saw; the numbers come from
//! these variables: `ROTATION_COUNT` rotations of each kind, `ROTATION_RATE` requests a second, `ROTATION_LAG_SECS` the longest time
//! by which a provider follows its manager, `ROTATION_TTL_SECS` the lifetime of a secret; `ROTATION_LONG_LAG_SECS` is the longest lag
//! where many keys rotate at times of their own, drawn from `ROTATION_SEED`.

use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use futures_util::future::join_all;
use serde_json::{Value, json};
use tokio::{
    task::JoinSet,
    time::{Instant, MissedTickBehavior, interval, sleep},
};
use tokio_util::sync::CancellationToken;

use crate::{
    client::Call,
    components::free_address,
    harness,
    provider::{Answer, Received},
    world::{Setup, Sidekey, World, find, mapping, push, reference, virtual_key},
};

/// How far a provider is ahead of its manager at most, where it is a moment ahead.
const MOMENT: Duration = Duration::from_millis(200);
/// How far it is ahead where nothing can help.
const AHEAD: Duration = Duration::from_secs(2);
/// Time between two rotations in which all is quiet.
const QUIET: Duration = Duration::from_millis(1500);
/// Lifetime of a secret as it is by default, seconds.
const DEFAULT_TTL_SECS: u64 = 300;
/// Between two looks at what the provider has noted, which is thrown away.
const TIDY: Duration = Duration::from_secs(5);
/// A body that is not kept.
const LARGE_BYTES: usize = 3 << 19;

/// One world with two sidecars: one that recovers, with an overlap, and one that does not.
struct Stage {
    world: World,
    without: Sidekey,
    keys: Keys,
    many: Vec<OwnKey>,
    plan: Numbers,
}

/// A virtual key with a secret of its own, both of this name.
struct OwnKey {
    name: String,
    /// The lifetime that its reference asks for, seconds.
    ttl: Option<u64>,
}

/// When a key rotates: the manager is written at `starts`, and the provider follows after `lag`.
struct Rotation<'k> {
    key: &'k OwnKey,
    starts: Duration,
    lag: Duration,
}

/// Numbers that are the same for the same seed (SplitMix64).
struct Dice(u64);

#[derive(Clone, Copy)]
struct Numbers {
    rotations: usize,
    rate: u64,
    lag: Duration,
    ttl: u64,
}

/// The keys that the provider takes, by the secret they are in.
#[derive(Clone, Default)]
struct Keys(Arc<Mutex<HashMap<String, String>>>);

/// Who moves first when a key rotates, and how far the other is behind.
#[derive(Clone, Copy)]
enum Order {
    ManagerFirst,
    ProviderFirst(Duration),
}

/// What was seen of one kind of rotation.
#[derive(Default)]
struct Seen {
    requests: usize,
    failed: usize,
    reads: usize,
    rotations: usize,
}

/// The manager is written first and the provider follows; then the provider is a moment ahead. Nobody notices, and everybody
/// would without recovery.
pub async fn costs_no_client_a_request() {
    let stage = Stage::start().await;
    let with = stage.world.sidekey.address;
    let load = small("@openai-prod");
    let first = stage.rotate("manager first", with, &load, &["openai"], Order::ManagerFirst).await;
    let moment =
        stage.rotate("provider up to 200 ms ahead", with, &load, &["openai"], Order::ProviderFirst(MOMENT)).await;
    for seen in [&first, &moment] {
        assert_eq!(seen.failed, 0, "of {} requests", seen.requests);
    }
    let off = stage.without.address;
    stage.rotate("manager first, recovery off", off, &load, &["openai"], Order::ManagerFirst).await;
    let seen = stage
        .rotate("provider up to 200 ms ahead, recovery off", off, &load, &["openai"], Order::ProviderFirst(MOMENT))
        .await;
    assert!(seen.failed > 0, "or there was nothing to recover from");
}

/// Many keys rotate at times of their own. The manager is written first, and each provider follows after a time of its own, up to
/// minutes later. Half of the secrets live for as long as they do by default, the others are refreshed while they wait.
pub async fn of_many_keys_each_in_its_time_costs_no_client_a_request() {
    let longest = Duration::from_secs(number("ROTATION_LONG_LAG_SECS", 3));
    let seed = number("ROTATION_SEED", 1);
    let stage = Stage::with(number("ROTATION_COUNT", 3)).await;
    let mut dice = Dice(seed);
    let rotations: Vec<Rotation<'_>> =
        stage.many.iter().map(|key| Rotation { key, starts: dice.below(longest), lag: dice.below(longest) }).collect();
    println!("seed {seed}, {}", Rotation::describe(&rotations));
    let loads: Vec<Call> = stage.many.iter().map(|key| small(&format!("@{}", key.name))).collect();
    for (recovery, to) in [("", stage.world.sidekey.address), (", recovery off", stage.without.address)] {
        for load in &loads {
            load.clone().send(to).await.expect(200);
        }
        let reads_before: Vec<_> = stage.many.iter().map(|key| stage.reads(&key.name)).collect();
        let began = Instant::now();
        let running = Load::start(to, loads.clone(), stage.plan.rate);
        sleep(QUIET).await;
        let all = join_all(rotations.iter().map(|rotation| async {
            let (name, key) = (&rotation.key.name, format!("sk-{}{}", rotation.key.name, recovery.len()));
            sleep(rotation.starts).await;
            stage.world.bao.put(name, json!({ "api_key": key.clone() })).await;
            sleep(rotation.lag).await;
            stage.keys.set(name, key);
        }));
        let forget = async {
            loop {
                sleep(TIDY).await;
                stage.world.provider.take();
            }
        };
        tokio::select! { _ = all => {} () = forget => {} }
        sleep(QUIET).await;
        let counts = running.stop().await;
        let reads = stage.many.iter().zip(&reads_before).map(|(key, before)| stage.reads(&key.name) - before);
        let rows: Vec<_> = stage.many.iter().zip(counts).zip(reads).collect();
        for (ttl, lifetime) in [(Some(DEFAULT_TTL_SECS), DEFAULT_TTL_SECS), (None, stage.plan.ttl)] {
            let mut seen = Seen::default();
            for ((_, count), reads) in rows.iter().filter(|((key, _), _)| key.ttl == ttl) {
                seen.add(*count, *reads);
            }
            seen.print(&format!("each key in its time, the manager first, ttl {lifetime}{recovery}"), began.elapsed());
            assert!(!recovery.is_empty() || seen.failed == 0, "{} of {} requests", seen.failed, seen.requests);
        }
        // Without recovery a secret that lives long may be refused for minutes yet.
        for load in loads.iter().filter(|_| recovery.is_empty()) {
            stage.healed(to, load).await;
        }
    }
}

/// In a fallback the first target's key rotates, then the second's.
pub async fn of_a_fallback_is_mended_behind_the_answer() {
    let stage = Stage::start().await;
    let config = Call::chat("gpt-4o-mini", "ping").header("x-portkey-config", "pc-fallback-1a2b3c");
    let order = Order::ProviderFirst(MOMENT);
    let seen = stage
        .rotate(
            "fallback, first then second",
            stage.world.sidekey.address,
            &config,
            &["openai", "openai-backup"],
            order,
        )
        .await;
    assert_eq!(seen.failed, 0, "of {} requests", seen.requests);
    // The first target serves again, with its new key.
    stage.world.provider.take();
    stage.world.send(config.clone()).await.expect(200);
    let credential = stage.world.provider.take_one().header("authorization");
    assert_eq!(credential, format!("Bearer {}", stage.keys.get("openai")));
}

/// Where it cannot help in time: a provider that is far ahead, and bodies that are not kept. The next requests are served.
pub async fn beyond_its_reach_heals_for_the_next() {
    let mut stage = Stage::start().await;
    stage.plan.rotations = stage.plan.rotations.min(3);
    let with = stage.world.sidekey.address;
    let load = small("@openai-prod");
    let seen = stage.rotate("provider 2 s ahead", with, &load, &["openai"], Order::ProviderFirst(AHEAD)).await;
    assert!(seen.failed > 0);
    stage.plan.rate = stage.plan.rate.min(10);
    let large = Call::chat("gpt-4o-mini", &"x".repeat(LARGE_BYTES)).header("x-portkey-provider", "@openai-prod");
    let seen = stage
        .rotate(
            "bodies of 1.5 MiB, which are not kept",
            with,
            &large,
            &["openai"],
            Order::ProviderFirst(Duration::ZERO),
        )
        .await;
    // Those that were on their way, which are more on a busy machine; what comes after the read is served.
    assert!(seen.failed < seen.requests, "{} of {}", seen.failed, seen.requests);
    large.send(with).await.expect(200);
}

/// A thousand provoked refusals cost the manager a bounded number of reads.
pub async fn provoked_refusals_are_bounded() {
    let stage = Stage::start().await;
    stage.world.send(small("@openai-prod")).await.expect(200);
    stage.keys.set("openai", "another".to_owned());
    let (began, before) = (Instant::now(), stage.world.bao.reads("secret/data/openai"));
    let mut calls = JoinSet::new();
    for _ in 0..1000 {
        calls.spawn(small("@openai-prod").send(stage.world.sidekey.address));
        if calls.len() >= 50 {
            calls.join_next().await;
        }
    }
    while calls.join_next().await.is_some() {}
    let reads = stage.world.bao.reads("secret/data/openai") - before;
    println!("1,000 provoked refusals in {:.1} s: {reads} reads", began.elapsed().as_secs_f64());
    // For each inquiry two, and up to two for the version before; the rests between them are 1, 2, 4, 8, 10, 10 … s.
    let refreshes = began.elapsed().as_secs() as usize / (stage.plan.ttl as usize / 2).max(1);
    let (mut inquiries, mut rest, mut left) = (1, 1.0, began.elapsed().as_secs_f64());
    while left > rest {
        (inquiries, left, rest) = (inquiries + 1, left - rest, f64::min(2.0 * rest, 10.0));
    }
    assert!(reads <= inquiries * 4 + refreshes, "{reads}");
}

// === impl Stage ===

impl Stage {
    async fn start() -> Self {
        Self::with(0).await
    }

    /// With as many keys of either lifetime, each with a secret of its own.
    async fn with(many: usize) -> Self {
        let lived = |kind: &'static str, ttl| (0..many).map(move |n| OwnKey { name: format!("{kind}-{n}"), ttl });
        // In turn, so that neither kind is asked for before the other.
        let many: Vec<_> = lived("long", Some(DEFAULT_TTL_SECS)).zip(lived("brief", None)).collect();
        let many: Vec<_> = many.into_iter().flat_map(|(long, brief)| [long, brief]).collect();
        let plan = Numbers {
            rotations: number("ROTATION_COUNT", 3),
            rate: number("ROTATION_RATE", 40),
            lag: Duration::from_secs(number("ROTATION_LAG_SECS", 3)),
            ttl: number("ROTATION_TTL_SECS", 5),
        };
        let mut other = None;
        let world = World::with(|setup| {
            setup.config["cache"] = json!({ "ttl_secs": plan.ttl });
            setup.config["log"]["level"] = json!("info");
            setup.config["recovery"] = json!({ "overlap_secs": 600 });
            let auth = find(&mut setup.snapshot, "secret_references", "openai-key")["auth_config"].clone();
            for OwnKey { name, ttl } in &many {
                let (key, path) = (format!("{name}-key"), format!("secret/data/{name}"));
                let mut row = reference(&key, auth.clone(), &path, Some("api_key"));
                row["ttl_secs"] = json!(ttl);
                push(&mut setup.snapshot, "secret_references", row);
                let mappings = json!([mapping("key", &key, None)]);
                let row = virtual_key(name, None, Some("openai"), json!({}), mappings);
                push(&mut setup.snapshot, "virtual_keys", row);
            }
            let mut config = setup.config.clone();
            config["listen"] = json!(free_address().to_string());
            config["admin_listen"] = json!(free_address().to_string());
            config["recovery"] = json!({ "enabled": false });
            config["snapshot"]["file"] = json!(harness::folder().join("snapshot-without.json"));
            other = Some(Setup { config, snapshot: setup.snapshot.clone(), environment: Vec::new() });
        })
        .await;
        let without = Sidekey::start(&other.expect("it was made")).await;
        let keys = Keys::default();
        keys.set("openai", world.secrets.openai.clone());
        keys.set("openai-backup", world.secrets.openai_backup.clone());
        for OwnKey { name, .. } in &many {
            let key = format!("sk-{name}-first");
            world.bao.put(name, json!({ "api_key": key.clone() })).await;
            keys.set(name, key);
        }
        let ring = keys.clone();
        world.provider.script("api.openai.com", move |request| (!ring.take(request)).then(refusal));
        Self { world, without, keys, many, plan }
    }

    /// How often the secret at `name` was read.
    fn reads(&self, name: &str) -> usize {
        self.world.bao.reads(&format!("secret/data/{name}"))
    }

    /// Rotates the key of each of `paths` in turn while `load` runs.
    async fn rotate(&self, name: &str, to: SocketAddr, load: &Call, paths: &[&'static str], order: Order) -> Seen {
        let reads = || paths.iter().map(|path| self.reads(path)).sum::<usize>();
        let (before, began) = (reads(), Instant::now());
        let running = Load::start(to, vec![load.clone()], self.plan.rate);
        sleep(QUIET).await;
        for rotation in 0..self.plan.rotations {
            let part = (rotation as f64 + 0.5) / self.plan.rotations as f64;
            for path in paths {
                let key = format!("sk-{path}-{:x}", Instant::now().duration_since(began).as_nanos());
                let manager = self.world.bao.put(path, json!({ "api_key": key.clone() }));
                match order {
                    Order::ManagerFirst => {
                        manager.await;
                        sleep(self.plan.lag.mul_f64(part)).await;
                        self.keys.set(path, key);
                    }
                    Order::ProviderFirst(ahead) => {
                        self.keys.set(path, key);
                        sleep(if ahead == MOMENT { ahead.mul_f64(part) } else { ahead }).await;
                        manager.await;
                    }
                }
                sleep(QUIET).await;
            }
            self.world.provider.take();
        }
        let mut seen = Seen { rotations: self.plan.rotations * paths.len(), ..Seen::default() };
        for Count { sent, failed } in running.stop().await {
            (seen.requests, seen.failed) = (seen.requests + sent, seen.failed + failed);
        }
        seen.reads = reads() - before;
        seen.print(name, began.elapsed());
        // Whatever it was, it is over: the manager's key is the provider's.
        self.healed(to, load).await;
        seen
    }

    async fn healed(&self, to: SocketAddr, load: &Call) {
        let deadline = Instant::now() + Duration::from_secs(30);
        while load.clone().send(to).await.status != 200 {
            assert!(Instant::now() < deadline, "it does not heal");
            sleep(Duration::from_millis(100)).await;
        }
        self.world.provider.take();
    }
}

// === impl Rotation ===

impl Rotation<'_> {
    /// The lags of `rotations`, sorted, in seconds.
    fn describe(rotations: &[Rotation<'_>]) -> String {
        let mut lags: Vec<_> = rotations.iter().map(|rotation| rotation.lag.as_secs()).collect();
        lags.sort_unstable();
        format!("lags in s: {lags:?}")
    }
}

// === impl Dice ===

impl Dice {
    /// Evenly from zero to `longest`.
    fn below(&mut self, longest: Duration) -> Duration {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        longest.mul_f64((mixed ^ (mixed >> 31)) as f64 / u64::MAX as f64)
    }
}

// === impl Keys ===

impl Keys {
    fn set(&self, path: &str, key: String) {
        self.0.lock().unwrap().insert(path.to_owned(), key);
    }

    fn get(&self, path: &str) -> String {
        self.0.lock().unwrap()[path].clone()
    }

    fn take(&self, request: &Received) -> bool {
        let credential = request.header("authorization");
        self.0.lock().unwrap().values().any(|key| credential.strip_prefix("Bearer ") == Some(key))
    }
}

// === impl Seen ===

impl Seen {
    /// One rotation more.
    fn add(&mut self, Count { sent, failed }: Count, reads: usize) {
        self.requests += sent;
        self.failed += failed;
        self.reads += reads;
        self.rotations += 1;
    }

    fn print(&self, name: &str, took: Duration) {
        let Self { requests, failed, reads, rotations } = self;
        let each = |count: &usize| *count as f64 / *rotations as f64;
        println!(
            "| {name} | {rotations} | {requests} | {failed} | {:.1} | {:.1} | {:.0} s |",
            each(failed),
            each(reads),
            took.as_secs_f64(),
        );
    }
}

/// Requests at a steady rate, each on a connection of its own.
struct Load {
    end: CancellationToken,
    failed: Arc<[AtomicUsize]>,
    task: tokio::task::JoinHandle<usize>,
}

/// How often one call was sent, and how often it failed.
#[derive(Clone, Copy)]
struct Count {
    sent: usize,
    failed: usize,
}

impl Load {
    /// Sends `calls` in turn.
    fn start(to: SocketAddr, calls: Vec<Call>, rate: u64) -> Self {
        let (end, failed) = (CancellationToken::new(), calls.iter().map(|_| AtomicUsize::new(0)).collect::<Arc<[_]>>());
        let (ended, failures) = (end.clone(), Arc::clone(&failed));
        let task = tokio::spawn(async move {
            let mut ticks = interval(Duration::from_micros(1_000_000 / rate));
            ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
            let (mut running, mut sent) = (JoinSet::new(), 0);
            while ended.run_until_cancelled(ticks.tick()).await.is_some() {
                let place = sent % calls.len();
                let (call, failures) = (calls[place].clone(), Arc::clone(&failures));
                sent += 1;
                running.spawn(async move {
                    let reply = call.send(to).await;
                    // Shows the first ones only: without recovery they are thousands.
                    if reply.status != 200 && failures[place].fetch_add(1, Ordering::Relaxed) == 0 {
                        println!("the first failure of call {place}: {} {}", reply.status, reply.text());
                    }
                });
                while running.try_join_next().is_some_and(|joined| joined.is_ok()) {}
            }
            while let Some(joined) = running.join_next().await {
                joined.expect("a request is answered");
            }
            sent
        });
        Self { end, failed, task }
    }

    /// What became of each call.
    async fn stop(self) -> Vec<Count> {
        self.end.cancel();
        let (sent, calls) = (self.task.await.expect("requests are answered"), self.failed.len());
        let failed = self.failed.iter().map(|failed| failed.load(Ordering::Relaxed));
        let counts = failed.enumerate();
        counts.map(|(place, failed)| Count { sent: (sent + calls - 1 - place) / calls, failed }).collect()
    }
}

fn small(provider: &str) -> Call {
    Call::chat("gpt-4o-mini", "ping").header("x-portkey-provider", provider)
}

fn refusal() -> Answer {
    let error: Value = json!({ "error": { "message": "Incorrect API key provided.", "type": "invalid_request_error", "code": "invalid_api_key" } });
    Answer::json(401, &error)
}

fn number<T: std::str::FromStr>(name: &str, default: T) -> T {
    std::env::var(name).ok().map_or(default, |text| text.parse().ok().unwrap_or_else(|| panic!("{name} is a number")))
}
