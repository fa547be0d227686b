//! What becomes of a credential that is posted: sealed to the data planes, with a mask beside it, or refused.

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::{
    seal::{Place, recipient::Recipients},
    secret::json::Literal,
};

/// From how many characters on a mask shows any of them.
const MASKED_FROM: usize = 12;

/// A credential as it is stored: only a data plane can open it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sealed {
    /// An age file in base64.
    #[serde(rename = "$sealed")]
    pub sealed: String,
    /// What reads show of it.
    pub mask: String,
}

/// Seals to the recipients of the configuration.
#[derive(Clone, Debug, Default)]
pub struct Sealer {
    recipients: Option<Recipients>,
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
        let sealed = self.seal_text(place, text)?;
        sealed.ok_or_else(|| {
            "is a credential, and there is no data plane to seal it to; set sealing.recipients".to_owned()
        })
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

/// Two characters and three of a text that is long enough for it.
pub fn mask(text: &str) -> String {
    let characters = text.chars().count();
    if characters < MASKED_FROM || !text.chars().all(|char| char.is_ascii_graphic()) {
        return "*****".to_owned();
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
