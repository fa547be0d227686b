//! What is refused when a snapshot is loaded, and with which words.

use super::*;

#[tokio::test]
async fn what_a_reference_may_be_is_told_at_load() {
    let server = Server::start().await;
    let own = |_: &mut RegistrySettings| {};
    let public = |settings: &mut RegistrySettings| {
        settings.azure.authority_host = None;
        settings.policy = Policy::new(egress::Settings::default());
    };
    let off = |settings: &mut RegistrySettings| settings.azure.ambient.allowed = false;
    let below = |settings: &mut RegistrySettings| {
        settings.azure.ambient = Ambient { allowed: true, paths: vec!["team-a".to_owned()] }
    };
    let entra = || entra("https://kv1.vault.azure.net").method;
    let managed = || AzureMethod::Managed { client_id: None };
    type Row<'a> = (&'a str, AzureMethod, SecretLocation, &'a dyn Fn(&mut RegistrySettings), Option<&'a str>);
    let good = "https://kv1.vault.azure.net";
    #[rustfmt::skip]
    let rows: [Row<'_>; 20] = [
        (good, entra(), at("app"), &own, None),
        (good, entra(), at("app"), &public, None),
        (good, entra(), at("app"), &off, None),
        (good, entra(), at("https://kv1.vault.azure.net/secrets/app"), &own, None),
        (good, entra(), at("https://kv2.vault.azure.net/secrets/app"), &own, Some("another vault")),
        (good, entra(), at("a_b"), &own, Some("letters, digits")),
        (good, entra(), pinned("app", "1"), &own, Some("32 hexadecimal")),
        (good, entra(), pinned(&format!("app/{}", "a".repeat(32)), &"a".repeat(32)), &own, Some("two versions")),
        (good, managed(), at("team-a"), &below, None),
        (good, managed(), at("https://kv1.vault.azure.net/secrets/team-a"), &below, None),
        (good, managed(), at("team-b"), &below, Some("managers.azure_kv.ambient_paths")),
        (good, managed(), at("app"), &off, Some("managers.azure_kv.ambient")),
        (good, AzureMethod::Default, at("app"), &off, Some("managers.azure_kv.ambient")),
        (good, AzureMethod::Default, at("app"), &own, None),
        ("http://kv1.vault.azure.net", entra(), at("app"), &own, Some("https")),
        ("https://169.254.169.254", entra(), at("app"), &own, Some("closed")),
        ("https://kv1.vault.lab", entra(), at("app"), &own, None),
        ("https://kv1.vault.lab", entra(), at("app"), &public, Some("managers.azure.authority_host")),
        ("https://hsm1.managedhsm.azure.net", entra(), at("app"), &own, Some("no secrets")),
        ("https://kv1.privatelink.vaultcore.azure.net", entra(), at("app"), &own, Some("https://name.vault.azure.net")),
    ];
    for (url, method, location, change, named) in rows {
        let (registry, _) = registry_with(&server, change);
        let auth = AuthConfig::Azure(AzureAuth { vault_url: Url::parse(url).unwrap(), method });
        let admitted = registry.admit(ManagerType::AzureKv, &auth, Some(&location));
        match named {
            None => assert_eq!(admitted, Ok(()), "{url} {auth:?} {location:?}"),
            Some(named) => {
                let reason = admitted.expect_err(url);
                assert!(reason.contains(named), "{reason} does not name {named}");
            }
        }
    }
    // All reasons at once.
    let auth = AuthConfig::Azure(AzureAuth { vault_url: Url::parse("http://kv1.vault.lab").unwrap(), method: entra() });
    let reason = registry_with(&server, |_| {}).0.admit(ManagerType::AzureKv, &auth, Some(&at("a_b"))).unwrap_err();
    assert!(reason.contains("https") && reason.contains("letters, digits"), "{reason}");
}
