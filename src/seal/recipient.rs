//! The closing half: public keys of data planes, and sealing to all of them.

use std::{fmt, str::FromStr};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use bech32::{Bech32, Hrp};
use serde::Serialize;
use zeroize::Zeroizing;

use super::{
    MAX_VALUE_BYTES, Place,
    format::{self, Point},
};

/// The part of a recipient before its separator.
pub(super) const PREFIX: &str = "age";

/// The public key of one data plane, or of an escrow: `age1…`.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Recipient(Point);

/// Everyone who can open what is sealed. At least one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recipients(Vec<Recipient>);

/// A text that is no recipient. Quotes nothing of it: it may be a private key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotARecipient {
    /// An identity: it must never be where recipients are.
    #[error("is a private key; give its public part, age1…, and make a new one")]
    Private,
    /// Anything else.
    #[error("is no recipient; write the age1… that sidekey keygen printed")]
    Other,
}

/// Why a value cannot be sealed. Quotes nothing of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SealError {
    /// More than [`MAX_VALUE_BYTES`].
    #[error("is longer than {MAX_VALUE_BYTES} bytes")]
    TooLong,
    /// A recipient that is no usable key, or no randomness.
    #[error("cannot be sealed to the recipients")]
    Unusable,
}

/// What is sealed.
#[derive(Serialize)]
struct Plaintext<'a> {
    organisation: &'a str,
    object_id: &'a str,
    field: &'a str,
    value: &'a str,
}

// === impl Recipient ===

impl Recipient {
    pub(super) const fn new(point: Point) -> Self {
        Self(point)
    }
}

impl FromStr for Recipient {
    type Err = NotARecipient;

    fn from_str(text: &str) -> Result<Self, NotARecipient> {
        if text.to_ascii_uppercase().starts_with("AGE-SECRET-KEY-") {
            return Err(NotARecipient::Private);
        }
        match bech32::decode(text) {
            Ok((prefix, point)) if prefix.as_str() == PREFIX && !text.contains(char::is_uppercase) => {
                point.try_into().map(Self).map_err(|_| NotARecipient::Other)
            }
            Ok(_) | Err(_) => Err(NotARecipient::Other),
        }
    }
}

impl fmt::Display for Recipient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        bech32::encode_lower_to_fmt::<Bech32, _>(f, Hrp::parse_unchecked(PREFIX), &self.0).map_err(|_| fmt::Error)
    }
}

impl fmt::Debug for Recipient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Recipient({self})")
    }
}

// === impl Recipients ===

impl Recipients {
    /// All of `recipients`; `None` when there is none.
    pub fn new(recipients: Vec<Recipient>) -> Option<Self> {
        (!recipients.is_empty()).then_some(Self(recipients))
    }

    /// Seals `value` for `place`: what stands behind `$sealed`.
    ///
    /// # Errors
    /// [`SealError`].
    pub fn seal(&self, place: Place<'_>, value: &str) -> Result<String, SealError> {
        if value.len() > MAX_VALUE_BYTES {
            return Err(SealError::TooLong);
        }
        let Place { organisation, object_id, field } = place;
        // A byte becomes six at most (`\u0000`), so that the buffer never grows and leaves a copy behind.
        let capacity = 6 * (value.len() + organisation.len() + object_id.len() + field.len()) + 64;
        let mut plaintext = Zeroizing::new(Vec::with_capacity(capacity));
        serde_json::to_writer(&mut *plaintext, &Plaintext { organisation, object_id, field, value })
            .map_err(|_| SealError::Unusable)?;
        let points: Vec<Point> = self.0.iter().map(|recipient| recipient.0).collect();
        let file = format::encrypt(&plaintext, &points).map_err(|_| match plaintext.len() {
            0..=MAX_VALUE_BYTES => SealError::Unusable,
            _ => SealError::TooLong,
        })?;
        Ok(STANDARD.encode(file))
    }
}
