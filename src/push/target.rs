//! What an event says has changed, and which references of the snapshot read that.
//!
//! Two names of one secret are compared by what both of them say: where a path leaves something open (a bare name says neither
//! account nor region), it is taken to be meant. To expire one secret too many costs a read; to miss one costs its lifetime.

use url::{Host, Url};

use crate::model::{AuthConfig, ManagerType, Reference};

/// Characters that Secrets Manager puts behind a name in an ARN: `-` and six letters or digits.
const ARN_SUFFIX: usize = 7;

/// A secret, as a source names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// A secret of AWS Secrets Manager.
    AwsSecret(AwsName),
    /// A parameter of the AWS Parameter Store.
    AwsParameter(AwsName),
    /// A secret of Azure Key Vault.
    AzureSecret {
        /// Host of the vault, or its name alone.
        vault: String,
        /// Name of the secret.
        name: String,
    },
    /// A secret of Google Secret Manager.
    GcpSecret {
        /// Project id or number.
        project: String,
        /// Region, for a regional secret.
        location: Option<String>,
        /// Name of the secret.
        name: String,
    },
    /// A reference by slug or id.
    Reference(String),
    /// Everything at one manager that lies at a path, as references write it, or below it.
    Path {
        /// Which manager.
        manager: ManagerType,
        /// Without a version.
        path: String,
    },
}

/// A secret or parameter of AWS.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AwsName {
    /// Region, if known.
    pub region: Option<String>,
    /// Account, if known.
    pub account: Option<String>,
    /// Name, in an ARN of Secrets Manager with its suffix.
    pub name: String,
}

// === impl Target ===

impl Target {
    /// Whether `reference` reads it.
    pub fn covers(&self, reference: &Reference) -> bool {
        let (manager, path) = (reference.manager_type, &*reference.location.path);
        match self {
            Self::AwsSecret(secret) => manager == ManagerType::AwsSm && secret.is_secret(path, region(reference)),
            Self::AwsParameter(parameter) => {
                manager == ManagerType::AwsSsm && parameter.is_parameter(path, region(reference))
            }
            Self::AzureSecret { vault, name } => match reference.auth.shape() {
                AuthConfig::Azure(auth) => {
                    is_vault(&auth.vault_url, vault) && azure_name(path).eq_ignore_ascii_case(name)
                }
                _ => false,
            },
            Self::GcpSecret { project, location, name } => match reference.auth.shape() {
                AuthConfig::Gcp(auth) => {
                    let read = gcp_name(path);
                    let own_project = read.project.or(auth.project.as_deref());
                    let own_location = read.location.or(auth.location.as_deref());
                    read.secret == name
                        && own_location == location.as_deref()
                        && own_project.is_none_or(|own| is_project(own, project))
                }
                _ => false,
            },
            Self::Reference(name) => *reference.slug == **name || *reference.id == **name,
            Self::Path { manager: at, path: wanted } => {
                let (path, wanted) = (tidy(manager, path), tidy(manager, wanted));
                let below = path.strip_prefix(&wanted);
                manager == *at && below.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
            }
        }
    }
}

// === impl AwsName ===

impl AwsName {
    /// From an ARN (`arn:partition:service:region:account:kind:name` or `…:kind/name`); `None` for one of another kind.
    pub fn from_arn(arn: &str, kind: &str) -> Option<Self> {
        let mut parts = arn.strip_prefix("arn:")?.splitn(5, ':');
        let (_partition, _service) = (parts.next()?, parts.next()?);
        let (region, account, resource) = (parts.next()?, parts.next()?, parts.next()?);
        let name = resource.strip_prefix(kind)?;
        let name = name.strip_prefix(':').or_else(|| name.starts_with('/').then_some(name))?;
        let known = |text: &str| (!text.is_empty()).then(|| text.to_owned());
        Some(Self { region: known(region), account: known(account), name: known(name)? })
    }

    fn is_secret(&self, path: &str, region: Option<&str>) -> bool {
        let own = Self::from_arn(path, "secret").unwrap_or_else(|| Self { name: path.to_owned(), ..Self::default() });
        self.is_near(&own, region) && {
            // Either may be written without the suffix: a name, or an ARN that somebody typed.
            let (a, b) = (self.name.as_str(), own.name.as_str());
            a == b || without_suffix(a) == Some(b) || without_suffix(b) == Some(a)
        }
    }

    fn is_parameter(&self, path: &str, region: Option<&str>) -> bool {
        let own =
            Self::from_arn(path, "parameter").unwrap_or_else(|| Self { name: path.to_owned(), ..Self::default() });
        // Both `db` and `/db` are written `parameter/db`.
        self.is_near(&own, region) && self.name.trim_start_matches('/') == own.name.trim_start_matches('/')
    }

    /// Whether nothing that both know about account and region differs.
    fn is_near(&self, own: &Self, region: Option<&str>) -> bool {
        let agree = |a: Option<&str>, b: Option<&str>| a.zip(b).is_none_or(|(a, b)| a == b);
        agree(self.region.as_deref(), own.region.as_deref().or(region))
            && agree(self.account.as_deref(), own.account.as_deref())
    }
}

