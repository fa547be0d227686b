//! API keys by table: what one comes to, and what sets it aside.

use super::*;
use crate::model::{ApiKey, Counted, KeyHash, RateLimit, RateUnit, Reset, Scope, Spent, UsageLimit};

const HASH: &str = "00112233445566778899aabbccddeeff00112233445566778899AABBCCDDEEFF";
const OTHER: &str = "ff112233445566778899aabbccddeeff00112233445566778899aabbccddeeff";

fn hash(hex: &str) -> Value {
    json!({"kid": "k1", "hmac_sha256": hex, "expires_at": null})
}

fn bytes(first: u8) -> [u8; 32] {
    let half = [0x00, 0x11, 0x22, 0x33, 0x44, 0x55, 0x66, 0x77, 0x88, 0x99, 0xaa, 0xbb, 0xcc, 0xdd, 0xee, 0xff];
    let mut bytes: Vec<u8> = half.into_iter().chain(half).collect();
    bytes[0] = first;
    bytes.try_into().unwrap()
}

/// A document with a config for everybody, one of `wb`, and one API key made of `more`.
fn document(more: &Value) -> Value {
    let mut key = json!({"id": "k", "scopes": ["completions.write"], "hashes": [hash(HASH)]});
    key.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    changed(&[
        (
            "/configs",
            json!([
                {"id": "c1", "slug": "pc-all", "config": {}}, {"id": "c2", "slug": "pc-b", "workspace_id": "wb", "config": {}},
                {"id": "c3", "slug": "odd", "config": {}}, {"id": "c4", "slug": "pc-all", "workspace_id": "wb", "config": {}},
            ]),
        ),
        ("/api_keys", json!([key])),
    ])
}

fn linked(more: &Value) -> Snapshot {
    strict(&document(more)).unwrap_or_else(|problems| panic!("{more}: {problems:#?}"))
}

fn found(snapshot: &Snapshot) -> &KeyHash {
    snapshot.api_key(&bytes(0)).unwrap()
}

#[test]
fn a_key_is_found_by_its_hashes() {
    let second = json!({"kid": "k2", "hmac_sha256": OTHER, "expires_at": "2026-11-21T03:00:00Z"});
    let more = json!({"workspace_id": "ws-a", "status": "Active", "expires_at": "2027-01-01T00:00:00Z",
        "hashes": [hash(HASH), second], "scopes": ["completions.write", "workspaces.create"]});
    let snapshot = linked(&more);
    let KeyHash { kid, hmac_sha256, expires_at, key } = found(&snapshot);
    assert_eq!((&**kid, hmac_sha256, expires_at), ("k1", &bytes(0), &None));
    assert_eq!((&*key.id, key.workspace_id.as_deref(), key.account.as_ref()), ("k", Some("wa"), None));
    assert!(key.scopes.contains(Scope::CompletionsWrite) && !key.scopes.contains(Scope::LogsView));
    assert!(key.lifespan.active && key.lifespan.expires_at.is_some());
    assert!(key.defaults.allow_config_override && key.defaults.config.is_none() && key.defaults.metadata.is_none());
    let second = snapshot.api_key(&bytes(0xff)).unwrap();
    assert!(std::sync::Arc::ptr_eq(&second.key, key));
    assert_eq!((&*second.kid, second.expires_at.unwrap().unix_timestamp()), ("k2", 1_795_230_000));
    assert!(snapshot.api_key(&bytes(1)).is_none());
    assert_eq!(snapshot.api_keys().len(), 1);
}

#[test]
fn an_exhausted_key_is_active_and_spent() {
    let snapshot = linked(&json!({"status": "EXHAUSTED"}));
    let key = &found(&snapshot).key;
    assert!(key.account.as_ref().unwrap().exhausted && key.lifespan.active);
}

