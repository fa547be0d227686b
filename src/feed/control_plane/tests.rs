//! Following a feed that says what it should not, or nothing, with a control plane of the test's own.

use std::{collections::VecDeque, convert::Infallible, fs, net::SocketAddr, sync::Mutex};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::Bytes;
use http::{Request, Response, StatusCode, header::IF_NONE_MATCH};
use http_body_util::Full;
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::{net::TcpListener, time::timeout};

use super::*;
use crate::{feed::Status, metric::OutcomeLabels, seal::signature::SigningKey};

const PATIENCE: Duration = Duration::from_secs(20);

/// An answer that waits to be given.
enum Scripted {
    /// 200: `ETag`, signature, body.
    Update(String, Option<String>, String),
    /// A status and nothing else.
    Status(StatusCode),
}

/// A control plane that answers by a script, then holds every request.
#[derive(Clone, Default)]
struct Plane {
    script: Arc<Mutex<VecDeque<Scripted>>>,
    asked: Arc<Mutex<Vec<(String, String)>>>,
    more: Arc<Notify>,
}

struct World {
    plane: Plane,
    key: SigningKey,
    folder: TempDir,
    address: SocketAddr,
    feed: Arc<Feed>,
    metrics: Arc<Metrics>,
    cancel: CancellationToken,
}

// === impl Plane ===

impl Plane {
    fn push(&self, answer: Scripted) {
        self.script.lock().unwrap().push_back(answer);
        self.more.notify_one();
    }

    async fn answer(self, request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
        let header = |name| request.headers().get(name).map_or("", |value: &http::HeaderValue| value.to_str().unwrap());
        let asked = (request.uri().to_string(), header(IF_NONE_MATCH).to_owned());
        self.asked.lock().unwrap().push(asked);
        assert_eq!(header(http::header::AUTHORIZATION), "Bearer token-of-a-test");
        loop {
            let next = self.script.lock().unwrap().pop_front();
            match next {
                Some(Scripted::Status(status)) => {
                    return Ok(Response::builder().status(status).body(Full::default()).unwrap());
                }
                Some(Scripted::Update(etag, signature, body)) => {
                    let mut response = Response::builder().header("etag", etag);
                    if let Some(signature) = signature {
                        response = response.header("x-sidekey-signature", signature);
                    }
                    return Ok(response.body(Full::from(body)).unwrap());
                }
                None => self.more.notified().await,
            }
        }
    }
}

// === impl World ===

impl World {
    async fn new() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (address, plane) = (listener.local_addr().unwrap(), Plane::default());
        let answering = plane.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let plane = answering.clone();
                let service = service_fn(move |request| plane.clone().answer(request));
                tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), service));
            }
        });
        let (folder, key) = (TempDir::new().unwrap(), SigningKey::generate().unwrap());
        fs::write(folder.path().join("token"), "token-of-a-test\n").unwrap();
        fs::write(folder.path().join("public.pem"), key.verifying().to_pem()).unwrap();
        let (feed, metrics) = (Arc::default(), Arc::new(Metrics::new()));
        Self { plane, key, folder, address, feed, metrics, cancel: CancellationToken::new() }
    }

    fn settings(&self) -> Settings {
        let address = Address {
            url: format!("http://{}", self.address).parse().unwrap(),
            token_file: self.folder.path().join("token"),
            ca_file: None,
            public_key_file: Some(self.folder.path().join("public.pem")),
        };
        Settings { last_good: Some(self.folder.path().join("last-good")), ..Settings::new(address) }
    }

    fn follow(&self, settings: Settings) -> tokio::task::JoinHandle<()> {
        let linker = Linker { admit: Arc::new(|_, _, _| Ok(())), opener: None };
        let source = ControlPlaneSource::new(settings, linker, Arc::clone(&self.metrics));
        tokio::spawn(source.run(Arc::clone(&self.feed), self.cancel.clone()))
    }

    fn signed(&self, body: &Value) -> Scripted {
        let (etag, body) = (etag(body), body.to_string());
        let signature = self.key.sign(format!("sidekey-snapshot-v1\n{etag}\n{body}").as_bytes());
        Scripted::Update(etag, Some(format!("ed25519={}", STANDARD.encode(signature))), body)
    }

    async fn until(&self, reached: impl FnMut(&Status) -> bool) -> Status {
        let mut status = self.feed.subscribe();
        let reached = timeout(PATIENCE, status.wait_for(reached)).await;
        reached.expect("nothing happened in time").expect("the feed is alive").clone()
    }

    async fn version(&self, version: u64) {
        let feed = Arc::clone(&self.feed);
        self.until(move |_| feed.current().is_some_and(|snapshot| snapshot.version == version)).await;
    }

    async fn refused(&self, words: &str) {
        let words = words.to_owned();
        self.until(move |status| {
            let problems = status.refused.iter().flat_map(|refused| refused.problems.iter());
            { problems }.any(|problem| problem.message.contains(&words))
        })
        .await;
    }

    fn loads(&self, outcome: &'static str) -> u64 {
        self.metrics.snapshot_loads.get_or_create(&OutcomeLabels { outcome }).get()
    }

    /// The last thing that was asked, once `count` were.
    async fn asked(&self, count: usize) -> (String, String) {
        let asked = async {
            loop {
                if let Some(asked) = self.plane.asked.lock().unwrap().get(count - 1) {
                    return asked.clone();
                }
                tokio::task::yield_now().await;
            }
        };
        timeout(PATIENCE, asked).await.expect("not asked again")
    }
}

