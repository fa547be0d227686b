//! The attacks, and the client beside them. Each attack ends by itself and says what held.

use std::{
    fmt,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};

use futures_util::{StreamExt as _, future::join_all, stream};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpSocket, TcpStream},
    time::{Instant, sleep, timeout},
};

use super::{CONNECTIONS, HEAD_SECS, IN_FLIGHT, STALL_SECS, Stage};
use crate::client::Call;

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// Nothing here waits longer; what does is not bounded.
const FOREVER: Duration = Duration::from_secs(20);
/// How long a flood lasts that is not ended.
const FLOOD: Duration = Duration::from_secs(3);
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const CONTINUATION: u8 = 9;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

/// What a well-behaved client saw.
pub struct Victim {
    times: Vec<Duration>,
    pub longest: Duration,
}

// === impl Victim ===

impl Victim {
    /// A client whose connection is there already: the first of its requests is answered.
    pub async fn begin(address: SocketAddr) -> TcpStream {
        let mut stream = TcpStream::connect(address).await.expect("a connection");
        ask(&mut stream).await;
        stream
    }

    /// Asks again and again over its connection until told to stop.
    pub async fn go_on(mut stream: TcpStream, stop: Arc<AtomicBool>) -> Self {
        let mut times = Vec::new();
        while !stop.load(Relaxed) {
            times.push(ask(&mut stream).await);
            sleep(Duration::from_millis(2)).await;
        }
        times.sort();
        let longest = *times.last().expect("one request");
        Self { times, longest }
    }

    /// What ninety-nine of a hundred requests took at most.
    pub fn usual(&self) -> Duration {
        self.at(99)
    }

    fn at(&self, percent: usize) -> Duration {
        self.times[(self.times.len() - 1) * percent / 100]
    }
}

impl fmt::Display for Victim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let at = |percent: usize| self.at(percent).as_secs_f64() * 1e3;
        write!(f, "{:.1}, {:.1}, {:.1}", at(50), at(99), at(100))
    }
}

/// One request of it, and how long it took.
async fn ask(stream: &mut TcpStream) -> Duration {
    let asked = Instant::now();
    stream.write_all(b"GET /v1/models HTTP/1.1\r\nhost: s\r\n\r\n").await.expect("it is kept");
    let answer = until(stream, b"true}").await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    asked.elapsed()
}

// === the attacks ===

pub async fn many_connections(stage: &Stage) -> String {
    let mut open = Vec::new();
    for _ in 0..600 {
        open.push(TcpStream::connect(stage.sidekey.address).await.expect("the kernel takes it"));
    }
    // Few at once: it is about connections, and more requests than there are places for would be told 503 as well.
    let asking = stream::iter(open.into_iter().map(async |mut stream| {
        stream.write_all(b"GET /v1/models HTTP/1.1\r\nhost: s\r\n\r\n").await.ok();
        let answer = timeout(Duration::from_secs(5), until(&mut stream, b"}")).await.unwrap_or_default();
        (answer, stream)
    }));
    let answers: Vec<_> = asking.buffer_unordered(IN_FLIGHT / 2).collect().await;
    let count = |status: &str| answers.iter().filter(|(answer, _)| answer.starts_with(status)).count();
    let (served, told) = (count("HTTP/1.1 200"), count("HTTP/1.1 503"));
    assert!(served < CONNECTIONS && served + told <= 600 && told > 0, "{served} served, {told} told");
    format!("`max_connections`: {served} served, {told} told 503")
}

pub async fn slow_heads(stage: &Stage) -> String {
    trickled(stage, "GET /v1/models HTTP/1.1\r\nx-a: ", 150, "HTTP/1.1 408", "`head_timeout_secs`").await
}

pub async fn slow_bodies(stage: &Stage) -> String {
    let head = "POST /v1/embeddings HTTP/1.1\r\nhost: s\r\ncontent-type: application/json\r\ncontent-length: 99999\r\n\r\n{\"a\":\"";
    trickled(stage, head, IN_FLIGHT - 20, "HTTP/1.1 408", "`head_timeout_secs`").await
}

