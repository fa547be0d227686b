//! Any config header beside any provider header and model: what leaves with a credential of ours is bound to its stored
//! entity, readable to the gateway, and names no entity any more.
#![no_main]

use std::sync::{Arc, LazyLock};

use http::{HeaderValue, Method, Request};
use libfuzzer_sys::fuzz_target;
use serde_json::Value;
use sidekey::{
    dialect::portkey::{BodyPeek, Portkey, Settings},
    model::{Caller, LinkRules, Snapshot, link},
    secret::{Credential, SecretValue},
};
use time::OffsetDateTime;

const CANARY: &str = "sk-canary-0123456789abcdef";

static SNAPSHOT: LazyLock<Snapshot> = LazyLock::new(|| {
    link(include_bytes!("../corpus/snapshot/three_providers.json"), &LinkRules::STRICT).expect("links")
});

fuzz_target!(|input: (&[u8], &[u8], bool)| {
    let (config, provider, proxy) = input;
    let (Ok(config), Ok(provider)) = (HeaderValue::from_bytes(config), HeaderValue::from_bytes(provider)) else {
        return;
    };
    let path = if proxy { "/v1/proxy/x?model=@openai-prod/m" } else { "/v1/chat/completions" };
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
});

/// The stored entities have no host, so no node may have one, whatever its spelling.
fn bound(node: &Value) {
    match node {
        Value::Object(members) => {
            for (name, value) in members {
                let plain: String =
                    name.chars().filter(char::is_ascii_alphanumeric).map(|char| char.to_ascii_lowercase()).collect();
                let empty = value.is_null() || value == "";
                assert!(
                    empty || !["customhost", "azureresourcename", "awsbaseurl"].contains(&plain.as_str()),
                    "{name} was let through"
                );
                assert!(
                    name != "provider" || !value.as_str().unwrap_or_default().starts_with('@'),
                    "a name was let through"
                );
                bound(value);
            }
        }
        Value::Array(items) => items.iter().for_each(bound),
        _ => {}
    }
}
