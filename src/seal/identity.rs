//! The opening half: the private keys of a data plane. Nothing of the control plane may name this file.

use std::fmt;

use aws_lc_rs::agreement::{PrivateKey, X25519};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use bech32::{Bech32, Hrp};
use serde::Deserialize;
use serde_json::value::RawValue;
use zeroize::Zeroizing;

use super::{
    Place,
    format::{self, Point, Unopened},
    recipient::Recipient,
};
use crate::secret::{SecretValue, json::Literal};

/// The part of an identity before its separator.
const PREFIX: &str = "age-secret-key-";

/// One private key.
pub struct Identity {
    private: PrivateKey,
    public: Point,
}

/// The private keys of one data plane: the current one, and those it is moving away from. At least one.
#[derive(Debug)]
pub struct Identities(Vec<Identity>);

/// A text that holds no identity. Quotes nothing of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotAnIdentity {
    /// A line that is none.
    #[error("line {0} is no AGE-SECRET-KEY-1…; make a file with sidekey keygen --kind identity")]
    Line(usize),
    /// No line at all.
    #[error("holds no AGE-SECRET-KEY-1…; make a file with sidekey keygen --kind identity")]
    Nothing,
}

/// Why a sealed value is not opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    /// It is no age file in base64, or does not hold what a sealed value does.
    #[error("is no sealed value")]
    Malformed,
    /// No identity of ours is among its recipients.
    #[error("is sealed to others; reseal it, or give this data plane the identity it was sealed to")]
    NotForUs,
    /// It was changed after it was sealed.
    #[error("was changed after it was sealed")]
    Tampered,
    /// It belongs to another organisation, object or field.
    #[error("was sealed for another place and was moved here")]
    Elsewhere,
}

/// What was sealed.
#[derive(Deserialize)]
struct Plaintext<'a> {
    #[serde(borrow)]
    organisation: &'a RawValue,
    #[serde(borrow)]
    object_id: &'a RawValue,
    #[serde(borrow)]
    field: &'a RawValue,
    #[serde(borrow)]
    value: &'a RawValue,
}

// === impl Identity ===

impl Identity {
    /// A new one.
    ///
    /// # Errors
    /// The system gives no randomness.
    pub fn generate() -> Result<Self, aws_lc_rs::error::Unspecified> {
        let mut bytes = Zeroizing::new([0; 32]);
        aws_lc_rs::rand::fill(&mut *bytes)?;
        Self::from_bytes(&*bytes).ok_or(aws_lc_rs::error::Unspecified)
    }

    /// Its public part.
    pub fn recipient(&self) -> Recipient {
        Recipient::new(self.public)
    }

    /// `AGE-SECRET-KEY-1…`, as it stands in a file. Whoever calls this is responsible for where it goes.
    pub fn expose(&self) -> Option<Zeroizing<String>> {
        use aws_lc_rs::encoding::{AsBigEndian, Curve25519SeedBin};
        let seed: Curve25519SeedBin<'_> = self.private.as_be_bytes().ok()?;
        let mut text = Zeroizing::new(String::with_capacity(128));
        bech32::encode_upper_to_fmt::<Bech32, _>(&mut *text, Hrp::parse_unchecked(PREFIX), seed.as_ref()).ok()?;
        Some(text)
    }

    fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let private = PrivateKey::from_private_key(&X25519, bytes).ok()?;
        let public = private.compute_public_key().ok()?.as_ref().try_into().ok()?;
        Some(Self { private, public })
    }

    fn parse(text: &str) -> Option<Self> {
        let (prefix, bytes) = bech32::decode(text).ok()?;
        let bytes = Zeroizing::new(bytes);
        // The format writes identities in upper case, and the library refuses mixed case.
        (prefix.as_str().eq_ignore_ascii_case(PREFIX) && text.starts_with('A')).then(|| Self::from_bytes(&bytes))?
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Identity({})", self.recipient())
    }
}

// === impl Identities ===

impl Identities {
    /// Reads an identity file: one identity a line, empty lines and comments (`#`) aside.
    ///
    /// # Errors
    /// [`NotAnIdentity`].
    pub fn parse(text: &str) -> Result<Self, NotAnIdentity> {
        let mut identities = Vec::new();
        for (index, line) in text.lines().map(str::trim).enumerate() {
            if !line.is_empty() && !line.starts_with('#') {
                identities.push(Identity::parse(line).ok_or(NotAnIdentity::Line(index + 1))?);
            }
        }
        if identities.is_empty() { Err(NotAnIdentity::Nothing) } else { Ok(Self(identities)) }
    }

    /// The public parts, in the order of the file.
    pub fn recipients(&self) -> impl Iterator<Item = Recipient> {
        self.0.iter().map(Identity::recipient)
    }

    /// Opens what stands behind `$sealed`, found at `place`.
    ///
    /// # Errors
    /// [`OpenError`].
    pub fn open(&self, place: Place<'_>, sealed: &str) -> Result<SecretValue, OpenError> {
        let file = STANDARD.decode(sealed).map_err(|_| OpenError::Malformed)?;
        self.open_file(place, &file)
    }

    /// As [`Identities::open`], of the age file itself.
    ///
    /// # Errors
    /// [`OpenError`].
    pub fn open_file(&self, place: Place<'_>, file: &[u8]) -> Result<SecretValue, OpenError> {
        let mut failure = OpenError::NotForUs;
        for Identity { private, public } in &self.0 {
            match format::decrypt(file, private, public) {
                Ok(plaintext) => return unpack(place, &plaintext),
                Err(Unopened::NotForUs) => {}
                Err(Unopened::Malformed) => failure = OpenError::Malformed,
                Err(Unopened::Tampered) => failure = OpenError::Tampered,
            }
        }
        Err(failure)
    }
}

impl From<Identity> for Identities {
    fn from(identity: Identity) -> Self {
        Self(vec![identity])
    }
}

fn unpack(place: Place<'_>, plaintext: &[u8]) -> Result<SecretValue, OpenError> {
    let plaintext: Plaintext<'_> = serde_json::from_slice(plaintext).map_err(|_| OpenError::Malformed)?;
    let is = |raw: &RawValue, expected: &str| {
        Literal::from(raw).decode().is_some_and(|text| text.as_slice() == expected.as_bytes())
    };
    let here = is(plaintext.organisation, place.organisation)
        && is(plaintext.object_id, place.object_id)
        && is(plaintext.field, place.field);
    if !here {
        return Err(OpenError::Elsewhere);
    }
    Literal::from(plaintext.value).decode().map(SecretValue::from).ok_or(OpenError::Malformed)
}

#[cfg(test)]
mod tests;
