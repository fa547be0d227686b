//! Runs one connection to its end, and decides when that has come.
//!
//! The codec's own head timer would also cut idle connections, so that a time fit for heads would break clients that keep
//! connections. Here a head is timed from its first byte, and an idle connection has [`IDLE`].

use std::{
    future::{Future, poll_fn},
    pin::{Pin, pin},
    task::{Context, Poll},
    time::Duration,
};

use tokio::time::{Instant, Sleep};
use tokio_util::sync::CancellationToken;
use tracing::debug;

use crate::proxy::activity::{Activity, Waiting};

/// Longer than what load balancers and SDKs keep idle connections for (60 to 90 s), so that they close first.
pub const IDLE: Duration = Duration::from_secs(120);
/// Requests that a client may take back before they are answered, beyond those that it lets be answered: each has a connection
/// to the gateway opened and closed (CVE-2023-44487, in front of a gateway that speaks HTTP/1.1).
const TAKEN_BACK: usize = 100;

/// How the service of a connection is driven to its end.
#[derive(Debug)]
pub struct Driver<'a> {
    /// Whom to ask what is waited for.
    pub activity: &'a Activity,
    /// Longest time from the first to the last byte of a head.
    pub head_timeout: Duration,
    /// Longest time in which the client takes nothing while bytes wait for it.
    pub stall_timeout: Duration,
    /// Finish what runs, then close.
    pub closing: &'a CancellationToken,
    /// Close.
    pub cut: &'a CancellationToken,
}

/// How it ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// By itself, whether well or not.
    Finished,
    /// A head was not complete in time; a reply can still be written.
    HeadTimeout,
    /// It has to be dropped.
    Cut,
}

/// A connection that can be asked to finish.
pub trait Connection: Future<Output = hyper::Result<()>> {
    /// No more requests after those that run.
    fn finish(self: Pin<&mut Self>);
}

/// The timer of one connection. It is set anew only when it has run out, so that a request costs none.
struct Watchdog {
    sleep: Pin<Box<Sleep>>,
}

// === impl Driver ===

impl Driver<'_> {
    /// Runs `connection` until it ends or must end.
    pub async fn run<C: Connection>(&self, mut connection: Pin<&mut C>) -> End {
        let mut cut = pin!(self.cut.cancelled());
        let mut closing = pin!(self.closing.cancelled());
        let mut finishing = false;
        let mut finish_by = None;
        let mut watchdog = Watchdog { sleep: Box::pin(tokio::time::sleep(self.head_timeout)) };
        poll_fn(|cx| {
            if cut.as_mut().poll(cx).is_ready() {
                return Poll::Ready(End::Cut);
            }
            if !finishing && closing.as_mut().poll(cx).is_ready() {
                finishing = true;
                connection.as_mut().finish();
            }
            loop {
                if connection.as_mut().poll(cx).is_ready() {
                    return Poll::Ready(End::Finished);
                }
                let busy = matches!(self.activity.waiting(), Waiting::Busy);
                let orderly = self.activity.stalled_since().is_none() && self.activity.taken_back() <= TAKEN_BACK;
                if busy && orderly && !watchdog.is_due(cx) {
                    // Nothing is waited for but what wakes this task by itself; the clock is not looked at for it.
                    return Poll::Pending;
                }
                let now = Instant::now();
                let stalled = self.activity.stalled_since().map(|since| since + self.stall_timeout);
                if stalled.is_some_and(|due| due <= now) {
                    debug!("A client took nothing for too long, its connection is cut.");
                    return Poll::Ready(End::Cut);
                }
                if self.activity.taken_back() > TAKEN_BACK {
                    debug!("A client took back too many requests, its connection is cut.");
                    return Poll::Ready(End::Cut);
                }
                // Not to be exceeded, and not before which nothing has to be looked at again.
                let due = match (self.activity.waiting(), finish_by) {
                    (Waiting::Busy, _) => now + IDLE.min(self.stall_timeout),
                    (Waiting::Head(since), _) if since + self.head_timeout <= now => {
                        return Poll::Ready(End::HeadTimeout);
                    }
                    (Waiting::Head(since), _) => since + self.head_timeout,
                    (Waiting::Idle(_), Some(by)) if by <= now => return Poll::Ready(End::Cut),
                    (Waiting::Idle(_), Some(by)) => by,
                    (Waiting::Idle(since), None) if since + IDLE <= now => {
                        // A client that does not answer a farewell is not waited for either.
                        finish_by = Some(now + self.head_timeout);
                        finishing = true;
                        connection.as_mut().finish();
                        continue;
                    }
                    (Waiting::Idle(since), None) => since + IDLE,
                };
                match watchdog.poll(cx, now, stalled.map_or(due, |stalled| due.min(stalled))) {
                    Poll::Ready(()) => {}
                    Poll::Pending => return Poll::Pending,
                }
            }
        })
        .await
    }
}

// === impl Watchdog ===

impl Watchdog {
    /// Whether it has run out. Until then the task wakes when it does.
    fn is_due(&mut self, cx: &mut Context<'_>) -> bool {
        self.sleep.as_mut().poll(cx).is_ready()
    }

    /// Makes sure that the task wakes at `due` or before. Ready: it is time to look again.
    fn poll(&mut self, cx: &mut Context<'_>, now: Instant, due: Instant) -> Poll<()> {
        if due < self.sleep.deadline() {
            self.sleep.as_mut().reset(due);
        }
        match self.sleep.as_mut().poll(cx) {
            Poll::Pending => Poll::Pending,
            Poll::Ready(()) if due <= now => Poll::Ready(()),
            Poll::Ready(()) => {
                self.sleep.as_mut().reset(due);
                self.sleep.as_mut().poll(cx)
            }
        }
    }
}

#[cfg(test)]
mod tests;
