//! Work that takes long and no request waits for: on a thread of its own, which gives way to those who serve them.
//!
//! A large snapshot is linked in the better part of a second. At the same priority that is a few milliseconds for each request
//! that has to wait until the scheduler takes the core back; below it, requests are next whenever they are ready. It is a third of
//! a share and not an idle one, and for small snapshots all of it, so that a machine without an idle moment still learns of a
//! revoked key.

use std::thread;

use rustix::process::{getpriority_process, setpriority_process};
use tokio::task::spawn_blocking;

/// From which size on a snapshot is linked below the rest, in bytes: some milliseconds of work.
const LARGE: usize = 1 << 20;
/// How far below the rest of the process (nice; a weight of 335 to 1024).
const NICER: i32 = 5;
/// The lowest priority there is.
const NICEST: i32 = 19;

/// What `work` comes to, which may call [`give_way_for`]; `None` when it did not come to its end.
pub(super) async fn aside<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Option<T> {
    let waiting = move || {
        let thread = thread::Builder::new().name("snapshot".to_owned());
        thread.spawn(work).ok()?.join().ok()
    };
    spawn_blocking(waiting).await.ok().flatten()
}

/// Drops `value` there, which takes a while for a large one.
pub(super) fn drop_aside(value: impl Send + 'static) {
    let work = move || {
        give_way_for(LARGE);
        drop(value);
    };
    tokio::spawn(aside(work));
}

/// Lowers the priority of this thread, if it is about to link so many bytes. On Linux a thread has a priority of its own, which it
/// may lower and never raise: hence a new thread each time.
pub(super) fn give_way_for(bytes: usize) {
    if bytes < LARGE {
        return;
    }
    let Ok(priority) = getpriority_process(None) else { return };
    // Where it is not permitted, the work is done as before.
    let _ = setpriority_process(None, (priority + NICER).min(NICEST));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn it_gives_way_and_nobody_else_does() {
        let here = getpriority_process(None).unwrap();
        for (bytes, priority) in [(LARGE - 1, here), (LARGE, (here + NICER).min(NICEST))] {
            let work = move || {
                give_way_for(bytes);
                getpriority_process(None).unwrap()
            };
            assert_eq!(aside(work).await, Some(priority), "{bytes}");
        }
        assert_eq!(getpriority_process(None).unwrap(), here);
        let again = spawn_blocking(|| getpriority_process(None).unwrap()).await.unwrap();
        assert_eq!(again, here, "a thread that is used again has its priority");
        assert_eq!(aside(|| std::panic::panic_any(())).await, None::<()>);
    }
}