#[test]
fn a_default_config_is_one_the_key_reaches() {
    struct Case {
        workspace: Value,
        config_id: &'static str,
        slug: Option<&'static str>,
    }
    let case = |workspace, config_id, slug| Case { workspace, config_id, slug };
    let cases = [
        case(json!(null), "pc-all", Some("pc-all")),
        case(json!(null), "c1", Some("pc-all")),
        case(json!("wa"), "c1", Some("pc-all")),
        case(json!("wb"), "pc-b", Some("pc-b")),
        case(json!("wb"), "c2", Some("pc-b")),
        case(json!("wb"), "c4", Some("pc-all")),
        // The workspace has one of the same name, which a request would reach in its place.
        case(json!("wb"), "c1", None),
        case(json!("wa"), "c2", None),
        case(json!("wa"), "pc-b", None),
        case(json!(null), "odd", None),
        case(json!(null), "pc-nothing", None),
    ];
    for Case { workspace, config_id, slug } in cases {
        let more = json!({"workspace_id": workspace, "defaults": {"config_id": config_id}});
        let snapshot = lenient(&document(&more));
        let ApiKey { defaults, fault, .. } = &*found(&snapshot).key;
        match slug {
            Some(slug) => assert_eq!((defaults.config.as_deref(), fault), (Some(slug), &None), "{more}"),
            None => assert!(fault.as_ref().is_some_and(|fault| fault.contains("defaults.config_id")), "{more}"),
        }
    }
}

#[test]
fn limits_are_read_as_they_are_meant() {
    use Counted::{Requests, Tokens};
    let snapshot = linked(&json!({"rate_limits": [
        {"type": "requests", "unit": "rps", "value": 1}, {"type": "requests", "unit": "rpm", "value": 20},
        {"type": "tokens", "unit": "rph", "value": 0}, {"unit": "rpd", "value": 4}, {"value": 9},
        {"type": "requests", "unit": "rpw", "value": 5},
    ]}));
    let limit = |counts, per, value| RateLimit { counts, per, value };
    let expected = [
        limit(Requests, RateUnit::Second, 1),
        limit(Requests, RateUnit::Minute, 9),
        limit(Tokens, RateUnit::Hour, 0),
        limit(Requests, RateUnit::Day, 4),
        limit(Requests, RateUnit::Week, 5),
    ];
    assert_eq!(*found(&snapshot).key.account.as_ref().unwrap().rate_limits, expected);

    let usage = |counts, limit, alert_threshold, reset| UsageLimit {
        counts,
        limit,
        alert_threshold,
        reset,
        next_reset_at: None,
        reset_at: 0,
    };
    let cases = [
        (json!(null), vec![]),
        (json!({}), vec![]),
        (
            json!({"type": "cost", "credit_limit": 100, "alert_threshold": 80, "periodic_reset": "monthly"}),
            vec![usage(Spent::Cost, 100_000_000_000, Some(80_000_000_000), Reset::Monthly)],
        ),
        (json!({"credit_limit": 0.5}), vec![usage(Spent::Cost, 500_000_000, None, Reset::Never)]),
        (
            json!({"type": "tokens", "credit_limit": 1000, "periodic_reset": "weekly"}),
            vec![usage(Spent::Tokens, 1000, None, Reset::Weekly)],
        ),
        (
            json!([{"type": "tokens", "alert_threshold": 9, "periodic_reset_days": 30}, {"credit_limit": 1}]),
            vec![
                usage(Spent::Tokens, u64::MAX, Some(9), Reset::Days(30)),
                usage(Spent::Cost, 1_000_000_000, None, Reset::Never),
            ],
        ),
    ];
    for (given, expected) in cases {
        let snapshot = linked(&json!({"usage_limits": given}));
        let account = found(&snapshot).key.account.as_ref();
        assert_eq!(account.map_or(vec![], |account| account.usage_limits.to_vec()), expected, "{given}");
    }
    for (given, day) in [("2026-12-01T00:00:00Z", 1), ("2026-12-01T00:00:01Z", 2), ("2026-12-01T23:00:00-02:00", 3)] {
        let snapshot = linked(&json!({"usage_limits": {"credit_limit": 1, "next_usage_reset_at": given}}));
        let next = found(&snapshot).key.account.as_ref().unwrap().usage_limits[0].next_reset_at.unwrap();
        assert_eq!((next.day(), next.time()), (day, time::Time::MIDNIGHT), "{given}");
    }
    let more = json!({"usage_limits": {"credit_limit": 1}, "usage_reset_at": "2026-11-25T10:00:00.250Z"});
    assert_eq!(found(&linked(&more)).key.account.as_ref().unwrap().usage_limits[0].reset_at, 1_795_600_800_250);
}

