//! The private folder `sidekey dev` lives in: a secret, what the control plane keeps, and a configuration.

use std::{
    fs::{self, DirBuilder, OpenOptions},
    io::{self, Write},
    net::SocketAddr,
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use serde_json::{Value, json};

/// The virtual key a request names.
pub const VIRTUAL_KEY: &str = "openai-prod";
/// The secret reference behind it.
pub const REFERENCE: &str = "openai-key";
/// The file that holds the secret, below the folder of secrets.
pub const SECRET_FILE: &str = "openai-api-key";

/// A folder that only this user can enter, removed with everything in it when dropped.
#[derive(Debug)]
pub struct Stage {
    folder: PathBuf,
}

// === impl Stage ===

impl Stage {
    /// Makes the folder and puts `secret` into a file of it.
    ///
    /// # Errors
    /// When the folder or a file cannot be made.
    pub fn build(secret: &str) -> io::Result<Self> {
        let mut name = [0; 8];
        getrandom::fill(&mut name).map_err(io::Error::other)?;
        let folder = std::env::temp_dir().join(format!("sidekey-dev-{:016x}", u64::from_ne_bytes(name)));
        // `create` fails if the name is taken, a symlink included, so that nobody can have put the folder there before.
        DirBuilder::new().mode(0o700).create(&folder)?;
        let stage = Self { folder };
        DirBuilder::new().mode(0o700).create(stage.secrets())?;
        write_private(&stage.secrets().join(SECRET_FILE), secret.as_bytes())?;
        Ok(stage)
    }

    /// The folder.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The configuration of a sidecar between `listen` and `upstream`, which follows `plane`: what it needs for that.
    pub fn configuration(&self, plane: &Value, listen: SocketAddr, admin_listen: SocketAddr, upstream: &str) -> String {
        let mut configuration = json!({
            "listen": listen.to_string(),
            "admin_listen": admin_listen.to_string(),
            "upstream": { "url": upstream, "allow_plaintext": true },
            "managers": { "file": { "root": self.secrets() } },
            // The story tells what happened.
            "audit": { "file": "none" },
            // Nothing in front has to notice that it stops.
            "limits": { "drain_delay_secs": 0, "drain_secs": 1 },
        });
        for (key, value) in plane.as_object().into_iter().flatten() {
            configuration[key] = value.clone();
        }
        // JSON is YAML.
        configuration.to_string()
    }

    fn secrets(&self) -> PathBuf {
        self.folder.join("secrets")
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        // The system's cleaning of temporary folders is all that is left to try.
        let _ = fs::remove_dir_all(&self.folder);
    }
}

/// Writes a new file that only this user can read.
///
/// # Errors
/// When it is there already, or cannot be written.
pub fn write_private(path: &Path, content: &[u8]) -> io::Result<()> {
    OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?.write_all(content)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn the_folder_is_private_and_goes_away() {
        let stage = Stage::build("sk-1").unwrap();
        let folder = stage.folder().to_owned();
        for (path, mode) in
            [(folder.clone(), 0o700), (stage.secrets(), 0o700), (stage.secrets().join(SECRET_FILE), 0o600)]
        {
            assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, mode, "{path:?}");
        }
        drop(stage);
        assert!(!folder.exists());
    }
}
