//! `x-portkey-forward-headers` and `forward_headers`: which of a request's headers may be copied upstream.

use super::{inputs::PREFIX, strip};

/// Names that decide how the upstream request is read.
const FRAMING: [&str; 12] = [
    "host",
    "connection",
    "keep-alive",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "content-length",
    "content-encoding",
    "expect",
    "sec-websocket-protocol",
];

/// Whether a request with a credential of ours may have this header forwarded: none that carries a credential, none that
/// is meant for the gateway (`x-portkey-config` holds every key of a config).
pub(super) fn is_allowed(name: &str) -> bool {
    let name = name.trim_ascii().to_ascii_lowercase();
    !name.is_empty()
        && name.is_ascii()
        && !name.starts_with(PREFIX)
        && !FRAMING.contains(&&*name)
        && !strip::is_credential(&name)
}

/// The names in the header, which separates them by commas.
pub(super) fn in_header(value: &str) -> impl Iterator<Item = &str> {
    value.split(',').map(str::trim_ascii).filter(|name| !name.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_and_the_gateways_headers_stay() {
        for (name, expected) in [
            ("x-request-source", true),
            ("User-Agent", true),
            ("x-portkey-config", false),
            ("X-Portkey-Config", false),
            (" x-portkey-api-key ", false),
            ("Authorization", false),
            ("cookie", false),
            ("x-amz-security-token", false),
            ("X-Goog-Api-Key", false),
            ("host", false),
            ("", false),
            ("x-portkey", true),
        ] {
            assert_eq!(is_allowed(name), expected, "{name}");
        }
        assert_eq!(in_header(" a, b,,c ").collect::<Vec<_>>(), ["a", "b", "c"]);
    }
}
