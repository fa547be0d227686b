//! Any config header beside any provider header and model: what leaves with a credential of ours is bound to its stored
//! entity, readable to the gateway, and names no entity any more.

use std::sync::{Arc, LazyLock};

use http::{HeaderValue, Method, Request};
use serde_json::Value;
use sidekey::{
    dialect::portkey::{BodyPeek, Portkey, Settings},
    model::{Caller, LinkRules, Snapshot, link},
    secret::{Credential, SecretValue},
};
use time::OffsetDateTime;

use super::split;

const CANARY: &str = "sk-canary-0123456789abcdef";

static SNAPSHOT: LazyLock<Snapshot> = LazyLock::new(|| {
    link(include_bytes!("../corpus/snapshot/three_providers.json"), &LinkRules::STRICT).expect("links")
});

/// `input` is a byte that chooses the path, the provider header, a NUL, and the config header.
pub fn check(input: &[u8]) {
    let Some((&path, headers)) = input.split_first() else { return };
    let (provider, config) = split(headers);
    let (Ok(config), Ok(provider)) = (HeaderValue::from_bytes(config), HeaderValue::from_bytes(provider)) else {
        return;
    };
    let path = if path % 2 == 1 { "/v1/proxy/x?model=@openai-prod/m" } else { "/v1/chat/completions" };
    let request = Request::builder().method(Method::POST).uri(path).header("content-type", "application/json");
    let request = request.header("x-portkey-config", config).header("x-portkey-provider", provider).body(());
    let (mut head, ()) = request.expect("a request").into_parts();

    let dialect = Portkey::new(Settings::default());
    let Ok(plan) = dialect.plan(&head, &BodyPeek::default(), &SNAPSHOT, &Caller::default(), OffsetDateTime::UNIX_EPOCH)
    else {
        return;
    };
    let credentials: Vec<_> =
        plan.mappings.iter().map(|_| Arc::new(Credential::text(SecretValue::from(CANARY.to_owned())))).collect();
    assert!(!format!("{plan:?}").contains(CANARY));
    let Ok(_) = dialect.apply(&plan, &credentials, &mut head) else { return };
    assert!(!head.headers.contains_key("x-portkey-virtual-key"));
    if plan.mappings.is_empty() {
        return;
    }
    assert!(!head.headers.contains_key("x-portkey-custom-host"), "a client chose where our credential goes");
    let config = head.headers.get("x-portkey-config").map(|config| config.to_str().expect("visible ASCII").trim());
    // An empty header counts as none, here and in the gateway.
    if let Some(config) = config.filter(|config| !config.is_empty()) {
        bound(&serde_json::from_str(config).expect("JSON"));
    }
}

/// The stored entities have no host, so no target may have one, whatever its spelling, and none names an entity.
///
/// Only a target's own members count, and those of the targets below it. The gateway takes the host from there alone
/// (1.15.2 `src/handlers/services/requestContext.ts`, `get customHost`: header, else `providerOption.customHost`). What stands
/// deeper decides nothing: `override_params` is merged into the request's body (`get params`), which is the client's anyway, and
/// of which no provider's `getBaseURL` reads more than whether `model` is an ARN; `cache`, `retry` and checks are read by name.
fn bound(target: &Value) {
    for (name, value) in target.as_object().into_iter().flatten() {
        let plain: String =
            name.chars().filter(char::is_ascii_alphanumeric).map(|char| char.to_ascii_lowercase()).collect();
        match plain.as_str() {
            "customhost" | "azurefoundryurl" | "huggingfacebaseurl" | "resourcename" | "awss3bucket" => {
                assert!(value.is_null() || value == "", "{name} was let through");
            }
            "provider" => assert!(!value.as_str().unwrap_or_default().starts_with('@'), "a name was let through"),
            "virtualkey" => panic!("a name was let through"),
            "targets" => value.as_array().into_iter().flatten().for_each(bound),
            _ => {}
        }
    }
}
