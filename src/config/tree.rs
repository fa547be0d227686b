//! YAML text → a tree of values that know their line.
//!
//! The tree is untyped on purpose: a typed parse stops at its first fault, and all of them are to be reported at once.
//! serde-saphyr's own error texts quote the lines around a fault, which may hold a secret, so that only the place of an
//! error is taken from it.

use std::fmt;

use serde::{
    Deserialize, Deserializer,
    de::{MapAccess, SeqAccess, Visitor},
};
use serde_saphyr::{
    Error, Spanned,
    options::{DuplicateKeyPolicy, MergeKeyPolicy},
};

/// Deepest nesting of a configuration; ours needs 4.
const MAX_DEPTH: usize = 16;

/// How much aliases may repeat, in values. A list of hosts used twice stays far below, a bomb does not.
const MAX_REPLAYED: usize = 10_000;

/// A YAML value.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// Nothing, `null` or `~`.
    Null,
    /// `true` or `false`; `yes` and `no` are text.
    Bool(bool),
    /// A whole number.
    Whole(i128),
    /// A number with a fraction or an exponent.
    Float(f64),
    /// Text.
    Text(String),
    /// A list.
    List(Vec<Node>),
    /// A section. Keys stand in order and may be repeated.
    Map(Vec<Entry>),
}

/// A value and its line.
#[derive(Clone, Debug, PartialEq)]
pub struct Node {
    /// The value.
    pub value: Value,
    /// Counted from 1.
    pub line: u64,
}

/// One key of a section.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    /// The key.
    pub key: String,
    /// The line of the key, counted from 1.
    pub line: u64,
    /// Its value.
    pub node: Node,
}

/// Text that is not YAML: where, and what in fixed words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SyntaxError {
    /// Counted from 1; 0 when unknown.
    pub line: u64,
    /// Counted from 1; 0 when unknown.
    pub column: u64,
    /// What is wrong, without a word of the text.
    pub reason: &'static str,
}

/// Parses one YAML document; nothing but comments is an empty section.
///
/// # Errors
/// [`SyntaxError`] when `text` is not one YAML document.
pub fn parse(text: &str) -> Result<Node, SyntaxError> {
    if text.lines().all(|line| line.trim_start().is_empty() || line.trim_start().starts_with('#')) {
        return Ok(Node { value: Value::Map(Vec::new()), line: 1 });
    }
    let options = serde_saphyr::options! {
        with_snippet: false,
        strict_booleans: true,
        reject_unsupported_tags: true,
        duplicate_keys: DuplicateKeyPolicy::PassThrough,
        merge_keys: MergeKeyPolicy::Error,
        alias_limits: serde_saphyr::alias_limits! { max_total_replayed_events: MAX_REPLAYED },
        budget: serde_saphyr::budget! { max_depth: MAX_DEPTH },
    };
    match serde_saphyr::from_str_with_options::<Spanned<Value>>(text, options) {
        Ok(spanned) => Ok(Node::from(spanned)),
        Err(error) => Err(SyntaxError {
            line: error.location().map_or(0, |at| at.line()),
            column: error.location().map_or(0, |at| at.column()),
            reason: reason(&error),
        }),
    }
}

/// The fault in fixed words. The library's own message may quote the text.
fn reason(error: &Error) -> &'static str {
    match error {
        Error::UnknownAnchor { .. } => "names an anchor that is not defined",
        Error::UnsupportedTag { .. } => "tags are not supported",
        Error::MergeKeyNotAllowed { .. } => "merge keys (<<) are not supported",
        Error::MultipleDocuments { .. } => "only one YAML document is allowed; remove the '---' before it",
        Error::Budget { .. }
        | Error::AliasReplayLimitExceeded { .. }
        | Error::AliasExpansionLimitExceeded { .. }
        | Error::AliasReplayStackDepthExceeded { .. } => "too large or too deeply nested",
        // The library's list is open-ended, so the rest shares one word.
        _ => "not valid YAML; check the indentation, quotes and colons here and on the line before",
    }
}

// === impl Value ===

impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ValueVisitor)
    }
}

struct ValueVisitor;

