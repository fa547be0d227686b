//! Runs a service to its end: what the sidecar and the control plane have in common.

use std::error::Error;

use tracing::error;

use super::{Exit, block_on};
use crate::app::{Signals, chain};

/// Starts and serves by `serve`, which says whether it ended because it was told to. `is_configuration` tells what the
/// operator has to mend from what the machine refused.
pub fn run<E: Error + 'static>(
    serve: impl AsyncFnOnce(&mut Signals) -> Result<bool, E>,
    is_configuration: impl FnOnce(&E) -> bool,
) -> Exit {
    let ran = block_on(async {
        // Before anything else, so that a signal that comes early is not lost.
        let mut signals = match Signals::listen() {
            Ok(signals) => signals,
            Err(error) => {
                error!(%error, "Not started: signals cannot be listened to.");
                return Exit::Failed;
            }
        };
        match serve(&mut signals).await {
            Ok(true) => Exit::Fine,
            Ok(false) => Exit::Failed,
            Err(failure) => {
                error!(error = %chain(&failure), "Not started.");
                if is_configuration(&failure) { Exit::Usage } else { Exit::Failed }
            }
        }
    });
    ran.unwrap_or_else(|exit| exit)
}
