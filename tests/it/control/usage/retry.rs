//! Between sidecar and control plane stands what loses requests and answers: what was used is counted once, whatever is lost.

use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};

use http::Method;
use serde_json::Value;
use tokio::{task::JoinHandle, time::Instant};
use tokio_util::sync::CancellationToken;

use super::{Sidecar, stage};
use crate::{
    control::stage::Stage,
    harness::{Call, Raw, Wire, within},
};

/// How often reports are told here.
const EVERY: Duration = Duration::from_millis(10);

/// What becomes of one report.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    /// It arrives, and so does its answer.
    Delivered,
    /// The control plane counts it, and the connection breaks before its answer.
    AnswerLost,
    /// The control plane counts it, and somebody between them answers with this status.
    AnswerReplaced(u16),
    /// The control plane counts it, and nobody ever answers.
    AnswerWithheld,
    /// The connection breaks before it has arrived.
    RequestLost,
    /// The connection breaks in the middle of it.
    RequestCut,
    /// It is answered with this status, and counted by nobody.
    Refused(u16),
}

/// Passes reports on, or not.
struct Relay {
    address: SocketAddr,
    /// Every report that came, counted or not.
    seen: Arc<Mutex<Vec<Value>>>,
    task: JoinHandle<()>,
}

impl Relay {
    /// To the control plane at `to`; the report `n` has the fate `fate(n)`.
    async fn to(to: SocketAddr, fate: impl Fn(usize) -> Fate + Send + 'static) -> Self {
        let raw = Raw::bind().await;
        let (address, seen) = (raw.address, Arc::new(Mutex::new(Vec::new())));
        let told = Arc::clone(&seen);
        let task = tokio::spawn(async move {
            let mut withheld = Vec::new();
            for n in 0.. {
                let mut wire = raw.accept().await;
                withheld.extend(pass_on(&mut wire, to, fate(n), &told).await.then_some(wire));
            }
        });
        Self { address, seen, task }
    }

