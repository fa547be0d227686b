//! What an event says has changed, and which references of the snapshot read that.
//!
//! Two names of one secret are compared by what both of them say: where a path leaves something open (a bare name says neither
//! account nor region), it is taken to be meant. To expire one secret too many costs a read; to miss one costs its lifetime.
//! A delivery may name hundreds of secrets and a snapshot have a hundred thousand references: each is taken apart once, and
//! comparing two of them allocates nothing.

use std::collections::HashSet;

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

/// What a delivery names, ready to be compared with many references.
#[derive(Debug)]
pub struct Changed<'t> {
    references: HashSet<&'t str>,
    secrets: Vec<Named<'t>>,
}

/// A secret by its name at a manager.
#[derive(Clone, Copy, Debug)]
enum Named<'t> {
    Aws(ManagerType, Aws<'t>),
    Azure { vault: &'t str, name: &'t str },
    Gcp(Gcp<'t>),
    Path(ManagerType, Path<'t>),
}

/// What a reference reads.
#[derive(Debug)]
enum Read<'r> {
    Aws(Aws<'r>),
    Azure {
        vault: &'r Url,
        name: &'r str,
    },
    Gcp(Gcp<'r>),
    /// Nothing that is known by more than its path.
    Other,
}

/// A secret or parameter of AWS.
#[derive(Clone, Copy, Debug)]
struct Aws<'a> {
    region: Option<&'a str>,
    account: Option<&'a str>,
    name: &'a str,
}

/// A secret of Google.
#[derive(Clone, Copy, Debug)]
struct Gcp<'a> {
    project: Option<&'a str>,
    location: Option<&'a str>,
    name: &'a str,
}

/// A path without what its manager does not care about: outer slashes, and for Vault `v1/` and the `data` of KV version 2, which
/// stands between the two halves.
#[derive(Clone, Copy, Debug)]
struct Path<'a>(&'a str, Option<&'a str>);

// === impl AwsName ===

impl AwsName {
    /// From an ARN (`arn:partition:service:region:account:kind:name` or `…:kind/name`); `None` for one of another kind.
    pub fn from_arn(arn: &str, kind: &str) -> Option<Self> {
        let Aws { region, account, name } = Aws::from_arn(arn, kind)?;
        Some(Self { region: region.map(str::to_owned), account: account.map(str::to_owned), name: name.to_owned() })
    }
}

// === impl Changed ===

impl<'t> Changed<'t> {
    /// What `targets` name.
    pub fn new(targets: &'t [Target]) -> Self {
        let mut changed = Self { references: HashSet::new(), secrets: Vec::with_capacity(targets.len()) };
        for target in targets {
            changed.secrets.push(match target {
                Target::Reference(name) => {
                    changed.references.insert(name);
                    continue;
                }
                Target::AwsSecret(name) => Named::Aws(ManagerType::AwsSm, Aws::of(name)),
                Target::AwsParameter(name) => Named::Aws(ManagerType::AwsSsm, Aws::of(name)),
                Target::AzureSecret { vault, name } => Named::Azure { vault, name },
                Target::GcpSecret { project, location, name } => {
                    Named::Gcp(Gcp { project: Some(project), location: location.as_deref(), name })
                }
                Target::Path { manager, path } => Named::Path(*manager, Path::folder(*manager, path)),
            });
        }
        changed
    }

    /// Whether `reference` reads any of it.
    pub fn concerns(&self, reference: &Reference) -> bool {
        if self.references.contains(&*reference.slug) || self.references.contains(&*reference.id) {
            return true;
        }
        if self.secrets.is_empty() {
            return false;
        }
        let (manager, read) = (reference.manager_type, Read::of(reference));
        let path = Path::of(manager, &reference.location.path);
        self.secrets.iter().any(|named| match (named, &read) {
            (Named::Aws(ManagerType::AwsSsm, named), Read::Aws(own)) if manager == ManagerType::AwsSsm => {
                named.is_parameter(own)
            }
            (Named::Aws(ManagerType::AwsSm, named), Read::Aws(own)) if manager == ManagerType::AwsSm => {
                named.is_secret(own)
            }
            (Named::Azure { vault: named, name: changed }, Read::Azure { vault, name }) => {
                name.eq_ignore_ascii_case(changed) && is_vault(vault, named)
            }
            (Named::Gcp(named), Read::Gcp(own)) => named.is(own),
            (Named::Path(at, folder), _) => *at == manager && path.is_in(folder),
            (Named::Aws(..) | Named::Azure { .. } | Named::Gcp(_), _) => false,
        })
    }
}

// === impl Read ===

impl<'r> Read<'r> {
    fn of(reference: &'r Reference) -> Self {
        let path = &*reference.location.path;
        let aws = |kind: &str, region: Option<&'r str>| {
            let own = Aws::from_arn(path, kind).unwrap_or(Aws { region: None, account: None, name: path });
            Self::Aws(Aws { region: own.region.or(region), ..own })
        };
        match (reference.manager_type, reference.auth.shape()) {
            (ManagerType::AwsSm, AuthConfig::Aws(auth)) => aws("secret", auth.region.as_deref()),
            (ManagerType::AwsSsm, AuthConfig::Aws(auth)) => aws("parameter", auth.region.as_deref()),
            (_, AuthConfig::Azure(auth)) => Self::Azure { vault: &auth.vault_url, name: azure_name(path) },
            (_, AuthConfig::Gcp(auth)) => {
                let own = Gcp::of(path);
                Self::Gcp(Gcp {
                    project: own.project.or(auth.project.as_deref()),
                    location: own.location.or(auth.location.as_deref()),
                    ..own
                })
            }
            (_, AuthConfig::Aws(_) | AuthConfig::Vault(_) | AuthConfig::File) => Self::Other,
        }
    }
}

