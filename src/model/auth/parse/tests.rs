//! Every `auth_config` shape, whole and with each of its faults.

use serde_json::{Value, json};

use super::*;

fn check(manager: ManagerType, auth_config: &Value) -> Result<AuthConfig, Vec<String>> {
    let text = auth_config.to_string();
    let members: Members<'_> = serde_json::from_str(&text).unwrap();
    parse(manager, &members).map_err(|faults| faults.into_iter().map(|fault| fault.key.to_owned()).collect())
}

fn vault(auth_config: &Value) -> Result<VaultAuth, Vec<String>> {
    match check(ManagerType::HashicorpVault, auth_config)? {
        AuthConfig::Vault(vault) => Ok(vault),
        AuthConfig::File => panic!("a Vault reference became a file"),
    }
}

fn id(auth_config: &Value) -> Identity {
    let text = auth_config.to_string();
    identity(ManagerType::HashicorpVault, &serde_json::from_str(&text).unwrap())
}

/// `base` with members replaced; null removes.
fn with(base: &Value, changes: Value) -> Value {
    let mut object = base.as_object().unwrap().clone();
    object.extend(changes.as_object().unwrap().clone());
    Value::Object(object)
}

fn token() -> Value {
    json!({"vault_auth_type": "token", "vault_addr": "https://vault:8200", "vault_token": "hvs.CAESI-x_y"})
}

fn approle() -> Value {
    json!({"vault_auth_type": "approle", "vault_addr": "https://vault:8200/prefix", "vault_role_id": "role", "vault_secret_id": "se cret"})
}

fn kubernetes() -> Value {
    json!({"vault_auth_type": "kubernetes", "vault_addr": "http://127.0.0.1:8200", "vault_role": "sidekey"})
}

#[test]
fn the_three_logins_are_read() {
    let auth = vault(&with(&token(), json!({"vault_namespace": "team/a", "vault_kv_version": "2"}))).unwrap();
    assert_eq!((auth.addr.as_str(), auth.namespace.as_deref()), ("https://vault:8200/", Some("team/a")));
    assert_eq!(auth.kv_version, Some(2));
    assert!(matches!(&auth.method, VaultMethod::Token { token } if token.expose() == b"hvs.CAESI-x_y"));

    let auth = vault(&with(&approle(), json!({"vault_auth_mount": "/auth/team-a/approle/"}))).unwrap();
    let VaultMethod::AppRole { role_id, secret_id, mount } = &auth.method else { panic!("{auth:?}") };
    assert_eq!((&**role_id, secret_id.expose(), mount.as_deref()), ("role", &b"se cret"[..], Some("team-a/approle")));

    let auth =
        vault(&with(&kubernetes(), json!({"vault_jwt_file": "/var/run/token", "vault_namespace": null}))).unwrap();
    let VaultMethod::Kubernetes { role, mount, jwt_file } = &auth.method else { panic!("{auth:?}") };
    assert_eq!((&**role, mount, jwt_file.as_deref()), ("sidekey", &None, Some("/var/run/token")));
    assert_eq!((auth.namespace, auth.kv_version), (None, None));
}