#[test]
fn faults_set_a_key_aside_and_leave_its_hashes() {
    let cases = [
        (json!({"workspace_id": "ws-z"}), "api_keys[0].workspace_id (k): `ws-z` is no workspace"),
        (json!({"scopes": "completions.write"}), "scopes (k): must be a list of scopes"),
        (json!({"expires_at": "soon"}), "expires_at (k): must be a time"),
        (json!({"defaults": {"metadata": "x"}}), "defaults.metadata (k): must be an object"),
        (json!({"defaults": {"allow_config_override": "no"}}), "defaults.allow_config_override (k): must be true"),
        (json!({"defaults": []}), "defaults (k): must be an object"),
        (json!({"rate_limits": {}}), "rate_limits (k): must be a list"),
        (json!({"rate_limits": [{"unit": "rpm"}]}), "rate_limits[0].value (k): is missing"),
        (json!({"rate_limits": [{"unit": "rpy", "value": 1}]}), "rate_limits[0].unit (k): must be rps"),
        (json!({"rate_limits": [{"type": "cost", "value": 1}]}), "rate_limits[0].type (k): must be requests"),
        (json!({"rate_limits": [{"value": -1}]}), "rate_limits[0].value (k): must be a whole number"),
        (json!({"rate_limits": [7]}), "rate_limits[0] (k): must be an object"),
        (json!({"usage_limits": 7}), "usage_limits (k): must be an object"),
        (json!({"usage_limits": [7]}), "usage_limits (k): must be an object"),
        (json!({"usage_limits": {"credit_limit": 0}}), "usage_limits.credit_limit (k): must be above 0"),
        (json!({"usage_limits": {"credit_limit": 1e12}}), "usage_limits.credit_limit (k): must be above 0"),
        (json!({"usage_limits": {"type": "requests"}}), "usage_limits.type (k): must be cost or tokens"),
        (
            json!({"usage_limits": {"credit_limit": 1, "alert_threshold": 2}}),
            "usage_limits.alert_threshold (k): is above credit_limit",
        ),
        (json!({"usage_limits": {"periodic_reset": "daily"}}), "periodic_reset (k): must be weekly or monthly"),
        (json!({"usage_limits": {"periodic_reset_days": 366}}), "periodic_reset_days (k): must be 1 to 365"),
        (
            json!({"usage_limits": {"periodic_reset": "weekly", "periodic_reset_days": 7}}),
            "periodic_reset_days (k): stands beside periodic_reset",
        ),
        (json!({"usage_limits": {"next_usage_reset_at": "x"}}), "next_usage_reset_at (k): must be a time"),
        (json!({"usage_reset_at": "x"}), "usage_reset_at (k): must be a time"),
        (json!({"hashes": [hash(HASH), {"kid": "k1"}]}), "hashes[1].hmac_sha256 (k): is missing"),
        (json!({"hashes": [hash(HASH), hash("00")]}), "hashes[1].hmac_sha256 (k): must be 64 hexadecimal"),
        (json!({"hashes": [hash(HASH), {"hmac_sha256": OTHER}]}), "hashes[1].kid (k): is missing"),
        (
            json!({"hashes": [hash(HASH), {"kid": "k1", "hmac_sha256": OTHER, "expires_at": "x"}]}),
            "hashes[1].expires_at (k): must be a time",
        ),
    ];
    for (more, part) in cases {
        let document = document(&more);
        let problems = strict(&document).unwrap_err();
        assert!(problems.iter().any(|problem| problem.contains(part)), "{more}: {problems:#?}");
        let snapshot = lenient(&document);
        assert!(found(&snapshot).key.fault.is_some(), "{more}");
        assert!(snapshot.api_key(&bytes(0xff)).is_none(), "{more}: an unreadable hash");
        assert_eq!(snapshot.objects_set_aside, 1, "{more}");
    }
}

#[test]
fn one_secret_is_that_of_one_key() {
    let key = |id: &str| json!({"id": id, "hashes": [hash(HASH)]});
    for keys in [json!([key("one"), key("two")]), json!([{"id": "one", "hashes": [hash(HASH), hash(HASH)]}])] {
        let document = changed(&[("/api_keys", keys)]);
        let refused = link(document.to_string().as_bytes(), &LinkRules::LENIENT).unwrap_err();
        assert!(refused.problems[0].message.contains("hash of an earlier secret"), "{:?}", refused.problems);
    }
}
