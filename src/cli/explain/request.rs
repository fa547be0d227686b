//! A request as text (head, empty line, body) → what a client would have sent.
//!
//! Written like `curl -i` shows it, or pasted from `curl -v`, whose `> ` before each line is taken away.

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Method, Request, Uri, Version, request::Parts};

/// Text that is no request; names a line and nothing of it.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum RequestError {
    /// Nothing to read.
    #[error("is empty; write a request: POST /v1/chat/completions, headers, an empty line, the body")]
    Empty,
    /// The first line.
    #[error("line 1: is not METHOD PATH, like POST /v1/chat/completions")]
    RequestLine,
    /// A header line.
    #[error("line {0}: is not a header, like x-portkey-provider: @openai-prod")]
    Header(usize),
}

/// Parses `text`.
///
/// # Errors
/// [`RequestError`] with the first line that does not fit.
pub fn parse(text: &[u8]) -> Result<(Parts, Bytes), RequestError> {
    let (mut head, _) = Request::new(()).into_parts();
    let mut rest = text;
    let line = next_line(&mut rest).ok_or(RequestError::Empty)?;
    (head.method, head.uri, head.version) = request_line(line).ok_or(RequestError::RequestLine)?;
    let mut number = 1;
    while let Some(line) = next_line(&mut rest) {
        number += 1;
        if line.is_empty() {
            break;
        }
        let (name, value) = header(line).ok_or(RequestError::Header(number))?;
        head.headers.append(name, value);
    }
    Ok((head, Bytes::copy_from_slice(rest)))
}

/// The next line without its end, and without the `> ` of `curl -v`; `None` at the end of the text.
fn next_line<'t>(rest: &mut &'t [u8]) -> Option<&'t [u8]> {
    if rest.is_empty() {
        return None;
    }
    let end = memchr::memchr(b'\n', rest).unwrap_or(rest.len());
    let (line, after) = rest.split_at(end);
    *rest = after.strip_prefix(b"\n").unwrap_or(after);
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    Some(if line == b">" { b"" } else { line.strip_prefix(b"> ").unwrap_or(line) })
}

fn request_line(line: &[u8]) -> Option<(Method, Uri, Version)> {
    let mut words = std::str::from_utf8(line).ok()?.split(' ');
    let method = Method::from_bytes(words.next()?.as_bytes()).ok()?;
    let uri = words.next()?;
    let version = match words.next() {
        None | Some("HTTP/1.1") => Version::HTTP_11,
        Some("HTTP/2" | "HTTP/2.0") => Version::HTTP_2,
        Some("HTTP/1.0") => Version::HTTP_10,
        Some(_) => return None,
    };
    (words.next().is_none() && uri.starts_with('/')).then_some(())?;
    Some((method, uri.parse().ok()?, version))
}

fn header(line: &[u8]) -> Option<(HeaderName, HeaderValue)> {
    let colon = memchr::memchr(b':', line)?;
    let name = HeaderName::from_bytes(&line[..colon]).ok()?;
    let mut value = HeaderValue::from_bytes(line[colon + 1..].trim_ascii()).ok()?;
    value.set_sensitive(true);
    Some((name, value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_as_curl_shows_it() {
        let text = b"POST /v1/chat/completions?a=b HTTP/1.1\r\nX-Portkey-Provider: @openai-prod \r\na: 1\r\na: 2\r\n\r\n{\"model\":\n\"x\"}\n";
        let (head, body) = parse(text).unwrap();
        assert_eq!((head.method, head.uri.to_string()), (Method::POST, "/v1/chat/completions?a=b".to_owned()));
        assert_eq!(head.headers["x-portkey-provider"], "@openai-prod");
        assert_eq!(head.headers.get_all("a").iter().count(), 2);
        assert_eq!(&body[..], b"{\"model\":\n\"x\"}\n");
    }

    #[test]
    fn the_marks_of_curl_v_are_taken_away() {
        let (head, body) = parse(b"> GET /v1/models HTTP/2\n> a: 1\n>\nbody").unwrap();
        assert_eq!((head.uri.path(), head.version, &body[..]), ("/v1/models", Version::HTTP_2, &b"body"[..]));
        assert_eq!(head.headers["a"], "1");
    }

    #[test]
    fn a_head_may_end_without_an_empty_line() {
        for text in ["GET / HTTP/1.1", "GET /\na: 1", "GET /\n"] {
            assert!(parse(text.as_bytes()).unwrap().1.is_empty(), "{text:?}");
        }
    }

    #[test]
    fn faults_name_their_line() {
        for (text, error) in [
            ("", RequestError::Empty),
            ("POST", RequestError::RequestLine),
            ("POST https://host/v1", RequestError::RequestLine),
            ("POST /v1 HTTP/3", RequestError::RequestLine),
            ("POST /v1 HTTP/1.1 x", RequestError::RequestLine),
            ("GET /v1\na: 1\nsk-canary", RequestError::Header(3)),
            ("GET /v1\na b: 1\n", RequestError::Header(2)),
        ] {
            assert_eq!(parse(text.as_bytes()).unwrap_err(), error, "{text:?}");
        }
    }
}
