//! Typed access to a JSON body that collects faults instead of stopping at one.
//!
//! The body stays in one buffer that is wiped; a field is read where it stands, so that a credential goes from there into
//! its seal and nowhere else. Names that nobody asks for are ignored, as Portkey does. A fault names its field and what
//! the value must be, and quotes nothing of it.

use std::{borrow::Cow, collections::HashSet, fmt, time::Duration};

use axum::extract::{FromRequest, Request};
use http_body_util::{BodyExt as _, Limited};
use serde::{
    Deserialize, Deserializer,
    de::{DeserializeOwned, MapAccess, Visitor},
};
use serde_json::value::RawValue;
use zeroize::Zeroizing;

use super::Refusal;

/// Largest body, in bytes. The largest objects are stored configs.
const MAX_BODY_BYTES: usize = 1 << 20;
/// For the whole of a body; it holds one of `limits.max_connections`.
const BODY_TIMEOUT: Duration = Duration::from_secs(30);

/// Repeated names that are reported; one body can hold a hundred thousand.
const MAX_FAULTS: usize = 32;

/// The body of a call, as it came. Wiped on drop.
pub struct Body(Zeroizing<Vec<u8>>);

/// The members of one object of a body.
pub struct Fields<'a> {
    /// Path of the object, with its dot; empty for the body itself.
    at: String,
    members: Vec<(Cow<'a, str>, &'a RawValue)>,
    asked: Vec<&'static str>,
    faults: Vec<String>,
}

/// What was given for a field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Given<T> {
    /// Nothing, or what was given was a fault.
    Absent,
    /// `null`.
    Null,
    /// A value.
    Value(T),
}

/// How long a text may be, in characters.
#[derive(Clone, Copy, Debug)]
pub struct Length(pub usize, pub usize);

struct Members<'a>(Vec<(Cow<'a, str>, &'a RawValue)>);

// === impl Body ===

impl Body {
    /// Its members, if it is an object.
    ///
    /// # Errors
    /// 400 when it is none.
    pub fn fields(&self) -> Result<Fields<'_>, Refusal> {
        let text = std::str::from_utf8(&self.0).map_err(|_| Refusal::invalid("the body is not UTF-8"))?;
        let raw: &RawValue = serde_json::from_str(text).map_err(|_| Refusal::invalid("the body is not JSON"))?;
        if holds_nul(text) {
            return Err(Refusal::invalid("the body holds a NUL character"));
        }
        Fields::of(String::new(), raw).ok_or_else(|| Refusal::invalid("the body is not a JSON object"))
    }

    /// As [`Body::fields`]; a body that is empty has no members.
    ///
    /// # Errors
    /// As there.
    pub fn optional_fields(&self) -> Result<Fields<'_>, Refusal> {
        match self.0.trim_ascii().is_empty() {
            true => Ok(Fields::none()),
            false => self.fields(),
        }
    }
}

impl From<Vec<u8>> for Body {
    fn from(bytes: Vec<u8>) -> Self {
        Self(Zeroizing::new(bytes))
    }
}

impl fmt::Debug for Body {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Body(<{} bytes>)", self.0.len())
    }
}

impl<S: Sync> FromRequest<S> for Body {
    type Rejection = Refusal;

    async fn from_request(request: Request, _: &S) -> Result<Self, Refusal> {
        let body = Limited::new(request.into_body(), MAX_BODY_BYTES).collect();
        let collected = tokio::time::timeout(BODY_TIMEOUT, body).await;
        let collected = collected.map_err(|_| Refusal::invalid("the body did not arrive in time"))?;
        let bytes = collected.map_err(|_| Refusal::too_large(MAX_BODY_BYTES))?.to_bytes();
        // Sized once; what the connection read into is reused by it and not ours to wipe.
        Ok(Self(Zeroizing::new(bytes.to_vec())))
    }
}

// === impl Fields ===

impl<'a> Fields<'a> {
    fn none() -> Self {
        Self { at: String::new(), members: Vec::new(), asked: Vec::new(), faults: Vec::new() }
    }