pub async fn large_heads(stage: &Stage) -> String {
    let head = format!("GET /v1/models HTTP/1.1\r\nhost: s\r\nx-a: {}\r\n\r\n", "x".repeat(1 << 20));
    let ended = join_all((0..50).map(async |_| {
        let mut stream = TcpStream::connect(stage.sidekey.address).await.expect("a connection");
        let _ = stream.write_all(head.as_bytes()).await;
        let answer = rest(&mut stream).await;
        assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 431"), "{answer}");
    }));
    timeout(FOREVER, ended).await.expect("each is ended");
    "`max_head_bytes`: 431, closed".to_owned()
}

pub async fn stopped_bodies(stage: &Stage) -> String {
    let head = "POST /v1/files HTTP/1.1\r\nhost: s\r\ncontent-length: 99999\r\n\r\nabc";
    let times = join_all((0..IN_FLIGHT - 20).map(async |_| {
        let began = Instant::now();
        let mut stream = TcpStream::connect(stage.sidekey.address).await.expect("a connection");
        stream.write_all(head.as_bytes()).await.expect("it is taken");
        let answer = rest(&mut stream).await;
        assert!(answer.starts_with("HTTP/1.1 408"), "{answer}");
        began.elapsed()
    }));
    ended(times.await, Duration::from_secs(STALL_SECS), "`stall_timeout_secs`: 408")
}

pub async fn held_bodies(stage: &Stage) -> String {
    let part = format!("{{\"a\":\"{}", "x".repeat(900 << 10));
    let head =
        "POST /v1/embeddings HTTP/1.1\r\nhost: s\r\ncontent-type: application/json\r\ncontent-length: 9999999\r\n\r\n";
    let times = join_all((0..60).map(async |_| {
        let mut stream = TcpStream::connect(stage.sidekey.address).await.expect("a connection");
        stream.write_all(head.as_bytes()).await.expect("it is taken");
        stream.write_all(part.as_bytes()).await.expect("it is taken");
        let began = Instant::now();
        let answer = rest(&mut stream).await;
        assert!(answer.starts_with("HTTP/1.1 408"), "{answer}");
        began.elapsed()
    }));
    ended(times.await, Duration::from_secs(HEAD_SECS), "`model_peek_bytes`, `head_timeout_secs`: 408")
}

pub async fn deaf_readers(stage: &Stage) -> String {
    let began = Instant::now();
    let mut open = Vec::new();
    for _ in 0..IN_FLIGHT - 20 {
        let socket = TcpSocket::new_v4().expect("a socket");
        socket.set_recv_buffer_size(4096).expect("a small buffer");
        let mut stream = socket.connect(stage.sidekey.address).await.expect("a connection");
        stream.write_all(b"GET /v1/endless HTTP/1.1\r\nhost: s\r\n\r\n").await.expect("it is taken");
        open.push(stream);
    }
    sleep(Duration::from_secs(1)).await;
    let after = stage.gateway_is_left(began).await;
    format!("`stall_timeout_secs`: cut after {after:.1} s")
}

pub async fn no_window(stage: &Stage) -> String {
    let began = Instant::now();
    // SETTINGS_INITIAL_WINDOW_SIZE = 0.
    let mut stream = http2(stage, &[0, 4, 0, 0, 0, 0]).await;
    for number in 0..u32::try_from(IN_FLIGHT - 20).expect("a few") {
        stream.write_all(&get("/v1/endless", number * 2 + 1, true)).await.expect("it is taken");
    }
    sleep(Duration::from_secs(1)).await;
    let after = stage.gateway_is_left(began).await;
    format!("`stall_timeout_secs`: reset after {after:.1} s")
}

pub async fn rapid_reset(stage: &Stage) -> String {
    let before = stage.reached.load(Relaxed);
    let mut stream = http2(stage, &[]).await;
    let mut sent = 0;
    for number in 0..20_000_u32 {
        let id = number * 2 + 1;
        let mut both = get("/v1/silent", id, true);
        both.extend(frame(RST_STREAM, 0, id, &8_u32.to_be_bytes()));
        if stream.write_all(&both).await.is_err() {
            break;
        }
        sent += 1;
    }
    closed(&mut stream).await;
    let reached = stage.reached.load(Relaxed) - before;
    assert!(reached < 2000, "{reached} requests reached the gateway, those of the others included");
    format!("32 resets at once, or 100 requests taken back: closed, {sent} streams sent")
}

