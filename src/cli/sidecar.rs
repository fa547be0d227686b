//! `sidekey sidecar`.

use std::{io, path::Path};

use tracing::error;

use super::{Exit, Screen, block_on, load};
use crate::{
    app::{Sidecar, Signals, StartError, chain},
    telemetry,
};

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
    let mut screen = Screen::stderr();
    let config = match load(file, &mut screen) {
        Ok(config) => config,
        Err(exit) => return exit,
    };
    if let Err(error) = telemetry::start(config.log) {
        screen.line(chain(&error));
        return Exit::Usage;
    }
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
