//! Credentials of the snapshot itself: clear or sealed, and the place that a sealed one has to belong to.

use std::{fmt, sync::Arc};

use super::raw::RawSecret;
use crate::{
    seal::opener::{Form, Opener, Sealed, Unusable},
    secret::{Credential, json::Literal},
};

/// A credential stored in the snapshot itself. A sealed one is opened when it is first needed.
#[derive(Clone)]
pub struct Stored(Kind);

#[derive(Clone)]
enum Kind {
    Clear(Arc<Credential>),
    Sealed(Arc<Sealed>, Form),
}

/// Where the sealed values of one object belong, and who opens them.
pub(super) struct Seals<'a> {
    /// `None`: nobody here can.
    pub(super) opener: Option<&'a Arc<Opener>>,
    pub(super) organisation: &'a Arc<str>,
    pub(super) object_id: &'a Arc<str>,
}

// === impl Stored ===

impl Stored {
    /// One in clear.
    pub(super) fn clear(credential: Credential) -> Self {
        Self(Kind::Clear(Arc::new(credential)))
    }

    /// A sealed one, of which `form` makes the credential.
    pub(super) fn sealed(sealed: Arc<Sealed>, form: Form) -> Self {
        Self(Kind::Sealed(sealed, form))
    }

    /// The credential. Opening one costs a tenth of a millisecond, the first time.
    ///
    /// # Errors
    /// [`Unusable`]: it is sealed, and cannot be opened or does not hold what the field needs.
    pub fn credential(&self) -> Result<Arc<Credential>, Unusable> {
        match &self.0 {
            Kind::Clear(credential) => Ok(Arc::clone(credential)),
            Kind::Sealed(sealed, form) => sealed.credential(*form),
        }
    }

    /// Whether it is sealed.
    pub fn is_sealed(&self) -> bool {
        matches!(self.0, Kind::Sealed(..))
    }
}

impl fmt::Debug for Stored {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.is_sealed() { "Stored(<sealed>)" } else { "Stored(<redacted>)" })
    }
}

// === impl Seals ===

impl Seals<'_> {
    /// What stands behind `$sealed` in `field`.
    ///
    /// # Errors
    /// What is wrong, as what follows the name of the field.
    pub(super) fn find(&self, field: &str, sealed: Literal<'_>) -> Result<Arc<Sealed>, &'static str> {
        let opener = self.opener.ok_or(RawSecret::SEALED)?;
        let sealed = sealed.decode().ok_or("is no sealed value")?;
        Sealed::new(opener, self.organisation, self.object_id, field, &sealed).map(Arc::new).ok_or("is no sealed value")
    }
}
