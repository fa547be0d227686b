//! A program that a test starts: clean environment, output in a file of the test's folder, ended by its pid.

use std::{fs, path::PathBuf, process::Stdio, time::Duration};

use rustix::process::{WaitId, WaitIdOptions, waitid};
use tokio::{
    process::{Child, Command},
    time::{Instant, sleep},
};

use crate::harness;

/// How long a server may take to come up on a busy machine, seconds.
const START_SECS: u64 = 60;

/// How much of a log a failure shows, lines.
const SHOWN_LINES: usize = 20;

/// A running program. Dropping it kills it.
pub struct Process {
    name: String,
    child: Child,
    log: PathBuf,
}

/// A command with nothing of the caller's environment but the search path; its home is the test's folder.
pub fn command(program: impl AsRef<std::ffi::OsStr>) -> Command {
    let mut command = Command::new(program);
    command.env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default()).env("HOME", harness::folder());
    command.stdin(Stdio::null());
    command
}

impl Process {
    /// Starts `command`, its output going to `NAME.log`; further output of the same name is appended.
    pub fn start(name: &str, mut command: Command) -> Self {
        let log = harness::folder().join(format!("{name}.log"));
        let file = fs::OpenOptions::new().create(true).append(true).open(&log).expect("a log file");
        command.stdout(file.try_clone().expect("a second handle")).stderr(file).kill_on_drop(true);
        let child = command.spawn().unwrap_or_else(|error| panic!("{name}: {error}"));
        Self { name: name.to_owned(), child, log }
    }

    /// All it has written so far.
    pub fn log(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.log).unwrap_or_default()).into_owned()
    }

    /// The last lines of it.
    fn log_end(&self) -> String {
        let log = self.log();
        let lines: Vec<&str> = log.lines().rev().take(SHOWN_LINES).collect();
        lines.into_iter().rev().collect::<Vec<_>>().join("\n")
    }

    /// Asks `probe` until it gives something; panics when the program ends or takes too long.
    pub async fn until<T>(&mut self, what: &str, mut probe: impl AsyncFnMut() -> Option<T>) -> T {
        let deadline = Instant::now() + Duration::from_secs(START_SECS);
        loop {
            if let Some(found) = probe().await {
                return found;
            }
            if let Some(status) = self.child.try_wait().expect("a child can be asked") {
                panic!("{} ended ({status}) before it was {what}:\n{}", self.name, self.log_end());
            }
            let late = Instant::now() >= deadline;
            assert!(!late, "{} is not {what} after {START_SECS} s:\n{}", self.name, self.log_end());
            sleep(Duration::from_millis(10)).await;
        }
    }

    /// The process id, for signals and /proc.
    pub fn pid(&self) -> u32 {
        self.child.id().unwrap_or_else(|| panic!("{} has ended", self.name))
    }

    /// Sends `signal`.
    pub fn signal(&self, signal: rustix::process::Signal) {
        let pid = rustix::process::Pid::from_raw(i32::try_from(self.pid()).expect("a pid")).expect("a pid");
        rustix::process::kill_process(pid, signal).unwrap_or_else(|error| panic!("{}: {error}", self.name));
    }

    /// Stops it until [`Signal::CONT`](rustix::process::Signal::CONT), and returns when it stands still.
    pub fn pause(&self) {
        self.signal(rustix::process::Signal::STOP);
        let pid = rustix::process::Pid::from_raw(i32::try_from(self.pid()).expect("a pid")).expect("a pid");
        let stopped = WaitIdOptions::STOPPED | WaitIdOptions::NOWAIT;
        waitid(WaitId::Pid(pid), stopped).unwrap_or_else(|error| panic!("{}: {error}", self.name));
    }

    /// Waits for its end.
    pub async fn ended(&mut self) -> std::process::ExitStatus {
        self.child.wait().await.expect("a child can be waited for")
    }
}
