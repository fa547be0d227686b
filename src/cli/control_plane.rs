//! `sidekey control-plane`.

use std::{env, io, path::Path};

use tracing::error;

use super::{Exit, Screen, block_on, start_log};
use crate::{
    app::{ControlPlane, ControlPlaneError, Signals, chain},
    config::ControlPlaneConfig,
};

/// Why the control plane does not run.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error("signals cannot be listened to")]
    Signals(#[source] io::Error),
    #[error("the control plane cannot be started")]
    Start(#[from] ControlPlaneError),
}

/// Runs the control plane until it is told to stop.
pub fn run(file: &Path) -> Exit {
    let config = ControlPlaneConfig::load(file, env::vars_os()).map_err(|invalid| {
        Screen::stderr().problems(&invalid.problems);
        Exit::Usage
    });
    let config = match config.and_then(|config| start_log(config.log).map(|()| config)) {
        Ok(config) => config,
        Err(exit) => return exit,
    };
    let ran = block_on(async {
        // Before anything else, so that a signal that comes early is not lost.
        let mut signals = Signals::listen().map_err(Failure::Signals)?;
        let control_plane = ControlPlane::start(config).await?;
        Ok::<_, Failure>(control_plane.run(&mut signals).await)
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
