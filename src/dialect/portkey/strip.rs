//! What of a client may stand beside a credential of ours, and what is never forwarded.
//!
//! On proxy routes the gateway copies every client header over the provider's own, so whatever could authenticate, bill or
//! sign a request goes, on any route: a list of known names, and any name that says it holds a credential. Of the gateway's
//! own headers only those listed here stay; everything else with its prefix is ours to set, or nobody has looked at it yet.
//!
//! Source: gateway 1.15.2 `src/handlers/handlerUtils.ts`; authentication pages of the providers it knows.

use http::{
    HeaderMap, HeaderName, HeaderValue,
    header::{AUTHORIZATION, SEC_WEBSOCKET_PROTOCOL},
    request::Parts,
};

use super::websocket;

mod query;
#[cfg(test)]
mod tests;

const GATEWAY_PREFIX: &str = "x-portkey-";
const API_KEY: HeaderName = HeaderName::from_static("x-portkey-api-key");
const VIRTUAL_KEY: HeaderName = HeaderName::from_static("x-portkey-virtual-key");

/// Headers some SDKs fill with the Portkey key when they have no other.
const REPEATING: [HeaderName; 4] = [
    AUTHORIZATION,
    HeaderName::from_static("x-api-key"),
    HeaderName::from_static("api-key"),
    HeaderName::from_static("x-goog-api-key"),
];

/// What SDKs put into `authorization` when they were given nothing.
const PLACEHOLDERS: [&str; 3] = ["OPENAI_API_KEY", "DUMMY-KEY", "dummy"];

/// Takes everything off a request that may not stand beside a credential of ours. `keep` names headers that were looked
/// at and stay although they are not listed; it cannot keep a credential.
pub(super) fn client_credentials(head: &mut Parts, keep: &[HeaderName]) {
    let goes = |name: &HeaderName| match name.as_str().strip_prefix(GATEWAY_PREFIX) {
        Some(option) => !is_per_request(option) && (!keep.contains(name) || *name == API_KEY || *name == VIRTUAL_KEY),
        None => is_credential(name.as_str()),
    };
    let gone: Vec<HeaderName> = head.headers.keys().filter(|name| goes(name)).cloned().collect();
    for name in gone {
        head.headers.remove(name);
    }
    if head.headers.contains_key(SEC_WEBSOCKET_PROTOCOL) {
        websocket::strip(&mut head.headers);
    }
    query::strip(&mut head.uri);
}

/// Takes off an unmatched request what is nobody's credential but ours to see: the Portkey key, also where an SDK repeats
/// it, and placeholders.
pub(super) fn unmatched(head: &mut Parts) {
    let keys: Vec<HeaderValue> = head.headers.get_all(API_KEY).iter().cloned().collect();
    head.headers.remove(API_KEY);
    head.headers.remove(VIRTUAL_KEY);
    for name in REPEATING {
        retain(&mut head.headers, &name, |value| {
            let value = without_bearer(value.as_bytes());
            let repeats = keys.iter().any(|key| !key.is_empty() && key.as_bytes().trim_ascii() == value);
            !repeats && (name != AUTHORIZATION || !is_placeholder(value))
        });
    }
}

/// Whether a header with the gateway's prefix, given without it, is an option of one request: it names no entity and no
/// destination and carries no credential. Guardrails and forwarded names are among them; both are checked when planning.
pub(super) fn is_per_request(option: &str) -> bool {
    matches!(
        option,
        "trace-id"
            | "span-id"
            | "span-name"
            | "parent-span-id"
            | "metadata"
            | "request-timeout"
            | "strict-open-ai-compliance"
            | "debug"
            | "cache"
            | "cache-namespace"
            | "cache-force-refresh"
            | "retry-count"
            | "mode"
            | "default-input-guardrails"
            | "default-output-guardrails"
            | "forward-headers"
            | "anthropic-beta"
            | "anthropic-version"
            | "openai-beta"
            | "mistral-fim-completion"
            | "azure-extra-params"
            | "stability-client-id"
            | "stability-client-user-id"
            | "stability-client-version"
            | "provider-model"
            | "provider-file-name"
            | "provider-batch-endpoint"
            | "file-purpose"
            | "file-upload-size"
            | "model-type"
            | "aws-s3-object-key"
            | "aws-bedrock-model"
            | "amz-server-side-encryption"
            | "amz-server-side-encryption-aws-kms-key-id"
    )
}

/// Whether a header of this name, in lower case and without the gateway's prefix, authenticates, signs or bills requests.
pub(super) fn is_credential(name: &str) -> bool {
    const PREFIXES: [&str; 3] = ["x-amz-", "x-goog-", "x-amzn-oidc-"];
    match name {
        "openai-organization" | "openai-project" | "dpop" => true,
        "idempotency-key" | "x-idempotency-key" | "sec-websocket-key" | "surrogate-key" | "cache-key" => false,
        _ => PREFIXES.iter().any(|prefix| name.starts_with(prefix)) || names_credential(name),
    }
}

/// Whether a word of `name` says that it holds a credential: `private-token`, `xi-api-key`, `modal-secret`, `cookie2`.
fn names_credential(name: &str) -> bool {
    let mut words = name.split(['-', '_', '.']);
    words.next_back().is_some_and(|last| matches!(last, "key" | "keys") || is_credential_word(last))
        || words.any(is_credential_word)
}

fn is_credential_word(word: &str) -> bool {
    matches!(
        word,
        "authorization"
            | "authentication"
            | "auth"
            | "bearer"
            | "apikey"
            | "token"
            | "accesstoken"
            | "jwt"
            | "secret"
            | "password"
            | "passwd"
            | "credential"
            | "credentials"
            | "signature"
            | "cookie"
            | "cookie2"
    )
}

/// Drops the values of one header that `keep` refuses.
fn retain(headers: &mut HeaderMap, name: &HeaderName, keep: impl Fn(&HeaderValue) -> bool) {
    if headers.get_all(name).iter().all(&keep) {
        return;
    }
    let kept: Vec<HeaderValue> = headers.get_all(name).iter().filter(|value| keep(value)).cloned().collect();
    headers.remove(name);
    for value in kept {
        headers.append(name, value);
    }
}

fn is_placeholder(value: &[u8]) -> bool {
    value.is_empty() || PLACEHOLDERS.iter().any(|placeholder| value.eq_ignore_ascii_case(placeholder.as_bytes()))
}

/// A credential without its scheme, if that is `Bearer`.
fn without_bearer(value: &[u8]) -> &[u8] {
    const SCHEME: &[u8] = b"bearer";
    let value = value.trim_ascii();
    match value.split_at_checked(SCHEME.len()) {
        Some((scheme, rest))
            if scheme.eq_ignore_ascii_case(SCHEME) && rest.first().is_none_or(u8::is_ascii_whitespace) =>
        {
            rest.trim_ascii()
        }
        _ => value,
    }
}