impl Drop for World {
    fn drop(&mut self) {
        self.cancel.cancel();
    }
}

fn etag(body: &Value) -> String {
    format!("\"{}-{}\"", body["epoch"].as_str().unwrap(), body["version"])
}

fn whole(epoch: &str, version: u64, slugs: &[&str]) -> Value {
    let keys: Vec<_> = slugs.iter().map(|slug| json!({"id": slug, "slug": slug, "provider": "openai"})).collect();
    let made = format!("2026-11-25T00:00:{:02}Z", version.min(59));
    json!({
        "schema_version": 1, "epoch": epoch, "version": version, "generated_at": made, "organisation_id": "o",
        "virtual_keys": keys,
    })
}

fn delta(since: u64, version: u64, slug: &str) -> Value {
    let mut delta = whole("7", version, &[]);
    delta["since"] = json!(since);
    delta["virtual_keys"].take();
    delta["changed"] = json!({"virtual_keys": [{"id": slug, "slug": slug, "provider": "openai"}]});
    delta["removed"] = json!({});
    delta
}

#[tokio::test]
async fn what_is_signed_and_newer_is_taken_and_nothing_else() {
    let world = World::new().await;
    let following = world.follow(world.settings());
    world.plane.push(world.signed(&whole("7", 3, &["a"])));
    world.version(3).await;
    assert_eq!(world.asked(1).await, ("/v1/snapshot".to_owned(), String::new()));
    assert_eq!(world.asked(2).await, ("/v1/snapshot?wait=30&since=7-3".to_owned(), "\"7-3\"".to_owned()));

    world.plane.push(world.signed(&delta(3, 5, "b")));
    world.version(5).await;
    assert_eq!(world.feed.current().unwrap().entities().count(), 2);

    let other = SigningKey::generate().unwrap();
    let forge = |body: &Value| {
        let signature = STANDARD.encode(other.sign(format!("sidekey-snapshot-v1\n{}\n{body}", etag(body)).as_bytes()));
        Scripted::Update(etag(body), Some(format!("ed25519={signature}")), body.to_string())
    };
    let next = whole("7", 6, &[]);
    world.plane.push(forge(&next));
    world.refused("is not signed by a key").await;
    world.plane.push(Scripted::Update(etag(&next), None, next.to_string()));
    world.refused("is not signed, and").await;
    let Scripted::Update(tag, signature, body) = world.signed(&next) else { panic!() };
    world.plane.push(Scripted::Update(tag, signature, body.replace("openai", "openbi").replace("\"o\"", "\"p\"")));
    world.plane.push(world.signed(&whole("7", 4, &["old"])));
    world.refused("is older than what is in force").await;
    world.plane.push(world.signed(&whole("6", 2, &["old"])));
    world.plane.push(world.signed(&json!({"epoch": "7", "version": 9, "schema_version": 2})));
    world.refused("must be 1").await;
    assert_eq!(world.feed.current().unwrap().version, 5);
    let counted = ["forged", "unsigned", "replayed", "refused"].map(|outcome| world.loads(outcome));
    assert_eq!(counted, [2, 1, 2, 1]);

    // What was refused for its content is not sent again and again.
    let asked = world.plane.asked.lock().unwrap().len();
    assert_eq!(world.asked(asked + 1).await.1, "\"7-5\", \"7-9\"");
    world.plane.push(world.signed(&whole("7", 10, &["c"])));
    world.version(10).await;
    // A younger epoch, whatever its version.
    let mut restored = whole("8", 1, &["d"]);
    restored["generated_at"] = json!("2026-11-25T00:01:00Z");
    world.plane.push(world.signed(&restored));
    world.version(1).await;
    assert!(world.feed.status().refused.is_none());
    world.cancel.cancel();
    following.await.unwrap();
}

