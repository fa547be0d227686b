//! Arguments, and the threads that do the work.

use std::{
    future::poll_fn,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    task::Poll,
};

use clap::CommandFactory;
use tokio::sync::Barrier;

use super::*;

#[test]
fn the_arguments_are_consistent() {
    Arguments::command().debug_assert();
}

#[test]
fn more_busy_tasks_than_a_queue_holds_take_turns() {
    const TASKS: usize = 600;
    const STEPS: usize = 200 * TASKS;
    let runtime = workers().worker_threads(1).build().unwrap();
    let counts = runtime.block_on(async {
        let (steps, start) = (Arc::new(AtomicUsize::new(0)), Arc::new(Barrier::new(TASKS)));
        let tasks = (0..TASKS).map(|_| {
            let (steps, start) = (Arc::clone(&steps), Arc::clone(&start));
            tokio::spawn(async move {
                start.wait().await;
                let mut own = 0;
                poll_fn(|cx| {
                    if steps.fetch_add(1, Relaxed) >= STEPS {
                        return Poll::Ready(());
                    }
                    own += 1;
                    cx.waker().wake_by_ref();
                    Poll::Pending
                })
                .await;
                own
            })
        });
        let mut counts: Vec<usize> = Vec::with_capacity(TASKS);
        for task in tasks.collect::<Vec<_>>() {
            counts.push(task.await.unwrap());
        }
        counts
    });
    let (least, most) = (counts.iter().min().unwrap(), counts.iter().max().unwrap());
    assert!(*least * 4 >= *most, "of {TASKS} tasks one had {least} turns, another {most}");
}