pub async fn continuation(stage: &Stage) -> String {
    let mut stream = http2(stage, &[]).await;
    stream.write_all(&frame(HEADERS, 0, 1, &head("/v1/models"))).await.expect("it is taken");
    // Literal headers without indexing, `a: xxx…`.
    let mut field = vec![0, 1, b'a', 0x7f, 0xc1, 0x7d];
    field.extend([b'x'; 16_192]);
    let piece = frame(CONTINUATION, 0, 1, &field);
    let mut sent = 0;
    while sent < 64 << 20 && timeout(FOREVER, stream.write_all(&piece)).await.expect("it is read").is_ok() {
        sent += piece.len();
    }
    assert!(sent < 64 << 20, "closed before the end");
    "list of headers: closed".to_owned()
}

pub async fn pings(stage: &Stage) -> String {
    flood(stage, &frame(PING, 0, 0, &[7; 8])).await
}

pub async fn settings(stage: &Stage) -> String {
    flood(stage, &frame(SETTINGS, 0, 0, &[])).await
}

pub async fn empty_data(stage: &Stage) -> String {
    let mut stream = http2(stage, &[]).await;
    stream.write_all(&get("/v1/silent", 1, false)).await.expect("it is taken");
    pour(&mut stream, &frame(DATA, 0, 1, &[])).await
}

pub async fn sessions(stage: &Stage) -> String {
    let head = "GET /v1/session HTTP/1.1\r\nhost: s\r\nconnection: upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\n\
                sec-websocket-key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n";
    let times = join_all((0..20).map(async |_| {
        let mut stream = TcpStream::connect(stage.sidekey.address).await.expect("a connection");
        stream.write_all(head.as_bytes()).await.expect("it is taken");
        let answer = until(&mut stream, b"\r\n\r\n").await;
        assert!(answer.starts_with("HTTP/1.1 101"), "{answer}");
        let began = Instant::now();
        rest(&mut stream).await;
        began.elapsed()
    }));
    ended(times.await, Duration::from_secs(super::SESSION_SECS), "`session_max_secs`: closed")
}

pub async fn slow_manager(stage: &Stage) -> String {
    let call = || Call::chat("gpt-4o", "ping").header("x-portkey-provider", "@slow");
    let replies = join_all((0..IN_FLIGHT - 20).map(|_| call().send(stage.sidekey.address))).await;
    let count = |code: &str| replies.iter().filter(|reply| reply.header("x-sidekey-error") == code).count();
    let (shed, late) = (count("overloaded"), replies.iter().filter(|reply| reply.status == 504).count());
    assert!(late > 0 && late <= IN_FLIGHT / 4 && late + shed == replies.len(), "{late} waited, {shed} shed");
    format!("a quarter of `max_in_flight`: {late} waited, {shed} told 503")
}

/// 400 requests of one connection that are answered and do not end: all places are taken.
pub async fn many_requests(stage: &Stage) -> String {
    let mut stream = http2(stage, &[]).await;
    for number in 0..400_u32 {
        stream.write_all(&get("/v1/silent", number * 2 + 1, true)).await.expect("it is taken");
    }
    while stage.sidekey.metric("sidekey_requests_in_flight").await < IN_FLIGHT as u64 {
        sleep(Duration::from_millis(20)).await;
    }
    let reply = Call::get("/v1/models").send(stage.sidekey.address).await.expect(503);
    let told = (reply.header("x-sidekey-error"), reply.header("retry-after"));
    assert_eq!(told, ("overloaded".to_owned(), "1".to_owned()));
    Call::get("/healthz").send(stage.sidekey.admin).await.expect(200);
    Call::get("/readyz").send(stage.sidekey.admin).await.expect(200);
    let refused = stage.sidekey.metric("sidekey_requests_total{code=\"overloaded\",mode=\"none\"}").await;
    format!("`max_in_flight`: {IN_FLIGHT} run, {refused} told 503 so far; probes answer")
}

// === means ===

