//! What may stand in a field that decides where a credential is sent; whoever writes an entity is judged by it.
//!
//! The gateway puts these fields into the URLs that it calls, most of them without a look (1.15.2, `getBaseURL` in
//! `src/providers/*/api.ts`): `127.0.0.1/#` as the name of an Azure resource would end the host there. A base URL may name any
//! host but instance metadata and link-local addresses, as in [`super::address`]; whether it may be private is for whoever
//! takes it from a tenant. A name that resolves to such an address cannot be told here: the gateway asks for it.

use std::net::IpAddr;

use url::{Host, Url};

use super::{
    FieldRole, FieldSpec,
    address::{Kind, kind},
};

const BASE_URL: &str = "must be an http or https URL, without user name and password";
const METADATA: &str =
    "names instance metadata or a link-local address, where no provider is; write the address of the provider";
const PART: &str =
    "must be letters, digits, `.`, `_` and `-`, without `..`: it becomes a part of the address that is called";
/// Names of instance metadata; a name below one is one, too.
const METADATA_NAMES: [&str; 3] = ["metadata", "instance-data", "metadata.google.internal"];

/// What is wrong with `text` as the value of `spec`, if that decides where requests go.
pub fn fault(spec: &FieldSpec, text: &str) -> Option<&'static str> {
    if spec.role != FieldRole::Destination || text.is_empty() {
        return None;
    }
    if spec.is_base_url() { base_url(text) } else { part(text) }
}

fn base_url(text: &str) -> Option<&'static str> {
    let url = Url::parse(text).ok();
    let url = url.filter(|url| matches!(url.scheme(), "http" | "https"));
    let url = url.filter(|url| url.username().is_empty() && url.password().is_none());
    let Some(host) = url.as_ref().and_then(Url::host) else { return Some(BASE_URL) };
    let is_closed = match host {
        Host::Ipv4(address) => is_forbidden(address.into()),
        Host::Ipv6(address) => is_forbidden(address.into()),
        Host::Domain(name) => {
            let name = name.trim_end_matches('.');
            let is_below = |closed: &str| name.strip_suffix(closed).is_some_and(|rest| rest.ends_with('.'));
            METADATA_NAMES.iter().any(|closed| name == *closed || is_below(closed))
                || METADATA_NAMES[..2].iter().any(|first| name.split('.').next() == Some(first))
        }
    };
    is_closed.then_some(METADATA)
}

fn is_forbidden(address: IpAddr) -> bool {
    match kind(address) {
        Kind::Forbidden(_) => true,
        Kind::Private(_) | Kind::Public => false,
    }
}

fn part(text: &str) -> Option<&'static str> {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    (!text.bytes().all(is_plain) || text.contains("..")).then_some(PART)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::FIELDS;

    #[test]
    fn a_base_url_never_names_metadata_or_a_link() {
        let custom_host = FieldSpec::named("openai", "custom_host").unwrap();
        for (text, expected) in [
            ("https://llm.example/v1", None),
            ("http://127.0.0.1:9901/v1", None),
            ("http://10.0.0.1", None),
            ("http://[::1]:8080/", None),
            ("http://localhost:11434", None),
            ("https://metadata-llm.example", None),
            ("https://llm.metadata.example", None),
            ("http://169.254.169.254/latest/meta-data", Some(METADATA)),
            ("http://169.254.170.2/v2/credentials", Some(METADATA)),
            ("http://2852039166/", Some(METADATA)),
            ("http://0xa9fea9fe/", Some(METADATA)),
            ("http://0251.0376.0251.0376/", Some(METADATA)),
            ("http://169.254.43518/", Some(METADATA)),
            ("http://\u{ff11}69.254.169.254/", Some(METADATA)),
            ("http://0.0.0.0:8901/", Some(METADATA)),
            ("http://100.100.100.200/", Some(METADATA)),
            ("http://168.63.129.16/", Some(METADATA)),
            ("http://[fe80::1]/", Some(METADATA)),
            ("http://[::ffff:a9fe:a9fe]/", Some(METADATA)),
            ("http://[fd00:ec2::254]/", Some(METADATA)),
            ("http://[64:ff9b::a9fe:a9fe]/", Some(METADATA)),
            ("http://metadata/", Some(METADATA)),
            ("http://METADATA.google.internal./", Some(METADATA)),
            ("http://x.metadata.google.internal", Some(METADATA)),
            ("http://metadata.azure.com/", Some(METADATA)),
            ("http://instance-data.ec2.internal/", Some(METADATA)),
            ("http://user@llm.example", Some(BASE_URL)),
            ("llm.example", Some(BASE_URL)),
            ("file:///etc/passwd", Some(BASE_URL)),
            ("http://", Some(BASE_URL)),
        ] {
            assert_eq!(fault(custom_host, text), expected, "{text}");
        }
    }

    #[test]
    fn every_other_destination_is_one_plain_part() {
        let parts = || FIELDS.iter().filter(|spec| spec.role == FieldRole::Destination && !spec.is_base_url());
        assert!(parts().count() >= 11);
        for spec in parts() {
            for text in ["my-resource", "eu-west-1", "adb-1234.5", "org_1-acct.eu", ""] {
                assert_eq!(fault(spec, text), None, "{} {text}", spec.name);
            }
            for text in
                ["127.0.0.1/#", "a/b", "a\\b", "a#", "a?b", "a@b", "a:1", "a b", "a%2fb", "..", "a..b", "\u{e9}"]
            {
                assert_eq!(fault(spec, text), Some(PART), "{} {text}", spec.name);
            }
        }
    }
}
