//! `sidekey control-plane`.

use std::{env, path::Path};

use super::{Exit, Screen, service, start_log};
use crate::{
    app::{ControlPlane, ControlPlaneError},
    config::ControlPlaneConfig,
};

/// Runs the control plane until it is told to stop.
pub fn run(file: &Path) -> Exit {
    let config = ControlPlaneConfig::load(file, env::vars_os()).map_err(|invalid| {
        Screen::stderr().problems(&invalid.problems);
        Exit::Usage
    });
    match config.and_then(|config| start_log(config.log).map(|()| config)) {
        Ok(config) => service::run(
            async |signals| Ok(ControlPlane::start(config).await?.run(signals).await),
            ControlPlaneError::is_configuration,
        ),
        Err(exit) => exit,
    }
}
