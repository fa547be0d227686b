//! Which cloud a vault lies in: who hands out its tokens, and for what.
//!
//! The host's suffix tells. A token is asked for one resource and no other, whatever a server's challenge says, because one
//! for a cloud's vaults opens every vault of the identity. Source: Microsoft's list of Key Vault DNS suffixes and
//! Microsoft's pages on sovereign clouds.

use azure_core::cloud::{CloudConfiguration, CustomConfiguration};
use url::{Host, Url};

use crate::egress::{Policy, Reach};

/// Suffix of a cloud's vaults and where its tokens come from.
const CLOUDS: [(&str, &str); 3] = [
    ("vault.azure.net", "https://login.microsoftonline.com"),
    ("vault.azure.cn", "https://login.chinacloudapi.cn"),
    ("vault.usgovcloudapi.net", "https://login.microsoftonline.us"),
];

/// Hosts that look like a vault and are none, with what to write instead.
const NO_VAULTS: [(&str, &str); 4] = [
    ("managedhsm.azure.net", "a managed HSM holds keys and no secrets; name a vault"),
    ("managedhsm.azure.cn", "a managed HSM holds keys and no secrets; name a vault"),
    ("managedhsm.usgovcloudapi.net", "a managed HSM holds keys and no secrets; name a vault"),
    (
        "vaultcore.azure.net",
        "a private endpoint is reached by the vault's own name; write https://name.vault.azure.net",
    ),
];

/// Where the vault's tokens come from, what they are for, and who may see them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Cloud {
    /// Base URL of the authority, https.
    pub(super) authority: Url,
    /// What tokens are asked for, as `https://host` without a slash at its end.
    pub(super) resource: String,
    /// The least that must hold for the vault's host.
    pub(super) reach: Reach,
    /// Whether the vault lies below its resource, so that the library's own rule holds too.
    pub(super) is_below_resource: bool,
}

// === impl Cloud ===

impl Cloud {
    /// The cloud of the vault at `url`. `authority` is the operator's, which stands above the cloud's own.
    ///
    /// A host of no known cloud is taken only on the operator's word: with an authority of the operator's, for tokens that
    /// serve its own domain and no other; with the host opened in `egress`, as a public vault under another name.
    ///
    /// # Errors
    /// A reason for people, naming the setting that would change it.
    pub(super) fn of(url: &Url, authority: Option<&Url>, policy: &Policy) -> Result<Self, String> {
        if url.scheme() != "https" {
            return Err("azure_vault_url must be https: tokens are not sent in the clear".to_owned());
        }
        if authority.is_some_and(|authority| authority.scheme() != "https") {
            return Err(
                "the authority that hands out Azure tokens must be https; see managers.azure.authority_host".to_owned()
            );
        }
        let host = url.host().ok_or("azure_vault_url names no host")?;
        let name = host.to_string().trim_end_matches('.').to_ascii_lowercase();
        if let Some((_, advice)) = NO_VAULTS.iter().find(|(suffix, _)| below(&name, suffix).is_some()) {
            return Err(format!("azure_vault_url: {advice}"));
        }
        let of = |authority: &str, resource: &str, reach, is_below_resource| {
            let authority = Url::parse(authority).map_err(|_| "the authority is no URL".to_owned())?;
            Ok(Self { authority, resource: format!("https://{resource}"), reach, is_below_resource })
        };
        if let Some((label, (suffix, own))) =
            CLOUDS.iter().find_map(|cloud| below(&name, cloud.0).map(|label| (label, cloud)))
        {
            if label.contains('.') {
                return Err(format!("azure_vault_url must be https://name.{suffix}"));
            }
            return of(authority.map_or(own, Url::as_str), suffix, Reach::Admitted, true);
        }
        let parent = match host {
            Host::Domain(_) => name.split_once('.').map(|(_, parent)| parent).filter(|parent| parent.contains('.')),
            Host::Ipv4(_) | Host::Ipv6(_) => None,
        };
        match (authority, parent) {
            (Some(authority), Some(parent)) => of(authority.as_str(), parent, Reach::Admitted, true),
            _ if policy.reach_opened(url).is_ok() => {
                let (public, own) = CLOUDS[0];
                of(authority.map_or(own, Url::as_str), public, Reach::Opened, false)
            }
            _ => Err(format!(
                "azure_vault_url: {name} lies in no known Azure cloud; set managers.azure.authority_host for a cloud of \
                 your own, or open the host with egress.allow_hosts"
            )),
        }
    }

    /// What the libraries are told.
    pub(super) fn configuration(&self) -> CloudConfiguration {
        let mut custom = CustomConfiguration::default();
        custom.authority_host = self.authority.as_str().to_owned();
        custom.into()
    }

