//! JSON of a config, as the client spelled it: members in order, duplicates kept, strings borrowed where JSON allows.
//!
//! `serde_json::Value` would drop the second spelling of a key, and with it the evidence. Nesting is bounded by serde_json
//! (128 levels); the size is that of a request head or of a stored config.

use std::{borrow::Cow, fmt};

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::{Number, Value};

use super::key;

/// One JSON value. No `Debug`: it may hold a client's credentials.
pub(in crate::dialect::portkey) enum Node<'c> {
    /// `null`.
    Null,
    /// `true` or `false`.
    Bool(bool),
    /// A number.
    Number(Number),
    /// A string, unescaped.
    Text(Cow<'c, str>),
    /// An array.
    List(Vec<Node<'c>>),
    /// An object.
    Map(Vec<(Cow<'c, str>, Node<'c>)>),
}

// === impl Node ===

impl<'c> Node<'c> {
    /// Parses JSON text.
    pub(in crate::dialect::portkey) fn parse(text: &'c str) -> Option<Self> {
        serde_json::from_str(text).ok()
    }

    /// The same value, borrowed.
    pub(in crate::dialect::portkey) fn of(value: &'c Value) -> Self {
        match value {
            Value::Null => Self::Null,
            Value::Bool(value) => Self::Bool(*value),
            Value::Number(number) => Self::Number(number.clone()),
            Value::String(text) => Self::Text(Cow::Borrowed(text)),
            Value::Array(items) => Self::List(items.iter().map(Self::of).collect()),
            Value::Object(members) => {
                Self::Map(members.iter().map(|(key, value)| (Cow::Borrowed(key.as_str()), Self::of(value))).collect())
            }
        }
    }

    /// The string, if it is one.
    pub(in crate::dialect::portkey) fn text(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text),
            Self::Null | Self::Bool(_) | Self::Number(_) | Self::List(_) | Self::Map(_) => None,
        }
    }

    /// The items, if it is an array.
    pub(in crate::dialect::portkey) fn items(&self) -> Option<&[Node<'c>]> {
        match self {
            Self::List(items) => Some(items),
            Self::Null | Self::Bool(_) | Self::Number(_) | Self::Text(_) | Self::Map(_) => None,
        }
    }

    /// The members, if it is an object.
    pub(in crate::dialect::portkey) fn members(&self) -> Option<&[(Cow<'c, str>, Node<'c>)]> {
        match self {
            Self::Map(members) => Some(members),
            Self::Null | Self::Bool(_) | Self::Number(_) | Self::Text(_) | Self::List(_) => None,
        }
    }

    /// The member with exactly this key.
    pub(in crate::dialect::portkey) fn member(&self, key: &str) -> Option<&Node<'c>> {
        self.members()?.iter().find(|(name, _)| name == key).map(|(_, node)| node)
    }

    /// A key that an object of this value spells twice, or that reaches for an object's prototype.
    pub(in crate::dialect::portkey) fn doubled_key(&self) -> Option<&str> {
        self.doubled_key_below(false)
    }

    fn doubled_key_below(&self, preserved: bool) -> Option<&str> {
        match self {
            Self::Null | Self::Bool(_) | Self::Number(_) | Self::Text(_) => None,
            Self::List(items) => items.iter().find_map(|item| item.doubled_key_below(preserved)),
            Self::Map(members) => {
                let mut read: Vec<Cow<'_, str>> = members
                    .iter()
                    .map(|(key, _)| if preserved { Cow::Borrowed(&**key) } else { key::camel(key) })
                    .collect();
                let reaches_out =
                    |(key, _): &&(Cow<'c, str>, Node<'c>)| key == "__proto__" || key::is_field("__proto__", key);
                if let Some((key, _)) = members.iter().find(reaches_out) {
                    return Some(key);
                }
                read.sort_unstable();
                if let Some(pair) = read.windows(2).find(|pair| pair[0] == pair[1]) {
                    let spelled = |key: &&(Cow<'c, str>, Node<'c>)| *key.0 == *pair[0] || key::camel(&key.0) == pair[0];
                    return members.iter().rev().find(spelled).map(|(key, _)| &**key);
                }
                members.iter().find_map(|(key, node)| node.doubled_key_below(preserved || key::preserves_children(key)))
            }
        }
    }
}

