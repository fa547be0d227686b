//! A token and how long it lasts.

use std::{fmt, time::Duration};

use bytes::Bytes;
use http::HeaderValue;
use tokio::time::Instant;
use zeroize::Zeroizing;

use crate::secret::SecretValue;

/// Longest lease that is taken at its word; what is longer is renewed as if it ended then.
const MAX_LEASE: Duration = Duration::from_secs(30 * 24 * 3600);

/// What a login brings.
#[derive(Debug)]
pub(in crate::manager) struct Grant {
    /// The token as the manager wrote it.
    pub(in crate::manager) token: SecretValue,
    /// How long it lasts.
    pub(in crate::manager) lease: Lease,
}

/// How long a token lasts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::manager) enum Lease {
    /// Not said yet.
    Unknown,
    /// It does not end.
    Endless,
    /// It ends.
    Ends {
        /// From now.
        after: Duration,
        /// Whether it can be extended.
        renewable: bool,
    },
}

/// One token, ready to be sent. Shared by the fetches that use it and wiped when the last one lets go.
pub(in crate::manager) struct Token {
    header: HeaderValue,
    issued: Instant,
}

// === impl Token ===

impl Token {
    /// The token as a sensitive header value. Azure's libraries take it as text.
    #[cfg(any(feature = "aws", feature = "gcp", feature = "vault", test))]
    pub(in crate::manager) fn header(&self) -> &HeaderValue {
        &self.header
    }

    /// `Bearer <token>`, sensitive, over a buffer of its own.
    #[cfg(feature = "azure")]
    pub(in crate::manager) fn bearer(&self) -> Option<HeaderValue> {
        const SCHEME: &[u8] = b"Bearer ";
        let token = self.header.as_bytes();
        let mut bytes = Zeroizing::new(Vec::with_capacity(SCHEME.len() + token.len()));
        bytes.extend_from_slice(SCHEME);
        bytes.extend_from_slice(token);
        let mut header = HeaderValue::from_maybe_shared(Bytes::from_owner(bytes)).ok()?;
        header.set_sensitive(true);
        Some(header)
    }

    /// Time since the login that brought it.
    pub(in crate::manager) fn age(&self) -> Duration {
        self.issued.elapsed()
    }

    /// `None` when no header can carry it.
    pub(in crate::manager) fn new(token: &SecretValue) -> Option<Self> {
        let text = token.expose().trim_ascii();
        let mut bytes = Zeroizing::new(Vec::with_capacity(text.len()));
        bytes.extend_from_slice(text);
        if bytes.is_empty() {
            return None;
        }
        let mut header = HeaderValue::from_maybe_shared(Bytes::from_owner(bytes)).ok()?;
        header.set_sensitive(true);
        Some(Self { header, issued: Instant::now() })
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Token").field("age", &self.age()).finish_non_exhaustive()
    }
}

// === impl Lease ===

impl Lease {
    /// A lease of `seconds`, where 0 means that it does not end.
    pub(in crate::manager) fn of_seconds(seconds: u64, renewable: bool) -> Self {
        match seconds {
            0 => Self::Endless,
            seconds => Self::Ends { after: Duration::from_secs(seconds).min(MAX_LEASE), renewable },
        }
    }

    pub(super) fn seconds(self) -> Option<u64> {
        match self {
            Self::Unknown | Self::Endless => None,
            Self::Ends { after, .. } => Some(after.as_secs()),
        }
    }

    pub(super) fn ends(self) -> Option<Instant> {
        match self {
            Self::Unknown | Self::Endless => None,
            Self::Ends { after, .. } => Some(Instant::now() + after),
        }
    }
}
