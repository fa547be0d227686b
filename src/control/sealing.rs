//! What becomes of a credential that is posted: sealed to the data planes, with a mask beside it, or refused.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize, Serializer};
use serde_json::{Value, value::RawValue};
use zeroize::Zeroizing;

use crate::{
    seal::{Place, recipient::Recipients},
    secret::json::{Kind, Literal},
};

/// From how many characters on a mask shows any of them.
const MASKED_FROM: usize = 12;
/// What stands for a value that shows nothing.
const HIDDEN: &str = "*****";
/// Why a credential is refused when there are no recipients.
const NOBODY: &str = "is a credential, and there is no data plane to seal it to; set sealing.recipients";

/// A credential as it is stored: only a data plane can open it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sealed {
    /// An age file in base64.
    #[serde(rename = "$sealed")]
    pub sealed: String,
    /// What reads show of it.
    pub mask: String,
}

/// A value as it is stored.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Stored {
    /// A credential.
    Sealed(Sealed),
    /// Anything else. Never an object, which could pass for a seal.
    Plain(Value),
}

/// A value as a snapshot has it: a seal without its mask, which is for people.
#[derive(Clone, Copy, Debug, Serialize)]
#[serde(untagged)]
pub enum Fed<'a> {
    /// A credential.
    Sealed {
        /// An age file in base64.
        #[serde(rename = "$sealed")]
        sealed: &'a str,
    },
    /// Anything else.
    Plain(&'a Value),
}

/// Seals to the recipients of the configuration.
#[derive(Clone, Debug, Default)]
pub struct Sealer {
    recipients: Option<Recipients>,
}

// === impl Sealed ===

impl Sealed {
    /// As a snapshot has it.
    pub fn fed(&self) -> Fed<'_> {
        Fed::Sealed { sealed: &self.sealed }
    }
}

// === impl Stored ===

impl Stored {
    /// As a snapshot has it.
    pub fn fed(&self) -> Fed<'_> {
        match self {
            Self::Sealed(sealed) => sealed.fed(),
            Self::Plain(value) => Fed::Plain(value),
        }
    }
}

// === impl Sealer ===

impl Sealer {
    /// Seals to `recipients`; with none, every credential is refused.
    pub fn new(recipients: Option<Recipients>) -> Self {
        Self { recipients }
    }

    /// Seals the text `raw` for `place`.
    ///
    /// # Errors
    /// What is wrong, as what follows the name of the field. Quotes nothing of it.
    pub fn seal(&self, place: Place<'_>, raw: &RawValue) -> Result<Sealed, String> {
        let Some(value) = Literal::from(raw).decode() else { return Err("must be text".to_owned()) };
        let Ok(text) = std::str::from_utf8(&value) else { return Err("must be text".to_owned()) };
        self.seal_text(place, text)?.ok_or_else(|| NOBODY.to_owned())
    }

    /// Seals the object `raw`, whose values are texts, or the text that holds such an object, for `place`: as compact JSON.
    ///
    /// # Errors
    /// As for [`Sealer::seal`].
    pub fn seal_structure(&self, place: Place<'_>, raw: &RawValue) -> Result<Sealed, String> {
        const EXPECTED: &str = "must be an object whose values are text";
        let literal = Literal::from(raw);
        if literal.kind() == Kind::String {
            let inner = literal.decode();
            let inner = inner.as_deref().and_then(|text| serde_json::from_slice::<&RawValue>(text).ok());
            return match inner {
                Some(inner) if inner.get().starts_with('{') => self.seal_structure(place, inner),
                _ => Err(EXPECTED.to_owned()),
            };
        }
        let members: Option<BTreeMap<String, &RawValue>> = serde_json::from_str(raw.get()).ok();
        if !members.is_some_and(|members| members.values().all(|value| value.get().starts_with('"'))) {
            return Err(EXPECTED.to_owned());
        }
        let json = Zeroizing::new(literal.compact_ascii());
        let Ok(json) = std::str::from_utf8(&json) else { return Err(EXPECTED.to_owned()) };
        let sealed = self.seal_text(place, json)?.ok_or_else(|| NOBODY.to_owned())?;
        Ok(Sealed { mask: HIDDEN.to_owned(), ..sealed })
    }

    /// Seals what was made here; `None` when there is nobody to seal it to.
    ///
    /// # Errors
    /// It cannot be sealed, and why.
    pub fn seal_text(&self, place: Place<'_>, text: &str) -> Result<Option<Sealed>, String> {
        let Some(recipients) = &self.recipients else { return Ok(None) };
        let sealed = recipients.seal(place, text).map_err(|error| error.to_string())?;
        Ok(Some(Sealed { sealed, mask: mask(text) }))
    }
}

/// Writes `members` as a snapshot has them.
///
/// # Errors
/// Those of the serializer.
pub fn feed<S: Serializer>(members: &BTreeMap<String, Stored>, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_map(members.iter().map(|(name, value)| (name, value.fed())))
}

/// Two characters and three of a text that is long enough for it.
pub fn mask(text: &str) -> String {
    let characters = text.chars().count();
    if characters < MASKED_FROM || !text.chars().all(|char| char.is_ascii_graphic()) {
        return HIDDEN.to_owned();
    }
    format!("{}*****{}", &text[..2], &text[text.len() - 3..])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_values_show_nothing() {
        let cases = [
            ("", "*****"),
            ("12345678901", "*****"),
            ("z1xxxxxxx3AX", "z1*****3AX"),
            ("-----BEGIN KEY-----\nx", "*****"),
            ("ключключключ", "*****"),
        ];
        for (text, expected) in cases {
            assert_eq!(mask(text), expected, "{text}");
        }
    }

    #[test]
    fn without_recipients_a_credential_is_refused_unread() {
        let raw: Box<RawValue> = serde_json::from_str("\"sk-canary-value\"").unwrap();
        let place = Place { organisation: "o", object_id: "i", field: "key" };
        let refusal = Sealer::default().seal(place, &raw).unwrap_err();
        assert!(refusal.contains("sealing.recipients") && !refusal.contains("canary"), "{refusal}");
    }
}
