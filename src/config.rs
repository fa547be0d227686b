//! The configuration file: YAML → the settings of every room, checked once.
//!
//! Nothing behind this module re-checks: a value that comes out is in range and fits the others. Every fault of a run is
//! reported at once. `SIDEKEY_<KEY>` (`__` between levels) stands above the file. Relative paths are taken from the
//! working directory. `config/sidecar-full.yaml` documents every key and is compared with this code by a test.

mod control_plane;
mod nearest;
mod problem;
mod reader;
mod sections;
mod shown;
mod tree;
mod value;
mod variables;
mod webhooks;

pub use control_plane::ControlPlaneConfig;
pub use problem::{Invalid, Place, Problem, why};
pub use reader::Key;
pub use value::is_loopback;

use std::{
    ffi::OsString,
    fs::File,
    io::Read,
    path::{Path, PathBuf},
};

use reader::Reader;
use tree::{Node, Value};

use crate::{
    admin, clients, dialect::portkey, feed, manager::registry::RegistrySettings, proxy, push, resolve, telemetry,
};

/// Largest configuration file, in bytes. A hundred keys with comments stay far below; a device or a wrong file does not.
const MAX_FILE_BYTES: u64 = 1 << 20;

/// The example that lists every key of a sidecar.
const FULL: &str = "config/sidecar-full.yaml";

/// A checked configuration: what each room is built with.
#[derive(Clone, Debug)]
pub struct Config {
    /// `listen`, `tls.*`, `upstream.*`, `limits.*`.
    pub proxy: proxy::Settings,
    /// `client_auth`, `api_key_hash_file`, `workspace`.
    pub clients: clients::Settings,
    /// `admin_listen`, `admin_token_file`.
    pub admin: admin::Settings,
    /// `webhook_listen`, `webhooks.*`; `None` = no webhooks.
    pub webhooks: Option<push::Settings>,
    /// `snapshot.*`; `None` = no source, never ready.
    pub snapshot: Option<feed::Source>,
    /// `sealing.identity_file`: opens sealed values; `None` = each of them is a fault.
    pub identity_file: Option<PathBuf>,
    /// `unmatched`, `destination.*`, `passthrough.*`.
    pub dialect: portkey::Settings,
    /// `cache.*`.
    pub cache: resolve::Settings,
    /// `prewarm*`.
    pub prewarm: resolve::prewarm::Settings,
    /// `managers.*`, `egress.*`.
    pub managers: RegistrySettings,
    /// `log.*`.
    pub log: telemetry::Settings,
    /// `tracing.*`; `None` = nothing is followed.
    pub tracing: Option<telemetry::TracingSettings>,
    /// `audit.*`.
    pub audit: telemetry::AuditFile,
    /// `fingerprint_key_file`: keys the fingerprints of values; `None` = a key of the process.
    pub fingerprint_key_file: Option<PathBuf>,
}

/// A configuration with its faults.
#[derive(Clone, Debug)]
pub struct Inspected {
    /// What was read; a default stands where a value is faulty. Only to be looked at while there are problems.
    pub config: Config,
    /// Every fault, in reading order.
    pub problems: Vec<Problem>,
}

// === impl Config ===

impl Config {
    /// Reads and checks `file` under `variables`, the environment of the process.
    ///
    /// # Errors
    /// [`Invalid`] with every fault.
    pub fn load(file: &Path, variables: impl IntoIterator<Item = (OsString, OsString)>) -> Result<Self, Invalid> {
        Self::inspect(file, variables).and_then(Inspected::valid)
    }

    /// As [`Config::load`], from the text of a file that messages call `name`.
    ///
    /// # Errors
    /// [`Invalid`] with every fault.
    pub fn parse(
        name: &str,
        text: &str,
        variables: impl IntoIterator<Item = (OsString, OsString)>,
    ) -> Result<Self, Invalid> {
        Self::inspect_text(name, text, variables).and_then(Inspected::valid)
    }

