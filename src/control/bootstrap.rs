//! The first start: key files that are missing, the first organisation, its OWNER key.

use std::{
    fs::{self, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

use tracing::info;
use zeroize::Zeroizing;

use super::{
    Control, Judges, Settings,
    api_key::{Body, Role},
    data_plane::Grants,
    feed::Feed,
    key::{self, Hasher, NotAHashFile},
    sealing::{Sealer, mask},
    store::{Action, Change, Kind, Object, Store, StoreError},
};
use crate::seal::signature::{NotAKey, SigningKey};

/// Who did it, in the audit log.
const ACTOR: &str = "bootstrap";
/// Shortest OWNER key that is taken from a file, in characters.
const LEAST_KEY_CHARACTERS: usize = 32;

/// Why the control plane cannot start. Names files, never their content.
#[derive(Debug, thiserror::Error)]
pub enum BootstrapError {
    /// The database.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A file cannot be read, or made.
    #[error("{key} {} cannot be used", file.display())]
    File {
        /// Key of the configuration.
        key: &'static str,
        /// Which one.
        file: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file that must be there with PostgreSQL, where several processes share it.
    #[error("{key} {} is missing; make it with sidekey keygen and give it to every replica", file.display())]
    Missing {
        /// Key of the configuration.
        key: &'static str,
        /// Which one.
        file: PathBuf,
    },
    /// The hash file is none.
    #[error("api_key_hash_file {} {source}", file.display())]
    Hashes {
        /// Which one.
        file: PathBuf,
        /// Why.
        source: NotAHashFile,
    },
    /// The signing key is none.
    #[error("signing_key_file {} {source}", file.display())]
    Signing {
        /// Which one.
        file: PathBuf,
        /// Why.
        source: NotAKey,
    },
    /// The OWNER key is too short to be one.
    #[error("bootstrap_key_file {} holds fewer than {LEAST_KEY_CHARACTERS} characters", file.display())]
    Weak {
        /// Which one.
        file: PathBuf,
    },
    /// The system gives no randomness.
    #[error("no random numbers can be had")]
    Randomness,
}

// === impl BootstrapError ===

impl BootstrapError {
    /// Whether the configuration or a file it names has to change.
    pub fn is_configuration(&self) -> bool {
        match self {
            Self::Missing { .. } | Self::Hashes { .. } | Self::Signing { .. } | Self::Weak { .. } => true,
            Self::Store(_) | Self::File { .. } | Self::Randomness => false,
        }
    }
}

// === impl Control ===

impl Control {
    /// Opens the store, reads the key files, and makes what a first start needs.
    ///
    /// # Errors
    /// [`BootstrapError`].
    pub async fn open(settings: &Settings, judges: Judges) -> Result<Self, BootstrapError> {
        let store = Store::open(&settings.database).await?;
        let hasher = hasher(settings)?;
        let signing = signing_key(settings)?;
        info!(public_key = %signing.verifying().to_pem().replace('\n', " ").trim(), "The feed is signed.");
        let organisation = first_organisation(&store, &hasher, &settings.bootstrap_key_file).await?;
        let grants = Grants::new(organisation, settings.data_planes.clone(), settings.feed_connections);
        let feed = Feed::new(store.clone(), signing, grants);
        let sealer = Sealer::new(settings.recipients.clone());
        Ok(Self::new(store, sealer, hasher, feed, judges))
    }

    /// Reads `api_key_hash_file` again; says so when it changed.
    ///
    /// # Errors
    /// [`BootstrapError`]; the last one stays then.
    pub fn refresh_hashes(&self, settings: &Settings) -> Result<(), BootstrapError> {
        let hasher = hasher(&Settings { make_key_files: false, ..settings.clone() })?;
        if *self.hasher() != hasher {
            self.replace_hasher(hasher);
            info!("The hash file was read again.");
        }
        Ok(())
    }
}

/// Reads `api_key_hash_file`, or makes it.
///
/// # Errors
/// [`BootstrapError`].
fn hasher(settings: &Settings) -> Result<Hasher, BootstrapError> {
    let make = || Hasher::generate().map_err(|_| BootstrapError::Randomness);
    let file = &settings.api_key_hash_file;
    let text = read_or_make("api_key_hash_file", file, settings.make_key_files, make)?;
    Hasher::parse(&text).map_err(|source| BootstrapError::Hashes { file: file.clone(), source })
}

/// Reads `signing_key_file`, or makes it.
fn signing_key(settings: &Settings) -> Result<SigningKey, BootstrapError> {
    let make = || SigningKey::generate().ok().and_then(|key| key.expose()).ok_or(BootstrapError::Randomness);
    let file = &settings.signing_key_file;
    let text = read_or_make("signing_key_file", file, settings.make_key_files, make)?;
    SigningKey::parse(&text).map_err(|source| BootstrapError::Signing { file: file.clone(), source })
}

/// The first organisation; made with its OWNER key, unless it is there already.
async fn first_organisation(store: &Store, hasher: &Hasher, file: &Path) -> Result<String, BootstrapError> {
    let Some(mut write) = store.first("default", ACTOR).await? else {
        return Ok(store.organisations().await?.into_iter().next().unwrap_or_default());
    };
    let organisation = write.organisation().to_owned();
    let make = || key::generate().map_err(|_| BootstrapError::Randomness);
    let key = read_or_make("bootstrap_key_file", file, true, make)?;
    let key = key.trim();
    if key.chars().count() < LEAST_KEY_CHARACTERS {
        return Err(BootstrapError::Weak { file: file.to_owned() });
    }
    let mut object = Object::new(Kind::ApiKey, Object::new_id(), String::new(), "bootstrap".to_owned());
    object.slug.clone_from(&object.id);
    object.write(&Body { role: Role::Owner, mask: mask(key), ..Body::default() })?;
    write.insert(&mut object).await?;
    write.set_hashes(&object, &[hasher.hash(key, 0)]).await?;
    write.commit(Change::of(Action::Created, &object, Vec::new())).await?;
    info!(organisation_id = organisation, file = %file.display(), "The first organisation was made; its OWNER key is in the file.");
    Ok(organisation)
}

/// The text of `file`; if it is missing or empty, what `make` makes is written there first, for its owner alone.
fn read_or_make(
    key: &'static str,
    file: &Path,
    may_make: bool,
    make: impl FnOnce() -> Result<Zeroizing<String>, BootstrapError>,
) -> Result<Zeroizing<String>, BootstrapError> {
    let failed = |source| BootstrapError::File { key, file: file.to_owned(), source };
    match fs::read_to_string(file).map(Zeroizing::new) {
        Ok(text) if !text.trim().is_empty() => return Ok(text),
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(failed(error)),
    }
    if !may_make {
        return Err(BootstrapError::Missing { key, file: file.to_owned() });
    }
    let text = make()?;
    let mut options = OpenOptions::new();
    let made = options.write(true).create(true).truncate(true).mode(0o600).open(file);
    made.and_then(|mut made| made.write_all(text.as_bytes()).and_then(|()| made.sync_all())).map_err(failed)?;
    Ok(text)
}