// === impl Aws ===

impl<'a> Aws<'a> {
    fn of(AwsName { region, account, name }: &'a AwsName) -> Self {
        Self { region: region.as_deref(), account: account.as_deref(), name }
    }

    fn from_arn(arn: &'a str, kind: &str) -> Option<Self> {
        let mut parts = arn.strip_prefix("arn:")?.splitn(5, ':');
        let (_partition, _service) = (parts.next()?, parts.next()?);
        let (region, account, resource) = (parts.next()?, parts.next()?, parts.next()?);
        let name = resource.strip_prefix(kind)?;
        let name = name.strip_prefix(':').or_else(|| name.starts_with('/').then_some(name))?;
        let known = |text: &'a str| (!text.is_empty()).then_some(text);
        Some(Self { region: known(region), account: known(account), name: known(name)? })
    }

    fn is_secret(&self, own: &Self) -> bool {
        // Either may be written without the suffix: a name, or an ARN that somebody typed.
        let (a, b) = (self.name, own.name);
        (a == b || without_suffix(a) == Some(b) || without_suffix(b) == Some(a)) && self.is_near(own)
    }

    fn is_parameter(&self, own: &Self) -> bool {
        // Both `db` and `/db` are written `parameter/db`.
        self.name.trim_start_matches('/') == own.name.trim_start_matches('/') && self.is_near(own)
    }

    /// Whether nothing that both know about account and region differs.
    fn is_near(&self, own: &Self) -> bool {
        let agree = |a: Option<&str>, b: Option<&str>| a.zip(b).is_none_or(|(a, b)| a == b);
        agree(self.region, own.region) && agree(self.account, own.account)
    }
}

// === impl Gcp ===

impl<'a> Gcp<'a> {
    /// The parts of `secret`, or of `projects/p/[locations/l/]secrets/s[/versions/v]`.
    fn of(path: &'a str) -> Self {
        let bare = Self { project: None, location: None, name: path };
        let mut segments = path.trim_matches('/').split('/');
        let (Some("projects"), Some(project)) = (segments.next(), segments.next()) else { return bare };
        match (segments.next(), segments.next(), segments.next(), segments.next()) {
            (Some("secrets"), Some(name), ..) => Self { project: Some(project), location: None, name },
            (Some("locations"), Some(location), Some("secrets"), Some(name)) => {
                Self { project: Some(project), location: Some(location), name }
            }
            _ => bare,
        }
    }

    /// Whether `own`, which may leave its project open, is this one.
    fn is(&self, own: &Self) -> bool {
        self.name == own.name
            && self.location == own.location
            && self.project.zip(own.project).is_none_or(|(named, own)| is_project(own, named))
    }
}

// === impl Path ===

impl<'a> Path<'a> {
    fn of(manager: ManagerType, path: &'a str) -> Self {
        let path = path.trim_matches('/');
        if manager != ManagerType::HashicorpVault {
            return Self(path, None);
        }
        let path = path.strip_prefix("v1/").unwrap_or(path);
        path.split_once("/data/").map_or(Self(path, None), |(mount, rest)| Self(mount, Some(rest)))
    }

    /// As [`Path::of`], of a path that may be a folder: the `data` at the end of one is that of KV version 2 as well.
    fn folder(manager: ManagerType, path: &'a str) -> Self {
        match Self::of(manager, path) {
            Self(mount, None) if manager == ManagerType::HashicorpVault => {
                Self(mount.strip_suffix("/data").unwrap_or(mount), None)
            }
            path => path,
        }
    }

    /// Whether it is `folder`, or lies below it.
    fn is_in(&self, folder: &Self) -> bool {
        let mut own = self.bytes();
        folder.bytes().all(|byte| own.next() == Some(byte)) && own.next().is_none_or(|byte| byte == b'/')
    }

    fn bytes(&self) -> impl Iterator<Item = u8> + 'a {
        let Self(first, second) = *self;
        let second = second.into_iter().flat_map(|second| std::iter::once(b'/').chain(second.bytes()));
        first.bytes().chain(second)
    }
}

fn without_suffix(name: &str) -> Option<&str> {
    let at = name.len().checked_sub(ARN_SUFFIX)?;
    let suffix = name.get(at..)?.strip_prefix('-')?;
    suffix.bytes().all(|byte| byte.is_ascii_alphanumeric()).then_some(&name[..at])
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

/// Whether two names may be of one project: an id and a number cannot be compared.
fn is_project(own: &str, named: &str) -> bool {
    let is_number = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    own == named || is_number(own) != is_number(named)
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
        Changed::new(std::slice::from_ref(target)).concerns(&snapshot.references[0])
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
            (at("secret/data/"), true),
            (at("secret"), true),
            (at("secret/data/team/openai/data"), false),
            (at("sec"), false),
            (at("kv/data"), false),
            (at(""), false),
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