impl<'de: 'c, 'c> Deserialize<'de> for Node<'c> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Builder;

        impl<'de> Visitor<'de> for Builder {
            type Value = Node<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("JSON")
            }

            fn visit_unit<E>(self) -> Result<Node<'de>, E> {
                Ok(Node::Null)
            }

            fn visit_bool<E>(self, value: bool) -> Result<Node<'de>, E> {
                Ok(Node::Bool(value))
            }

            fn visit_u64<E>(self, value: u64) -> Result<Node<'de>, E> {
                Ok(Node::Number(value.into()))
            }

            fn visit_i64<E>(self, value: i64) -> Result<Node<'de>, E> {
                Ok(Node::Number(value.into()))
            }

            fn visit_f64<E>(self, value: f64) -> Result<Node<'de>, E> {
                Ok(Number::from_f64(value).map_or(Node::Null, Node::Number))
            }

            fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Node<'de>, E> {
                Ok(Node::Text(Cow::Borrowed(text)))
            }

            fn visit_str<E>(self, text: &str) -> Result<Node<'de>, E> {
                Ok(Node::Text(Cow::Owned(text.to_owned())))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Node<'de>, A::Error> {
                let mut items = Vec::new();
                while let Some(item) = seq.next_element()? {
                    items.push(item);
                }
                Ok(Node::List(items))
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Node<'de>, A::Error> {
                let mut members = Vec::new();
                while let Some((Key(key), node)) = map.next_entry()? {
                    members.push((key, node));
                }
                Ok(Node::Map(members))
            }
        }

        deserializer.deserialize_any(Builder)
    }
}

/// An object key, borrowed where it holds no escape.
struct Key<'c>(Cow<'c, str>);

impl<'de: 'c, 'c> Deserialize<'de> for Key<'c> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Builder;

        impl<'de> Visitor<'de> for Builder {
            type Value = Key<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a key")
            }

            fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Key<'de>, E> {
                Ok(Key(Cow::Borrowed(text)))
            }

            fn visit_str<E>(self, text: &str) -> Result<Key<'de>, E> {
                Ok(Key(Cow::Owned(text.to_owned())))
            }
        }

        deserializer.deserialize_str(Builder)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn second_spellings_are_found_where_the_gateway_would_merge_them() {
        for (config, expected) in [
            (r#"{"a":1,"b":2}"#, None),
            (r#"{"custom_host":1,"customHost":2}"#, Some("customHost")),
            (r#"{"custom_Host":1,"customHost":2}"#, Some("customHost")),
            (r#"{"custom_host":1,"custom\u005fhost":2}"#, Some("custom_host")),
            (r#"{"targets":[{"apiKey":"a","api_key":"b"}]}"#, Some("api_key")),
            (r#"{"override_params":{"max_tokens":1,"maxTokens":2}}"#, None),
            (r#"{"override_params":{"model":1,"model":2}}"#, Some("model")),
            (r#"{"overrideParams":{"max_tokens":1,"maxTokens":2}}"#, Some("maxTokens")),
            (r#"{"retry":{"__proto__":{}}}"#, Some("__proto__")),
            (r#"{"____proto____":{"customHost":"x"}}"#, Some("____proto____")),
        ] {
            assert_eq!(Node::parse(config).unwrap().doubled_key(), expected, "{config}");
        }
    }

    #[test]
    fn bounds_nesting() {
        let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
        assert!(Node::parse(&deep).is_none());
    }

    #[test]
    fn strings_without_escapes_are_borrowed() {
        let node = Node::parse(r#"{"a":"b","c":"\u0064"}"#).unwrap();
        assert!(matches!(node.member("a"), Some(Node::Text(Cow::Borrowed("b")))));
        assert_eq!(node.member("c").and_then(Node::text), Some("d"));
    }
}
