//! Headers that belong to one connection and are not passed on (RFC 9110 7.6.1).
//!
//! Requests are cleaned *before* they are planned: a client that lists `authorization` in `Connection` must not be able to
//! remove what is injected later.

use http::{
    HeaderMap, HeaderName, HeaderValue,
    header::{CONNECTION, CONTENT_LENGTH, COOKIE, TE, TRANSFER_ENCODING},
};

/// Removes from a client's request what is meant for this connection.
///
/// `te: trailers` stays, alone, because it is what the gateway must be told to send trailers. `host` names us, not the
/// gateway. `expect` is answered here. The framing of the body is written anew.
pub fn strip_request(headers: &mut HeaderMap) {
    strip(headers, |name| {
        is_hop_by_hop(name)
            || matches!(name, "host" | "expect" | "proxy-authorization" | "http2-settings" | "content-length")
    });
    join_cookies(headers);
    if headers.contains_key(TE) {
        let trailers = lists(headers, &TE, "trailers");
        headers.remove(TE);
        if trailers {
            headers.insert(TE, HeaderValue::from_static("trailers"));
        }
    }
}

/// Removes from the gateway's reply what is meant for that connection. `content-length` stays, for the body passes as it is, but
/// not beside `transfer-encoding`, which overrides it (RFC 9112 6.3).
pub fn strip_response(headers: &mut HeaderMap) {
    if headers.contains_key(TRANSFER_ENCODING) {
        headers.remove(CONTENT_LENGTH);
    }
    strip(headers, |name| is_hop_by_hop(name) || name == "proxy-authenticate");
}

/// Whether the comma-separated header `name` has `token` in it, in any case.
pub fn lists(headers: &HeaderMap, name: &HeaderName, token: &str) -> bool {
    headers
        .get_all(name)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .any(|item| item.trim().eq_ignore_ascii_case(token))
}

/// What goes in both directions. `trailer` is not among it: it announces fields that do travel on.
fn is_hop_by_hop(name: &str) -> bool {
    matches!(name, "connection" | "keep-alive" | "proxy-connection" | "transfer-encoding" | "upgrade")
}

/// HTTP/2 may part a cookie header into crumbs, HTTP/1.1 has one (RFC 9113 8.2.3).
fn join_cookies(headers: &mut HeaderMap) {
    let crumbs: Vec<&[u8]> = headers.get_all(COOKIE).iter().map(HeaderValue::as_bytes).collect();
    if crumbs.len() > 1
        && let Ok(whole) = HeaderValue::from_bytes(&crumbs.join(&b"; "[..]))
    {
        headers.insert(COOKIE, whole);
    }
}

/// Removes what `Connection` names, and what `goes` in any case.
fn strip(headers: &mut HeaderMap, goes: impl Fn(&str) -> bool) {
    if headers.contains_key(CONNECTION) {
        let named: Vec<HeaderName> = headers
            .get_all(CONNECTION)
            .iter()
            .filter_map(|value| value.to_str().ok())
            .flat_map(|value| value.split(','))
            .map(str::trim)
            // Mostly it names `keep-alive`, which is removed anyway.
            .filter(|name| !goes(name))
            .filter_map(|name| name.parse().ok())
            // `Connection: te` is how a client says that its `te` is honest; it is judged on its own.
            .filter(|name| *name != TE)
            .collect();
        for name in named {
            headers.remove(name);
        }
    }
    // A look at the few names that are there costs less than a search for each that may be.
    let there: Vec<HeaderName> = headers.keys().filter(|name| goes(name.as_str())).cloned().collect();
    for name in there {
        headers.remove(name);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(lines: &[(&'static str, &'static str)]) -> HeaderMap {
        lines.iter().map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value))).collect()
    }

    fn names(headers: &HeaderMap) -> Vec<&str> {
        let mut names: Vec<_> = headers.keys().map(HeaderName::as_str).collect();
        names.sort_unstable();
        names
    }

    #[test]
    fn requests_lose_what_belongs_to_the_connection() {
        struct Case {
            sent: &'static [(&'static str, &'static str)],
            kept: &'static [&'static str],
        }
        let cases = [
            Case {
                sent: &[("connection", "close"), ("keep-alive", "timeout=5"), ("accept", "*/*")],
                kept: &["accept"],
            },
            Case {
                sent: &[("connection", "X-One, x-two"), ("x-one", "1"), ("x-two", "2"), ("x-three", "3")],
                kept: &["x-three"],
            },
            Case { sent: &[("te", "gzip, Trailers"), ("connection", "te")], kept: &["te"] },
            Case { sent: &[("te", "gzip")], kept: &[] },
            Case {
                sent: &[("transfer-encoding", "chunked"), ("content-length", "3"), ("trailer", "x-sum")],
                kept: &["trailer"],
            },
            Case {
                sent: &[("upgrade", "h2c"), ("http2-settings", "AAA"), ("expect", "100-continue"), ("host", "a")],
                kept: &[],
            },
            Case { sent: &[("proxy-authorization", "Basic x"), ("proxy-connection", "close")], kept: &[] },
        ];
        for Case { sent, kept } in cases {
            let mut headers = map(sent);
            strip_request(&mut headers);
            assert_eq!(names(&headers), kept, "{sent:?}");
        }
    }

    #[test]
    fn crumbs_become_one_cookie() {
        let mut headers = map(&[("cookie", "a=b"), ("accept", "*/*"), ("cookie", "c=d")]);
        strip_request(&mut headers);
        assert_eq!(headers.get_all("cookie").iter().collect::<Vec<_>>(), ["a=b; c=d"]);
    }

    #[test]
    fn te_is_reduced_to_trailers() {
        let mut headers = map(&[("te", "gzip;q=0.5, trailers")]);
        strip_request(&mut headers);
        assert_eq!(headers["te"], "trailers");
    }

    #[test]
    fn replies_keep_their_length_and_trailers() {
        let mut headers = map(&[
            ("connection", "x-hop"),
            ("x-hop", "1"),
            ("content-length", "2"),
            ("trailer", "x-sum"),
            ("upgrade", "h2"),
        ]);
        strip_response(&mut headers);
        assert_eq!(names(&headers), ["content-length", "trailer"]);
    }

    #[test]
    fn a_reply_says_once_how_long_it_is() {
        let mut headers = map(&[("content-length", "2"), ("transfer-encoding", "chunked")]);
        strip_response(&mut headers);
        assert!(headers.is_empty(), "{headers:?}");
    }
}
