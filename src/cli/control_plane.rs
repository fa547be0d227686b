//! `sidekey control-plane`.

use std::{env, path::Path};

use tracing::error;

use super::{Exit, Screen, block_on, service, start_log};
use crate::{
    app::{ControlPlane, ControlPlaneError, chain},
    config::ControlPlaneConfig,
    control::store::{Store, StoreError},
};

/// Runs the control plane until it is told to stop; with `new_epoch`, begins an epoch of its feed instead.
pub fn run(file: &Path, new_epoch: bool) -> Exit {
    let config = ControlPlaneConfig::load(file, env::vars_os()).map_err(|invalid| {
        Screen::stderr().problems(&invalid.problems);
        Exit::Usage
    });
    match config.and_then(|config| start_log(config.log).map(|()| config)) {
        Ok(config) if new_epoch => begin_epoch(&config),
        Ok(config) => service::run(
            async |signals| Ok(ControlPlane::start(config).await?.run(signals).await),
            ControlPlaneError::is_configuration,
        ),
        Err(exit) => exit,
    }
}

/// Whatever data planes hold, they take the next snapshot as a whole.
fn begin_epoch(config: &ControlPlaneConfig) -> Exit {
    let begun = block_on(async {
        let store = Store::open(&config.control.database).await?;
        let before = store.epoch().await?;
        store.begin_epoch(before).await?;
        let epoch = store.epoch().await?;
        store.close().await;
        Ok::<_, StoreError>((before, epoch))
    });
    match begun {
        Ok(Ok((before, epoch))) => {
            Screen::stdout().line(format_args!("The feed begins epoch {epoch} (before: {before})."));
            Exit::Fine
        }
        Ok(Err(error)) => {
            error!(error = %chain(&error), "There is no new epoch.");
            Exit::Failed
        }
        Err(exit) => exit,
    }
}