    /// Sequence numbers of the reports that came.
    fn sequences(&self) -> Vec<i64> {
        self.seen.lock().unwrap().iter().map(|report| report["sequence"].as_i64().unwrap()).collect()
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Whether the connection stays open.
async fn pass_on(wire: &mut Wire, to: SocketAddr, fate: Fate, seen: &Mutex<Vec<Value>>) -> bool {
    let head = wire.head().await;
    let field = |name: &str| {
        let line = head.lines().find_map(|line| line.strip_prefix(name));
        line.unwrap_or_else(|| panic!("no {name} in {head}")).trim().to_owned()
    };
    let length: usize = field("content-length:").parse().unwrap();
    if fate == Fate::RequestCut {
        return false;
    }
    let body: Value = serde_json::from_slice(&wire.take(length).await).unwrap();
    seen.lock().unwrap().push(body.clone());
    let arrives = !matches!(fate, Fate::RequestLost | Fate::Refused(_));
    let mut status = 0;
    if arrives {
        let call = Call::to(to, Method::POST, "/v1/usage").header("authorization", &field("authorization:"));
        status = call.json(&body).send().await.status;
        assert_eq!(status, 200);
    }
    match fate {
        Fate::Delivered => {}
        Fate::AnswerReplaced(other) | Fate::Refused(other) => status = other,
        Fate::AnswerLost | Fate::RequestLost | Fate::RequestCut => return false,
        Fate::AnswerWithheld => return true,
    }
    wire.send(format!("HTTP/1.1 {status} x\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")).await;
    false
}

/// A sidecar whose reports go through `relay`, until it is ended.
struct Running {
    sidecar: Arc<Sidecar>,
    end: CancellationToken,
    task: JoinHandle<()>,
}

impl Running {
    fn start(sidecar: Arc<Sidecar>, stage: &Stage, relay: &Relay) -> Self {
        let end = CancellationToken::new();
        let (reporter, until) = (sidecar.reporter(stage, relay.address), end.clone());
        let clients = Arc::clone(&sidecar.clients);
        let task = tokio::spawn(async move { clients.report(reporter, until).await });
        Self { sidecar, end, task }
    }

    async fn until(&self, what: impl Fn(&Sidecar) -> bool) {
        within(async {
            while !what(&self.sidecar) {
                tokio::task::yield_now().await;
            }
        })
        .await;
    }

    async fn end(self) {
        self.end.cancel();
        within(self.task).await.unwrap();
    }
}

async fn counted(stage: &Stage, sidecar: &Sidecar) -> (u64, f64) {
    let read = sidecar.shown(stage).await;
    (read["usage"][0]["requests"].as_u64().unwrap(), read["usage"][0]["used"].as_f64().unwrap())
}

#[tokio::test]
async fn a_report_is_told_until_it_is_acknowledged_and_counted_once() {
    let fates = [
        Fate::AnswerLost,
        Fate::RequestLost,
        Fate::RequestCut,
        Fate::AnswerReplaced(502),
        Fate::AnswerReplaced(504),
        Fate::Refused(500),
        Fate::Refused(503),
        Fate::Refused(429),
        Fate::Refused(401),
        Fate::Refused(404),
    ];
    let stage = stage().await;
    for fate in fates {
        let relay = Relay::to(stage.control.address(), move |n| if n < 2 { fate } else { Fate::Delivered }).await;
        let sidecar = Arc::new(Sidecar::of(&stage, EVERY).await);
        sidecar.spend(100_000).await;
        let running = Running::start(Arc::clone(&sidecar), &stage, &relay);
        running.until(|sidecar| sidecar.reports("failed") == 1).await;
        // Meanwhile there is more to tell: it is of the next report.
        sidecar.spend(100_000).await;
        running.until(|sidecar| sidecar.reports("delivered") == 2).await;
        assert_eq!(counted(&stage, &sidecar).await, (2, 2.0), "{fate:?}");
        running.end().await;
        assert_eq!(counted(&stage, &sidecar).await, (2, 2.0), "{fate:?}: after the end");
        let outcomes = ["delivered", "failed", "refused"].map(|outcome| sidecar.reports(outcome));
        assert_eq!(outcomes, [2, 2, 0], "{fate:?}");
        let seen = relay.seen.lock().unwrap().clone();
        let [again @ .., last] = &*seen else { panic!("{seen:?}") };
        assert!(
            again.iter().all(|report| *report == again[0]),
            "{fate:?}: it is the same that is told again: {seen:?}"
        );
        assert_eq!((&again[0]["sequence"], &last["sequence"]), (&1.into(), &2.into()), "{fate:?}");
    }
    let told = stage.log.text().matches("cannot be told what is used").count();
    assert_eq!(told, fates.len(), "an outage is one line");
}

/// It would be refused for ever, and nothing after it would be told.
#[tokio::test]
async fn a_report_that_cannot_be_read_is_lost_and_said_so() {
    let stage = stage().await;
    let relay = Relay::to(stage.control.address(), |n| if n == 0 { Fate::Refused(400) } else { Fate::Delivered }).await;
    let sidecar = Arc::new(Sidecar::of(&stage, EVERY).await);
    sidecar.spend(100_000).await;
    let running = Running::start(Arc::clone(&sidecar), &stage, &relay);
    running.until(|sidecar| sidecar.reports("refused") == 1).await;
    sidecar.spend(200_000).await;
    running.end().await;
    assert_eq!(counted(&stage, &sidecar).await, (1, 2.0));
    assert!(stage.log.text().contains("A report of what is used is lost."));
}

/// Six reports of seven are lost in one way or another, while requests go on; the process ends, and another one goes on.
#[tokio::test]
async fn nothing_is_lost_or_counted_twice_in_a_storm() {
    let storm = [
        Fate::AnswerLost,
        Fate::RequestLost,
        Fate::AnswerReplaced(502),
        Fate::RequestCut,
        Fate::Refused(503),
        Fate::AnswerLost,
        Fate::Delivered,
    ];
    let stage = stage().await;
    let storms = Arc::new(AtomicBool::new(true));
    let raging = Arc::clone(&storms);
    let fate = move |n: usize| if raging.load(Relaxed) { storm[n % storm.len()] } else { Fate::Delivered };
    let relay = Relay::to(stage.control.address(), fate).await;
    let mut sidecar = Arc::new(Sidecar::of(&stage, Duration::from_millis(1)).await);
    let mut spent = 0;
    for _ in 0..3 {
        storms.store(true, Relaxed);
        let running = Running::start(Arc::clone(&sidecar), &stage, &relay);
        for round in 1..=40 {
            for _ in 0..3 {
                sidecar.spend(1_000).await;
                spent += 1;
            }
            running.until(|sidecar| sidecar.reports("failed") + sidecar.reports("delivered") >= round).await;
        }
        assert!(sidecar.reports("failed") >= 20, "{} failed", sidecar.reports("failed"));
        // What is pending at the end is told once more, and no longer.
        storms.store(false, Relaxed);
        running.end().await;
        sidecar = Arc::new(sidecar.restarted());
    }
    let (requests, used) = counted(&stage, &sidecar).await;
    assert_eq!((requests, (used * 100.0).round()), (spent, spent as f64), "{:?}", relay.sequences());
}

/// The process ends while an answer does not come: what is pending is told once more, and there is a bound to all of it.
#[tokio::test]
async fn the_end_waits_for_no_answer_and_tells_once_more() {
    let stage = stage().await;
    for (fate, delivered) in [(Fate::AnswerWithheld, 1), (Fate::Delivered, 2)] {
        let relay = Relay::to(stage.control.address(), move |n| if n == 0 { Fate::AnswerWithheld } else { fate }).await;
        let sidecar = Arc::new(Sidecar::of(&stage, EVERY).await);
        sidecar.spend(100_000).await;
        let running = Running::start(Arc::clone(&sidecar), &stage, &relay);
        within(async {
            while relay.sequences().is_empty() {
                tokio::task::yield_now().await;
            }
        })
        .await;
        sidecar.spend(100_000).await;
        let began = Instant::now();
        running.end().await;
        assert!(began.elapsed() < Duration::from_secs(3), "{:?}", began.elapsed());
        assert_eq!(counted(&stage, &sidecar).await.0, delivered, "{fate:?}: {:?}", relay.sequences());
    }
}
