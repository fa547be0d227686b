//! A connection's times and ends, on a paused clock.

use std::{cell::Cell, sync::Arc};

use tokio::{
    sync::{Semaphore, oneshot},
    time::{advance, sleep},
};

use super::*;
use crate::metric::Metrics;

const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
const STALL: Duration = Duration::from_secs(60);

/// Ends when told to, and remembers whether it was asked to finish.
struct Fake<'a> {
    asked: &'a Cell<bool>,
    end: oneshot::Receiver<()>,
}

impl Future for Fake<'_> {
    type Output = hyper::Result<()>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.end).poll(cx).map(|_| Ok(()))
    }
}

impl Connection for Fake<'_> {
    fn finish(self: Pin<&mut Self>) {
        self.asked.set(true);
    }
}

fn activity() -> Arc<Activity> {
    let permit = Arc::new(Semaphore::new(1)).try_acquire_owned().unwrap();
    Activity::new(Arc::new(Metrics::new()), permit, 8)
}

/// Runs a connection and what happens to it side by side; returns how it ended, when, and whether it was asked to finish.
async fn drive(happens: impl AsyncFnOnce(&Arc<Activity>, &CancellationToken, &CancellationToken)) -> (End, u64, bool) {
    let (activity, closing, cut) = (activity(), CancellationToken::new(), CancellationToken::new());
    let driver =
        Driver { activity: &activity, head_timeout: HEAD_TIMEOUT, stall_timeout: STALL, closing: &closing, cut: &cut };
    let asked = Cell::new(false);
    let (_open, end) = oneshot::channel();
    let mut connection = Fake { asked: &asked, end };
    let began = Instant::now();
    let (end, ()) = tokio::join!(driver.run(Pin::new(&mut connection)), happens(&activity, &closing, &cut));
    (end, began.elapsed().as_secs(), asked.get())
}

#[tokio::test(start_paused = true)]
async fn an_idle_connection_is_asked_to_finish_and_then_not_waited_for() {
    let ended = drive(async |_, _, _| {}).await;
    assert_eq!(ended, (End::Cut, IDLE.as_secs() + HEAD_TIMEOUT.as_secs(), true));
}

#[tokio::test(start_paused = true)]
async fn a_head_has_its_time_from_its_first_byte() {
    let ended = drive(async |activity, _, _| {
        advance(Duration::from_secs(60)).await;
        activity.received();
        advance(Duration::from_secs(9)).await;
        activity.received();
    })
    .await;
    // The first byte came when nothing polled the connection; a real one is polled with every byte.
    assert_eq!(ended.0, End::HeadTimeout);
    assert!(!ended.2 && ended.1 >= 70, "{ended:?}");
}

#[tokio::test(start_paused = true)]
async fn a_running_request_is_waited_for_and_idleness_begins_after_it() {
    let ended = drive(async |activity, _, _| {
        activity.received();
        let running = activity.begin();
        advance(Duration::from_secs(3600)).await;
        drop(running);
    })
    .await;
    assert_eq!(ended, (End::Cut, 3600 + IDLE.as_secs() + HEAD_TIMEOUT.as_secs(), true));
}

#[tokio::test(start_paused = true)]
async fn closing_asks_once_and_cutting_does_not_ask() {
    let (end, seconds, asked) = drive(async |activity, closing, cut| {
        let _running = activity.begin();
        closing.cancel();
        tokio::task::yield_now().await;
        advance(Duration::from_secs(25)).await;
        cut.cancel();
    })
    .await;
    assert_eq!((end, seconds, asked), (End::Cut, 25, true));
    assert_eq!(drive(async |_, _, cut| cut.cancel()).await, (End::Cut, 0, false));
}

#[tokio::test(start_paused = true)]
async fn a_client_that_takes_nothing_is_cut_and_one_that_takes_a_little_is_not() {
    let ended = drive(async |activity, _, _| {
        let _running = activity.begin();
        for _ in 0..10 {
            activity.wrote(false);
            sleep(Duration::from_secs(59)).await;
            activity.wrote(true);
        }
        activity.wrote(false);
        let since = Instant::now();
        activity.wrote(false);
        assert_eq!(activity.stalled_since(), Some(since), "not counted anew");
        sleep(Duration::from_secs(100)).await;
    })
    .await;
    assert_eq!((ended.0, ended.2), (End::Cut, false));
}

#[tokio::test(start_paused = true)]
async fn a_client_that_takes_back_its_requests_is_cut() {
    let answered = |activity: &Arc<Activity>| activity.begin().answered();
    let patient = drive(async |activity, _, cut| {
        for _ in 0..10 * TAKEN_BACK {
            drop(activity.begin());
            answered(activity);
        }
        assert_eq!(activity.taken_back(), 0);
        advance(Duration::from_secs(60)).await;
        cut.cancel();
    });
    assert_eq!(patient.await.1, 60);
    let (end, seconds, _) = drive(async |activity, _, _| {
        (0..=TAKEN_BACK).for_each(|_| drop(activity.begin()));
    })
    .await;
    // Looked at when the watchdog does: nothing else polls this one.
    assert!(end == End::Cut && seconds <= HEAD_TIMEOUT.as_secs(), "{seconds}");
}

#[tokio::test(start_paused = true)]
async fn requests_beyond_the_limit_are_not_admitted_and_not_counted() {
    let activity = activity();
    let mut running: Vec<_> = (0..10).map(|_| activity.begin()).collect();
    assert_eq!(running.iter().filter(|request| request.is_admitted()).count(), 8);
    assert!(!running[8].is_admitted());
    running.pop();
    assert!(!activity.begin().is_admitted());
    running.remove(0);
    assert!(activity.begin().is_admitted());
}