/// `count` connections that send `head` and then a byte now and then, until they are answered with `status`.
async fn trickled(stage: &Stage, head: &str, count: usize, status: &str, bound: &str) -> String {
    let times = join_all((0..count).map(async |_| {
        let began = Instant::now();
        let mut stream = TcpStream::connect(stage.sidekey.address).await.expect("a connection");
        stream.write_all(head.as_bytes()).await.expect("it is taken");
        let (mut read, mut write) = stream.split();
        let mut answer = Vec::new();
        loop {
            tokio::select! {
                got = read.read_buf(&mut answer) => match got {
                    Ok(0) | Err(_) => break,
                    Ok(_) => {}
                },
                () = sleep(Duration::from_millis(100)) => {
                    let _ = write.write_all(b"x").await;
                }
            }
            assert!(began.elapsed() < FOREVER, "it has no end");
        }
        let answer = String::from_utf8_lossy(&answer);
        assert!(answer.starts_with(status), "{answer}");
        began.elapsed()
    }));
    ended(times.await, Duration::from_secs(HEAD_SECS), &format!("{bound}: 408"))
}

/// Nobody was ended before `bound`, nor long after.
fn ended(times: Vec<Duration>, bound: Duration, what: &str) -> String {
    let (first, last) = (times.iter().min().expect("some"), times.iter().max().expect("some"));
    assert!(
        *first + Duration::from_millis(200) > bound && *last < bound * 3 + Duration::from_secs(3),
        "{first:?} to {last:?}"
    );
    format!("{what} after {:.1} to {:.1} s", first.as_secs_f32(), last.as_secs_f32())
}

/// The same frame again and again, by a client that reads nothing.
async fn flood(stage: &Stage, frame: &[u8]) -> String {
    let mut stream = http2(stage, &[]).await;
    pour(&mut stream, frame).await
}

async fn pour(stream: &mut TcpStream, frame: &[u8]) -> String {
    let (began, many, mut sent) = (Instant::now(), frame.repeat(100), 0);
    while began.elapsed() < FLOOD {
        match timeout(FOREVER, stream.write_all(&many)).await.expect("it is read, or ended") {
            Ok(()) => sent += 100,
            Err(_) => return format!("closed after {sent} frames, {:.1} s", began.elapsed().as_secs_f32()),
        }
    }
    let each = sent / usize::try_from(FLOOD.as_secs()).expect("a few");
    format!("read as they come and forgotten, {each} a second")
}

async fn http2(stage: &Stage, settings: &[u8]) -> TcpStream {
    let mut stream = TcpStream::connect(stage.sidekey.address).await.expect("a connection");
    stream.write_all(PREFACE).await.expect("it is taken");
    stream.write_all(&frame(SETTINGS, 0, 0, settings)).await.expect("it is taken");
    stream
}

fn get(path: &str, stream: u32, ends: bool) -> Vec<u8> {
    frame(HEADERS, END_HEADERS | if ends { END_STREAM } else { 0 }, stream, &head(path))
}

/// HPACK: indexed `:method: GET` and `:scheme: http`, `:path` and `:authority` as literals that are not kept.
fn head(path: &str) -> Vec<u8> {
    let mut head = vec![0x82, 0x86, 0x04, u8::try_from(path.len()).expect("a short path")];
    head.extend(path.as_bytes());
    head.extend([0x01, 1, b's']);
    head
}

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).expect("a frame").to_be_bytes();
    let mut frame = vec![length[1], length[2], length[3], kind, flags];
    frame.extend(stream.to_be_bytes());
    frame.extend(payload);
    frame
}

async fn closed(stream: &mut TcpStream) {
    let mut sink = [0; 16 * 1024];
    let end = async { while stream.read(&mut sink).await.is_ok_and(|got| got > 0) {} };
    timeout(FOREVER, end).await.expect("it is closed");
}

async fn rest(stream: &mut TcpStream) -> String {
    let mut answer = Vec::new();
    let end = async { while stream.read_buf(&mut answer).await.is_ok_and(|got| got > 0) {} };
    timeout(FOREVER, end).await.expect("it is ended");
    String::from_utf8_lossy(&answer).into_owned()
}

/// Reads up to `end`, or to where the connection ends.
async fn until(stream: &mut TcpStream, end: &[u8]) -> String {
    let mut answer = Vec::new();
    while !answer.windows(end.len()).any(|window| window == end) {
        match stream.read_buf(&mut answer).await {
            Ok(0) | Err(_) => break,
            Ok(_) => {}
        }
    }
    String::from_utf8_lossy(&answer).into_owned()
}