    fn of(at: String, raw: &'a RawValue) -> Option<Self> {
        let Members(members) = serde_json::from_str(raw.get()).ok()?;
        let mut fields = Self { at, members, ..Self::none() };
        let mut seen = HashSet::with_capacity(fields.members.len());
        let mut repeated: Vec<String> = Vec::new();
        for (name, _) in &fields.members {
            if !seen.insert(&**name) && repeated.len() < MAX_FAULTS {
                repeated.push(name.chars().filter(|char| !char.is_control()).take(64).collect());
            }
        }
        for name in repeated {
            fields.fault(&name, "is given twice");
        }
        Some(fields)
    }

    /// The value of `key` as it stands there.
    pub fn raw(&mut self, key: &'static str) -> Given<&'a RawValue> {
        self.asked.push(key);
        match self.members.iter().find(|(name, _)| name == key) {
            None => Given::Absent,
            Some((_, raw)) if raw.get() == "null" => Given::Null,
            Some((_, raw)) => Given::Value(raw),
        }
    }

    /// A text of this length.
    pub fn text(&mut self, key: &'static str, Length(least, most): Length) -> Given<String> {
        let expected = match least {
            0 => format!("must be text of at most {most} characters"),
            _ => format!("must be text of {least} to {most} characters"),
        };
        let text = self.typed::<String>(key, &expected);
        match &text {
            Given::Value(text) if !(least..=most).contains(&text.chars().count()) || text.contains('\0') => {
                self.fault(key, &expected);
                Given::Absent
            }
            _ => text,
        }
    }

    /// `true` or `false`.
    pub fn flag(&mut self, key: &'static str) -> Given<bool> {
        self.typed(key, "must be true or false")
    }

    /// As [`Fields::flag`], or 0 or 1: as reads of Portkey's show what writes have as true or false.
    pub fn toggle(&mut self, key: &'static str) -> Given<bool> {
        match self.raw(key) {
            Given::Value(raw) if raw.get() == "0" => Given::Value(false),
            Given::Value(raw) if raw.get() == "1" => Given::Value(true),
            _ => self.flag(key),
        }
    }

    /// A list of texts.
    pub fn texts(&mut self, key: &'static str) -> Given<Vec<String>> {
        self.typed(key, "must be a list of texts")
    }

    /// Whatever `T` can be read from; `expected` is what to say otherwise: `must be …`. Not for credentials.
    pub fn typed<T: DeserializeOwned>(&mut self, key: &'static str, expected: &str) -> Given<T> {
        match self.raw(key) {
            Given::Absent => Given::Absent,
            Given::Null => Given::Null,
            Given::Value(raw) => match serde_json::from_str(raw.get()) {
                Ok(value) => Given::Value(value),
                Err(_) => {
                    self.fault(key, expected);
                    Given::Absent
                }
            },
        }
    }

    /// The members of the object under `key`. Hand it to [`Fields::absorb`] when it is read.
    pub fn object(&mut self, key: &'static str) -> Given<Fields<'a>> {
        match self.raw(key) {
            Given::Absent => Given::Absent,
            Given::Null => Given::Null,
            Given::Value(raw) => match Fields::of(format!("{}{key}.", self.at), raw) {
                Some(fields) => Given::Value(fields),
                None => {
                    self.fault(key, "must be an object");
                    Given::Absent
                }
            },
        }
    }

    /// The objects of the list under `key`. Hand them to [`Fields::absorb`] when they are read.
    pub fn objects(&mut self, key: &'static str) -> Given<Vec<Fields<'a>>> {
        match self.raw(key) {
            Given::Absent => Given::Absent,
            Given::Null => Given::Null,
            Given::Value(raw) => {
                let rows: Option<Vec<&'a RawValue>> = serde_json::from_str(raw.get()).ok();
                let read = |(index, raw)| Fields::of(format!("{}{key}[{index}].", self.at), raw);
                match rows.and_then(|rows| rows.into_iter().enumerate().map(read).collect()) {
                    Some(objects) => Given::Value(objects),
                    None => {
                        self.fault(key, "must be a list of objects");
                        Given::Absent
                    }
                }
            }
        }
    }

    /// The object under `key` alone, or the objects of the list there. Hand them to [`Fields::absorb`] when they are read.
    pub fn one_or_more(&mut self, key: &'static str) -> Given<Vec<Fields<'a>>> {
        match self.raw(key) {
            Given::Value(raw) if raw.get().starts_with('{') => match self.object(key) {
                Given::Value(one) => Given::Value(vec![one]),
                Given::Null => Given::Null,
                Given::Absent => Given::Absent,
            },
            _ => self.objects(key),
        }
    }

    /// Every member, in the order of the body.
    pub fn members(&self) -> impl Iterator<Item = (&str, &'a RawValue)> {
        self.members.iter().map(|(name, raw)| (&**name, *raw))
    }

    /// Whether `key` is given, be it `null`.
    pub fn has(&self, key: &str) -> bool {
        self.members.iter().any(|(name, _)| name == key)
    }

    /// Says that `key` is wrong; `what` follows its name: `must be …`.
    pub fn fault(&mut self, key: &str, what: impl fmt::Display) {
        self.faults.push(format!("{}{key}: {what}", self.at));
    }

    /// Says that `key` has to be given, if it was not and nothing is wrong with it.
    pub fn require<T>(&mut self, key: &'static str, given: Given<T>) -> Option<T> {
        match given {
            Given::Value(value) => return Some(value),
            Given::Null => self.fault(key, "must not be null"),
            Given::Absent if !self.has(key) => self.fault(key, "is missing"),
            Given::Absent => {}
        }
        None
    }

    /// Takes over the faults of an object below.
    pub fn absorb(&mut self, below: Fields<'_>) {
        self.faults.extend(below.faults);
    }

    /// Names of what was given and asked for, for the audit log.
    pub fn names(&self) -> Vec<String> {
        let given = self.members().map(|(name, _)| name);
        given.filter(|name| self.asked.contains(name)).map(str::to_owned).collect()
    }

    /// Whether nothing is wrong so far.
    pub fn is_clean(&self) -> bool {
        self.faults.is_empty()
    }

    /// The end of reading.
    ///
    /// # Errors
    /// 400 with every fault.
    pub fn finish(&self) -> Result<(), Refusal> {
        match self.faults.as_slice() {
            [] => Ok(()),
            faults => Err(Refusal::invalid(faults.join("; "))),
        }
    }
}

// === impl Given ===

impl<T> Given<T> {
    /// The value; `null` counts as none.
    pub fn value(self) -> Option<T> {
        match self {
            Self::Value(value) => Some(value),
            Self::Null | Self::Absent => None,
        }
    }

    /// Puts the value into `place`; `null` changes nothing.
    pub fn replace(self, place: &mut T) {
        if let Self::Value(value) = self {
            *place = value;
        }
    }

    /// Puts the value into `place`; `null` empties it.
    pub fn put(self, place: &mut T)
    where
        T: Default,
    {
        match self {
            Self::Value(value) => *place = value,
            Self::Null => *place = T::default(),
            Self::Absent => {}
        }
    }

    /// Puts the value into `place`; `null` clears it.
    pub fn set(self, place: &mut Option<T>) {
        match self {
            Self::Value(value) => *place = Some(value),
            Self::Null => *place = None,
            Self::Absent => {}
        }
    }
}

// === impl Members ===

impl<'de: 'a, 'a> Deserialize<'de> for Members<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Collect;

        impl<'de> Visitor<'de> for Collect {
            type Value = Vec<(Cow<'de, str>, &'de RawValue)>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut members = Vec::new();
                while let Some((name, value)) = map.next_entry::<Cow<'de, str>, _>()? {
                    members.push((name, value));
                }
                Ok(members)
            }
        }

        deserializer.deserialize_map(Collect).map(Members)
    }
}

/// Whether JSON text holds the escape of NUL, which no text of PostgreSQL can. In the open it is no JSON.
fn holds_nul(json: &str) -> bool {
    json.match_indices("u0000").any(|(at, _)| {
        let before = json[..at].bytes().rev().take_while(|byte| *byte == b'\\').count();
        before % 2 == 1
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_escaped_nul_is_found_and_an_escaped_backslash_is_not_one() {
        let cases = [
            (r#"{"a":"b\u0000"}"#, true),
            (r#"{"a":"\\\u0000"}"#, true),
            (r#"{"a":"\\u0000"}"#, false),
            (r#"{"u0000":"u0000"}"#, false),
            (r#"{"a":"\u00001"}"#, true),
        ];
        for (json, expected) in cases {
            assert_eq!(holds_nul(json), expected, "{json}");
        }
    }
}
