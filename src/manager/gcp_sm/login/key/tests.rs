//! Keys as Google hands them out, and what they sign.

use std::sync::LazyLock;

use rcgen::{KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_RSA_SHA256, SignatureAlgorithm as Kind};
use serde_json::{Value, json};

use super::*;

/// Making a key takes a moment, so that all tests share one.
static KEY: LazyLock<KeyPair> = LazyLock::new(|| pair(&PKCS_RSA_SHA256));

fn pair(kind: &'static Kind) -> KeyPair {
    KeyPair::generate_for(kind).unwrap()
}

fn file(change: Value) -> String {
    let mut file = json!({
        "type": "service_account",
        "project_id": "p",
        "private_key_id": "k-1",
        "private_key": KEY.serialize_pem(),
        "client_email": "gw@p.iam.gserviceaccount.com",
        "client_id": "1",
        "token_uri": "https://evil.example/token",
        "universe_domain": "googleapis.com",
    });
    for (name, value) in change.as_object().unwrap() {
        file[name] = value.clone();
    }
    file.to_string()
}

/// A part of an assertion, read as JSON.
fn part(assertion: &str, index: usize) -> Value {
    let part = assertion.split('.').nth(index).unwrap();
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(part).unwrap()).unwrap()
}

/// Whether the signature is that of the key.
fn is_signed(assertion: &str) -> bool {
    let (signed, signature) = assertion.rsplit_once('.').unwrap();
    let signature = URL_SAFE_NO_PAD.decode(signature).unwrap();
    let mapping = aws_lc_rs::default_provider().signature_verification_algorithms.mapping;
    let (_, algorithms) = mapping.iter().find(|(scheme, _)| *scheme == SignatureScheme::RSA_PKCS1_SHA256).unwrap();
    algorithms[0].verify_signature(KEY.public_key_raw(), signed.as_bytes(), &signature).is_ok()
}

#[test]
fn an_assertion_says_who_for_what_and_how_long() {
    let key = ServiceKey::parse(file(json!({})).as_bytes()).unwrap();
    let before = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    let assertion = key.assertion("https://oauth2.googleapis.com/token", "scope").unwrap();
    let after = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    assert_eq!(part(&assertion, 0), json!({"alg": "RS256", "typ": "JWT", "kid": "k-1"}));
    let claims = part(&assertion, 1);
    let issued = claims["iat"].as_u64().unwrap();
    assert!((before..=after).contains(&(issued + BACKDATED.as_secs())), "{claims}");
    let expected = json!({
        "iss": "gw@p.iam.gserviceaccount.com", "scope": "scope", "aud": "https://oauth2.googleapis.com/token",
        "iat": issued, "exp": issued + 3600,
    });
    assert_eq!(claims, expected);
    assert!(is_signed(&assertion));
    let (head, signature) = assertion.rsplit_once('.').unwrap();
    assert!(!is_signed(&format!("{head}x.{signature}")), "the check itself checks");
    assert!(assertion.capacity() - assertion.len() < 4, "it grew");
    assert!(!format!("{key:?}").contains("PRIVATE"));
}

#[test]
fn a_key_without_an_id_signs_too() {
    let key = ServiceKey::parse(file(json!({"private_key_id": null})).as_bytes()).unwrap();
    assert_eq!(part(&key.assertion("a", "s").unwrap(), 0), json!({"alg": "RS256", "typ": "JWT"}));
}

#[test]
fn what_is_no_key_is_refused() {
    let block = |label: &str| format!("-----BEGIN {label}-----\nAAAA\n-----END {label}-----\n");
    #[rustfmt::skip]
    let rows = [
        // change, seen at load, seen when it is to sign
        (json!({}), None, None),
        (json!({"universe_domain": null}), None, None),
        (json!({"type": "authorized_user"}), Some(KeyError::Type), None),
        (json!({"type": null}), Some(KeyError::Type), None),
        (json!({"client_email": null}), Some(KeyError::Email), None),
        (json!({"client_email": "nobody"}), Some(KeyError::Email), None),
        (json!({"client_email": "a@b\nc"}), Some(KeyError::Email), None),
        (json!({"private_key_id": "a b"}), Some(KeyError::KeyId), None),
        (json!({"universe_domain": "evil.example"}), Some(KeyError::Universe), None),
        (json!({"private_key": null}), Some(KeyError::NoKey), None),
        (json!({"private_key": "sk-canary"}), Some(KeyError::NoKey), None),
        (json!({"private_key": block("RSA PRIVATE KEY")}), Some(KeyError::NoKey), None),
        (json!({"private_key": "-----BEGIN PRIVATE KEY-----\n!\n-----END PRIVATE KEY-----"}), Some(KeyError::NoKey), None),
        (json!({"private_key": block("PRIVATE KEY")}), None, Some(KeyError::NotRsa)),
        (json!({"private_key": pair(&PKCS_ECDSA_P256_SHA256).serialize_pem()}), None, Some(KeyError::NotRsa)),
    ];
    for (change, at_load, later) in rows {
        let file = file(change.clone());
        assert_eq!(ServiceKey::check(file.as_bytes()).err(), at_load, "{change}");
        assert_eq!(ServiceKey::parse(file.as_bytes()).err(), at_load.or(later), "{change}");
    }
    assert_eq!(ServiceKey::check(b"{").err(), Some(KeyError::NotJson));
}