    /// As [`Config::load`], but goes on with defaults in the place of what is faulty, so that more can be checked.
    ///
    /// # Errors
    /// [`Invalid`] when there is nothing to go on with: no readable file, no YAML.
    pub fn inspect(
        file: &Path,
        variables: impl IntoIterator<Item = (OsString, OsString)>,
    ) -> Result<Inspected, Invalid> {
        let name = file.display().to_string();
        let text = read(file).map_err(|message| Invalid::of_file(&name, message))?;
        Self::inspect_text(&name, &text, variables)
    }

    fn inspect_text(
        name: &str,
        text: &str,
        variables: impl IntoIterator<Item = (OsString, OsString)>,
    ) -> Result<Inspected, Invalid> {
        let (config, problems) = inspect_text(name, FULL, text, variables, Self::read)?;
        Ok(Inspected { config, problems })
    }

    /// Every key there is, in the order of reading.
    pub fn keys() -> Vec<Key> {
        keys(FULL, Self::read)
    }

    fn read(reader: &mut Reader<'_>) -> Self {
        sections::unbuilt(reader);
        let clients = sections::clients(reader);
        let mut proxy = sections::proxy(reader, clients.authenticates());
        let snapshot = sections::snapshot(reader);
        proxy.control_plane = sections::admin_api(snapshot.as_ref());
        let managers = sections::managers(reader);
        let admin = sections::admin(reader, &proxy.listen);
        let taken: Vec<_> = proxy.listen.iter().filter_map(proxy::Address::tcp).chain([admin.listen]).collect();
        Self {
            webhooks: webhooks::webhooks(reader, &taken),
            admin,
            proxy,
            clients,
            snapshot,
            identity_file: reader.optional("sealing.identity_file", value::readable_file),
            dialect: sections::dialect(reader),
            cache: sections::cache(reader, managers.bounds.fetch_deadline),
            managers,
            prewarm: sections::prewarm(reader),
            log: sections::log(reader),
            tracing: sections::tracing(reader),
            audit: sections::audit(reader),
            fingerprint_key_file: reader.optional("fingerprint_key_file", value::readable_file),
        }
    }
}

// === impl Inspected ===

impl Inspected {
    /// The configuration, if nothing is wrong with it.
    ///
    /// # Errors
    /// [`Invalid`] with every fault.
    pub fn valid(self) -> Result<Config, Invalid> {
        if self.problems.is_empty() { Ok(self.config) } else { Err(Invalid { problems: self.problems }) }
    }
}

/// What `read` makes of `text`, and every fault.
fn inspect_text<T>(
    name: &str,
    full: &'static str,
    text: &str,
    variables: impl IntoIterator<Item = (OsString, OsString)>,
    read: impl Fn(&mut Reader<'_>) -> T,
) -> Result<(T, Vec<Problem>), Invalid> {
    let root = tree::parse(text).map_err(|error| Invalid::of_syntax(name, error))?;
    let mut reader = Reader::new(name, full, root, variables);
    let config = read(&mut reader);
    Ok((config, reader.finish().0))
}

/// Every key that `read` asks for, in its order.
fn keys<T>(full: &'static str, read: impl Fn(&mut Reader<'_>) -> T) -> Vec<Key> {
    let mut reader = Reader::new("", full, Node { value: Value::Null, line: 0 }, []);
    read(&mut reader);
    reader.finish().1
}

/// The text of `file`, or why there is none.
fn read(file: &Path) -> Result<String, String> {
    let mut text = Vec::new();
    File::open(file)
        .and_then(|file| file.take(MAX_FILE_BYTES + 1).read_to_end(&mut text))
        .map_err(|error| format!("cannot be read ({})", why(&error)))?;
    if text.len() as u64 > MAX_FILE_BYTES {
        return Err(format!("is larger than {MAX_FILE_BYTES} bytes and so is no configuration"));
    }
    String::from_utf8(text).map_err(|_| "is not UTF-8 text".to_owned())
}

#[cfg(test)]
mod tests;
