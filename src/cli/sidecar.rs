//! `sidekey sidecar`.

use std::{io, path::Path};

use tracing::error;

use super::{Exit, Screen, block_on, load, start_log};
use crate::app::{Sidecar, Signals, StartError, chain};

/// Why the data plane does not run.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error("signals cannot be listened to")]
    Signals(#[source] io::Error),
    #[error("the sidecar cannot be started")]
    Start(#[from] StartError),
}

/// Runs the data plane until it is told to stop.
pub fn run(file: &Path) -> Exit {
    let ready = load(file, &mut Screen::stderr()).and_then(|config| start_log(config.log).map(|()| config));
    let config = match ready {
        Ok(config) => config,
        Err(exit) => return exit,
    };
    let ran = block_on(async {
        // Before anything else, so that a signal that comes early is not lost.
        let mut signals = Signals::listen().map_err(Failure::Signals)?;
        let sidecar = Sidecar::start(config).await?;
        Ok::<_, Failure>(sidecar.run(&mut signals).await)
    });
    match ran {
        Ok(Ok(true)) => Exit::Fine,
        Ok(Ok(false)) => Exit::Failed,
        Ok(Err(failure)) => {
            error!(error = %chain(&failure), "Not started.");
            match failure {
                Failure::Start(error) if error.is_configuration() => Exit::Usage,
                Failure::Start(_) | Failure::Signals(_) => Exit::Failed,
            }
        }
        Err(exit) => exit,
    }
}
