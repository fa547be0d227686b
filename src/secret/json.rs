//! JSON read in place: find a member, decode a string, write a value compact and in ASCII (RFC 8259).
//!
//! serde_json checks the syntax once and hands out slices of the input ([`RawValue`]); values never pass through a
//! `String` or a `Value`, so nothing is left behind in freed memory, and big numbers keep their digits.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;
use zeroize::Zeroizing;

/// One JSON value as it is written, syntax checked, no white space around it.
#[derive(Clone, Copy)]
pub struct Literal<'a>(&'a str);

/// What kind of value it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `null`.
    Null,
    /// A string.
    String,
    /// An object.
    Object,
    /// An array.
    Array,
    /// A number or a boolean.
    Scalar,
}

/// Deserializes an object to the last value of one name.
struct Member<'k>(&'k str);

/// Deserializes a key to whether it is this name.
struct Named<'k>(&'k str);

// === impl Literal ===

impl<'a> From<&'a RawValue> for Literal<'a> {
    fn from(raw: &'a RawValue) -> Self {
        Self(raw.get())
    }
}

impl<'a> Literal<'a> {
    /// Checks that `text` is one JSON value.
    pub fn parse(text: &'a str) -> Option<Self> {
        // The error is dropped unseen: it could quote the secret.
        serde_json::from_str::<&RawValue>(text).ok().map(|raw| Self(raw.get()))
    }

    /// What kind of value it is, by its first byte.
    pub fn kind(self) -> Kind {
        match self.0.as_bytes().first() {
            Some(b'"') => Kind::String,
            Some(b'{') => Kind::Object,
            Some(b'[') => Kind::Array,
            Some(b'n') => Kind::Null,
            _ => Kind::Scalar,
        }
    }

    /// The member `name`, the last one of several; `None` also when this is no object.
    pub fn member(self, name: &str) -> Option<Self> {
        if self.kind() != Kind::Object {
            return None;
        }
        Member(name).deserialize(&mut serde_json::Deserializer::from_str(self.0)).ok().flatten()
    }

    /// The text of a string, in a buffer sized once; `None` when it is no string or holds half a surrogate pair.
    pub fn decode(self) -> Option<Zeroizing<Vec<u8>>> {
        let mut rest = self.0.strip_prefix('"')?.strip_suffix('"')?;
        // Decoding never lengthens.
        let mut text = Zeroizing::new(Vec::with_capacity(rest.len()));
        while let Some((plain, escape)) = rest.split_once('\\') {
            text.extend_from_slice(plain.as_bytes());
            let (decoded, after) = unescape(escape)?;
            text.extend_from_slice(decoded.encode_utf8(&mut [0; 4]).as_bytes());
            rest = after;
        }
        text.extend_from_slice(rest.as_bytes());
        Some(text)
    }

    /// The value without insignificant white space and with everything outside visible ASCII escaped, in a buffer sized
    /// once. Members, their order and the digits of numbers stay as written.
    pub fn compact_ascii(self) -> Vec<u8> {
        let mut length = 0;
        self.write_compact(&mut |bytes| length += bytes.len());
        let mut json = Vec::with_capacity(length);
        self.write_compact(&mut |bytes| json.extend_from_slice(bytes));
        json
    }

    fn write_compact(self, write: &mut impl FnMut(&[u8])) {
        let (mut in_string, mut escaped) = (false, false);
        for char in self.0.chars() {
            if !in_string && char.is_ascii_whitespace() {
                continue;
            }
            if char == '"' && !escaped {
                in_string = !in_string;
            }
            escaped = char == '\\' && !escaped;
            if matches!(char, ' '..='~') {
                write(&[char as u8]);
            } else {
                for unit in char.encode_utf16(&mut [0; 2]) {
                    write(&escape(*unit));
                }
            }
        }
    }
}

// === impl Kind ===

impl Kind {
    /// Whether it is an object or an array.
    pub fn is_structure(self) -> bool {
        matches!(self, Self::Object | Self::Array)
    }
}

// === impl Member ===

impl<'de> DeserializeSeed<'de> for Member<'_> {
    type Value = Option<Literal<'de>>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Member<'_> {
    type Value = Option<Literal<'de>>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut found = None;
        while let Some(named) = map.next_key_seed(Named(self.0))? {
            let value: &RawValue = map.next_value()?;
            if named {
                found = Some(Literal(value.get()));
            }
        }
        Ok(found)
    }
}

// === impl Named ===

impl<'de> DeserializeSeed<'de> for Named<'_> {
    type Value = bool;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<bool, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for Named<'_> {
    type Value = bool;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }

    fn visit_str<E>(self, key: &str) -> Result<bool, E> {
        Ok(key == self.0)
    }
}

