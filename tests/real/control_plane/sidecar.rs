//! A sidecar with many sealed entities: what loading and opening them costs, and whether requests feel that they change. The
//! numbers are in `docs/control-plane.md`, with the commands that set more than CI has time for (`REAL_TESTS_ENTITIES`,
//! `REAL_TESTS_SWAP_SECS`) and a release build (`REAL_TESTS_PROGRAM`).

use std::{convert::Infallible, fs, net::SocketAddr, path::Path, time::Duration};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::{client::conn::http1::SendRequest, service::service_fn};
use hyper_util::rt::TokioIo;
use serde_json::json;
use sidekey::{
    control::store::{Action, Change, Kind, Location, Object, Store},
    seal::{Place, identity::Identities, recipient::Recipients},
};
use tokio::{
    net::{TcpListener, TcpStream},
    time::{Instant, sleep},
};

use super::{
    ControlPlane, Home, TOKEN, Written,
    measure::{percentile, resident},
    number,
};
use crate::{
    client::Call,
    components::free_address,
    harness,
    process::{Process, command},
    world::program,
};

/// Objects of one write.
const BATCH: usize = 10_000;
/// Between two writes while requests are timed.
const WRITE_EVERY: Duration = Duration::from_millis(250);
/// Different entities that are used for the first time.
const OPENED: usize = 200;

/// A client on one connection that is kept.
struct Client(SendRequest<Full<Bytes>>);

pub async fn requests_do_not_wait_for_changes() {
    let (entities, secs) = (number("REAL_TESTS_ENTITIES", 2_000), number("REAL_TESTS_SWAP_SECS", 3) as u64);
    let folder = harness::folder();
    let home = Home::on_sqlite(&folder).sealing();
    home.start("control-plane").await.kill().await;
    insert(&folder, entities).await;
    let control = home.start("control-plane").await;
    let began = Instant::now();
    let (mut sidecar, listen, admin) = start(&control, &folder, upstream().await);
    until_ready(&mut sidecar, admin).await;
    let (ready, loaded) = (began.elapsed(), resident(sidecar.pid()));
    println!(
        "{entities} sealed entities: a start takes {} ms, feed included; {} MiB resident, {} bytes an entity",
        ready.as_millis(),
        loaded / 1024,
        loaded * 1024 / entities as u64
    );

    let mut client = Client::connect(listen).await;
    for what in ["the first use, which opens", "the second use"] {
        let mut samples = Vec::new();
        for index in 1..=OPENED.min(entities) {
            samples.push(client.timed(&format!("@key-{index:06}")).await);
        }
        println!("{what}: {}", micros(&mut samples));
    }
    println!("{} KiB more for {OPENED} opened values", resident(sidecar.pid()).saturating_sub(loaded));

    let time = Duration::from_secs(secs);
    let mut quiet = client.requests(time).await;
    let before = swaps(admin).await;
    let writing = async {
        let began = Instant::now();
        for number in 0.. {
            if began.elapsed() >= time {
                return number;
            }
            assert_eq!(control.write(&format!("ws-{number:05}")).await, Written::Acknowledged);
            sleep(WRITE_EVERY).await;
        }
        0
    };
    let (mut busy, writes) = tokio::join!(client.requests(time), writing);
    let swapped = swaps(admin).await - before;
    println!("nothing changes: {} requests, {}", quiet.len(), micros(&mut quiet));
    println!("{writes} writes, {swapped} swaps: {} requests, {}", busy.len(), micros(&mut busy));
    assert!(swapped > 0, "nothing was swapped in");
    // Had one waited for all of it to be linked, it would have taken as long as a start does.
    let (before, during) = (percentile(&mut quiet, 99), percentile(&mut busy, 99));
    assert!(during < before + Duration::from_millis(100), "{before:?} {during:?}");
}

