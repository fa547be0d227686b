//! Credentials in the query: on proxy routes it is passed on as it is and travels beside ours.

use std::borrow::Cow;

use http::{Uri, uri::PathAndQuery};
use percent_encoding::percent_decode_str;

/// Takes them out. What stays keeps its spelling; a query without credentials is not touched.
pub(super) fn strip(uri: &mut Uri) {
    let Some(query) = uri.query() else { return };
    if !pairs(query).any(|(_, pair)| holds_credential(pair)) {
        return;
    }
    let mut target = String::with_capacity(uri.path().len() + 1 + query.len());
    target.push_str(uri.path());
    let mut mark = '?';
    for (separator, pair) in pairs(query).filter(|(_, pair)| !holds_credential(pair)) {
        target.push(if mark == '?' { mark } else { separator });
        target.push_str(pair);
        mark = separator;
    }
    let mut parts = std::mem::take(uri).into_parts();
    // Part of a target that was valid is valid; were it not, the root is nobody's credential.
    parts.path_and_query = Some(PathAndQuery::try_from(target).unwrap_or_else(|_| PathAndQuery::from_static("/")));
    *uri = Uri::from_parts(parts).unwrap_or_default();
}

/// The pairs of a query, each with the separator before it. Some servers divide at `;` too.
fn pairs(query: &str) -> impl Iterator<Item = (char, &str)> {
    let mut separator = '&';
    query.split_inclusive(['&', ';']).map(move |pair| {
        let before = separator;
        let bare = pair.trim_end_matches(['&', ';']);
        separator = pair[bare.len()..].chars().next().unwrap_or('&');
        (before, bare)
    })
}

/// Compares names as a server reads them: decoded, `+` a blank, without an index (`key[]`), in any case.
fn holds_credential(pair: &str) -> bool {
    let name = pair.split_once('=').map_or(pair, |(name, _)| name);
    let plain = match name.contains('+') {
        true => Cow::Owned(name.replace('+', " ")),
        false => Cow::Borrowed(name),
    };
    let decoded = percent_decode_str(&plain).decode_utf8_lossy();
    let name = decoded.split('[').next().unwrap_or_default().trim();
    is_credential(name)
}

fn is_credential(name: &str) -> bool {
    const NAMES: [&str; 25] = [
        "key",
        "api_key",
        "api-key",
        "apikey",
        "api_token",
        "x-api-key",
        "subscription-key",
        "subscription_key",
        "access_token",
        "access-token",
        "auth_token",
        "id_token",
        "token",
        "jwt",
        "authorization",
        "auth",
        "password",
        "secret",
        "client_secret",
        "credential",
        "sig",
        "signature",
        "awsaccesskeyid",
        "googleaccessid",
        "openai-insecure-api-key",
    ];
    const PREFIXES: [&str; 2] = ["x-amz-", "x-goog-"];
    NAMES.iter().any(|known| name.eq_ignore_ascii_case(known))
        || PREFIXES
            .iter()
            .any(|prefix| name.get(..prefix.len()).is_some_and(|start| start.eq_ignore_ascii_case(prefix)))
}
