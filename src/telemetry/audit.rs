//! Writes the use audit: JSON lines, to standard error or to a file of its own that is made for its owner alone (0600).
//!
//! On a thread of its own, because a disk or a pipe may block; what piles up behind it is dropped by the queue. After
//! [`Writer::reopen`] the next line goes to the file that has the name by then, so that a rotated file can be let go.

use std::{
    fs::{File, OpenOptions},
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
use tokio::sync::mpsc::Receiver;
use tracing::{error, info, warn};

use crate::{
    metric::{Metrics, OutcomeLabels},
    proxy::audit::Message,
};

/// Records written at once, at most.
const BATCH: usize = 256;
/// Rest after a write that took all there was. Under load the next one takes what came meanwhile: without it every request
/// wakes this thread and writes a line by itself, which was a tenth of its CPU time. The queue is far from full by then.
const REST: Duration = Duration::from_millis(5);

/// `audit.file`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum AuditFile {
    /// `stderr`, among the lines of the log.
    #[default]
    Stderr,
    /// `none`: nothing is recorded.
    None,
    /// A file; lines are appended.
    Path(PathBuf),
}

/// The thread that writes. Ends with the queue.
#[derive(Debug)]
pub struct Writer {
    reopen: Arc<AtomicBool>,
}

/// What is written to.
#[derive(Debug)]
enum Sink {
    Stderr,
    File { path: PathBuf, file: File },
}

// === impl Writer ===

impl Writer {
    /// Opens `file` and starts to write; `None` when nothing is to be recorded.
    ///
    /// # Errors
    /// The file cannot be opened, or there is no thread.
    pub fn start(file: &AuditFile, messages: Receiver<Message>, metrics: Arc<Metrics>) -> io::Result<Option<Self>> {
        let sink = match file {
            AuditFile::None => return Ok(None),
            AuditFile::Stderr => Sink::Stderr,
            AuditFile::Path(path) => Sink::File { path: path.clone(), file: open(path)? },
        };
        let reopen = Arc::new(AtomicBool::new(false));
        let asked = Arc::clone(&reopen);
        thread::Builder::new().name("audit".to_owned()).spawn(move || write(sink, messages, &asked, &metrics))?;
        Ok(Some(Self { reopen }))
    }

    /// Has the next line written to the file that has the name by then.
    pub fn reopen(&self) {
        self.reopen.store(true, Ordering::Relaxed);
    }
}

// === impl Sink ===

impl Sink {
    fn write(&mut self, lines: &[u8]) -> io::Result<()> {
        match self {
            Self::Stderr => io::stderr().lock().write_all(lines),
            Self::File { file, .. } => file.write_all(lines),
        }
    }

    fn reopen(&mut self) {
        let Self::File { path, file } = self else { return };
        match open(path) {
            Ok(new) => {
                *file = new;
                info!(file = %path.display(), "The audit file is opened again.");
            }
            Err(error) => {
                warn!(file = %path.display(), %error, "The audit file cannot be opened again, the old one stays.");
            }
        }
    }
}

/// A pipe that nobody reads is an error and not a wait for somebody who does.
fn open(path: &Path) -> io::Result<File> {
    let nonblocking = OFlags::NONBLOCK.bits().cast_signed();
    let file = OpenOptions::new().create(true).append(true).mode(0o600).custom_flags(nonblocking).open(path)?;
    // Writing may block: that is what the thread is for.
    fcntl_setfl(&file, fcntl_getfl(&file)? - OFlags::NONBLOCK)?;
    Ok(file)
}

/// Writes until the queue ends.
#[allow(clippy::disallowed_methods, reason = "a thread of its own, no runtime worker")]
fn write(mut sink: Sink, mut messages: Receiver<Message>, reopen: &AtomicBool, metrics: &Metrics) {
    let (written, dropped) = (
        metrics.audit_lines.get_or_create_owned(&OutcomeLabels { outcome: "written" }),
        metrics.audit_lines.get_or_create_owned(&OutcomeLabels { outcome: "dropped" }),
    );
    let mut batch = Vec::with_capacity(BATCH);
    let mut text = Vec::new();
    let mut failing = false;
    loop {
        let received = messages.blocking_recv_many(&mut batch, BATCH);
        if received == 0 {
            return;
        }
        if reopen.swap(false, Ordering::Relaxed) {
            sink.reopen();
        }
        let (mut lines, mut flushed) = (0, Vec::new());
        for message in batch.drain(..) {
            match message {
                // Writing into memory cannot fail.
                Message::Record(record) => lines += record.write(&mut text).map_or(0, |()| record.lines() as u64),
                Message::Flush(told) => flushed.push(told),
            }
        }
        let outcome = if text.is_empty() { Ok(()) } else { sink.write(&text) };
        match &outcome {
            Ok(()) => written.inc_by(lines),
            Err(_) => dropped.inc_by(lines),
        };
        match outcome {
            Ok(()) => failing = false,
            Err(error) if !failing => {
                failing = true;
                error!(%error, "The use audit cannot be written, its lines are lost.");
            }
            Err(_) => {}
        }
        text.clear();
        let rests = received < BATCH && flushed.is_empty();
        for told in flushed {
            // Whoever waited may have left.
            let _ = told.send(());
        }
        if rests {
            thread::sleep(REST);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pipe_that_nobody_reads_does_not_hold_up_the_start() {
        let folder = tempfile::tempdir().unwrap();
        let pipe = folder.path().join("audit");
        let private = rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR;
        rustix::fs::mknodat(rustix::fs::CWD, &pipe, rustix::fs::FileType::Fifo, private, 0).unwrap();
        assert!(open(&pipe).is_err());
        let reader =
            OpenOptions::new().read(true).custom_flags(OFlags::NONBLOCK.bits().cast_signed()).open(&pipe).unwrap();
        let writer = open(&pipe).unwrap();
        assert!(!fcntl_getfl(&writer).unwrap().contains(OFlags::NONBLOCK));
        drop(reader);
    }
}
