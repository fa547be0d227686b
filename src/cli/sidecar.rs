//! `sidekey sidecar`.

use std::path::Path;

use super::{Exit, Screen, load, service, start_log};
use crate::app::{Sidecar, StartError};

/// Runs the data plane until it is told to stop.
pub fn run(file: &Path) -> Exit {
    let ready = load(file, &mut Screen::stderr()).and_then(|config| start_log(config.log).map(|()| config));
    match ready {
        Ok(config) => service::run(
            async |signals| Ok(Sidecar::start(config).await?.run(signals).await),
            StartError::is_configuration,
        ),
        Err(exit) => exit,
    }
}
