//! `custom_headers` of an entity: request headers of ours that the gateway is told to copy upstream.
//!
//! The gateway takes their values from the request, so they stand beside the request's own headers and are visible to every
//! target of a config: binding sees to it that only their own entity forwards them.

use std::sync::Arc;

use http::{HeaderName, HeaderValue};
use zeroize::Zeroizing;

use super::{config_tree::node::Node, inputs::PREFIX};
use crate::secret::{Credential, SecretValue};

/// Names that belong to HTTP or to the gateway and cannot be custom.
const RESERVED: [&str; 14] = [
    "connection",
    "content-encoding",
    "content-length",
    "content-type",
    "expect",
    "host",
    "keep-alive",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "accept-encoding",
];

/// A structure that is no set of headers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct NotHeaders;

/// One custom header.
pub(super) struct CustomHeader {
    /// Its name.
    pub(super) name: HeaderName,
    /// Its value, to be redacted from replies.
    pub(super) credential: Arc<Credential>,
    /// Its value, marked sensitive.
    pub(super) value: HeaderValue,
}

/// The names alone, in stored order.
///
/// # Errors
/// [`NotHeaders`] for what is no object of texts with usable names, or is empty.
pub(super) fn names(json: &str) -> Result<Vec<HeaderName>, NotHeaders> {
    let node = Node::parse(json).ok_or(NotHeaders)?;
    let members = node.members().filter(|members| !members.is_empty()).ok_or(NotHeaders)?;
    members
        .iter()
        .map(|(name, value)| value.text().map(|_| name))
        .map(|name| custom_name(name.ok_or(NotHeaders)?))
        .collect()
}

/// Names and values.
///
/// # Errors
/// [`NotHeaders`], also for a value that no header can carry.
pub(super) fn read(json: &str) -> Result<Vec<CustomHeader>, NotHeaders> {
    let node = Node::parse(json).ok_or(NotHeaders)?;
    let members = node.members().filter(|members| !members.is_empty()).ok_or(NotHeaders)?;
    members
        .iter()
        .map(|(name, value)| {
            let name = custom_name(name)?;
            let text = Zeroizing::new(value.text().ok_or(NotHeaders)?.to_owned());
            let credential = Arc::new(Credential::text(SecretValue::new(text.as_bytes().to_vec())));
            let value = credential.header().map_err(|_| NotHeaders)?;
            Ok(CustomHeader { name, credential, value })
        })
        .collect()
}

fn custom_name(name: &str) -> Result<HeaderName, NotHeaders> {
    let name = HeaderName::from_bytes(name.as_bytes()).map_err(|_| NotHeaders)?;
    let reserved = RESERVED.contains(&name.as_str()) || name.as_str().starts_with(PREFIX);
    if reserved { Err(NotHeaders) } else { Ok(name) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_sets_of_usable_headers() {
        for (json, expected) in [
            (r#"{"X-Team":"a","x-tier":"b c"}"#, Some(vec!["x-team", "x-tier"])),
            (r#"{"x-team":"a\nb"}"#, None),
            (r#"{"x-team":""}"#, None),
            (r#"{"x-team":1}"#, None),
            (r#"{"x team":"a"}"#, None),
            (r#"{"host":"evil.example"}"#, None),
            (r#"{"Content-Length":"0"}"#, None),
            (r#"{"x-portkey-config":"{}"}"#, None),
            ("{}", None),
            ("[]", None),
            ("x", None),
        ] {
            let read =
                read(json).map(|headers| headers.iter().map(|header| header.name.to_string()).collect::<Vec<_>>());
            assert_eq!(read.ok(), expected.map(|names| names.into_iter().map(str::to_owned).collect()), "{json}");
        }
        assert_eq!(names(r#"{"X-Team":"a"}"#).unwrap(), ["x-team"]);
    }

    #[test]
    fn values_are_sensitive() {
        assert!(read(r#"{"x-team":"a"}"#).unwrap()[0].value.is_sensitive());
    }
}