impl<'de> Visitor<'de> for ValueVisitor {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_none<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        Value::deserialize(deserializer)
    }

    fn visit_bool<E>(self, flag: bool) -> Result<Value, E> {
        Ok(Value::Bool(flag))
    }

    fn visit_i64<E>(self, number: i64) -> Result<Value, E> {
        Ok(Value::Whole(number.into()))
    }

    fn visit_u64<E>(self, number: u64) -> Result<Value, E> {
        Ok(Value::Whole(number.into()))
    }

    fn visit_i128<E>(self, number: i128) -> Result<Value, E> {
        Ok(Value::Whole(number))
    }

    fn visit_u128<E>(self, number: u128) -> Result<Value, E> {
        // Nothing here comes near; a saturated number is out of every range and is reported as such.
        Ok(Value::Whole(i128::try_from(number).unwrap_or(i128::MAX)))
    }

    fn visit_f64<E>(self, number: f64) -> Result<Value, E> {
        Ok(Value::Float(number))
    }

    fn visit_str<E>(self, text: &str) -> Result<Value, E> {
        Ok(Value::Text(text.to_owned()))
    }

    fn visit_string<E>(self, text: String) -> Result<Value, E> {
        Ok(Value::Text(text))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element::<Spanned<Value>>()? {
            list.push(Node::from(item));
        }
        Ok(Value::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Value, A::Error> {
        let mut map = Vec::new();
        while let Some(key) = entries.next_key::<Spanned<String>>()? {
            let node = Node::from(entries.next_value::<Spanned<Value>>()?);
            map.push(Entry { key: key.value, line: key.referenced.line(), node });
        }
        Ok(Value::Map(map))
    }
}

// === impl Node ===

impl From<Spanned<Value>> for Node {
    fn from(spanned: Spanned<Value>) -> Self {
        Self { value: spanned.value, line: spanned.referenced.line() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(key: &str, line: u64, value: Value) -> Entry {
        Entry { key: key.to_owned(), line, node: Node { value, line } }
    }

    #[test]
    fn values_keep_their_type_and_line() {
        let text = "# comment\na: 1\nb:\n  c: no\n  d: true\ne: [x, 2.5]\nf:\ng: -1\nh: '7'\n";
        let node = parse(text).unwrap();
        let Value::Map(map) = node.value else { panic!("{node:?}") };
        let b = Value::Map(vec![entry("c", 4, Value::Text("no".to_owned())), entry("d", 5, Value::Bool(true))]);
        let e = Value::List(vec![
            Node { value: Value::Text("x".to_owned()), line: 6 },
            Node { value: Value::Float(2.5), line: 6 },
        ]);
        assert_eq!(map[0], entry("a", 2, Value::Whole(1)));
        assert_eq!((map[1].line, &map[1].node.value), (3, &b));
        assert_eq!(map[2], entry("e", 6, e));
        assert_eq!((map[3].line, &map[3].node.value), (7, &Value::Null));
        assert_eq!(map[4], entry("g", 8, Value::Whole(-1)));
        assert_eq!(map[5], entry("h", 9, Value::Text("7".to_owned())));
    }

    #[test]
    fn nothing_but_comments_is_an_empty_section() {
        for text in ["", "\n\n", "# a\n  # b\n"] {
            assert_eq!(parse(text).unwrap().value, Value::Map(Vec::new()), "{text:?}");
        }
    }

    #[test]
    fn repeated_keys_are_kept_for_the_reader_to_report() {
        let Value::Map(map) = parse("a: 1\na: 2\n").unwrap().value else { panic!() };
        assert_eq!(map.len(), 2);
    }

    #[test]
    fn faults_name_their_line_and_nothing_of_the_text() {
        struct Case {
            text: &'static str,
            line: u64,
            reason: &'static str,
        }
        let cases = [
            Case { text: "a: 1\nb: [sk-canary\n", line: 2, reason: "not valid" },
            Case { text: "a: 1\n  b: sk-canary\n", line: 2, reason: "not valid" },
            Case { text: "a: *sk-canary\n", line: 1, reason: "anchor" },
            Case { text: "a: !sk-canary b\n", line: 1, reason: "tags" },
            Case { text: "a: 1\n---\nb: sk-canary\n", line: 3, reason: "one YAML document" },
            Case { text: "a: &x {b: 1}\nc:\n  <<: *x\n", line: 3, reason: "merge" },
            Case { text: "\"sk-canary", line: 1, reason: "not valid" },
            Case { text: "a: \"sk-canary\\q\"", line: 1, reason: "not valid" },
            Case { text: "a: [[[[[[[[[[[[[[[[[[[[sk-canary]]]]]]]]]]]]]]]]]]]]", line: 1, reason: "too deeply" },
        ];
        for Case { text, line, reason } in cases {
            let error = parse(text).unwrap_err();
            assert!(error.reason.contains(reason), "{text:?}: {error:?}");
            assert_eq!(error.line, line, "{text:?}: {error:?}");
        }
    }
}
