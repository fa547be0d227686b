//! Config JSON that holds no secret yet: text with holes.
//!
//! No reallocation leaves a copy of a credential behind: a template moves to a larger buffer and wipes the one it had, and the
//! finished value is measured before it is written. The output is ASCII: a header is Latin-1 to the gateway's HTTP parser.

use std::fmt;

use bytes::Bytes;
use http::HeaderValue;
use zeroize::Zeroizing;

use super::node::Node;

/// Room for the text of most configs.
const USUAL_BYTES: usize = 512;

/// Where rendered text goes.
pub(in crate::dialect::portkey) trait Sink {
    /// Takes JSON text.
    fn text(&mut self, text: &str);

    /// Leaves room for a value that is known only when the request is sent.
    fn hole(&mut self, hole: Hole);
}

/// A gap in rendered JSON.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::dialect::portkey) struct Hole {
    /// Where its value comes from.
    pub(in crate::dialect::portkey) source: Source,
    /// How the value is written.
    pub(in crate::dialect::portkey) form: Form,
}

/// Where a credential comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::dialect::portkey) enum Source {
    /// An index into `Plan::mappings`.
    Mapped(usize),
    /// A field of an entity of the plan.
    Stored {
        /// An index into `Plan::entities`.
        entity: usize,
        /// An index into `Entity::fields`.
        field: usize,
    },
}

/// How a credential is written into a config.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::dialect::portkey) enum Form {
    /// A JSON string without control characters; a structure as such.
    Line,
    /// As [`Form::Line`], but never a structure.
    Key,
    /// A JSON string that may span lines.
    Lines,
    /// A JSON object of strings.
    Object,
    /// The names of a JSON object's members, as strings with commas between them.
    Names,
}

/// JSON text with holes.
pub(in crate::dialect::portkey) struct Template {
    text: Zeroizing<String>,
    holes: Vec<(usize, Hole)>,
}

// === impl Template ===

impl Template {
    /// Renders what `write` writes.
    pub(in crate::dialect::portkey) fn render(write: impl FnOnce(&mut dyn Sink)) -> Self {
        let mut template = Self { text: Zeroizing::new(String::with_capacity(USUAL_BYTES)), holes: Vec::new() };
        write(&mut template);
        template
    }

    /// The holes, in the order of the text.
    pub(in crate::dialect::portkey) fn holes(&self) -> impl Iterator<Item = Hole> + '_ {
        self.holes.iter().map(|&(_, hole)| hole)
    }

    /// The finished header value, marked sensitive, over one buffer that is wiped when the last clone of it drops. `fill`
    /// writes the value of a hole and is called twice for each.
    ///
    /// # Errors
    /// Whatever `fill` answers. `None`: the text does not fit into a header.
    pub(in crate::dialect::portkey) fn fill<E>(
        &self,
        mut fill: impl FnMut(Hole, &mut dyn FnMut(&str)) -> Result<(), E>,
    ) -> Result<Option<HeaderValue>, E> {
        let mut bytes = self.text.len();
        for &(_, hole) in &self.holes {
            fill(hole, &mut |text| bytes += text.len())?;
        }
        let mut buffer = Zeroizing::new(Vec::with_capacity(bytes));
        let mut from = 0;
        for &(at, hole) in &self.holes {
            buffer.extend_from_slice(self.text.as_bytes().get(from..at).unwrap_or_default());
            fill(hole, &mut |text| buffer.extend_from_slice(text.as_bytes()))?;
            from = at;
        }
        buffer.extend_from_slice(self.text.as_bytes().get(from..).unwrap_or_default());
        debug_assert_eq!(buffer.len(), bytes, "both passes fill the same");
        let value = HeaderValue::from_maybe_shared(Bytes::from_owner(buffer)).ok();
        Ok(value.map(|mut value| {
            value.set_sensitive(true);
            value
        }))
    }
}

impl Sink for Template {
    fn text(&mut self, text: &str) {
        let bytes = self.text.len() + text.len();
        if bytes > self.text.capacity() {
            let mut larger = Zeroizing::new(String::with_capacity(bytes.max(2 * self.text.capacity())));
            larger.push_str(&self.text);
            self.text = larger;
        }
        self.text.push_str(text);
    }

    fn hole(&mut self, hole: Hole) {
        self.holes.push((self.text.len(), hole));
    }
}

impl fmt::Debug for Template {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The text may hold credentials of a client or of a stored config.
        f.debug_struct("Template").field("bytes", &self.text.len()).field("holes", &self.holes).finish_non_exhaustive()
    }
}

/// Writes `text` as a JSON string, in ASCII.
pub(in crate::dialect::portkey) fn quoted(text: &str, out: &mut dyn FnMut(&str)) {
    out("\"");
    escaped(text, out);
    out("\"");
}

