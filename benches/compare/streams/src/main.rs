//! A source of server-sent events that stamps each chunk, and clients that read many streams at once and see how late chunks are.
//!
//! ```text
//! streams serve PORT                                  a chunk every 100 ms on every stream, until the client leaves
//! streams load URL STREAMS SECONDS [--header 'n: v']  one JSON line: chunks, p50_ms, p99_ms, p999_ms, first_ms, failed
//! ```
//!
//! Built and used by `benches/compare`; both run on one machine, so one clock stamps and reads. HTTP/1.1 is written and scanned by hand: what is
//! measured stands between, and a client library would be most of the load.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU8, AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::JoinSet,
    time::{Instant, interval, sleep, timeout},
};

const INTERVAL: Duration = Duration::from_millis(100);
/// Streams of a load start spread over this time, so that their chunks do not come at once.
const RAMP: Duration = Duration::from_millis(1000);
/// What a load does: it starts its streams, then counts chunks, then ends.
const STARTING: u8 = 0;
const COUNTING: u8 = 1;
const OVER: u8 = 2;
const STAMP: &[u8] = b"\"at\":";

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        ["serve", port] => runtime.block_on(serve(port.parse().expect("PORT is a number"))),
        ["load", url, streams, seconds, headers @ ..] => {
            let headers = headers.chunks(2).map(|pair| format!("{}\r\n", pair[1])).collect::<String>();
            runtime.block_on(load(url, streams.parse().unwrap(), seconds.parse().unwrap(), &headers));
        }
        _ => panic!("streams serve PORT, or streams load URL STREAMS SECONDS [--header 'n: v']"),
    }
}

async fn serve(port: u16) {
    let listener = TcpListener::bind(("127.0.0.1", port)).await.unwrap();
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        tokio::spawn(async move {
            // A client that leaves is how every stream ends.
            let _ = emit(stream).await;
        });
    }
}

async fn emit(mut stream: TcpStream) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let mut head = Vec::with_capacity(2048);
    while !head.windows(4).any(|window| window == b"\r\n\r\n") {
        if stream.read_buf(&mut head).await? == 0 {
            return Ok(());
        }
    }
    stream
        .write_all(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n")
        .await?;
    let mut ticks = interval(INTERVAL);
    let mut ignored = [0; 1024];
    loop {
        tokio::select! {
            _ = ticks.tick() => {
                let event = format!(
                    "data: {{\"at\":{:020},\"choices\":[{{\"index\":0,\"delta\":{{\"content\":\" word\"}},\"finish_reason\":null}}]}}\n\n",
                    now_ns()
                );
                stream.write_all(format!("{:x}\r\n{event}\r\n", event.len()).as_bytes()).await?;
            }
            read = stream.read(&mut ignored) => if read? == 0 { return Ok(()) },
        }
    }
}

async fn load(url: &str, streams: u32, seconds: u64, headers: &str) {
    let rest = url.strip_prefix("http://").expect("clear text only");
    let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
    let body = r#"{"model":"gpt-4o-mini","stream":true,"messages":[{"role":"user","content":"hello"}]}"#;
    let request: Arc<str> = format!(
        "POST /{path} HTTP/1.1\r\nhost: {authority}\r\ncontent-type: application/json\r\ncontent-length: {}\r\n{headers}\r\n{body}",
        body.len()
    )
    .into();
    let (phase, failed) = (Arc::new(AtomicU8::new(STARTING)), Arc::new(AtomicU64::new(0)));
    let mut readers = JoinSet::new();
    for number in 0..streams {
        let (authority, request) = (authority.to_owned(), request.clone());
        let (phase, failed) = (phase.clone(), failed.clone());
        readers.spawn(async move {
            sleep(RAMP * number / streams).await;
            let mut late = Vec::new();
            let first = read(&authority, &request, &phase, &mut late).await;
            failed.fetch_add(u64::from(first.is_err()), Relaxed);
            (first.unwrap_or_default(), late)
        });
    }
    sleep(RAMP + INTERVAL * 5).await;
    phase.store(COUNTING, Relaxed);
    let started = Instant::now();
    sleep(Duration::from_secs(seconds)).await;
    phase.store(OVER, Relaxed);
    let took = started.elapsed();

    let (mut firsts, mut late) = (Vec::new(), Vec::new());
    while let Some(ended) = readers.join_next().await {
        let (first, of_stream) = ended.unwrap();
        firsts.push(first);
        late.extend(of_stream);
    }
    let count = late.len();
    let [p50, p99, p999] = [0.5, 0.99, 0.999].map(|share| percentile(&mut late, share));
    println!(
        "{{\"chunks\":{count},\"chunks_per_second\":{:.0},\"p50_ms\":{p50:.4},\"p99_ms\":{p99:.4},\"p999_ms\":{p999:.4},\
         \"first_ms\":{:.4},\"failed\":{}}}",
        f64::from(u32::try_from(count).unwrap()) / took.as_secs_f64(),
        percentile(&mut firsts, 0.5),
        failed.load(Relaxed)
    );
}

/// Reads one stream until the load is over; answers the nanoseconds until its first chunk.
async fn read(authority: &str, request: &str, phase: &AtomicU8, late: &mut Vec<u64>) -> std::io::Result<u64> {
    let mut stream = TcpStream::connect(authority).await?;
    stream.set_nodelay(true)?;
    let asked = now_ns();
    stream.write_all(request.as_bytes()).await?;
    let (mut buffer, mut first) = (Vec::with_capacity(4096), None);
    loop {
        let read = timeout(Duration::from_secs(20), stream.read_buf(&mut buffer)).await??;
        let now = now_ns();
        if read == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        if first.is_none() && !buffer.starts_with(b"HTTP/1.1 200") {
            return Err(std::io::Error::other("not a success"));
        }
        let mut from = 0;
        while let Some(at) = memchr::memmem::find(&buffer[from..], STAMP) {
            let Some(digits) = buffer.get(from + at + STAMP.len()..from + at + STAMP.len() + 20) else { break };
            let sent: u64 = std::str::from_utf8(digits).unwrap().parse().unwrap();
            first.get_or_insert(now - asked);
            if phase.load(Relaxed) == COUNTING {
                late.push(now.saturating_sub(sent));
            }
            from += at + STAMP.len() + 20;
        }
        buffer.drain(..from);
        if let Some(first) = first
            && phase.load(Relaxed) == OVER
        {
            return Ok(first);
        }
    }
}

/// In milliseconds.
fn percentile(values: &mut [u64], share: f64) -> f64 {
    values.sort_unstable();
    let index = ((values.len() as f64 * share) as usize).min(values.len().saturating_sub(1));
    values.get(index).map_or(0.0, |ns| *ns as f64 / 1e6)
}

fn now_ns() -> u64 {
    u64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos()).unwrap()
}
