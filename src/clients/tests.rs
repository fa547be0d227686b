//! What is done for a stranger is what is done for everybody: counted, because clocks of a busy machine prove nothing.

use std::{cell::RefCell, fs};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use time::Duration;

use super::*;

const KIDS: [&str; 3] = ["k1", "k2", "k3"];

fn hash_keys() -> (tempfile::TempDir, HashKeys) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("keys");
    let line = |kid: &str| format!("{kid} {}\n", STANDARD.encode(format!("{kid} is a key of 16 bytes")));
    fs::write(&file, KIDS.map(line).concat()).unwrap();
    (folder, HashKeys::load(file).unwrap())
}

#[test]
fn strangers_wrong_secrets_and_what_ended_cost_the_same_steps() {
    let now = OffsetDateTime::UNIX_EPOCH + Duration::days(20_000);
    let (yesterday, tomorrow) = (Some(now - Duration::DAY), Some(now + Duration::DAY));
    let (_folder, keys) = hash_keys();
    let keys = keys.current();
    let hashed = |kid: usize, secret: &str, named: &str, secret_ends, active, key_ends| KeyHash {
        kid: named.into(),
        hmac_sha256: keys[kid].hash(secret.as_bytes()),
        expires_at: secret_ends,
        key: Arc::new(ApiKey {
            id: secret.into(),
            workspace_id: None,
            scopes: Scopes::default(),
            lifespan: Lifespan { active, expires_at: key_ends },
            account: None,
            defaults: Defaults::default(),
            fault: None,
        }),
    };
    let known = [
        hashed(0, "first line", "k1", None, true, None),
        hashed(2, "last line", "k3", tomorrow, true, tomorrow),
        hashed(0, "secret expired", "k1", yesterday, true, None),
        hashed(1, "secret expires now", "k2", Some(now), true, None),
        hashed(0, "key expired", "k1", None, true, yesterday),
        hashed(2, "key expires now", "k3", None, true, Some(now)),
        hashed(1, "revoked", "k2", None, false, None),
        hashed(1, "under another kid", "k3", None, true, None),
    ];
    let long = "x".repeat(4096);
    let cases = [
        ("first line", Ok(())),
        ("last line", Ok(())),
        ("secret expired", Err("expired")),
        ("secret expires now", Err("expired")),
        ("key expired", Err("expired")),
        ("key expires now", Err("expired")),
        ("revoked", Err("not active")),
        ("under another kid", Err("no such key")),
        ("first lind", Err("no such key")),
        ("first line ", Err("no such key")),
        ("stranger", Err("no such key")),
        ("", Err("no such key")),
        (&*long, Err("no such key")),
    ];
    for (secret, expected) in cases {
        let asked = RefCell::new(Vec::new());
        let find = |digest: &[u8; 32]| {
            asked.borrow_mut().push(*digest);
            known.iter().find(|hash| hash.hmac_sha256 == *digest)
        };
        let recognized = recognize(&keys, secret.as_bytes(), find, now);
        match (recognized.map(|key| &*key.id), expected) {
            (Ok(id), Ok(())) => assert_eq!(id, secret),
            (Err((reason, _)), Err(part)) => assert!(reason.contains(part), "{secret:.20}: {reason}"),
            (other, expected) => panic!("{secret:.20}: {other:?}, {expected:?}"),
        }
        // A hash under each line of the file, each looked up once, in their order, whoever is found, and where.
        let hashes: Vec<_> = keys.iter().map(|key| key.hash(secret.as_bytes())).collect();
        assert_eq!(asked.into_inner(), hashes, "{secret:.20}");
    }
}