    /// What is asked for: the resource with everything it has.
    pub(super) fn scope(&self) -> String {
        format!("{}/.default", self.resource)
    }

    /// Whether a challenge that names `audience`, as a resource or as a scope, is this cloud's.
    pub(super) fn is_own(&self, audience: &str) -> bool {
        let resource = audience.strip_suffix("/.default").unwrap_or(audience);
        resource.trim_end_matches('/') == self.resource
    }
}

/// What stands before `.suffix` in `name`.
fn below<'a>(name: &'a str, suffix: &str) -> Option<&'a str> {
    name.strip_suffix(suffix)?.strip_suffix('.').filter(|label| !label.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::egress::Settings;

    #[test]
    fn a_host_tells_its_cloud() {
        const PUBLIC: &str = "https://login.microsoftonline.com/";
        const OWN: Option<&str> = Some("https://login.lab");
        #[rustfmt::skip]
        let rows = [
            // vault, the operator's authority, authority, resource, reach, or what the refusal says
            ("https://kv1.vault.azure.net", None, Ok((PUBLIC, "https://vault.azure.net", Reach::Admitted, true))),
            ("https://KV1.Vault.Azure.Net:8443", None, Ok((PUBLIC, "https://vault.azure.net", Reach::Admitted, true))),
            ("https://kv1.vault.azure.cn", None, Ok(("https://login.chinacloudapi.cn/", "https://vault.azure.cn", Reach::Admitted, true))),
            ("https://kv1.vault.usgovcloudapi.net", None, Ok(("https://login.microsoftonline.us/", "https://vault.usgovcloudapi.net", Reach::Admitted, true))),
            ("https://kv1.vault.azure.net", OWN, Ok(("https://login.lab/", "https://vault.azure.net", Reach::Admitted, true))),
            ("https://kv1.vault.lab", OWN, Ok(("https://login.lab/", "https://vault.lab", Reach::Admitted, true))),
            ("https://kv.opened.example", None, Ok((PUBLIC, "https://vault.azure.net", Reach::Opened, false))),
            ("https://kv.opened.example", OWN, Ok(("https://login.lab/", "https://opened.example", Reach::Admitted, true))),
            ("https://kv1.vault.lab", None, Err("no known Azure cloud")),
            ("https://evil.example", OWN, Err("no known Azure cloud")),
            ("https://8.8.8.8", OWN, Err("no known Azure cloud")),
            ("https://vault.azure.net", None, Err("no known Azure cloud")),
            ("https://a.b.vault.azure.net", None, Err("https://name.vault.azure.net")),
            ("https://kv1.vault.azure.net.evil.example", None, Err("no known Azure cloud")),
            ("https://evilvault.azure.net", None, Err("no known Azure cloud")),
            ("https://hsm1.managedhsm.azure.net", None, Err("managed HSM")),
            ("https://kv1.privatelink.vaultcore.azure.net", None, Err("the vault's own name")),
            ("http://kv1.vault.azure.net", None, Err("https")),
            ("https://kv1.vault.azure.net", Some("http://login.lab"), Err("must be https")),
        ];
        let policy = Policy::new(Settings { allow_hosts: vec![".opened.example".to_owned()], ..Settings::default() });
        for (vault, authority, expected) in rows {
            let authority = authority.map(|url| Url::parse(url).unwrap());
            let cloud = Cloud::of(&Url::parse(vault).unwrap(), authority.as_ref(), &policy);
            match (&cloud, expected) {
                (Ok(cloud), Ok(expected)) => {
                    let found = (cloud.authority.as_str(), &*cloud.resource, cloud.reach, cloud.is_below_resource);
                    assert_eq!(found, expected, "{vault}");
                }
                (Err(reason), Err(part)) => assert!(reason.contains(part), "{vault}: {reason}"),
                _ => panic!("{vault}: {cloud:?} is not {expected:?}"),
            }
        }
    }

    #[test]
    fn one_audience_is_the_clouds_own() {
        let cloud =
            Cloud::of(&Url::parse("https://kv1.vault.azure.net").unwrap(), None, &Policy::new(Settings::default()))
                .unwrap();
        assert!(cloud.is_own(&cloud.scope()));
        for own in ["https://vault.azure.net", "https://vault.azure.net/", "https://vault.azure.net/.default"] {
            assert!(cloud.is_own(own), "{own}");
        }
        for foreign in [
            "https://vault.azure.net.evil.example",
            "https://azure.net",
            "https://net",
            "http://vault.azure.net",
            "https://management.azure.com",
            "https://kv1.vault.azure.net",
            "https://vault.azure.net/.default/.default",
            "",
        ] {
            assert!(!cloud.is_own(foreign), "{foreign}");
        }
    }
}
