//! Every `auth_config` shape, whole and with each of its faults.

use serde_json::{Value, json};

use super::*;

fn check(manager: ManagerType, auth_config: &Value) -> Result<AuthConfig, Vec<String>> {
    let text = auth_config.to_string();
    let members: Members<'_> = serde_json::from_str(&text).unwrap();
    let (organisation, object_id) = ("o".into(), "r".into());
    let seals = Seals { opener: None, organisation: &organisation, object_id: &object_id };
    let means = Means::Later(&seals);
    read(manager, &members, means)
        .map(|(auth, _)| auth)
        .map_err(|faults| faults.into_iter().map(|fault| fault.key.to_owned()).collect())
}

fn vault(auth_config: &Value) -> Result<VaultAuth, Vec<String>> {
    match check(ManagerType::HashicorpVault, auth_config)? {
        AuthConfig::Vault(vault) => Ok(vault),
        other => panic!("a Vault reference became {other:?}"),
    }
}

fn id(auth_config: &Value) -> Identity {
    let text = auth_config.to_string();
    identity(ManagerType::HashicorpVault, &serde_json::from_str(&text).unwrap(), None)
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

fn access_key() -> Value {
    json!({"aws_auth_type": "accessKey", "aws_access_key_id": "AKIAIOSFODNN7EXAMPLE",
        "aws_secret_access_key": "wJalrXUtnFEMI/K7MDENG+b=", "aws_region": "eu-central-1"})
}

fn assumed_role() -> Value {
    json!({"aws_auth_type": "assumedRole", "aws_role_arn": "arn:aws-us-gov:iam::123456789012:role/team/reader",
        "aws_external_id": "org:4711/a", "aws_region": "us-gov-west-1"})
}

fn entra() -> Value {
    json!({"azure_auth_mode": "entra", "azure_vault_url": "https://kv1.vault.azure.net",
        "azure_entra_tenant_id": "contoso.onmicrosoft.com", "azure_entra_client_id": "00000000-aaaa-1111",
        "azure_entra_client_secret": "a~b c"})
}

fn service_account() -> Value {
    json!({"gcp_auth_type": "serviceAccountKey", "gcp_project_id": "p-1", "gcp_service_account_json": "{\"type\":\"x\"}"})
}

#[test]
fn the_three_identities_of_aws_are_read() {
    for manager in [ManagerType::AwsSm, ManagerType::AwsSsm] {
        let Ok(AuthConfig::Aws(auth)) = check(manager, &access_key()) else { panic!("no access key") };
        let AwsMethod::AccessKey { access_key_id, secret_access_key } = &auth.method else { panic!("{auth:?}") };
        assert_eq!(access_key_id.expose(), b"AKIAIOSFODNN7EXAMPLE");
        assert_eq!(secret_access_key.expose(), b"wJalrXUtnFEMI/K7MDENG+b=");
        assert_eq!(auth.region.as_deref(), Some("eu-central-1"));

        let Ok(AuthConfig::Aws(auth)) = check(manager, &assumed_role()) else { panic!("no role") };
        let AwsMethod::AssumedRole { role_arn, external_id } = &auth.method else { panic!("{auth:?}") };
        assert_eq!(&**role_arn, "arn:aws-us-gov:iam::123456789012:role/team/reader");
        assert_eq!(external_id.as_ref().map(SecretValue::expose), Some(&b"org:4711/a"[..]));

        for region in [None, Some("us-east-1")] {
            let auth_config = json!({"aws_auth_type": "serviceRole", "aws_region": region});
            let Ok(AuthConfig::Aws(auth)) = check(manager, &auth_config) else { panic!("no service role") };
            assert!(matches!(auth.method, AwsMethod::ServiceRole));
            assert_eq!(auth.region.as_deref(), region);
        }
    }
}

#[test]
fn the_three_modes_of_azure_are_read() {
    let Ok(AuthConfig::Azure(auth)) = check(ManagerType::AzureKv, &entra()) else { panic!("no client") };
    let AzureMethod::Entra { tenant_id, client_id, client_secret } = &auth.method else { panic!("{auth:?}") };
    assert_eq!((&**tenant_id, &**client_id), ("contoso.onmicrosoft.com", "00000000-aaaa-1111"));
    assert_eq!((client_secret.expose(), auth.vault_url.as_str()), (&b"a~b c"[..], "https://kv1.vault.azure.net/"));

    for id in [None, Some("0f0f-1")] {
        let auth_config = json!({"azure_auth_mode": "managed", "azure_vault_url": "https://kv1.vault.azure.net/",
            "azure_managed_client_id": id});
        let Ok(AuthConfig::Azure(auth)) = check(ManagerType::AzureKv, &auth_config) else { panic!("not managed") };
        assert!(matches!(&auth.method, AzureMethod::Managed { client_id } if client_id.as_deref() == id));
    }
    let auth_config = json!({"azure_auth_mode": "default", "azure_vault_url": "https://kv1.vault.azure.net"});
    let auth = check(ManagerType::AzureKv, &auth_config);
    assert!(matches!(auth, Ok(AuthConfig::Azure(AzureAuth { method: AzureMethod::Default, .. }))));
}

#[test]
fn the_two_identities_of_google_are_read() {
    let Ok(AuthConfig::Gcp(auth)) = check(ManagerType::GcpSm, &service_account()) else { panic!("no key") };
    assert!(matches!(&auth.method, GcpMethod::ServiceAccountKey { key } if key.expose() == b"{\"type\":\"x\"}"));
    assert_eq!((auth.project.as_deref(), auth.location), (Some("p-1"), None));
    let auth_config = json!({"gcp_auth_type": "workloadIdentity", "gcp_location": "europe-west3"});
    let Ok(AuthConfig::Gcp(auth)) = check(ManagerType::GcpSm, &auth_config) else { panic!("no identity") };
    assert!(matches!(auth.method, GcpMethod::WorkloadIdentity));
    assert_eq!((auth.project, auth.location.as_deref()), (None, Some("europe-west3")));
}

#[test]
fn every_fault_of_a_cloud_identity_is_found_at_its_key() {
    let (aws, azure, gcp) = (ManagerType::AwsSm, ManagerType::AzureKv, ManagerType::GcpSm);
    #[rustfmt::skip]
    let cases = [
        // manager, changed                                                             faults at
        (aws,   access_key(),      json!({"aws_auth_type": null}),                      vec!["aws_auth_type"]),
        (aws,   access_key(),      json!({"aws_auth_type": "apiKey"}),                  vec!["aws_auth_type"]),
        (aws,   access_key(),      json!({"aws_region": null}),                         vec!["aws_region"]),
        (aws,   access_key(),      json!({"aws_region": "us-east-1.evil.example"}),     vec!["aws_region"]),
        (aws,   access_key(),      json!({"aws_region": "US"}),                         vec!["aws_region"]),
        (aws,   access_key(),      json!({"aws_access_key_id": "AKIA"}),                vec!["aws_access_key_id"]),
        (aws,   access_key(),      json!({"aws_access_key_id": "AKIAIOSFODNN7/EXAMPLE"}), vec!["aws_access_key_id"]),
        (aws,   access_key(),      json!({"aws_access_key_id": null, "aws_secret_access_key": null}),
                                                                                        vec!["aws_access_key_id", "aws_secret_access_key"]),
        (aws,   access_key(),      json!({"aws_secret_access_key": "a b"}),             vec!["aws_secret_access_key"]),
        (aws,   access_key(),      json!({"aws_secret_access_key": {"$sealed": "x"}}),  vec!["aws_secret_access_key"]),
        (aws,   assumed_role(),    json!({"aws_role_arn": null}),                       vec!["aws_role_arn"]),
        (aws,   assumed_role(),    json!({"aws_role_arn": "arn:aws:iam::1:role/x"}),    vec!["aws_role_arn"]),
        (aws,   assumed_role(),    json!({"aws_role_arn": "arn:aws:iam::123456789012:user/x"}), vec!["aws_role_arn"]),
        (aws,   assumed_role(),    json!({"aws_role_arn": "arn:aws:iam::123456789012:role/"}), vec!["aws_role_arn"]),
        (aws,   assumed_role(),    json!({"aws_external_id": "x"}),                     vec!["aws_external_id"]),
        (aws,   assumed_role(),    json!({"aws_external_id": "a b"}),                   vec!["aws_external_id"]),
        (aws,   assumed_role(),    json!({"aws_region": null}),                         vec!["aws_region"]),
        (azure, entra(),           json!({"azure_auth_mode": null}),                    vec!["azure_auth_mode"]),
        (azure, entra(),           json!({"azure_auth_mode": "workload"}),              vec!["azure_auth_mode"]),
        (azure, entra(),           json!({"azure_vault_url": null}),                    vec!["azure_vault_url"]),
        (azure, entra(),           json!({"azure_vault_url": "https://kv/secrets/a"}),  vec!["azure_vault_url"]),
        (azure, entra(),           json!({"azure_vault_url": "https://u@kv"}),          vec!["azure_vault_url"]),
        (azure, entra(),           json!({"azure_entra_tenant_id": "a/../b"}),          vec!["azure_entra_tenant_id"]),
        (azure, entra(),           json!({"azure_entra_tenant_id": ".."}),              vec!["azure_entra_tenant_id"]),
        (azure, entra(),           json!({"azure_entra_client_id": "a&b"}),             vec!["azure_entra_client_id"]),
        (azure, entra(),           json!({"azure_entra_client_secret": null}),          vec!["azure_entra_client_secret"]),
        (azure, entra(),           json!({"azure_entra_client_secret": "a\nb"}),       vec!["azure_entra_client_secret"]),
        (gcp,   service_account(), json!({"gcp_auth_type": null}),                      vec!["gcp_auth_type"]),
        (gcp,   service_account(), json!({"gcp_auth_type": "oauth"}),                   vec!["gcp_auth_type"]),
        (gcp,   service_account(), json!({"gcp_service_account_json": "x"}),            vec!["gcp_service_account_json"]),
        (gcp,   service_account(), json!({"gcp_project_id": "a/b"}),                    vec!["gcp_project_id"]),
        (gcp,   service_account(), json!({"gcp_location": "evil.example/"}),            vec!["gcp_location"]),
    ];
    for (manager, base, changes, expected) in cases {
        let faults = check(manager, &with(&base, changes.clone())).expect_err(&changes.to_string());
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
    assert!(seen.insert(identity(ManagerType::File, &serde_json::from_str(&text).unwrap(), None)), "the manager type");
}

#[test]
fn debug_shows_no_secret() {
    for auth_config in
        [with(&token(), json!({"vault_token": "canary"})), with(&approle(), json!({"vault_secret_id": "canary"}))]
    {
        let shown = format!("{:?} {:?}", vault(&auth_config).unwrap(), id(&auth_config));
        assert!(!shown.contains("canary"), "{shown}");
    }
    let rows = [
        (ManagerType::AwsSm, with(&access_key(), json!({"aws_access_key_id": "AKIAcanary0000000"}))),
        (ManagerType::AwsSm, with(&access_key(), json!({"aws_secret_access_key": "canary"}))),
        (ManagerType::AwsSsm, with(&assumed_role(), json!({"aws_external_id": "canary"}))),
        (ManagerType::AzureKv, with(&entra(), json!({"azure_entra_client_secret": "canary"}))),
        (ManagerType::GcpSm, with(&service_account(), json!({"gcp_service_account_json": "{\"canary\":1}"}))),
    ];
    for (manager, auth_config) in rows {
        let shown = format!("{:?}", check(manager, &auth_config).unwrap());
        assert!(!shown.contains("canary"), "{shown}");
    }
}
