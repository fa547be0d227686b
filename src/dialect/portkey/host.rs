//! Hosts: which are out of bounds for every request, and which an operator's list admits.
//!
//! Addresses are read as the gateway's URL parser reads them (WHATWG), so that decimal, octal, hexadecimal and shortened
//! forms are the address they mean.

use std::net::{Ipv4Addr, Ipv6Addr};

use url::{Host, Url};

/// Names that lead to a metadata service or back to the machine.
const FORBIDDEN_NAMES: [&str; 7] = [
    "localhost",
    "metadata",
    "metadata.google.internal",
    "metadata.goog",
    "metadata.azure.com",
    "metadata.azure.internal",
    "instance-data",
];

/// Suffixes of such names.
const FORBIDDEN_SUFFIXES: [&str; 3] = [".localhost", ".localdomain", ".ec2.internal"];

/// The host of a base URL: lower case, addresses in their canonical form. `None` for what is no plain http(s) URL in ASCII:
/// we would read a header's other bytes as UTF-8 and the gateway as Latin-1, and see two hosts.
pub(super) fn of_url(url: &str) -> Option<Host> {
    let url = Url::parse(Some(url).filter(|url| url.is_ascii())?).ok()?;
    if !matches!(url.scheme(), "http" | "https") || !url.username().is_empty() || url.password().is_some() {
        return None;
    }
    url.host().map(|host| host.to_owned())
}

/// Whether `rules` (exact names, or suffixes with a leading dot) admit `host`.
pub(super) fn is_listed<R: AsRef<str>>(host: &Host, rules: &[R]) -> bool {
    let host = host.to_string();
    let name = host.trim_end_matches('.');
    rules.iter().map(AsRef::as_ref).any(|rule| match rule.strip_prefix('.') {
        Some(_) => {
            name.len() > rule.len()
                && name.is_char_boundary(name.len() - rule.len())
                && name[name.len() - rule.len()..].eq_ignore_ascii_case(rule)
        }
        None => name.eq_ignore_ascii_case(rule),
    })
}

/// Whether `host` is this machine, its link or a metadata service.
pub(super) fn is_forbidden(host: &Host) -> bool {
    match host {
        Host::Domain(name) => {
            let name = name.trim_end_matches('.');
            FORBIDDEN_NAMES.iter().any(|forbidden| name.eq_ignore_ascii_case(forbidden))
                || FORBIDDEN_SUFFIXES.iter().any(|suffix| {
                    name.len() > suffix.len()
                        && name.is_char_boundary(name.len() - suffix.len())
                        && name[name.len() - suffix.len()..].eq_ignore_ascii_case(suffix)
                })
        }
        Host::Ipv4(address) => is_forbidden_v4(*address),
        Host::Ipv6(address) => is_forbidden_v6(*address),
    }
}

fn is_forbidden_v4(address: Ipv4Addr) -> bool {
    // Alibaba, Azure wire server, Oracle.
    const METADATA: [Ipv4Addr; 3] =
        [Ipv4Addr::new(100, 100, 100, 200), Ipv4Addr::new(168, 63, 129, 16), Ipv4Addr::new(192, 0, 0, 192)];
    address.is_loopback()
        || address.is_link_local()
        || address.octets()[0] == 0
        || address.is_broadcast()
        || address.is_multicast()
        || METADATA.contains(&address)
}

fn is_forbidden_v6(address: Ipv6Addr) -> bool {
    let segments = address.segments();
    let embedded = |high: u16, low: u16| {
        let [a, b] = high.to_be_bytes();
        let [c, d] = low.to_be_bytes();
        is_forbidden_v4(Ipv4Addr::new(a, b, c, d))
    };
    if address.is_loopback() || address.is_unspecified() || address.is_multicast() || segments[0] & 0xffc0 == 0xfe80 {
        return true;
    }
    match segments {
        // The metadata address of EC2.
        [0xfd00, 0xec2, 0, 0, 0, 0, 0, _] => true,
        // IPv4-mapped and IPv4-compatible, NAT64, 6to4: what counts is the address inside.
        [0, 0, 0, 0, 0, 0xffff | 0, high, low] | [0x64, 0xff9b, 0, 0, 0, 0, high, low] => embedded(high, low),
        [0, 0, 0, 0, 0xffff, 0, high, low] => embedded(high, low),
        [0x2002, high, low, ..] => embedded(high, low),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn machine_link_and_metadata_are_forbidden_in_every_spelling() {
        for url in [
            "http://127.0.0.1:8901/v1",
            "http://127.1/",
            "http://2130706433/",
            "http://0x7f000001/",
            "http://0177.0.0.1/",
            "http://localhost:1/",
            "http://LOCALHOST/",
            "http://a.localhost/",
            "http://localhost./",
            "http://0.0.0.0/",
            "http://169.254.169.254/latest",
            "http://2852039166/",
            "http://0xa9fea9fe/",
            "http://0xa9.0xfe.0xa9.0xfe/",
            "http://169.254.1.1/",
            "http://metadata.google.internal/",
            "http://METADATA.google.internal./",
            "http://metadata/",
            "http://[::1]/",
            "http://[::]/",
            "http://[::ffff:127.0.0.1]/",
            "http://[::ffff:a9fe:a9fe]/",
            "http://[::127.0.0.1]/",
            "http://[fe80::1]/",
            "http://[fd00:ec2::254]/",
            "http://[64:ff9b::7f00:1]/",
            "http://[2002:7f00:1::]/",
            "http://100.100.100.200/",
            "http://168.63.129.16/",
            "http://\u{ff11}27.0.0.1/",
        ] {
            assert!(of_url(url).is_none_or(|host| is_forbidden(&host)), "{url}");
        }
    }

    #[test]
    fn ordinary_hosts_are_not_forbidden() {
        for url in
            ["https://api.openai.com/v1", "http://10.0.0.1", "http://[2001:db8::1]/", "https://localhost.example"]
        {
            assert!(of_url(url).is_some_and(|host| !is_forbidden(&host)), "{url}");
        }
    }

    #[test]
    fn only_plain_http_urls_have_a_host() {
        for url in
            ["", "api.openai.com", "file:///etc/passwd", "http://user@host/", "http://a:b@host/", "data:x", "http://"]
        {
            assert_eq!(of_url(url), None, "{url}");
        }
    }

    #[test]
    fn lists_match_exactly_or_by_suffix() {
        for (url, rules, expected) in [
            ("https://api.openai.com/v1", &["api.openai.com"][..], true),
            ("https://API.openai.com./v1", &["api.OpenAI.com"], true),
            ("https://api.openai.com/v1", &[".openai.com"], true),
            ("https://openai.com/v1", &[".openai.com"], false),
            ("https://evilopenai.com/v1", &[".openai.com"], false),
            ("https://api.openai.com.evil.example/", &["api.openai.com", ".openai.com"], false),
            ("http://10.0.0.1/", &["10.0.0.1"], true),
            ("http://167772161/", &["10.0.0.1"], true),
            ("https://x.example", &[], false),
        ] {
            assert_eq!(is_listed(&of_url(url).unwrap(), rules), expected, "{url} {rules:?}");
        }
    }
}
