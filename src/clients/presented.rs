//! What a client shows: `x-portkey-api-key`, else `Authorization: Bearer`.
//!
//! SDKs fill either with a word when they were given nothing; such a placeholder is no key, and the other header is looked
//! at. Source: `portkey-ai` 2.3.4 (Python) and 3.1.0 (Node), and the OpenAI clients inside of them.

use http::{HeaderMap, HeaderName, HeaderValue, header::AUTHORIZATION};
use zeroize::Zeroizing;

/// The header of Portkey's own SDKs.
const API_KEY: HeaderName = HeaderName::from_static("x-portkey-api-key");
/// What SDKs write when they were given nothing.
const PLACEHOLDERS: [&str; 4] = ["OPENAI_API_KEY", "PORTKEY_API_KEY", "DUMMY-KEY", "dummy"];
/// Longest secret, in bytes. Ours have under a hundred.
const MAX_BYTES: usize = 512;

/// The text a client presented; wiped.
pub(super) struct Presented(Zeroizing<Vec<u8>>);

/// Takes the key out of `headers`. What is left of it is one `x-portkey-api-key` header, by which the dialect finds and
/// removes every copy: no part of the key travels on, wherever it was presented.
///
/// # Errors
/// Why there is none, for the log.
pub(super) fn take(headers: &mut HeaderMap) -> Result<Presented, &'static str> {
    let mut own = headers.get_all(&API_KEY).iter().filter(|value| !is_placeholder(value.as_bytes().trim_ascii()));
    let text = match (own.next(), own.next()) {
        (Some(value), None) => value.as_bytes().trim_ascii(),
        (Some(_), Some(_)) => return Err("several keys"),
        (None, _) => {
            let mut bearers = headers.get_all(AUTHORIZATION).iter().filter_map(|value| bearer(value.as_bytes()));
            match (bearers.next(), bearers.next()) {
                (Some(token), None) => token,
                (Some(_), Some(_)) => return Err("several keys"),
                (None, _) => return Err("no key"),
            }
        }
    };
    let presented = Presented(Zeroizing::new(text.to_vec()));
    // Both headers are text of a header, so that this cannot fail.
    if let Ok(mut value) = HeaderValue::from_bytes(text) {
        value.set_sensitive(true);
        headers.insert(API_KEY, value);
    }
    Ok(presented)
}

/// Whether a secret of ours could be like this.
pub(super) fn is_possible(presented: &[u8]) -> bool {
    (1..=MAX_BYTES).contains(&presented.len())
}

// === impl Presented ===

impl Presented {
    pub(super) fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

/// The token behind the scheme `Bearer`, unless it is a placeholder.
fn bearer(value: &[u8]) -> Option<&[u8]> {
    const SCHEME: &[u8] = b"bearer";
    let (scheme, rest) = value.trim_ascii().split_at_checked(SCHEME.len())?;
    let token = rest.trim_ascii();
    let is_bearer = scheme.eq_ignore_ascii_case(SCHEME) && rest.first().is_some_and(u8::is_ascii_whitespace);
    (is_bearer && !is_placeholder(token)).then_some(token)
}

fn is_placeholder(text: &[u8]) -> bool {
    text.is_empty() || PLACEHOLDERS.iter().any(|word| text.eq_ignore_ascii_case(word.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_key_is_found_where_sdks_put_it() {
        struct Case {
            headers: &'static [(&'static str, &'static str)],
            key: Result<&'static str, &'static str>,
        }
        let cases = [
            Case { headers: &[("x-portkey-api-key", " pk-1 ")], key: Ok("pk-1") },
            Case { headers: &[("authorization", "Bearer pk-1")], key: Ok("pk-1") },
            Case { headers: &[("authorization", "bEARER  pk-1 ")], key: Ok("pk-1") },
            Case { headers: &[("x-portkey-api-key", "pk-1"), ("authorization", "Bearer sk-own")], key: Ok("pk-1") },
            Case { headers: &[("x-portkey-api-key", ""), ("authorization", "Bearer pk-1")], key: Ok("pk-1") },
            Case { headers: &[("x-portkey-api-key", "DUMMY"), ("authorization", "Bearer pk-1")], key: Ok("pk-1") },
            Case {
                headers: &[("x-portkey-api-key", "pk-1"), ("authorization", "Bearer OPENAI_API_KEY")],
                key: Ok("pk-1"),
            },
            Case { headers: &[("authorization", "Bearer openai_api_key")], key: Err("no key") },
            Case { headers: &[("authorization", "Bearer DUMMY-KEY")], key: Err("no key") },
            Case { headers: &[("authorization", "Bearer")], key: Err("no key") },
            Case { headers: &[("authorization", "Bearerpk-1")], key: Err("no key") },
            Case { headers: &[("authorization", "Basic cGstMQ==")], key: Err("no key") },
            Case { headers: &[("x-api-key", "pk-1"), ("api-key", "pk-1")], key: Err("no key") },
            Case { headers: &[], key: Err("no key") },
            Case { headers: &[("x-portkey-api-key", "pk-1"), ("x-portkey-api-key", "pk-2")], key: Err("several keys") },
            Case {
                headers: &[("authorization", "Bearer pk-1"), ("authorization", "Bearer pk-2")],
                key: Err("several keys"),
            },
        ];
        for Case { headers, key } in cases {
            let mut map = HeaderMap::new();
            for (name, value) in headers {
                map.append(*name, HeaderValue::from_static(value));
            }
            let taken = take(&mut map);
            let shown = taken.as_ref().map(|taken| std::str::from_utf8(taken.as_bytes()).unwrap());
            assert_eq!(shown.map_err(|reason| *reason), key, "{headers:?}");
            if let Ok(key) = key {
                assert_eq!(map.get_all(API_KEY).iter().collect::<Vec<_>>(), [key], "{headers:?}");
            }
        }
    }
}
