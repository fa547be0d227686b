//! Opens sealed values when they are needed: once for each ciphertext, and never one that sits elsewhere than it says.
//!
//! A snapshot of a hundred thousand seals costs no opening when it is loaded. What was opened for a field of an entity is
//! remembered in a memo of bounded size, keyed by place and ciphertext; what cannot be opened is remembered, too, named once
//! in the log and counted for as long as a snapshot holds it. A new identity file makes everything try again.

mod memo;

use std::{
    collections::HashMap,
    fmt,
    fs::File,
    io::{self, Read},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
};

use arc_swap::ArcSwap;
use base64::{Engine as _, engine::general_purpose::STANDARD};
use sha2::{Digest as _, Sha256};
use tracing::{error, info, warn};
use zeroize::Zeroizing;

use self::memo::Memo;
use super::{
    Place, format,
    identity::{Identities, NotAnIdentity, OpenError},
};
use crate::secret::{Credential, SecretValue};

/// Credentials remembered at once; the ones unused for longest are opened again when they are needed again.
const MEMO: usize = 10_000;
/// Values that cannot be opened and are kept by name; further ones answer the same and are not listed.
const MAX_UNOPENED: usize = 10_000;
/// Largest identity file, in bytes.
const MAX_FILE_BYTES: u64 = 64 << 10;

/// The identities of this data plane, and what they opened so far. Share it as `Arc<Opener>`.
pub struct Opener {
    file: Option<PathBuf>,
    seen: Mutex<Digest>,
    identities: ArcSwap<Identities>,
    memo: Mutex<Memo>,
    unopened: Mutex<HashMap<Digest, Unopened>>,
}

/// A sealed value of a snapshot at its place, unopened.
pub struct Sealed {
    opener: Arc<Opener>,
    organisation: Arc<str>,
    object_id: Arc<str>,
    field: Box<str>,
    file: Box<[u8]>,
    digest: Digest,
}

/// Makes a credential of the value that was sealed; the error says what the value must be.
pub type Form = fn(SecretValue) -> Result<Credential, &'static str>;

