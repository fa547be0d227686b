//! Takes injected values out of what the gateway answers: every header and trailer, and the start of error bodies.
//!
//! A gateway that fails may print what it was given (a credential inside "invalid header value", a config inside "invalid
//! config"). Values are searched as they are, JSON-escaped once and twice (a rewritten config is JSON, and may be echoed inside
//! JSON), and percent-encoded. Replies below 400 stream untouched but for their headers.
//!
//! Not searched: values under [`SHORTEST`] bytes, which would match by chance; other encodings (base64, hexadecimal,
//! hashes); pieces of a value, as in a provider's `sk-…abcd`. A credential of ours makes us ask for an uncompressed reply; an
//! error that comes compressed all the same cannot be searched and is withheld.

mod search;
mod variant;

use bytes::Bytes;
use http::{
    HeaderMap, HeaderValue, Method, Response, StatusCode,
    header::{CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE},
};
use http_body_util::BodyExt as _;
use hyper::body::Body as _;
use prometheus_client::metrics::counter::Counter;

pub use self::search::{LIMIT, Search};
use super::{body::ResponseBody, reject, upstream::ReplyBody};
use crate::dialect::portkey::Injected;

/// Values of fewer bytes are not searched.
pub const SHORTEST: usize = 4;
/// What stands in the place of a value. Of one length, whatever it replaces.
const MASK: &[u8] = b"[redacted]";
/// A body that is this long at most, and says so, is searched as a whole and keeps a `content-length`.
const WHOLE_BYTES: u64 = LIMIT as u64;

/// What was injected into one request, and where findings are counted.
#[derive(Debug)]
pub struct Redactor {
    injected: Injected,
    found: Counter,
}

// === impl Redactor ===

impl Redactor {
    /// Searches for `injected`; `None` when nothing of ours was.
    pub fn new(injected: Injected, found: &Counter) -> Option<Self> {
        (!injected.credentials.is_empty()).then(|| Self { injected, found: found.clone() })
    }

    /// Replaces injected values in header values.
    pub fn headers(&self, headers: &mut HeaderMap) {
        let longest = headers.values().map(HeaderValue::len).max().unwrap_or_default();
        for credential in &self.injected.credentials {
            variant::each(credential, |needle| {
                if needle.len() > longest {
                    return;
                }
                for value in headers.values_mut().filter(|value| occurs(needle, value.as_bytes())) {
                    let finder = memchr::memmem::Finder::new(needle);
                    self.found.inc_by(finder.find_iter(value.as_bytes()).count() as u64);
                    *value = masked(value.as_bytes(), &finder);
                }
            });
        }
    }

    /// The gateway's reply as it may go to the client.
    ///
    /// # Errors
    /// The body of an error broke off while it was read as a whole.
    pub async fn reply(
        self,
        method: &Method,
        response: Response<ReplyBody>,
        request_id: uuid::Uuid,
    ) -> Result<Response<ResponseBody>, hyper::Error> {
        let (mut head, body) = response.into_parts();
        self.headers(&mut head.headers);
        if head.status < StatusCode::BAD_REQUEST || *method == Method::HEAD || body.is_end_stream() {
            return Ok(Response::from_parts(head, ResponseBody::stream(body, Some(self))));
        }
        if encoded(&head.headers) {
            head.headers.remove(CONTENT_ENCODING);
            head.headers.remove(CONTENT_LENGTH);
            head.headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
            return Ok(Response::from_parts(head, ResponseBody::full(reject::withheld(request_id))));
        }
        if body.size_hint().upper().is_some_and(|length| length <= WHOLE_BYTES) {
            let body = self.whole(body).await?;
            head.headers.insert(CONTENT_LENGTH, HeaderValue::from(body.len()));
            return Ok(Response::from_parts(head, ResponseBody::full(body)));
        }
        head.headers.remove(CONTENT_LENGTH);
        Ok(Response::from_parts(head, ResponseBody::searched(body, self)))
    }

    async fn whole(&self, body: ReplyBody) -> Result<Bytes, hyper::Error> {
        let mut search = Search::new(self);
        // Nothing can be kept back at the end, so that both pieces make the whole.
        let body = body.collect().await?.to_bytes();
        let start = search.feed(body);
        let end = search.finish();
        Ok(if end.is_empty() { start } else { [start, end].concat().into() })
    }
}

/// Whether the body is compressed, or otherwise not as it reads.
fn encoded(headers: &HeaderMap) -> bool {
    headers.get_all(CONTENT_ENCODING).iter().any(|value| !value.as_bytes().eq_ignore_ascii_case(b"identity"))
}

/// Whether `needle` stands in `value`, for values so short that preparing a search costs more than searching.
fn occurs(needle: &[u8], value: &[u8]) -> bool {
    let (Some(&first), Some(last)) = (needle.first(), value.len().checked_sub(needle.len())) else { return false };
    memchr::memchr_iter(first, &value[..=last]).any(|at| value[at..].starts_with(needle))
}

fn masked(value: &[u8], finder: &memchr::memmem::Finder<'_>) -> HeaderValue {
    let mut out = Vec::with_capacity(value.len());
    let mut rest = 0;
    for start in finder.find_iter(value) {
        out.extend_from_slice(&value[rest..start]);
        out.extend_from_slice(MASK);
        rest = start + finder.needle().len();
    }
    out.extend_from_slice(&value[rest..]);
    // It was a header value before, and the mask is visible ASCII.
    HeaderValue::from_bytes(&out).unwrap_or_else(|_| HeaderValue::from_static("[redacted]"))
}

#[cfg(test)]
mod tests;
