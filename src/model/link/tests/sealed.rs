//! Sealed credentials: where they may stand, that nothing is opened by linking, and what a copy elsewhere is worth.

use std::sync::Arc;

use super::*;
use crate::{
    model::AuthConfig,
    seal::{Place, identity::Identity, opener::Opener, recipient::Recipients},
};

/// A data plane and who seals to it.
struct Plane {
    opener: Arc<Opener>,
    recipients: Recipients,
}

impl Plane {
    fn new() -> Self {
        let identity = Identity::generate().unwrap();
        let recipients = Recipients::new(vec![identity.recipient()]).unwrap();
        Self { opener: Arc::new(Opener::new(identity.into())), recipients }
    }

    fn seal(&self, object_id: &str, field: &str, value: &str) -> Value {
        let place = Place { organisation: "org", object_id, field };
        json!({"$sealed": self.recipients.seal(place, value).unwrap(), "mask": "*****"})
    }

    fn link(&self, document: &Value) -> Snapshot {
        let rules = LinkRules { opener: Some(&self.opener), ..LinkRules::STRICT };
        link(document.to_string().as_bytes(), &rules).unwrap_or_else(|error| panic!("{:#?}", error.problems))
    }
}

fn organised(changes: &[(&str, Value)]) -> Value {
    let mut document = changed(changes);
    set(&mut document, "/organisation_id", json!("org"));
    document
}

fn token(snapshot: &Snapshot, index: usize) -> Result<String, String> {
    let opened = snapshot.references[index].auth.open().map_err(|error| error.to_string())?;
    let AuthConfig::Vault(vault) = &*opened else { panic!("{opened:?}") };
    let crate::model::VaultMethod::Token { token } = &vault.method else { panic!("{vault:?}") };
    Ok(token.expose_str().unwrap().to_owned())
}

#[test]
fn every_credential_may_be_sealed() {
    let plane = Plane::new();
    let snapshot = plane.link(&organised(&[
        ("/secret_references/0/auth_config/vault_token", plane.seal("r1", "auth_config.vault_token", "hvs.canary")),
        (
            "/integrations/0/configurations",
            json!({
                "custom_headers": plane.seal("i1", "configurations.custom_headers", r#"{"x-team": "a"}"#),
            }),
        ),
        ("/virtual_keys/1/secret_mappings", json!([])),
        ("/virtual_keys/1/key", plane.seal("v2", "key", "sk-canary\n")),
    ]));
    assert!(plane.opener.unopened().is_empty());
    assert_eq!(token(&snapshot, 0).unwrap(), "hvs.canary");
    assert!(!format!("{snapshot:?} {:?}", snapshot.references).contains("canary"));
    let entity = |slug| snapshot.entity(slug, &nobody()).unwrap();
    assert_eq!(effective(entity("vk-two")), ["api_key=sk-canary"]);
    // What is inherited belongs to the integration.
    assert_eq!(effective(entity("vk-one")), ["api_key<ref-one", r#"custom_headers={"x-team":"a"}"#]);
    assert!(entity("vk-one").open().is_ok());
}

#[test]
fn linking_opens_nothing() {
    let (plane, stranger) = (Plane::new(), Plane::new());
    let document = organised(&[
        ("/secret_references/0/auth_config/vault_token", plane.seal("r1", "auth_config.vault_token", "t")),
        ("/integrations/0/secret_mappings", json!([])),
        ("/integrations/0/key", plane.seal("i1", "key", "k")),
    ]);
    let snapshot = stranger.link(&document);
    assert!(stranger.opener.unopened().is_empty(), "somebody tried");
    assert!(token(&snapshot, 0).unwrap_err().starts_with("auth_config.vault_token is sealed to others"));
    let (field, reason) = snapshot.entity("vk-one", &nobody()).unwrap().open().unwrap_err();
    assert_eq!((field.name, reason.to_string().starts_with("is sealed to others")), ("api_key", true));
    assert_eq!(stranger.opener.unopened().len(), 2);
}

#[test]
fn a_seal_that_was_moved_opens_nowhere_and_shares_no_login() {
    let plane = Plane::new();
    let mut document = organised(&[(
        "/secret_references/0/auth_config/vault_token",
        plane.seal("r1", "auth_config.vault_token", "hvs.canary"),
    )]);
    let mut copy = document["secret_references"][0].clone();
    (copy["id"], copy["slug"]) = (json!("r9"), json!("ref-copy"));
    set(&mut document, "/secret_references/-", copy);
    set(&mut document, "/virtual_keys/1/secret_mappings", json!([]));
    set(&mut document, "/virtual_keys/1/key", plane.seal("v1", "key", "sk-canary"));
    let snapshot = plane.link(&document);
    assert!(token(&snapshot, 0).is_ok());
    assert!(token(&snapshot, 2).unwrap_err().contains("was sealed for another place"));
    assert!(
        snapshot.references[0].identity != snapshot.references[2].identity,
        "a copy would use the original's login"
    );
    assert!(snapshot.entity("vk-two", &nobody()).unwrap().open().unwrap_err().1.to_string().contains("another place"));
}

#[test]
fn what_was_sealed_is_checked_like_what_is_clear() {
    let plane = Plane::new();
    let snapshot = plane.link(&organised(&[
        ("/secret_references/0/auth_config/vault_token", plane.seal("r1", "auth_config.vault_token", "two words")),
        (
            "/integrations/0/configurations",
            json!({
                "custom_headers": plane.seal("i1", "configurations.custom_headers", "[]"),
            }),
        ),
    ]));
    assert!(token(&snapshot, 0).unwrap_err().contains("must be visible ASCII"));
    let reason = snapshot.entity("vk-one", &nobody()).unwrap().open().unwrap_err().1;
    assert!(reason.to_string().contains("must be an object"), "{reason}");
}
