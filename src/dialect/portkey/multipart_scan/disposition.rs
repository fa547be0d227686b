//! The header block of one part: what the part is called and whether it is a file.
//!
//! Node accepts `form-data; name="…"`, optionally followed by `; filename="…"`, and nothing else; inside the quotes a
//! backslash is a backslash. That form is tried first. Anything else Node refuses, so reading it as RFC 7578 and RFC 2183
//! say can only help other runtimes.

/// What a header block says.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Headers {
    pub(super) name: Option<String>,
    pub(super) is_file: bool,
    /// The content is not what its bytes say (`Content-Transfer-Encoding`).
    pub(super) encoded: bool,
}

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Parsed {
    Headers(Headers),
    /// Readers may disagree about it.
    Ambiguous,
    /// Nobody reads this as headers.
    Malformed,
}

/// Parses a block of header lines, the first of them behind a CRLF, without the empty line at the end. The only CRs and
/// LFs in it are those of CRLFs.
pub(super) fn parse(block: &[u8]) -> Parsed {
    let mut disposition = None;
    let mut encoded = false;
    for line in block.split(|&byte| byte == b'\n').skip(1) {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        if line.first().is_some_and(|&byte| is_blank(byte)) {
            return Parsed::Ambiguous; // a folded line for some, a header of its own for Node
        }
        let Some(colon) = memchr::memchr(b':', line) else { return Parsed::Malformed };
        let (name, value) = (trim(&line[..colon]), trim_start(&line[colon + 1..]));
        if name.eq_ignore_ascii_case(b"content-disposition") {
            if disposition.replace(value).is_some() {
                return Parsed::Ambiguous;
            }
        } else if name.eq_ignore_ascii_case(b"content-transfer-encoding") {
            encoded |=
                !["7bit", "8bit", "binary"].iter().any(|plain| trim(value).eq_ignore_ascii_case(plain.as_bytes()));
        }
    }
    match disposition.map(|value| as_node(value).map_or_else(|| as_rfc(value), Some)) {
        Some(Some((name, is_file))) => Parsed::Headers(Headers { name, is_file, encoded }),
        Some(None) => Parsed::Ambiguous,
        None => Parsed::Headers(Headers { name: None, is_file: false, encoded }),
    }
}

/// The name, if there is one, and whether it is a file.
type Named = (Option<String>, bool);

/// Reads `value` if Node would.
fn as_node(value: &[u8]) -> Option<Named> {
    let rest = value.strip_prefix(b"form-data; name=\"")?;
    let (name, rest) = split_quote(rest)?;
    let is_file = !rest.is_empty();
    if is_file {
        let rest = rest.strip_prefix(b"; filename")?;
        let rest = rest.strip_prefix(b"*").unwrap_or(rest).strip_prefix(b"=\"")?;
        split_quote(rest).filter(|(_, rest)| rest.is_empty())?;
    }
    // `TextDecoder` drops a byte order mark. Escapes (`%22`) stay: none of them decodes to a letter.
    let name = name.strip_prefix(super::BYTE_ORDER_MARK).unwrap_or(name);
    Some((Some(String::from_utf8_lossy(name).into_owned()), is_file))
}

/// Reads `value` as parameters with quoted strings and tokens. `None`: repeated or extended names.
fn as_rfc(value: &[u8]) -> Option<Named> {
    let (kind, mut rest) = split_at(value, b';');
    let mut named = (None, false);
    if !trim(kind).eq_ignore_ascii_case(b"form-data") {
        return Some(named);
    }
    while !rest.is_empty() {
        let (parameter, behind) = split_at(rest, b'=');
        let key = trim(parameter.rsplit(|&byte| byte == b';').next().unwrap_or_default()).to_ascii_lowercase();
        let behind = trim_start(behind);
        let text;
        (text, rest) = match behind.strip_prefix(b"\"") {
            Some(quoted) => unquote(quoted),
            None => {
                let (token, rest) = split_at(behind, b';');
                (trim(token).to_vec(), rest)
            }
        };
        match key.as_slice() {
            b"name" if named.0.is_some() => return None,
            b"name" => named.0 = Some(String::from_utf8_lossy(&text).into_owned()),
            b"name*" => return None,
            b"filename" | b"filename*" => named.1 = true,
            _ => {}
        }
    }
    Some(named)
}

/// The quoted string that starts here, unescaped, and what follows it.
fn unquote(quoted: &[u8]) -> (Vec<u8>, &[u8]) {
    let mut text = Vec::new();
    let mut bytes = quoted.iter().enumerate();
    while let Some((at, &byte)) = bytes.next() {
        match byte {
            b'"' => return (text, &quoted[at + 1..]),
            b'\\' => text.extend(bytes.next().map(|(_, escaped)| escaped)),
            _ => text.push(byte),
        }
    }
    (text, &[])
}

fn split_quote(text: &[u8]) -> Option<(&[u8], &[u8])> {
    let quote = memchr::memchr(b'"', text)?;
    Some((&text[..quote], &text[quote + 1..]))
}

/// What stands before and behind the first `mark`.
fn split_at(text: &[u8], mark: u8) -> (&[u8], &[u8]) {
    let at = memchr::memchr(mark, text).unwrap_or(text.len());
    (&text[..at], text.get(at + 1..).unwrap_or_default())
}

fn is_blank(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t')
}

fn trim_start(text: &[u8]) -> &[u8] {
    let blanks = text.iter().take_while(|&&byte| is_blank(byte)).count();
    &text[blanks..]
}

fn trim(text: &[u8]) -> &[u8] {
    let text = trim_start(text);
    let blanks = text.iter().rev().take_while(|&&byte| is_blank(byte)).count();
    &text[..text.len() - blanks]
}