fn without_suffix(name: &str) -> Option<&str> {
    let at = name.len().checked_sub(ARN_SUFFIX)?;
    let suffix = name.get(at..)?.strip_prefix('-')?;
    suffix.bytes().all(|byte| byte.is_ascii_alphanumeric()).then_some(&name[..at])
}

/// The region that `auth_config` names.
fn region(reference: &Reference) -> Option<&str> {
    match reference.auth.shape() {
        AuthConfig::Aws(auth) => auth.region.as_deref(),
        _ => None,
    }
}

/// Whether `named`, a host or the first label of one, is the vault at `url`.
fn is_vault(url: &Url, named: &str) -> bool {
    match url.host() {
        Some(Host::Domain(host)) => {
            host.eq_ignore_ascii_case(named)
                || host.split('.').next().is_some_and(|label| label.eq_ignore_ascii_case(named))
        }
        // An emulator: its address says nothing about names.
        Some(Host::Ipv4(_) | Host::Ipv6(_)) => true,
        None => false,
    }
}

/// The name in `name`, `name/version` or `https://vault/secrets/name/version`.
fn azure_name(path: &str) -> &str {
    let path = path.trim_matches('/');
    let name = path.split_once("/secrets/").map_or(path, |(_, rest)| rest);
    name.split('/').next().unwrap_or_default()
}

struct GcpName<'a> {
    project: Option<&'a str>,
    location: Option<&'a str>,
    secret: &'a str,
}

/// The parts of `secret`, or of `projects/p/[locations/l/]secrets/s[/versions/v]`.
fn gcp_name(path: &str) -> GcpName<'_> {
    let segments: Vec<&str> = path.trim_matches('/').split('/').collect();
    match segments.as_slice() {
        ["projects", project, "locations", location, "secrets", secret, ..] => {
            GcpName { project: Some(project), location: Some(location), secret }
        }
        ["projects", project, "secrets", secret, ..] => GcpName { project: Some(project), location: None, secret },
        _ => GcpName { project: None, location: None, secret: path },
    }
}

/// Whether two names may be of one project: an id and a number cannot be compared.
fn is_project(own: &str, named: &str) -> bool {
    let is_number = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    own == named || is_number(own) != is_number(named)
}