/// Writes what stands between the quotes of a JSON string.
pub(in crate::dialect::portkey) fn escaped(text: &str, out: &mut dyn FnMut(&str)) {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    let mut rest = text;
    loop {
        let plain = rest.bytes().position(|byte| !matches!(byte, b' '..=b'~') || matches!(byte, b'"' | b'\\'));
        let (run, from) = rest.split_at(plain.unwrap_or(rest.len()));
        out(run);
        let mut chars = from.chars();
        let Some(char) = chars.next() else { return };
        rest = chars.as_str();
        match char {
            '"' => out("\\\""),
            '\\' => out("\\\\"),
            '\n' => out("\\n"),
            '\r' => out("\\r"),
            '\t' => out("\\t"),
            _ => {
                for unit in char.encode_utf16(&mut [0; 2]) {
                    let digit = |shift: u16| HEX[usize::from(*unit >> shift & 0xf)];
                    let escape = [b'\\', b'u', digit(12), digit(8), digit(4), digit(0)];
                    out(std::str::from_utf8(&escape).unwrap_or_default());
                }
            }
        }
    }
}

/// Writes a node as it stands, keys included.
pub(in crate::dialect::portkey) fn node(node: &Node<'_>, sink: &mut dyn Sink) {
    match node {
        Node::Null => sink.text("null"),
        Node::Bool(true) => sink.text("true"),
        Node::Bool(false) => sink.text("false"),
        Node::Number(number) => sink.text(&number.to_string()),
        Node::Text(text) => quoted(text, &mut |text| sink.text(text)),
        Node::List(items) => {
            sink.text("[");
            for (at, item) in items.iter().enumerate() {
                sink.text(if at == 0 { "" } else { "," });
                self::node(item, sink);
            }
            sink.text("]");
        }
        Node::Map(members) => {
            let mut object = Object::open(sink);
            for (key, item) in members {
                object.member(key, |sink| self::node(item, sink));
            }
            object.close();
        }
    }
}

/// An object under construction: puts the commas.
pub(in crate::dialect::portkey) struct Object<'s> {
    sink: &'s mut dyn Sink,
    empty: bool,
}

// === impl Object ===

impl<'s> Object<'s> {
    /// Opens the brace.
    pub(in crate::dialect::portkey) fn open(sink: &'s mut dyn Sink) -> Self {
        sink.text("{");
        Self { sink, empty: true }
    }

    /// One member, whose value `write` writes.
    pub(in crate::dialect::portkey) fn member(&mut self, key: &str, write: impl FnOnce(&mut dyn Sink)) {
        if !self.empty {
            self.sink.text(",");
        }
        self.empty = false;
        quoted(key, &mut |text| self.sink.text(text));
        self.sink.text(":");
        write(self.sink);
    }

    /// Closes the brace.
    pub(in crate::dialect::portkey) fn close(self) {
        self.sink.text("}");
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use proptest::prelude::*;
    use serde_json::Value;

    use super::*;

    fn written(text: &str) -> String {
        let mut out = String::new();
        quoted(text, &mut |part| out.push_str(part));
        out
    }

    proptest! {
        #[test]
        fn quoting_is_ascii_json_of_the_same_text(text in any::<String>()) {
            let out = written(&text);
            prop_assert!(out.bytes().all(|byte| (0x20..0x7f).contains(&byte)), "{}", out);
            prop_assert_eq!(serde_json::from_str::<String>(&out).unwrap(), text);
        }

        #[test]
        fn rendering_keeps_the_value(
            text in any::<String>(),
            number in any::<i32>(),
            flag in any::<bool>(),
            long in 0..5 * USUAL_BYTES,
        ) {
            let value = serde_json::json!({ text.clone(): [number, flag, null, { "k": text }, "x".repeat(long)] });
            let template = Template::render(|sink| node(&Node::of(&value), sink));
            let header = template.fill(|_, _| Ok::<_, Infallible>(())).unwrap().unwrap();
            prop_assert_eq!(serde_json::from_slice::<Value>(header.as_bytes()).unwrap(), value);
        }
    }

    #[test]
    fn holes_are_filled_in_place() {
        let hole = Hole { source: Source::Mapped(0), form: Form::Line };
        let template = Template::render(|sink| {
            let mut object = Object::open(sink);
            object.member("a", |sink| sink.hole(hole));
            object.member("b", |sink| sink.text("1"));
            object.close();
        });
        let filled = template.fill(|_, out| {
            quoted("sk-1", out);
            Ok::<_, Infallible>(())
        });
        let header = filled.unwrap().unwrap();
        assert_eq!(header.as_bytes(), br#"{"a":"sk-1","b":1}"#);
        assert!(header.is_sensitive());
    }
}
