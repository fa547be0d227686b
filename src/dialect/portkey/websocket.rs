//! Credentials in WebSocket sub-protocols.
//!
//! Browsers cannot set headers on an upgrade, so SDKs offer `openai-insecure-api-key.sk-…` and the like beside the protocol
//! they want. The gateway takes the first one offered and sends none upstream, so what is left can still be agreed on.
//!
//! Source: RFC 6455 section 11.3.4; <https://platform.openai.com/docs/guides/realtime-websocket>.

use http::{HeaderMap, HeaderValue, header::SEC_WEBSOCKET_PROTOCOL};

/// Takes the credentials out of the offered protocols; the header goes when nothing is left.
pub(super) fn strip(headers: &mut HeaderMap) {
    let offered: Vec<HeaderValue> = headers.get_all(SEC_WEBSOCKET_PROTOCOL).iter().cloned().collect();
    let protocols =
        || offered.iter().flat_map(|value| value.as_bytes().split(|&byte| byte == b',')).map(<[u8]>::trim_ascii);
    let mut kept: Vec<&[u8]> = Vec::new();
    let mut announced = false;
    for protocol in protocols() {
        let credential = announced || holds_credential(protocol);
        // `bearer, <token>`: the name alone announces what comes next.
        announced = !announced && is_name_alone(protocol);
        if !credential {
            kept.push(protocol);
        }
    }
    if kept.len() == protocols().count() {
        return;
    }
    headers.remove(SEC_WEBSOCKET_PROTOCOL);
    if let Ok(value) = HeaderValue::from_bytes(&kept.join(b", ".as_slice()))
        && !kept.is_empty()
    {
        headers.insert(SEC_WEBSOCKET_PROTOCOL, value);
    }
}

/// Whether a word of the protocol says that a credential or an account follows it.
fn holds_credential(protocol: &[u8]) -> bool {
    const ACCOUNTS: [&[u8]; 2] = [b"openai-organization", b"openai-project"];
    let starts = |prefix: &[u8]| protocol.get(..prefix.len()).is_some_and(|start| start.eq_ignore_ascii_case(prefix));
    ACCOUNTS.iter().any(|account| starts(account)) || words(protocol).any(is_credential_word)
}

fn is_name_alone(protocol: &[u8]) -> bool {
    words(protocol).last().is_some_and(is_credential_word)
}

fn words(protocol: &[u8]) -> impl Iterator<Item = &[u8]> {
    protocol.split(|byte| !byte.is_ascii_alphanumeric())
}

fn is_credential_word(word: &[u8]) -> bool {
    const WORDS: [&[u8]; 11] = [
        b"bearer",
        b"authorization",
        b"auth",
        b"token",
        b"key",
        b"apikey",
        b"secret",
        b"password",
        b"jwt",
        b"credential",
        b"signature",
    ];
    WORDS.iter().any(|known| word.eq_ignore_ascii_case(known))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_go_and_the_protocol_stays() {
        let rows: [(&[&str], Option<&str>); 14] = [
            (
                &["realtime, openai-insecure-api-key.sk-1, openai-beta.realtime-v1"],
                Some("realtime, openai-beta.realtime-v1"),
            ),
            (&["realtime", "openai-insecure-api-key.sk-1"], Some("realtime")),
            (&["openai-insecure-api-key.sk-1"], None),
            (&["OpenAI-Insecure-API-Key.sk-1,realtime"], Some("realtime")),
            (&["realtime, openai-organization.org-1, openai-project.proj_1"], Some("realtime")),
            (&["realtime,bearer,sk-1"], Some("realtime")),
            (&["Authorization, sk-1, realtime"], Some("realtime")),
            (&["access_token", "eyJ", "realtime"], Some("realtime")),
            (&["realtime, base64url.bearer.authorization.k8s.io.c2s"], Some("realtime")),
            (&["token, token, realtime"], Some("realtime")),
            // Nothing to take: spelling and lines stay.
            (&["realtime,openai-beta.realtime-v1"], Some("realtime,openai-beta.realtime-v1")),
            (&["graphql-transport-ws"], Some("graphql-transport-ws")),
            (&["keynote.v1"], Some("keynote.v1")),
            (&[], None),
        ];
        for (lines, expected) in rows {
            let mut headers = HeaderMap::new();
            for line in lines {
                headers.append(SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(line));
            }
            strip(&mut headers);
            assert_eq!(headers.get(SEC_WEBSOCKET_PROTOCOL).map(|value| value.to_str().unwrap()), expected, "{lines:?}");
            assert!(headers.get_all(SEC_WEBSOCKET_PROTOCOL).iter().count() <= 1, "{lines:?}");
        }
    }
}