#[test]
fn every_fault_is_found_at_its_key() {
    #[rustfmt::skip]
    let cases = [
        // changed                                                     faults at
        (token(),      json!({"vault_auth_type": null}),               vec!["vault_auth_type"]),
        (token(),      json!({"vault_auth_type": "ldap"}),             vec!["vault_auth_type"]),
        (token(),      json!({"vault_auth_type": 5}),                  vec!["vault_auth_type"]),
        (token(),      json!({"vault_addr": null}),                    vec!["vault_addr"]),
        (token(),      json!({"vault_addr": ""}),                      vec!["vault_addr"]),
        (token(),      json!({"vault_addr": "vault:8200"}),            vec!["vault_addr"]),
        (token(),      json!({"vault_addr": "/vault"}),                vec!["vault_addr"]),
        (token(),      json!({"vault_addr": "ftp://vault"}),           vec!["vault_addr"]),
        (token(),      json!({"vault_addr": "https://u:p@vault"}),     vec!["vault_addr"]),
        (token(),      json!({"vault_addr": "https://u@vault"}),       vec!["vault_addr"]),
        (token(),      json!({"vault_addr": "https://vault/?a=b"}),    vec!["vault_addr"]),
        (token(),      json!({"vault_addr": "https://vault/#a"}),      vec!["vault_addr"]),
        (token(),      json!({"vault_addr": "https://va\nult"}),       vec!["vault_addr"]),
        (token(),      json!({"vault_addr": format!("https://v/{}", "a".repeat(2048))}), vec!["vault_addr"]),
        (token(),      json!({"vault_token": null}),                   vec!["vault_token"]),
        (token(),      json!({"vault_token": ""}),                     vec!["vault_token"]),
        (token(),      json!({"vault_token": "hvs.x\n"}),              vec!["vault_token"]),
        (token(),      json!({"vault_token": "hvs x"}),                vec!["vault_token"]),
        (token(),      json!({"vault_token": "hvsé"}),                 vec!["vault_token"]),
        (token(),      json!({"vault_token": 17}),                     vec!["vault_token"]),
        (token(),      json!({"vault_token": {"$sealed": "YWdl"}}),    vec!["vault_token"]),
        (token(),      json!({"vault_namespace": "a\r\nX-Evil: 1"}),   vec!["vault_namespace"]),
        (token(),      json!({"vault_kv_version": 3}),                 vec!["vault_kv_version"]),
        (token(),      json!({"vault_kv_version": "two"}),             vec!["vault_kv_version"]),
        (token(),      json!({"vault_addr": null, "vault_token": null, "vault_namespace": " "}),
                                                                       vec!["vault_addr", "vault_namespace", "vault_token"]),
        (approle(),    json!({"vault_role_id": null}),                 vec!["vault_role_id"]),
        (approle(),    json!({"vault_role_id": "a\u{0}"}),             vec!["vault_role_id"]),
        (approle(),    json!({"vault_secret_id": null}),               vec!["vault_secret_id"]),
        (approle(),    json!({"vault_secret_id": "a\nb"}),             vec!["vault_secret_id"]),
        (approle(),    json!({"vault_secret_id": "a".repeat(8193)}),   vec!["vault_secret_id"]),
        (approle(),    json!({"vault_auth_mount": "a/../sys"}),        vec!["vault_auth_mount"]),
        (approle(),    json!({"vault_auth_mount": "a?b"}),             vec!["vault_auth_mount"]),
        (approle(),    json!({"vault_auth_mount": "a%2fb"}),           vec!["vault_auth_mount"]),
        (approle(),    json!({"vault_auth_mount": "/"}),               vec!["vault_auth_mount"]),
        (kubernetes(), json!({"vault_role": null}),                    vec!["vault_role"]),
        (kubernetes(), json!({"vault_jwt_file": "relative/token"}),    vec!["vault_jwt_file"]),
        (kubernetes(), json!({"vault_jwt_file": "/run/../etc/shadow"}), vec!["vault_jwt_file"]),
    ];
    for (base, changes, expected) in cases {
        let faults = vault(&with(&base, changes.clone())).expect_err(&changes.to_string());
        assert_eq!(faults, expected, "{changes}");
    }
}

#[test]
fn a_file_needs_nothing() {
    for auth_config in [json!({}), json!({"anything": "else"})] {
        assert!(matches!(check(ManagerType::File, &auth_config), Ok(AuthConfig::File)), "{auth_config}");
    }
}

#[test]
fn the_identity_covers_everything_that_is_set() {
    let base = id(&token());
    let other_order =
        json!({"vault_token": "hvs.CAESI-x_y", "vault_addr": "https://vault:8200", "vault_auth_type": "token"});
    for same in [other_order, with(&token(), json!({"vault_namespace": null}))] {
        assert!(id(&same) == base, "{same}");
    }
    let changed = [
        json!({"vault_token": "hvs.other"}),
        json!({"vault_addr": "https://vault:8201"}),
        json!({"vault_namespace": "a"}),
        json!({"vault_kv_version": 2}),
        json!({"vault_kv_version": "2"}),
        json!({"unknown": "x"}),
        json!({"unknown": {"a": 1}}),
        json!({"unknow": "nx"}),
    ];
    let mut seen = std::collections::HashSet::from([base]);
    for change in changed {
        assert!(seen.insert(id(&with(&token(), change.clone()))), "{change}");
    }
    let text = token().to_string();
    assert!(seen.insert(identity(ManagerType::File, &serde_json::from_str(&text).unwrap())), "the manager type");
}

#[test]
fn debug_shows_no_secret() {
    for auth_config in
        [with(&token(), json!({"vault_token": "canary"})), with(&approle(), json!({"vault_secret_id": "canary"}))]
    {
        let shown = format!("{:?} {:?}", vault(&auth_config).unwrap(), id(&auth_config));
        assert!(!shown.contains("canary"), "{shown}");
    }
}
