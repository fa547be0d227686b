//! Whose turn it is on a stream of HTTP/2: a piece of an answer was given, so that the client has to make room before the next
//! one is asked for, or the gateway is silent.
//!
//! The codec tells nobody which of its streams wait for room. It polls a body from within the stream's own future, so that a
//! cell of the thread, looked at before and after, says what became of it.

use std::{
    cell::Cell,
    future::Future,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use hyper::rt::Executor;
use pin_project_lite::pin_project;
use tokio::time::{Instant, Sleep, sleep_until};
use tracing::debug;

thread_local! {
    /// What the last poll of a body on this thread gave; `None` = there was none since the cell was emptied.
    static GIVEN: Cell<Option<bool>> = const { Cell::new(None) };
}

/// Runs the streams of HTTP/2 connections, and ends those on which the client makes no room for too long.
#[derive(Clone, Copy, Debug)]
pub struct Streams {
    /// `limits.stall_timeout_secs`.
    pub patience: Duration,
}

pin_project! {
    /// One stream.
    struct Stream<F> {
        #[pin]
        work: F,
        // Since when the client has to make room.
        waiting: Option<Instant>,
        alarm: Option<Pin<Box<Sleep>>>,
        patience: Duration,
    }
}

/// A body was polled: it gave a piece, or it had none.
pub fn note(gave: bool) {
    GIVEN.set(Some(gave));
}

// === impl Streams ===

impl<F> Executor<F> for Streams
where
    F: Future + Send + 'static,
{
    fn execute(&self, work: F) {
        let stream = Stream { work, waiting: None, alarm: None, patience: self.patience };
        tokio::spawn(stream);
    }
}

// === impl Stream ===

impl<F: Future> Future for Stream<F> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = self.project();
        GIVEN.set(None);
        if this.work.poll(cx).is_ready() {
            return Poll::Ready(());
        }
        match GIVEN.get() {
            Some(true) => *this.waiting = Some(Instant::now()),
            Some(false) => *this.waiting = None,
            None => {}
        }
        let Some(since) = *this.waiting else { return Poll::Pending };
        let due = since + *this.patience;
        // Set anew only when it has run out, so that a piece costs no timer.
        let alarm = this.alarm.get_or_insert_with(|| Box::pin(sleep_until(due)));
        while alarm.as_mut().poll(cx).is_ready() {
            if due <= Instant::now() {
                debug!("A client made no room on a stream for too long, it is reset.");
                return Poll::Ready(());
            }
            alarm.as_mut().reset(due);
        }
        Poll::Pending
    }
}

#[cfg(test)]
mod tests {
    use std::{future::poll_fn, sync::Arc};

    use tokio::{sync::mpsc, time::advance};

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(60);

    /// A stream that is told what polls of its body give, and tells when it is gone.
    fn stream() -> (mpsc::UnboundedSender<bool>, Arc<()>) {
        let (say, mut said) = mpsc::unbounded_channel();
        let alive = Arc::new(());
        let held = Arc::clone(&alive);
        Streams { patience: PATIENCE }.execute(async move {
            let _held = held;
            poll_fn(|cx| {
                loop {
                    match said.poll_recv(cx) {
                        Poll::Ready(Some(gave)) => note(gave),
                        Poll::Ready(None) => return Poll::Ready(()),
                        Poll::Pending => return Poll::Pending,
                    }
                }
            })
            .await;
        });
        (say, alive)
    }

    #[tokio::test(start_paused = true)]
    async fn a_stream_ends_when_its_client_makes_no_room_and_not_when_the_gateway_is_silent() {
        struct Case {
            /// What the body gave, and the seconds that passed after it.
            said: &'static [(bool, u64)],
            runs: bool,
        }
        let cases = [
            Case { said: &[], runs: true },
            Case { said: &[(false, 3600)], runs: true },
            Case { said: &[(true, 59)], runs: true },
            Case { said: &[(true, 61)], runs: false },
            Case { said: &[(true, 59), (true, 59), (true, 59)], runs: true },
            Case { said: &[(true, 59), (true, 61)], runs: false },
            Case { said: &[(true, 59), (false, 3600)], runs: true },
            Case { said: &[(true, 59), (false, 3600), (true, 59)], runs: true },
            Case { said: &[(true, 59), (false, 3600), (true, 61)], runs: false },
        ];
        for Case { said, runs } in cases {
            let (say, alive) = stream();
            for (gave, seconds) in said {
                say.send(*gave).unwrap();
                tokio::task::yield_now().await;
                advance(Duration::from_secs(*seconds)).await;
                tokio::task::yield_now().await;
            }
            assert_eq!(Arc::strong_count(&alive) == 2, runs, "{said:?}");
        }
    }
}
