//! The commands: arguments → what they do, and how it ended.
//!
//! Exit status: 0 fine, 64 bad usage or configuration, 1 failed at run time. Results go to standard output, everything
//! else to standard error.

mod check;
mod control_plane;
mod dev;
mod exit;
mod explain;
mod keygen;
mod reseal;
mod screen;
mod secrets;
mod service;
mod sidecar;
mod snapshot;
mod table;

use std::{
    env,
    ffi::OsString,
    future::Future,
    path::{Path, PathBuf},
    process::ExitCode,
};

use clap::{Parser, Subcommand, error::ErrorKind};
use url::Url;

use self::{exit::Exit, keygen::KeyKind, screen::Screen};
use crate::{
    app,
    config::Config,
    telemetry::{self, Format, Level},
};

/// Injects provider credentials from secret managers in front of an AI gateway.
#[derive(Debug, Parser)]
#[command(name = "sidekey", version, subcommand_required = true, max_term_width = 100)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the sidecar: clients on one side, the gateway on the other
    Sidecar(OfConfig),
    /// Run the control plane: the admin API and the snapshot feed
    ///
    /// config/control-plane-full.yaml lists every key.
    ControlPlane {
        #[command(flatten)]
        config: OfConfig,
        /// Begin a new epoch of the feed and exit: to be said once after the database was restored from a backup
        #[arg(long)]
        new_epoch: bool,
    },
    /// See it work on this machine: no cloud, no account, no file to write
    ///
    /// Makes an example reference, integration, virtual key and API key in a private temporary folder, sends one request
    /// and prints what arrived. Stays until Ctrl-C. Exits 1 if the request did not arrive.
    Dev {
        /// Use a real gateway instead of the built-in echo
        #[arg(long, value_name = "URL")]
        upstream: Option<Url>,
        /// Exit after the one request
        #[arg(long)]
        once: bool,
    },
    /// Print every problem of configuration and snapshot, each with file, key and remedy
    ///
    /// Exits 64 when there is one, and 1 when --resolve could not fetch a reference.
    Check {
        #[command(flatten)]
        config: OfConfig,
        /// Fetch each reference once and print what came of it. Never a value
        #[arg(long)]
        resolve: bool,
    },
    /// Tell what would happen to a request, read from standard input as curl -i shows it
    ///
    /// Head, an empty line, body. Nothing is fetched and nothing is sent.
    Explain(OfConfig),
    /// Ask a running sidecar about its secrets, or have it read them again
    Secrets(secrets::Asked),
    /// Make a key file, readable by its owner alone, and print its public part
    Keygen {
        /// What the key is for
        #[arg(long, value_enum)]
        kind: KeyKind,
        /// Where the private part goes. Never overwritten
        #[arg(long, value_name = "FILE")]
        out: PathBuf,
    },
    /// Seal again what is sealed, to other recipients. Runs where an identity is that opens it
    ///
    /// With a control plane, give it its new sealing.recipients first: each value is posted to it and sealed on arrival.
    /// Exits 1 when a value could not be sealed again; it is left as it was.
    Reseal(reseal::Asked),
    /// Print the hash of an API key, read from standard input, as a row of a snapshot's api_keys[].hashes
    HashKey {
        /// The keys that hash: a file made by keygen --kind api-key-hash
        #[arg(long, value_name = "FILE")]
        hash_file: PathBuf,
    },
}

#[derive(Debug, clap::Args)]
struct OfConfig {
    /// The configuration; config/ holds examples that list every key
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
}

/// Runs the command that the arguments of the process name.
pub fn main() -> ExitCode {
    app::harden();
    run(env::args_os()).into()
}

fn run(arguments: impl IntoIterator<Item = OsString>) -> Exit {
    let Arguments { command } = match Arguments::try_parse_from(arguments) {
        Ok(arguments) => arguments,
        Err(error) => {
            // Nothing can be told to someone whose terminal is gone.
            let _ = error.print();
            return match error.kind() {
                ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => Exit::Fine,
                _ => Exit::Usage,
            };
        }
    };
    let log = match command {
        // Its own, once the configuration is read.
        Command::Sidecar(_) | Command::ControlPlane { .. } => None,
        Command::Dev { .. } => Some(Level::WARN),
        Command::Check { .. }
        | Command::Explain(_)
        | Command::Secrets(_)
        | Command::Keygen { .. }
        | Command::Reseal(_)
        | Command::HashKey { .. } => Some(Level::ERROR),
    };
    if let Some(Err(exit)) = log.map(|level| start_log(telemetry::Settings { level, format: Some(Format::Text) })) {
        return exit;
    }
    match command {
        Command::Sidecar(OfConfig { config }) => sidecar::run(&config),
        Command::ControlPlane { config: OfConfig { config }, new_epoch } => control_plane::run(&config, new_epoch),
        Command::Keygen { kind, out } => keygen::generate(kind, &out),
        Command::Reseal(asked) => reseal::run(&asked),
        Command::HashKey { hash_file } => keygen::hash(&hash_file),
        Command::Dev { upstream, once } => dev::run(upstream.as_ref(), once),
        Command::Explain(OfConfig { config }) => explain::run(&config),
        Command::Secrets(asked) => secrets::run(asked),
        Command::Check { config: OfConfig { config }, resolve } => check::run(&config, resolve),
    }
}

/// The configuration, or every problem of it on `screen`.
fn load(file: &Path, screen: &mut Screen) -> Result<Config, Exit> {
    Config::load(file, env::vars_os()).map_err(|invalid| {
        screen.problems(&invalid.problems);
        Exit::Usage
    })
}

/// Starts logging, or says why not.
fn start_log(settings: telemetry::Settings) -> Result<(), Exit> {
    telemetry::start(settings).map_err(|error| {
        Screen::stderr().line(app::chain(&error));
        Exit::Usage
    })
}

/// Runs `work` on a runtime of its own.
fn block_on<T>(work: impl Future<Output = T>) -> Result<T, Exit> {
    match workers().enable_all().build() {
        Ok(runtime) => Ok(runtime.block_on(work)),
        Err(error) => {
            Screen::stderr().line(format_args!("threads cannot be started: {error}"));
            Err(Exit::Failed)
        }
    }
}

/// Threads that are fair to connections. What does not fit into the queue of a thread (256 tasks) goes to one for all of them,
/// which is looked into at every 31st to 127th step by default: of 512 busy connections half would wait twenty times as long as
/// the others.
fn workers() -> tokio::runtime::Builder {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    builder.global_queue_interval(2);
    builder
}

#[cfg(test)]
mod tests;