/// The path of a secret without what the manager does not care about: for Vault, `/v1/`, outer slashes, and the `data` of KV
/// version 2.
fn tidy(manager: ManagerType, path: &str) -> String {
    let path = path.trim_matches('/');
    match manager {
        ManagerType::HashicorpVault => {
            let path = path.strip_prefix("v1/").unwrap_or(path);
            path.replacen("/data/", "/", 1)
        }
        _ => path.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::model::{LinkRules, link};

    fn covers(target: &Target, manager: &str, auth: Value, path: &str) -> bool {
        let document = json!({"schema_version": 1, "secret_references": [
            {"id": "id-1", "slug": "slug-1", "manager_type": manager, "secret_path": path, "auth_config": auth, "status": "active"}
        ]});
        let rules = LinkRules::STRICT;
        let snapshot = link(document.to_string().as_bytes(), &rules).unwrap();
        target.covers(&snapshot.references[0])
    }

    #[test]
    fn a_secret_of_aws_is_known_by_arn_and_by_name() {
        let aws = |region: Option<&str>| json!({"aws_auth_type": "serviceRole", "aws_region": region});
        let arn = "arn:aws:secretsmanager:eu-west-1:123456789012:secret:prod/openai-a1b2C3";
        let target = Target::AwsSecret(AwsName::from_arn(arn, "secret").unwrap());
        #[rustfmt::skip]
        let rows = [
            // path, region of the reference, covered
            (arn, Some("eu-west-1"), true),
            ("arn:aws:secretsmanager:eu-west-1:123456789012:secret:prod/openai", Some("eu-west-1"), true),
            ("prod/openai", Some("eu-west-1"), true),
            ("prod/openai", None, true),
            ("prod/openai?version=1b2c3d4e-0000-4000-8000-000000000000", Some("eu-west-1"), true),
            ("prod/openai", Some("us-east-1"), false),
            ("arn:aws:secretsmanager:eu-west-1:999999999999:secret:prod/openai-a1b2C3", Some("eu-west-1"), false),
            ("arn:aws:secretsmanager:us-east-1:123456789012:secret:prod/openai-a1b2C3", None, false),
            ("prod/openai2", Some("eu-west-1"), false),
            ("openai", Some("eu-west-1"), false),
            ("prod/openai-a1b2C3", Some("eu-west-1"), true),
        ];
        for (path, region, covered) in rows {
            assert_eq!(covers(&target, "aws_sm", aws(region), path), covered, "{path} {region:?}");
        }
        assert!(!covers(&target, "aws_ssm", aws(Some("eu-west-1")), "/prod/openai"), "another manager");
        let bare = Target::AwsSecret(AwsName { name: "prod/openai".to_owned(), ..AwsName::default() });
        assert!(covers(&bare, "aws_sm", aws(None), arn), "a name alone");
        for odd in ["", "arn:", "arn:aws:secretsmanager:eu-west-1:1:secret:", "arn:aws:s3:::bucket", "secret:x"] {
            assert_eq!(AwsName::from_arn(odd, "secret"), None, "{odd}");
        }
    }

    #[test]
    fn a_parameter_is_known_with_and_without_its_slash() {
        let auth = json!({"aws_auth_type": "serviceRole", "aws_region": "eu-west-1"});
        let arn = "arn:aws:ssm:eu-west-1:123456789012:parameter/prod/openai";
        let target = Target::AwsParameter(AwsName::from_arn(arn, "parameter").unwrap());
        for (path, covered) in [("/prod/openai", true), ("/prod/openai:3", true), (arn, true), ("/prod/open", false)] {
            assert_eq!(covers(&target, "aws_ssm", auth.clone(), path), covered, "{path}");
        }
        let flat = AwsName::from_arn("arn:aws:ssm:eu-west-1:123456789012:parameter/key", "parameter").unwrap();
        assert!(covers(&Target::AwsParameter(flat), "aws_ssm", auth, "key"));
    }

    #[test]
    fn a_secret_of_a_vault_is_known_in_each_form() {
        let auth = json!({"azure_auth_mode": "managed", "azure_vault_url": "https://My-Vault.vault.azure.net"});
        let target = |vault: &str| Target::AzureSecret { vault: vault.to_owned(), name: "OpenAI".to_owned() };
        #[rustfmt::skip]
        let rows = [
            ("my-vault.vault.azure.net", "openai", true),
            ("MY-VAULT", "openai", true),
            ("my-vault", "openai/0123456789abcdef0123456789abcdef", true),
            ("my-vault", "https://my-vault.vault.azure.net/secrets/OPENAI", true),
            ("my-vault", "openai-2", false),
            ("other", "openai", false),
            ("my-vault.vault.azure.cn", "openai", false),
        ];
        for (vault, path, covered) in rows {
            assert_eq!(covers(&target(vault), "azure_kv", auth.clone(), path), covered, "{vault} {path}");
        }
    }

    #[test]
    fn a_secret_of_google_is_known_by_id_and_number_of_its_project() {
        let auth = |project: Option<&str>, location: Option<&str>| json!({"gcp_auth_type": "workloadIdentity", "gcp_project_id": project, "gcp_location": location});
        let target = |project: &str, location: Option<&str>| Target::GcpSecret {
            project: project.to_owned(),
            location: location.map(str::to_owned),
            name: "openai".to_owned(),
        };
        #[rustfmt::skip]
        let rows = [
            // project and region of the event, of the reference, path, covered
            ("prod", None, Some("prod"), None, "openai", true),
            ("prod", None, None, None, "projects/prod/secrets/openai", true),
            ("prod", None, None, None, "projects/prod/secrets/openai/versions/3", true),
            ("1234567", None, Some("prod"), None, "openai", true),
            ("1234567", None, None, None, "projects/7654321/secrets/openai", false),
            ("prod", None, Some("test"), None, "openai", false),
            ("prod", None, Some("prod"), None, "openai-2", false),
            ("prod", Some("europe-west3"), Some("prod"), Some("europe-west3"), "openai", true),
            ("prod", Some("europe-west3"), None, None, "projects/prod/locations/europe-west3/secrets/openai", true),
            ("prod", Some("europe-west3"), Some("prod"), None, "openai", false),
            ("prod", None, Some("prod"), Some("europe-west3"), "openai", false),
        ];
        for (project, location, own, own_location, path, covered) in rows {
            let found = covers(&target(project, location), "gcp_sm", auth(own, own_location), path);
            assert_eq!(found, covered, "{project} {location:?} {own:?} {own_location:?} {path}");
        }
    }

    #[test]
    fn a_reference_is_known_by_name_and_by_path() {
        let auth = json!({"vault_auth_type": "token", "vault_addr": "https://vault.test", "vault_token": "t"});
        let at = |path: &str| Target::Path { manager: ManagerType::HashicorpVault, path: path.to_owned() };
        #[rustfmt::skip]
        let rows = [
            (Target::Reference("slug-1".to_owned()), true),
            (Target::Reference("id-1".to_owned()), true),
            (Target::Reference("slug".to_owned()), false),
            (at("secret/data/team/openai"), true),
            (at("/v1/secret/data/team/openai/"), true),
            (at("secret/team/openai"), true),
            (at("secret/data/team"), true),
            (at("secret/data/tea"), false),
            (at("secret/data/team/openai/x"), false),
            (Target::Path { manager: ManagerType::File, path: "secret/data/team/openai".to_owned() }, false),
        ];
        for (target, covered) in rows {
            let found = covers(&target, "hashicorp_vault", auth.clone(), "secret/data/team/openai");
            assert_eq!(found, covered, "{target:?}");
        }
    }
}