#[tokio::test]
async fn a_delta_that_does_not_fit_is_asked_for_whole() {
    let world = World::new().await;
    let _following = world.follow(world.settings());
    world.plane.push(world.signed(&whole("7", 3, &["a"])));
    world.version(3).await;
    world.plane.push(world.signed(&delta(2, 5, "b")));
    world.plane.push(world.signed(&whole("7", 5, &["a", "b"])));
    world.version(5).await;
    assert_eq!(world.asked(3).await.0, "/v1/snapshot", "the whole, at once");
}

#[tokio::test]
async fn an_outage_changes_nothing_and_a_start_in_it_verifies_what_was_good_last() {
    let world = World::new().await;
    let following = world.follow(world.settings());
    world.plane.push(world.signed(&whole("7", 3, &["a"])));
    world.version(3).await;
    world.plane.push(world.signed(&delta(3, 4, "b")));
    world.version(4).await;
    for status in [StatusCode::UNAUTHORIZED, StatusCode::INTERNAL_SERVER_ERROR, StatusCode::FOUND] {
        world.plane.push(Scripted::Status(status));
    }
    world.refused("status 302").await;
    assert_eq!(world.feed.current().unwrap().version, 4);
    world.plane.push(Scripted::Status(StatusCode::NOT_MODIFIED));
    world.until(|status| status.refused.is_none()).await;
    world.cancel.cancel();
    following.await.unwrap();

    // Nobody listens there any more.
    let start = |settings: Settings| {
        let newcomer = rest(&world);
        let _following = newcomer.follow(settings);
        newcomer
    };
    let gone = |settings: Settings| Settings {
        address: Address { url: "http://127.0.0.1:9".parse().unwrap(), ..settings.address.clone() },
        ..settings
    };
    let newcomer = start(gone(world.settings()));
    newcomer.version(4).await;
    assert_eq!(newcomer.feed.status().loaded.unwrap().origin, Origin::LastGood);
    assert_eq!(newcomer.feed.current().unwrap().entities().count(), 2);
    newcomer.refused("cannot be reached").await;

    let file = world.folder.path().join("last-good");
    let kept = fs::read_to_string(&file).unwrap();
    fs::write(&file, kept.replacen("\"slug\":\"a\"", "\"slug\":\"x\"", 1)).unwrap();
    let newcomer = start(gone(world.settings()));
    newcomer.refused("cannot be reached").await;
    assert!(newcomer.feed.current().is_none(), "a file that somebody changed was loaded");
    fs::write(&file, kept.replacen("\"slug\":\"b\"", "\"slug\":\"x\"", 1)).unwrap();
    let newcomer = start(gone(world.settings()));
    newcomer.version(3).await;
}

/// The parts of a world that a newcomer shares.
fn rest(world: &World) -> World {
    let folder = TempDir::new().unwrap();
    World {
        plane: world.plane.clone(),
        key: SigningKey::parse(&world.key.expose().unwrap()).unwrap(),
        folder,
        address: world.address,
        feed: Arc::default(),
        metrics: Arc::new(Metrics::new()),
        cancel: CancellationToken::new(),
    }
}

#[tokio::test]
async fn without_a_key_whoever_answers_is_believed() {
    let world = World::new().await;
    let mut settings = world.settings();
    settings.address.public_key_file = None;
    let _following = world.follow(settings);
    let body = whole("7", 3, &["a"]);
    world.plane.push(Scripted::Update(etag(&body), None, body.to_string()));
    world.version(3).await;
    world.plane.push(Scripted::Update("\"7-5\"".to_owned(), None, whole("7", 4, &[]).to_string()));
    world.refused("the version that its ETag says").await;
}

#[test]
fn pauses_grow_and_are_bounded() {
    let mut failures = Failures::default();
    let pauses: Vec<_> = (0..20).map(|_| failures.pause()).collect();
    assert!(pauses.iter().all(|pause| (PAUSE / 2..=MAX_PAUSE).contains(pause)), "{pauses:?}");
    assert!(pauses[0] <= PAUSE && pauses[19] >= MAX_PAUSE / 2, "{pauses:?}");
}