/// Reads one escape, its backslash already taken: the character and what follows.
fn unescape(escape: &str) -> Option<(char, &str)> {
    let simple = match escape.as_bytes().first()? {
        b'n' => '\n',
        b't' => '\t',
        b'r' => '\r',
        b'b' => '\u{8}',
        b'f' => '\u{c}',
        b'u' => return unescape_unicode(&escape[1..]),
        _ => escape.chars().next()?,
    };
    Some((simple, &escape[1..]))
}

fn unescape_unicode(digits: &str) -> Option<(char, &str)> {
    let (first, rest) = hex(digits)?;
    if let Some(char) = char::from_u32(first.into()) {
        return Some((char, rest));
    }
    let (second, rest) = hex(rest.strip_prefix("\\u")?)?;
    let char = char::decode_utf16([first, second]).next()?.ok()?;
    Some((char, rest))
}

fn hex(digits: &str) -> Option<(u16, &str)> {
    let (digits, rest) = digits.split_at_checked(4)?;
    Some((u16::from_str_radix(digits, 16).ok()?, rest))
}

/// `\uXXXX`.
fn escape(unit: u16) -> [u8; 6] {
    let digit = |shift: u32| b"0123456789abcdef"[usize::from(unit >> shift & 0xf)];
    [b'\\', b'u', digit(12), digit(8), digit(4), digit(0)]
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::Value;

    use super::*;

    fn json() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<String>().prop_map(Value::from),
        ];
        leaf.prop_recursive(4, 32, 5, |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
                proptest::collection::hash_map(any::<String>(), inner, 0..5)
                    .prop_map(|map| Value::Object(map.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn compact_is_ascii_and_means_the_same(value in json(), pretty in any::<bool>()) {
            let text = if pretty { serde_json::to_string_pretty(&value) } else { serde_json::to_string(&value) }.unwrap();
            let compact = Literal::parse(&text).unwrap().compact_ascii();
            prop_assert!(compact.iter().all(|byte| (0x20..0x7f).contains(byte)));
            prop_assert_eq!(serde_json::from_slice::<Value>(&compact).unwrap(), value);
            prop_assert_eq!(compact.capacity(), compact.len());
        }

        #[test]
        fn decoding_undoes_both_spellings(text in any::<String>()) {
            let plain = serde_json::to_string(&text).unwrap();
            prop_assert_eq!(&**Literal::parse(&plain).unwrap().decode().unwrap(), text.as_bytes());
            let ascii = String::from_utf8(Literal::parse(&plain).unwrap().compact_ascii()).unwrap();
            prop_assert_eq!(&**Literal::parse(&ascii).unwrap().decode().unwrap(), text.as_bytes());
        }

        #[test]
        fn members_are_found_whatever_their_names(members in proptest::collection::hash_map(any::<String>(), json(), 0..6)) {
            let text = serde_json::to_string(&members).unwrap();
            let object = Literal::parse(&text).unwrap();
            for (name, value) in &members {
                let member = object.member(name).expect("it was written");
                prop_assert_eq!(&serde_json::from_slice::<Value>(&member.compact_ascii()).unwrap(), value);
            }
        }

        #[test]
        fn any_text_is_a_value_or_refused(text in "[\\[\\]{}\",:\\\\u0-9dD8a-f tn.e+-]{0,24}") {
            let parsed = Literal::parse(&text);
            prop_assert_eq!(parsed.is_some(), serde_json::from_str::<serde::de::IgnoredAny>(&text).is_ok());
            if let Some(literal) = parsed {
                let _ = (literal.decode(), literal.member("a"), literal.compact_ascii());
            }
        }
    }

    #[test]
    fn escapes_by_name_and_number() {
        let literal = Literal::parse(r#""\"\\\/\b\f\n\r\té\u00e9\ud83d\ude00""#).unwrap();
        assert_eq!(&**literal.decode().unwrap(), "\"\\/\u{8}\u{c}\n\r\téé😀".as_bytes());
        for half in [r#""\ud83d""#, r#""\ude00""#, r#""\ud83dx""#, r#""\ud83d\n""#, r#""\ud83d\ud83d""#] {
            assert!(Literal::parse(half).unwrap().decode().is_none(), "{half}");
        }
    }

    #[test]
    fn deep_nesting_does_not_overflow() {
        let deep = format!("{{\"a\":{}1{}}}", "[".repeat(100_000), "]".repeat(100_000));
        let literal = Literal::parse(&deep).unwrap();
        assert_eq!(literal.member("a").unwrap().kind(), Kind::Array);
        assert_eq!(literal.compact_ascii().len(), deep.len());
    }

    #[test]
    fn one_value_is_all_of_the_text() {
        for (text, is_json) in [("{} x", false), ("{}{}", false), ("", false), (" ", false), (" {} \n", true)] {
            assert_eq!(Literal::parse(text).is_some(), is_json, "{text:?}");
        }
    }
}
