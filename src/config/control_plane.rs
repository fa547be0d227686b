//! The configuration of `sidekey control-plane`: its own file, its own keys, read as the sidecar's is.
//!
//! `config/control-plane-full.yaml` documents every key and is compared with this code by a test.

use std::{
    ffi::OsString,
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
};

use super::{Invalid, Key, reader::Reader, sections, value};
use crate::{
    control::{self, DataPlane, store::Location},
    egress,
    proxy::TlsSettings,
    seal::recipient::{Recipient, Recipients},
    telemetry,
};

/// The example that lists every key of a control plane.
const FULL: &str = "config/control-plane-full.yaml";
/// The database, if nobody says.
const DATABASE: &str = "sidekey-control.db";

/// A checked configuration of the control plane.
#[derive(Clone, Debug)]
pub struct ControlPlaneConfig {
    /// Everything but the two below.
    pub control: control::Settings,
    /// `tls.*`.
    pub tls: Option<TlsSettings>,
    /// `egress.*`: what may stand in `vault_addr` and `azure_vault_url`.
    pub policy: egress::Policy,
    /// `egress.restrict_base_urls`: whether the policy also decides what `custom_host` and other base URLs may name.
    pub restrict_base_urls: bool,
    /// `log.*`.
    pub log: telemetry::Settings,
}

// === impl ControlPlaneConfig ===

impl ControlPlaneConfig {
    /// Reads and checks `file` under `variables`, the environment of the process.
    ///
    /// # Errors
    /// [`Invalid`] with every fault.
    pub fn load(file: &Path, variables: impl IntoIterator<Item = (OsString, OsString)>) -> Result<Self, Invalid> {
        let name = file.display().to_string();
        let text = super::read(file).map_err(|message| Invalid::of_file(&name, message))?;
        Self::parse(&name, &text, variables)
    }

    /// As [`ControlPlaneConfig::load`], from the text of a file that messages call `name`.
    ///
    /// # Errors
    /// [`Invalid`] with every fault.
    pub fn parse(
        name: &str,
        text: &str,
        variables: impl IntoIterator<Item = (OsString, OsString)>,
    ) -> Result<Self, Invalid> {
        let (config, problems) = super::inspect_text(name, FULL, text, variables, Self::read)?;
        if problems.is_empty() { Ok(config) } else { Err(Invalid { problems }) }
    }

    /// Every key there is, in the order of reading.
    pub fn keys() -> Vec<Key> {
        super::keys(FULL, Self::read)
    }

    fn read(reader: &mut Reader<'_>) -> Self {
        let listen = reader.text("listen", SocketAddr::from((Ipv4Addr::LOCALHOST, 8902)), value::listen_address);
        let tls = sections::tls(reader);
        let (database, folder) = database(reader);
        let defaults = control::Settings::in_folder(folder.as_deref().unwrap_or(Path::new("")));
        let mut key_file = |key: &'static str, default: PathBuf| {
            if folder.is_none() && !reader.is_set(key) {
                reader.problem(key, "must be given beside database_url_file, the same to every replica");
            }
            reader.text(key, default, value::path)
        };
        let bootstrap_key_file = key_file("bootstrap_key_file", defaults.bootstrap_key_file);
        let api_key_hash_file = key_file("api_key_hash_file", defaults.api_key_hash_file);
        let signing_key_file = key_file("signing_key_file", defaults.signing_key_file);
        let data_planes = reader.records("data_planes", ["name", "token_sha256"], data_plane);
        Self {
            control: control::Settings {
                listen,
                database,
                recipients: recipients(reader),
                bootstrap_key_file,
                api_key_hash_file,
                signing_key_file,
                make_key_files: folder.is_some(),
                data_planes,
                max_connections: reader.size("limits.max_connections", defaults.max_connections as u64, 1..=1_000_000),
                feed_connections: reader.size(
                    "limits.feed_connections",
                    defaults.feed_connections as u64,
                    1..=1_000_000,
                ),
                drain_delay: reader.secs("limits.drain_delay_secs", defaults.drain_delay.as_secs(), 0..=300),
                drain: reader.secs("limits.drain_secs", defaults.drain.as_secs(), 0..=3600),
            },
            tls,
            policy: sections::policy(reader),
            restrict_base_urls: reader.flag("egress.restrict_base_urls", false),
            log: sections::log(reader),
        }
    }
}

/// `database_file` with its folder, or what `database_url_file` holds.
fn database(reader: &mut Reader<'_>) -> (Location, Option<PathBuf>) {
    let file = reader.text("database_file", PathBuf::from(DATABASE), value::path);
    let url = reader.optional("database_url_file", database_url);
    if reader.is_set("database_file") && reader.is_set("database_url_file") {
        reader.problem("database_url_file", "stands beside database_file; remove one");
    }
    match url {
        #[cfg(feature = "postgres")]
        Some(url) => (Location::Url(url), None),
        _ => {
            let folder = file.parent().unwrap_or(Path::new("")).to_owned();
            (Location::File(file), Some(folder))
        }
    }
}

#[cfg(feature = "postgres")]
fn database_url(text: &str) -> Result<String, String> {
    let file = value::readable_file(text)?;
    let url = super::read(&file)?;
    let url = url.trim();
    // What it may hold beside that is the driver's to judge; a message of its own would show the password.
    match url.starts_with("postgres://") || url.starts_with("postgresql://") {
        true => Ok(url.to_owned()),
        false => Err("holds no PostgreSQL URL; write postgres://user:password@host/database into it".to_owned()),
    }
}

#[cfg(not(feature = "postgres"))]
fn database_url(_: &str) -> Result<String, String> {
    Err("needs a build with the feature postgres; use database_file".to_owned())
}

/// `sealing.recipients`.
fn recipients(reader: &mut Reader<'_>) -> Option<Recipients> {
    let recipients: Vec<Recipient> = reader.list("sealing.recipients", Vec::new(), |text| {
        text.parse().map_err(|error: crate::seal::recipient::NotARecipient| error.to_string())
    });
    Recipients::new(recipients)
}

fn data_plane([name, token_sha256]: [&str; 2]) -> Result<DataPlane, String> {
    let digest = token_sha256.to_ascii_lowercase();
    if digest.len() != 64 || !digest.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Err("holds a token_sha256 that is no SHA-256 digest in hex".to_owned());
    }
    Ok(DataPlane { name: value::name(name)?, token_sha256: digest })
}
