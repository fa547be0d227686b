//! How a command ended.

use std::process::ExitCode;

/// The exit status of the process. 64 is `EX_USAGE` of sysexits(3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// 0.
    Fine,
    /// 1: failed at run time.
    Failed,
    /// 64: bad usage or configuration.
    Usage,
}

// === impl Exit ===

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        match exit {
            Exit::Fine => Self::SUCCESS,
            Exit::Failed => Self::FAILURE,
            Exit::Usage => Self::from(64),
        }
    }
}