/// Why a sealed value is of no use. Quotes nothing of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unusable {
    /// It cannot be opened.
    #[error(transparent)]
    Unopened(#[from] OpenError),
    /// It does not hold what its field needs.
    #[error("holds a value that {0}")]
    Unfit(&'static str),
}

/// Why an identity file cannot be used. Names the file, never what stands there.
#[derive(Debug, thiserror::Error)]
pub enum IdentityFileError {
    /// It cannot be read.
    #[error("{} cannot be read", file.display())]
    Read {
        /// Which.
        file: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It holds no identity.
    #[error("{} {reason}", file.display())]
    Content {
        /// Which.
        file: PathBuf,
        /// What is wrong with it.
        reason: NotAnIdentity,
    },
}

/// SHA-256: of a file, or of a place with its ciphertext.
type Digest = [u8; 32];

/// A value that could not be opened, for as long as a snapshot holds it.
struct Unopened {
    sealed: Weak<Sealed>,
    reason: Unusable,
}

// === impl Opener ===

impl Opener {
    /// Opens with `identities`, for good.
    pub fn new(identities: Identities) -> Self {
        Self {
            file: None,
            seen: Mutex::default(),
            identities: ArcSwap::from_pointee(identities),
            memo: Mutex::new(Memo::new(MEMO)),
            unopened: Mutex::default(),
        }
    }

    /// Opens with the identities of `file`, see [`Opener::refresh`].
    ///
    /// # Errors
    /// [`IdentityFileError`] when it cannot be read or used.
    pub fn load(file: PathBuf) -> Result<Self, IdentityFileError> {
        let text = read(&file)?;
        let identities = parse(&file, &text)?;
        Ok(Self { seen: Mutex::new(digest(&text)), file: Some(file), ..Self::new(identities) })
    }

    /// Reads the file again, if it changed; logs what became of it. A file that cannot be used leaves the last good
    /// identities in force. Blocks.
    pub fn refresh(&self) {
        let Some(file) = &self.file else { return };
        let parsed = read(file).and_then(|text| {
            let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
            let now = digest(&text);
            if *seen == now {
                return Ok(None);
            }
            // Remembered even if it cannot be used, so that one fault is logged once.
            *seen = now;
            parse(file, &text).map(Some)
        });
        match parsed {
            Ok(None) => {}
            Ok(Some(identities)) => {
                let recipients: Vec<_> = identities.recipients().map(|recipient| recipient.to_string()).collect();
                info!(?file, ?recipients, "The identities of this data plane were reloaded.");
                self.identities.store(Arc::new(identities));
                self.memo().clear();
                self.failures().clear();
            }
            Err(error) => warn!(?file, %error, "The identities cannot be used, the last ones stay."),
        }
    }

    /// The public keys of the identities in force, `age1…`.
    pub fn recipients(&self) -> Vec<String> {
        self.identities.load().recipients().map(|recipient| recipient.to_string()).collect()
    }

    /// The values of current snapshots that were needed and could not be opened: where, and why. In the order of their
    /// objects.
    pub fn unopened(&self) -> Vec<(String, Unusable)> {
        let mut failures = self.failures();
        failures.retain(|_, unopened| unopened.sealed.strong_count() > 0);
        let mut listed: Vec<_> = failures
            .values()
            .filter_map(|unopened| Some((unopened.sealed.upgrade()?.to_string(), unopened.reason)))
            .collect();
        drop(failures);
        listed.sort_by(|a, b| a.0.cmp(&b.0));
        listed
    }

    fn memo(&self) -> MutexGuard<'_, Memo> {
        self.memo.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn failures(&self) -> MutexGuard<'_, HashMap<Digest, Unopened>> {
        self.unopened.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Opener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Opener")
            .field("file", &self.file)
            .field("recipients", &self.recipients())
            .finish_non_exhaustive()
    }
}

// === impl Sealed ===

impl Sealed {
    /// What stands behind `$sealed`, found at `place`. Nothing is opened yet; `None` when it is no age file in base64.
    pub fn new(
        opener: &Arc<Opener>,
        organisation: &Arc<str>,
        object_id: &Arc<str>,
        field: &str,
        sealed: &[u8],
    ) -> Option<Self> {
        let file = STANDARD.decode(sealed).ok().filter(|file| format::is_file(file))?;
        let mut hash = Sha256::new();
        for part in [organisation.as_bytes(), object_id.as_bytes(), field.as_bytes(), &file] {
            hash.update((part.len() as u64).to_be_bytes());
            hash.update(part);
        }
        Some(Self {
            opener: Arc::clone(opener),
            organisation: Arc::clone(organisation),
            object_id: Arc::clone(object_id),
            field: field.into(),
            file: file.into(),
            digest: hash.finalize().into(),
        })
    }

    /// Opens it, past the memo.
    ///
    /// # Errors
    /// [`OpenError`], which is noted.
    pub fn open(self: &Arc<Self>) -> Result<SecretValue, OpenError> {
        let opened = self.opener.identities.load().open_file(self.place(), &self.file);
        opened.inspect_err(|&error| self.note(error.into()))
    }

    /// The credential that `form` makes of the value: opened once, remembered with what came of it.
    ///
    /// # Errors
    /// [`Unusable`], which is noted.
    pub fn credential(self: &Arc<Self>, form: Form) -> Result<Arc<Credential>, Unusable> {
        let slot = self.opener.memo().slot(self.digest);
        let make = || {
            let value = self.open()?;
            form(value).map(Arc::new).map_err(Unusable::Unfit).inspect_err(|&unfit| self.note(unfit))
        };
        // Outside the lock: others open other values meanwhile, and whoever needs this one waits for it.
        slot.get_or_init(make).clone()
    }

    fn place(&self) -> Place<'_> {
        Place { organisation: &self.organisation, object_id: &self.object_id, field: &self.field }
    }

    fn note(self: &Arc<Self>, reason: Unusable) {
        let mut failures = self.opener.failures();
        if failures.len() >= MAX_UNOPENED {
            failures.retain(|_, unopened| unopened.sealed.strong_count() > 0);
        }
        let known = failures.get(&self.digest).is_some_and(|unopened| unopened.sealed.strong_count() > 0);
        if known || failures.len() >= MAX_UNOPENED {
            return;
        }
        failures.insert(self.digest, Unopened { sealed: Arc::downgrade(self), reason });
        drop(failures);
        let (object, field) = (&*self.object_id, &*self.field);
        error!(object, field, error = %reason, "A sealed value cannot be used.");
    }
}

/// Where it sits.
impl fmt::Display for Sealed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of {}", self.field.escape_debug(), self.object_id.escape_debug())
    }
}

impl fmt::Debug for Sealed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Sealed({self})")
    }
}

fn read(file: &Path) -> Result<Zeroizing<Vec<u8>>, IdentityFileError> {
    let unread = |source| IdentityFileError::Read { file: file.to_owned(), source };
    let open = File::open(file).map_err(unread)?;
    let size = open.metadata().map_err(unread)?.len().min(MAX_FILE_BYTES);
    // Growth would leave copies behind.
    let mut text = Zeroizing::new(Vec::with_capacity(usize::try_from(size).unwrap_or_default() + 1));
    open.take(MAX_FILE_BYTES).read_to_end(&mut text).map_err(unread)?;
    Ok(text)
}

fn parse(file: &Path, text: &[u8]) -> Result<Identities, IdentityFileError> {
    let unusable = |reason| IdentityFileError::Content { file: file.to_owned(), reason };
    let text = std::str::from_utf8(text).map_err(|_| unusable(NotAnIdentity::Nothing))?;
    Identities::parse(text).map_err(unusable)
}

fn digest(text: &[u8]) -> Digest {
    Sha256::digest(text).into()
}

#[cfg(test)]
mod tests;