/// Real processes: requests go on without a control plane, and after a start without one; what was written is there when it is
/// back.
pub async fn serves_through_an_outage() {
    let folder = harness::folder();
    let home = Home::on_sqlite(&folder).sealing();
    home.start("control-plane").await.kill().await;
    insert(&folder, 10).await;
    let mut control = home.start("control-plane").await;
    let upstream = upstream().await;
    let (mut sidecar, listen, admin) = start(&control, &folder, upstream);
    until_ready(&mut sidecar, admin).await;
    Client::connect(listen).await.timed("@key-000001").await;
    // It is kept after it is served: not so long that a restart needs care, but longer than a kill takes.
    sidecar.until("known by its last-good file", async || folder.join("last-good").exists().then_some(())).await;

    control.kill().await;
    let mut client = Client::connect(listen).await;
    for index in 1..=10 {
        client.timed(&format!("@key-{index:06}")).await;
    }
    sidecar.signal(rustix::process::Signal::KILL);
    sidecar.ended().await;
    let (mut sidecar, listen, admin) = start(&control, &folder, upstream);
    until_ready(&mut sidecar, admin).await;
    let mut client = Client::connect(listen).await;
    client.timed("@key-000002").await;
    let readiness = Call::get("/readyz").send(admin).await.expect(200).text();
    assert!(readiness.contains(r#""origin":"last_good""#), "{readiness}");

    let before = swaps(admin).await;
    let control = home.start_at("control-plane", control.address).await;
    assert_eq!(control.write("ws-after").await, Written::Acknowledged);
    sidecar.until("told", async || (swaps(admin).await > before).then_some(())).await;
    client.timed("@key-000003").await;
}

fn micros(samples: &mut [Duration]) -> String {
    let mut at = |percent| format!("p{percent} {} us", percentile(samples, percent).as_micros());
    [at(50), at(99), at(100)].join("  ")
}

async fn swaps(admin: SocketAddr) -> u64 {
    let text = Call::get("/metrics").send(admin).await.expect(200).text();
    let line = text.lines().find_map(|line| line.strip_prefix("sidekey_snapshot_loads_total{outcome=\"swapped\"} "));
    line.and_then(|count| count.parse().ok()).expect("a count")
}

/// Virtual keys, each with a key that is sealed to it.
async fn insert(folder: &Path, entities: usize) {
    let identity = fs::read(folder.join("identity")).expect("a file");
    let identities = Identities::parse(std::str::from_utf8(&identity).expect("text")).expect("identities");
    let recipients = Recipients::new(identities.recipients().collect()).expect("somebody");
    let store = Store::open(&Location::File(folder.join("control.db"))).await.expect("a database");
    let organisation = store.organisations().await.expect("organisations").remove(0);
    let mut left = entities;
    while left > 0 {
        let mut write = store.write(&organisation, "measure").await.expect("a write");
        let mut last = None;
        for index in 0..left.min(BATCH) {
            let (id, slug) = (Object::new_id(), format!("key-{:06}", left - index));
            let place = Place { organisation: &organisation, object_id: &id, field: "key" };
            let sealed = recipients.seal(place, &format!("sk-{slug}")).expect("a seal");
            let mut object = Object::new(Kind::VirtualKey, id, slug, "A virtual key".to_owned());
            let key = json!({"$sealed": sealed, "mask": "*****"});
            object.body = json!({"provider": "openai", "integration_id": null, "fields": {"key": key}}).to_string();
            write.insert(&mut object).await.expect("a row");
            last = Some(object);
        }
        write.commit(Change::of(Action::Created, &last.expect("an object"), Vec::new())).await.expect("a commit");
        left -= left.min(BATCH);
    }
    store.close().await;
}

fn start(control: &ControlPlane, folder: &Path, upstream: SocketAddr) -> (Process, SocketAddr, SocketAddr) {
    let file = |name: &str| folder.join(name);
    fs::write(file("data-plane-token"), TOKEN).expect("a file");
    let (listen, admin) = (free_address(), free_address());
    let config = json!({
        "listen": listen, "admin_listen": admin, "upstream": {"url": format!("http://{upstream}")},
        "sealing": {"identity_file": file("identity")}, "log": {"level": "warn"},
        "snapshot": {"last_good_file": file("last-good"), "control_plane": {"url": format!("http://{}", control.address),
            "token_file": file("data-plane-token"), "public_key_file": file("public.pem")}},
    });
    fs::write(file("sidecar.yaml"), config.to_string()).expect("a file");
    let mut sidecar = command(program());
    sidecar.args(["sidecar", "--config"]).arg(file("sidecar.yaml"));
    (Process::start("sidecar", sidecar), listen, admin)
}

async fn until_ready(sidecar: &mut Process, admin: SocketAddr) {
    let is_ready = async || {
        let up = TcpStream::connect(admin).await.is_ok();
        (up && Call::get("/readyz").send(admin).await.status == 200).then_some(())
    };
    sidecar.until("ready", is_ready).await;
}

/// Something that answers everything at once.
async fn upstream() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let answer = service_fn(async |request: Request<hyper::body::Incoming>| {
                let _ = request.into_body().collect().await;
                Ok::<_, Infallible>(Response::new(Full::new(Bytes::from_static(b"{}"))))
            });
            tokio::spawn(hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), answer));
        }
    });
    address
}

// === impl Client ===

impl Client {
    async fn connect(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).await.expect("a connection");
        stream.set_nodelay(true).expect("a connection");
        let (sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.expect("HTTP");
        tokio::spawn(connection);
        Self(sender)
    }

    /// How long a request of this entity takes.
    async fn timed(&mut self, entity: &str) -> Duration {
        let request = Request::post("/v1/chat/completions")
            .header("host", "sidecar")
            .header("x-portkey-provider", entity)
            .header("content-type", "application/json")
            .body(Full::new(Bytes::from_static(br#"{"model": "gpt-4o-mini", "messages": []}"#)))
            .expect("a request");
        let begun = Instant::now();
        self.0.ready().await.expect("a connection");
        let reply = self.0.send_request(request).await.expect("an answer");
        assert_eq!(reply.status(), 200, "{entity}");
        reply.into_body().collect().await.expect("a body");
        begun.elapsed()
    }

    /// One after the other for `time`.
    async fn requests(&mut self, time: Duration) -> Vec<Duration> {
        let (began, mut samples) = (Instant::now(), Vec::new());
        while began.elapsed() < time {
            samples.push(self.timed("@key-000001").await);
        }
        samples
    }
}
