//! What is refused when a snapshot is loaded, and with which words.

use super::*;

#[tokio::test]
async fn what_a_reference_may_be_is_told_at_load() {
    let admit = |auth: VaultAuth, location: &SecretLocation, change: &dyn Fn(&mut RegistrySettings)| {
        let (registry, _) = registry_with(change);
        registry.admit(ManagerType::HashicorpVault, &AuthConfig::Vault(auth), Some(location))
    };
    let nothing = |_: &mut RegistrySettings| {};
    let off = |settings: &mut RegistrySettings| settings.vault.ambient.allowed = false;
    let below = |settings: &mut RegistrySettings| {
        settings.vault.ambient = Ambient { allowed: true, paths: vec!["secret/team".to_owned()] }
    };
    let listed = |settings: &mut RegistrySettings| {
        settings.vault.kubernetes_allow_addrs = vec!["https://vault.example.com:8200/".to_owned()];
    };
    let closed = |settings: &mut RegistrySettings| settings.policy = Policy::new(egress::Settings::default());
    let good = "https://vault.example.com:8200";
    let version = |number| SecretLocation { version: VersionSelector::Pinned(number), ..at("secret/app") };
    type Row<'a> = (&'a str, Method, SecretLocation, &'a dyn Fn(&mut RegistrySettings), Option<&'a str>);
    #[rustfmt::skip]
    let rows: [Row<'_>; 17] = [
        (good, Method::Token, at("secret/app"), &nothing, None),
        (good, Method::AppRole, at("/v1/secret/data/app"), &off, None),
        (good, Method::Token, version("3".into()), &nothing, None),
        (good, Method::Token, version("x".into()), &nothing, Some("?version=3")),
        (good, Method::Token, at("secret"), &nothing, Some("mount")),
        (good, Method::Token, at("secret/../x"), &nothing, Some("..")),
        (good, Method::Token, at("auth/token/lookup-self"), &nothing, Some("auth")),
        ("http://127.0.0.1:8200", Method::Token, at("secret/app"), &nothing, None),
        ("http://127.0.0.1:8200", Method::Token, at("secret/app"), &closed, Some("egress.allow_cidrs")),
        ("https://169.254.169.254", Method::Token, at("secret/app"), &nothing, Some("closed")),
        ("https://vault.example.com/?x", Method::Token, at("secret/app"), &nothing, Some("query")),
        (good, Method::Kubernetes, at("secret/app"), &nothing, None), // an opened network: the address decides
        (good, Method::Kubernetes, at("secret/app"), &off, Some("managers.hashicorp_vault.ambient")),
        (good, Method::Kubernetes, at("secret/teams/app"), &below, Some("managers.hashicorp_vault.ambient_paths")),
        (good, Method::Kubernetes, at("secret/app"), &closed, Some("service-account token")),
        (good, Method::Kubernetes, at("secret/app"), &listed, None),
        ("https://vault.example.com:8201", Method::Kubernetes, at("secret/app"), &listed, Some("kubernetes_allow_addrs")),
    ];
    for (addr, method, location, change, named) in rows {
        let admitted = admit(auth(addr, method), &location, change);
        match named {
            None => assert_eq!(admitted, Ok(()), "{addr} {method:?} {location:?}"),
            Some(named) => {
                let reason = admitted.expect_err(addr);
                assert!(reason.contains(named), "{reason} does not name {named}");
            }
        }
    }
    let several = admit(auth("https://169.254.169.254", Method::Token), &at("auth/token/lookup-self"), &nothing);
    let several = several.unwrap_err();
    assert!(several.contains("closed") && several.contains("auth"), "{several} names one of two");
    let with = |change: &dyn Fn(&mut VaultAuth)| {
        let mut auth = auth(good, Method::Token);
        change(&mut auth);
        admit(auth, &version("3".into()), &nothing)
    };
    assert!(with(&|auth| auth.kv_version = Some(1)).unwrap_err().contains("version"));
    assert!(with(&|auth| auth.kv_version = Some(3)).unwrap_err().contains("1 or 2"));
    assert!(with(&|auth| auth.namespace = Some("a\nb".into())).unwrap_err().contains("vault_namespace"));
    // What is sealed is empty until it is opened.
    assert_eq!(with(&|auth| auth.method = VaultMethod::Token { token: String::new().into() }), Ok(()));
    let reason = with(&|auth| auth.method = VaultMethod::Token { token: "sk-ca\nnary".to_owned().into() }).unwrap_err();
    assert!(reason.contains("vault_token") && !reason.contains("nary"), "{reason}");
}
