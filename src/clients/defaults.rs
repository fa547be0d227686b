//! `defaults` of an API key: what a request starts from.
//!
//! Where the key and the request set one metadata field, the key wins: a client must not call itself another team. Portkey
//! orders them alike (workspace above API key above request). A config is the request's own, unless it brings none, or the
//! key allows none but its own.

use http::{HeaderMap, HeaderName, HeaderValue};
use serde_json::{Map, Value};

use super::Denied;
use crate::model::ApiKey;

const CONFIG: HeaderName = HeaderName::from_static("x-portkey-config");
const METADATA: HeaderName = HeaderName::from_static("x-portkey-metadata");

/// Puts the defaults of `key` onto a request.
///
/// # Errors
/// [`Denied::ConfigOverride`] or [`Denied::Metadata`].
pub(super) fn apply(key: &ApiKey, headers: &mut HeaderMap) -> Result<(), Denied> {
    let defaults = &key.defaults;
    let own = defaults.config.as_deref();
    // Empty values count as absent, as they do in the gateway.
    let mut brought = headers.get_all(CONFIG).iter().filter(|value| !value.is_empty()).peekable();
    if brought.peek().is_some() {
        let names_own = |value: &HeaderValue| own.is_some_and(|own| value.as_bytes() == own.as_bytes());
        if !defaults.allow_config_override && !brought.all(names_own) {
            return Err(Denied::ConfigOverride { key: key.id.clone() });
        }
    } else if let Some(own) = own.and_then(|own| HeaderValue::from_str(own).ok()) {
        headers.insert(CONFIG, own);
    }
    if let Some(metadata) = &defaults.metadata {
        let joined = joined(metadata, headers).ok_or(Denied::Metadata)?;
        headers.insert(METADATA, joined);
    }
    Ok(())
}

fn joined(defaults: &Map<String, Value>, headers: &HeaderMap) -> Option<HeaderValue> {
    let mut lines = headers.get_all(METADATA).iter().filter(|value| !value.is_empty());
    let (line, None) = (lines.next(), lines.next()) else { return None };
    let mut metadata: Map<String, Value> = match line {
        Some(line) => serde_json::from_slice(line.as_bytes()).ok()?,
        None => Map::new(),
    };
    metadata.extend(defaults.iter().map(|(name, value)| (name.clone(), value.clone())));
    HeaderValue::try_from(ascii(&serde_json::to_string(&metadata).ok()?)).ok()
}

/// JSON text with everything outside of ASCII escaped, as headers want it.
fn ascii(json: &str) -> String {
    let mut text = String::with_capacity(json.len());
    let mut units = [0; 2];
    for char in json.chars() {
        if char.is_ascii() && char != '\x7f' {
            text.push(char);
            continue;
        }
        for unit in char.encode_utf16(&mut units) {
            text.push_str(&format!("\\u{unit:04x}"));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serde_json::json;

    use super::*;
    use crate::model::{Defaults, Lifespan, Scopes};

    fn key(metadata: &Value, config: Option<&str>, allow_config_override: bool) -> ApiKey {
        let metadata = metadata.as_object().filter(|metadata| !metadata.is_empty()).cloned().map(Arc::new);
        ApiKey {
            id: "k".into(),
            workspace_id: None,
            scopes: Scopes::default(),
            lifespan: Lifespan::UNLIMITED,
            account: None,
            defaults: Defaults { metadata, config: config.map(Into::into), allow_config_override },
            fault: None,
        }
    }

    #[test]
    fn the_keys_metadata_stands_above_the_requests() {
        struct Case {
            sent: &'static [&'static str],
            expected: Option<&'static str>,
        }
        let defaults = json!({"team": "a", "city": "Köln 😀"});
        let cases = [
            Case { sent: &[], expected: Some(r#"{"city":"K\u00f6ln \ud83d\ude00","team":"a"}"#) },
            Case { sent: &[""], expected: Some(r#"{"city":"K\u00f6ln \ud83d\ude00","team":"a"}"#) },
            Case {
                sent: &[r#"{"team":"b","_user":"u"}"#],
                expected: Some(r#"{"_user":"u","city":"K\u00f6ln \ud83d\ude00","team":"a"}"#),
            },
            Case { sent: &["team=b"], expected: None },
            Case { sent: &["[]"], expected: None },
            Case { sent: &["{}", "{}"], expected: None },
        ];
        for Case { sent, expected } in cases {
            let mut headers = HeaderMap::new();
            for line in sent {
                headers.append(METADATA, HeaderValue::from_static(line));
            }
            let applied = apply(&key(&defaults, None, true), &mut headers);
            match expected {
                None => assert_eq!(applied, Err(Denied::Metadata), "{sent:?}"),
                Some(expected) => {
                    assert_eq!(applied, Ok(()), "{sent:?}");
                    assert_eq!(headers.get_all(METADATA).iter().collect::<Vec<_>>(), [expected], "{sent:?}");
                }
            }
        }
        let mut headers = HeaderMap::from_iter([(METADATA, HeaderValue::from_static("not looked at"))]);
        assert_eq!(apply(&key(&json!({}), None, true), &mut headers), Ok(()));
        assert_eq!(headers[METADATA], "not looked at");
    }

    #[test]
    fn a_config_is_the_requests_own_if_the_key_allows_it() {
        struct Case {
            own: Option<&'static str>,
            allow: bool,
            sent: Option<&'static str>,
            /// `None`: refused.
            expected: Option<Option<&'static str>>,
        }
        let case = |own, allow, sent, expected| Case { own, allow, sent, expected };
        let cases = [
            case(None, true, None, Some(None)),
            case(None, true, Some("{}"), Some(Some("{}"))),
            case(None, false, None, Some(None)),
            case(None, false, Some("{}"), None),
            case(Some("pc-own"), true, None, Some(Some("pc-own"))),
            case(Some("pc-own"), true, Some(""), Some(Some("pc-own"))),
            case(Some("pc-own"), true, Some("pc-other"), Some(Some("pc-other"))),
            case(Some("pc-own"), false, None, Some(Some("pc-own"))),
            case(Some("pc-own"), false, Some("pc-own"), Some(Some("pc-own"))),
            case(Some("pc-own"), false, Some("pc-other"), None),
        ];
        for Case { own, allow, sent, expected } in cases {
            let mut headers: HeaderMap =
                sent.into_iter().map(|sent| (CONFIG, HeaderValue::from_static(sent))).collect();
            let applied = apply(&key(&json!({}), own, allow), &mut headers);
            let config = headers.get(CONFIG).map(|value| value.to_str().unwrap());
            match expected {
                None => assert_eq!(applied, Err(Denied::ConfigOverride { key: "k".into() }), "{own:?} {sent:?}"),
                Some(expected) => assert_eq!((applied, config), (Ok(()), expected), "{own:?} {allow} {sent:?}"),
            }
        }
    }
}
