//! The private folder `sidekey dev` lives in: a secret, a snapshot that names it, and a configuration.

use std::{
    fs::{self, DirBuilder, OpenOptions},
    io::{self, Write},
    net::SocketAddr,
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use serde_json::{Value, json};
use url::Url;

/// The virtual key a request names.
pub const VIRTUAL_KEY: &str = "openai-prod";
/// The secret reference behind it.
pub const REFERENCE: &str = "openai-key";
/// The file that holds the secret, below the folder of secrets.
const SECRET_FILE: &str = "openai-api-key";

/// A folder that only this user can enter, removed with everything in it when dropped.
#[derive(Debug)]
pub struct Stage {
    folder: PathBuf,
}

// === impl Stage ===

impl Stage {
    /// Makes the folder and puts `secret` into a file of it, which a snapshot names. `provider` is where the gateway is to
    /// take the credential instead of to its provider.
    ///
    /// # Errors
    /// When the folder or a file cannot be made.
    pub fn build(secret: &str, provider: Option<&Url>) -> io::Result<Self> {
        let mut name = [0; 8];
        getrandom::fill(&mut name).map_err(io::Error::other)?;
        let folder = std::env::temp_dir().join(format!("sidekey-dev-{:016x}", u64::from_ne_bytes(name)));
        // `create` fails if the name is taken, a symlink included, so that nobody can have put the folder there before.
        DirBuilder::new().mode(0o700).create(&folder)?;
        let stage = Self { folder };
        DirBuilder::new().mode(0o700).create(stage.secrets())?;
        write_private(&stage.secrets().join(SECRET_FILE), secret.as_bytes())?;
        write_private(&stage.snapshot(), format!("{:#}\n", snapshot(provider)).as_bytes())?;
        Ok(stage)
    }

    /// The folder.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The configuration of a sidecar between `listen` and `upstream`.
    pub fn configuration(&self, listen: SocketAddr, admin_listen: SocketAddr, upstream: &str) -> String {
        // JSON is YAML.
        let configuration = json!({
            "listen": listen.to_string(),
            "admin_listen": admin_listen.to_string(),
            "upstream": { "url": upstream, "allow_plaintext": true },
            "snapshot": { "file": self.snapshot() },
            "managers": { "file": { "root": self.secrets() } },
            // The story tells what happened.
            "audit": { "file": "none" },
            // Nothing in front has to notice that it stops.
            "limits": { "drain_delay_secs": 0, "drain_secs": 1 },
        });
        configuration.to_string()
    }

    fn secrets(&self) -> PathBuf {
        self.folder.join("secrets")
    }

    fn snapshot(&self) -> PathBuf {
        self.folder.join("snapshot.json")
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        // The system's cleaning of temporary folders is all that is left to try.
        let _ = fs::remove_dir_all(&self.folder);
    }
}

fn write_private(path: &Path, content: &[u8]) -> io::Result<()> {
    OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?.write_all(content)
}

fn snapshot(provider: Option<&Url>) -> Value {
    let configurations = match provider {
        Some(url) => json!({ "custom_host": url.join("v1").map(String::from).unwrap_or_default() }),
        None => json!({}),
    };
    json!({
        "schema_version": 1,
        "version": 1,
        "organisation_id": "dev",
        "secret_references": [{
            "id": "ref-1",
            "slug": REFERENCE,
            "manager_type": "file",
            "auth_config": {},
            "secret_path": SECRET_FILE,
            "status": "active",
            "allow_all_workspaces": true,
        }],
        "integrations": [{
            "id": "int-1",
            "slug": "openai-main",
            "ai_provider_id": "openai",
            "status": "active",
            "configurations": configurations,
            "allow_all_workspaces": true,
            "secret_mappings": [{ "target_field": "key", "secret_reference_id": REFERENCE }],
        }],
        "virtual_keys": [{
            "id": "vk-1",
            "slug": VIRTUAL_KEY,
            "integration_id": "openai-main",
            "status": "active",
            "model_config": {},
            "secret_mappings": [],
        }],
    })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::{
        config::Config,
        feed::Source,
        model::{Caller, LinkRules, link},
    };

    #[test]
    fn the_folder_is_private_and_goes_away() {
        let stage = Stage::build("sk-1", None).unwrap();
        let folder = stage.folder().to_owned();
        for (path, mode) in
            [(folder.clone(), 0o700), (stage.secrets(), 0o700), (stage.secrets().join(SECRET_FILE), 0o600)]
        {
            assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, mode, "{path:?}");
        }
        drop(stage);
        assert!(!folder.exists());
    }

    #[test]
    fn what_it_writes_is_legal() {
        let provider = Url::parse("http://127.0.0.1:8902").unwrap();
        for provider in [None, Some(&provider)] {
            let stage = Stage::build("sk-1", provider).unwrap();
            let address: SocketAddr = "127.0.0.1:0".parse().unwrap();
            let text = stage.configuration(address, address, "http://gateway.example:8787");
            let config = Config::parse("dev", &text, []).unwrap();
            let Some(Source::File(settings)) = config.snapshot else { panic!("{:?}", config.snapshot) };
            let json = fs::read(settings.path).unwrap();
            let snapshot = link(&json, &LinkRules::STRICT).unwrap();
            assert!(snapshot.entity(VIRTUAL_KEY, &Caller::default()).is_ok());
            assert_eq!(&*snapshot.references[0].slug, REFERENCE);
        }
    }
}
