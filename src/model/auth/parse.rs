//! `auth_config` as written → [`AuthConfig`], all faults at once, and the fingerprint of the whole.
//!
//! Vault's client turns tokens, namespaces and mounts into headers and URL paths without checking them, so what does not fit
//! there is refused here.

use std::{fmt, sync::Arc};

use serde_json::value::RawValue;
use sha2::{Digest, Sha256};
use url::Url;
use zeroize::Zeroizing;

use super::{
    Auth, AuthConfig, AuthError, AwsAuth, AwsMethod, AzureAuth, AzureMethod, GcpAuth, GcpMethod, ManagerType,
    VaultAuth, VaultMethod,
};
use crate::{
    model::{
        Identity,
        raw::{Members, RawSecret},
        seals::Seals,
    },
    seal::opener::Sealed,
    secret::{SecretValue, json::Literal},
};

/// Longest address, in bytes.
const MAX_ADDRESS_BYTES: usize = 2048;
/// Longest text of any other field, in bytes. Vault's own tokens stay below 1 KiB, batch tokens below 8.
const MAX_TEXT_BYTES: usize = 8192;

/// One fault of an `auth_config`: the key (empty = the object) and what to mend. Quotes no value.
pub(in crate::model) struct AuthFault {
    pub(in crate::model) key: &'static str,
    pub(in crate::model) message: String,
}

/// An `auth_config` of which parts are sealed, to be read again when it is needed.
pub(super) struct SealedAuth {
    manager: ManagerType,
    /// As it is written. What is not sealed of it may be a credential, too.
    members: Vec<(Box<str>, Zeroizing<String>)>,
    seals: Vec<(&'static str, Arc<Sealed>)>,
}

/// Reads fields of one `auth_config` and collects what is wrong with them.
struct Reader<'a> {
    members: &'a Members<'a>,
    means: Means<'a>,
    /// What is sealed.
    seals: Vec<(&'static str, Arc<Sealed>)>,
    faults: Vec<AuthFault>,
}

/// What a sealed value counts as.
#[derive(Clone, Copy)]
enum Means<'a> {
    /// A value that is as it should be, somewhere else.
    Given,
    /// One to be opened later.
    Later(&'a Seals<'a>),
    /// What stands in it.
    Open(&'a [(&'static str, Arc<Sealed>)]),
}

/// Checks `members` for `manager`. What is sealed is checked when it is opened.
pub(in crate::model) fn parse(
    manager: ManagerType,
    members: &Members<'_>,
    seals: &Seals<'_>,
) -> Result<Auth, Vec<AuthFault>> {
    let (shape, seals) = read(manager, members, Means::Later(seals))?;
    if seals.is_empty() {
        return Ok(Auth::from(shape));
    }
    let members = members.iter().map(|(key, raw)| (key.into(), Zeroizing::new(raw.get().to_owned()))).collect();
    Ok(Auth { shape, sealed: Some(Box::new(SealedAuth { manager, members, seals })) })
}

/// Checks the object `auth_config` for `manager` as [`parse`] does, where sealed values count as given. The address it
/// names, if its manager has one.
///
/// # Errors
/// Every fault: the key (empty = the object) and what to mend. Quotes no value.
pub fn inspect_auth(manager: ManagerType, auth_config: &str) -> Result<Option<Url>, Vec<(&'static str, String)>> {
    let members: Members<'_> =
        serde_json::from_str(auth_config).map_err(|_| vec![("", "must be an object".to_owned())])?;
    match read(manager, &members, Means::Given).map(|(auth, _)| auth) {
        Ok(AuthConfig::Vault(vault)) => Ok(Some(vault.addr)),
        Ok(AuthConfig::Azure(azure)) => Ok(Some(azure.vault_url)),
        Ok(AuthConfig::Aws(_) | AuthConfig::Gcp(_) | AuthConfig::File) => Ok(None),
        Err(faults) => Err(faults.into_iter().map(|fault| (fault.key, fault.message)).collect()),
    }
}

type SealedFields = Vec<(&'static str, Arc<Sealed>)>;

fn read(
    manager: ManagerType,
    members: &Members<'_>,
    means: Means<'_>,
) -> Result<(AuthConfig, SealedFields), Vec<AuthFault>> {
    let mut reader = Reader { members, means, seals: Vec::new(), faults: Vec::new() };
    let auth = match manager {
        ManagerType::HashicorpVault => reader.vault().map(AuthConfig::Vault),
        ManagerType::File => Some(AuthConfig::File),
        ManagerType::AwsSm | ManagerType::AwsSsm => reader.aws().map(AuthConfig::Aws),
        ManagerType::AzureKv => reader.azure().map(AuthConfig::Azure),
        ManagerType::GcpSm => reader.gcp().map(AuthConfig::Gcp),
    };
    match auth {
        Some(auth) if reader.faults.is_empty() => Ok((auth, reader.seals)),
        _ => Err(reader.faults),
    }
}

/// SHA-256 over the manager type and every member that is set, sorted by key, each part with its length before it. Of an
/// object with sealed members also over where it stands: a copy of them elsewhere must not share the login of the original,
/// because it could not have made one.
pub(in crate::model) fn identity(
    manager: ManagerType,
    members: &Members<'_>,
    sealed_at: Option<&Seals<'_>>,
) -> Identity {
    let mut parts: Vec<(&str, &RawValue)> = members.iter().filter(|(_, value)| value.get() != "null").collect();
    parts.sort_by(|a, b| a.0.cmp(b.0));
    let mut hash = Sha256::new();
    let mut feed = |part: &[u8]| {
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part);
    };
    feed(manager.as_str().as_bytes());
    if let Some(seals) = sealed_at {
        feed(b"sealed");
        feed(seals.organisation.as_bytes());
        feed(seals.object_id.as_bytes());
    }
    for (key, value) in parts {
        feed(key.as_bytes());
        match Literal::from(value).decode() {
            Some(text) => {
                feed(b"text");
                feed(&text);
            }
            None => {
                feed(b"json");
                feed(value.get().as_bytes());
            }
        }
    }
    Identity(hash.finalize().into())
}

// === impl SealedAuth ===

impl SealedAuth {
    /// Opens what is sealed and checks it.
    pub(super) fn open(&self) -> Result<AuthConfig, AuthError> {
        let members = self.members.iter().map(|(key, text)| (&**key, &***text));
        let members = Members::of(members).ok_or(AuthError { key: "", message: "cannot be read".to_owned() })?;
        read(self.manager, &members, Means::Open(&self.seals)).map(|(auth, _)| auth).map_err(|faults| {
            let first = faults.into_iter().next();
            first.map_or(AuthError { key: "", message: "cannot be read".to_owned() }, |AuthFault { key, message }| {
                AuthError { key, message }
            })
        })
    }
}

impl fmt::Debug for SealedAuth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SealedAuth").field("seals", &self.seals).finish_non_exhaustive()
    }
}

// === impl Reader ===

impl Reader<'_> {
    fn aws(&mut self) -> Option<AwsAuth> {
        const REGION: &str = "a region like us-east-1";
        let method = match self.required("aws_auth_type", "accessKey, assumedRole or serviceRole", |_| true).as_deref()
        {
            Some("accessKey") => {
                let id = self.secret("aws_access_key_id", "an access key id of letters and digits", is_access_key_id);
                let key =
                    self.secret("aws_secret_access_key", "visible ASCII without spaces and line breaks", is_visible);
                id.zip(key)
                    .map(|(access_key_id, secret_access_key)| AwsMethod::AccessKey { access_key_id, secret_access_key })
            }
            Some("assumedRole") => {
                let role = self.secret("aws_role_arn", "an ARN like arn:aws:iam::123456789012:role/name", is_role_arn);
                let external_id = self.optional_secret(
                    "aws_external_id",
                    "2 to 1224 letters, digits and `+=,.@:/-_`",
                    is_external_id,
                );
                let role_arn = role.and_then(|role| role.expose_str().map(Arc::from));
                role_arn.map(|role_arn| AwsMethod::AssumedRole { role_arn, external_id })
            }
            Some("serviceRole") => Some(AwsMethod::ServiceRole),
            Some(_) => {
                self.fault("aws_auth_type", "is unknown; write accessKey, assumedRole or serviceRole");
                None
            }
            None => None,
        };
        let region = match method {
            Some(AwsMethod::AccessKey { .. } | AwsMethod::AssumedRole { .. }) => {
                self.required("aws_region", REGION, is_region)
            }
            Some(AwsMethod::ServiceRole) | None => self.optional("aws_region", REGION, is_region),
        };
        Some(AwsAuth { region, method: method? })
    }

    fn azure(&mut self) -> Option<AzureAuth> {
        const CLIENT: &str = "a client id of letters, digits and `-`";
        let vault_url = self.address("azure_vault_url").filter(|url| {
            let bare = url.path() == "/";
            if !bare {
                self.fault("azure_vault_url", "holds a path; write https://name.vault.azure.net");
            }
            bare
        });
        let method =
            match self.required("azure_auth_mode", "entra, managed or default", |_| true).as_deref() {
                Some("entra") => {
                    let tenant_id = self.required("azure_entra_tenant_id", "a tenant's GUID or domain", is_tenant);
                    let client_id = self.required("azure_entra_client_id", CLIENT, is_client_id);
                    let secret = self.secret("azure_entra_client_secret", "text without control characters", is_plain);
                    tenant_id.zip(client_id).zip(secret).map(|((tenant_id, client_id), client_secret)| {
                        AzureMethod::Entra { tenant_id, client_id, client_secret }
                    })
                }
                Some("managed") => Some(AzureMethod::Managed {
                    client_id: self.optional("azure_managed_client_id", CLIENT, is_client_id),
                }),
                Some("default") => Some(AzureMethod::Default),
                Some(_) => {
                    self.fault("azure_auth_mode", "is unknown; write entra, managed or default");
                    None
                }
                None => None,
            };
        Some(AzureAuth { vault_url: vault_url?, method: method? })
    }

    fn gcp(&mut self) -> Option<GcpAuth> {
        let project = self.optional("gcp_project_id", "a project id or number", is_project);
        let location = self.optional("gcp_location", "a location like europe-west3", is_region);
        let method = match self.required("gcp_auth_type", "serviceAccountKey or workloadIdentity", |_| true).as_deref()
        {
            // Which members it has to have is the manager's business.
            Some("serviceAccountKey") => self
                .secret("gcp_service_account_json", "the service-account key file as a JSON text", is_object)
                .map(|key| GcpMethod::ServiceAccountKey { key }),
            Some("workloadIdentity") => Some(GcpMethod::WorkloadIdentity),
            Some(_) => {
                self.fault("gcp_auth_type", "is unknown; write serviceAccountKey or workloadIdentity");
                None
            }
            None => None,
        };
        Some(GcpAuth { project, location, method: method? })
    }

    fn vault(&mut self) -> Option<VaultAuth> {
        let addr = self.address("vault_addr");
        let namespace = self.optional("vault_namespace", "visible ASCII without spaces", is_visible);
        let kv_version = self.kv_version();
        let mount = self.mount("vault_auth_mount");
        let method = match self.required("vault_auth_type", "token, approle or kubernetes", |_| true).as_deref() {
            Some("token") => self
                .secret("vault_token", "visible ASCII without spaces and line breaks", is_visible)
                .map(|token| VaultMethod::Token { token }),
            Some("approle") => {
                let role_id = self.required("vault_role_id", "text without control characters", is_plain);
                let secret_id = self.secret("vault_secret_id", "text without control characters", is_plain);
                role_id.zip(secret_id).map(|(role_id, secret_id)| VaultMethod::AppRole { role_id, secret_id, mount })
            }
            Some("kubernetes") => {
                let jwt_file = self.optional("vault_jwt_file", "an absolute path without `..`", is_absolute_path);
                self.required("vault_role", "text without control characters", is_plain)
                    .map(|role| VaultMethod::Kubernetes { role, mount, jwt_file })
            }
            Some(_) => {
                self.fault("vault_auth_type", "is unknown; write token, approle or kubernetes");
                None
            }
            None => None,
        };
        Some(VaultAuth { addr: addr?, namespace, method: method?, kv_version })
    }

    fn address(&mut self, key: &'static str) -> Option<Url> {
        let text = self.required(key, "a URL", |text| text.len() <= MAX_ADDRESS_BYTES && is_visible(text))?;
        let Ok(url) = Url::parse(&text) else {
            self.fault(key, "is no URL; write https://host:port");
            return None;
        };
        let complaint = match &url {
            url if !matches!(url.scheme(), "https" | "http") => "needs the scheme https",
            url if url.host_str().is_none_or(str::is_empty) => "names no host",
            url if !url.username().is_empty() || url.password().is_some() => "holds user info; remove it",
            url if url.query().is_some() || url.fragment().is_some() => "holds a query or fragment; remove it",
            _ => return Some(url),
        };
        self.fault(key, complaint);
        None
    }

    fn kv_version(&mut self) -> Option<u8> {
        let raw = self.members.get("vault_kv_version")?;
        match raw.get().trim_matches('"') {
            "1" => Some(1),
            "2" => Some(2),
            "null" => None,
            _ => {
                self.fault("vault_kv_version", "must be 1 or 2, or left out to be found out");
                None
            }
        }
    }

    fn mount(&mut self, key: &'static str) -> Option<Arc<str>> {
        let text = self.optional(key, "a mount path of letters, digits and `._-/`", |_| true)?;
        let mount = text.trim_matches('/');
        let mount = mount.strip_prefix("auth/").unwrap_or(mount);
        let fits = !mount.is_empty()
            && mount.split('/').all(|segment| !matches!(segment, "" | "." | ".."))
            && mount.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-' | b'/'));
        if !fits {
            self.fault(key, "must be a mount path of letters, digits and `._-/`");
            return None;
        }
        Some(mount.into())
    }

    fn required(&mut self, key: &'static str, expected: &str, fits: fn(&str) -> bool) -> Option<Arc<str>> {
        let before = self.faults.len();
        let value = self.optional(key, expected, fits);
        if value.is_none() && self.faults.len() == before {
            self.fault(key, &format!("is missing; it must be {expected}"));
        }
        value
    }

    /// A text that is no credential; null and empty count as absent.
    fn optional(&mut self, key: &'static str, expected: &str, fits: fn(&str) -> bool) -> Option<Arc<str>> {
        let raw = self.members.get(key).filter(|raw| !matches!(raw.get(), "null" | "\"\""))?;
        match serde_json::from_str::<String>(raw.get()) {
            Ok(text) if text.len() <= MAX_TEXT_BYTES && fits(&text) => Some(text.into()),
            _ => {
                self.fault(key, &format!("must be {expected}"));
                None
            }
        }
    }

    /// A credential; null and empty count as absent.
    fn optional_secret(&mut self, key: &'static str, expected: &str, fits: fn(&str) -> bool) -> Option<SecretValue> {
        self.members.get(key).filter(|raw| !matches!(raw.get(), "null" | "\"\""))?;
        self.secret(key, expected, fits)
    }

    fn secret(&mut self, key: &'static str, expected: &str, fits: fn(&str) -> bool) -> Option<SecretValue> {
        let raw = self.members.get(key).filter(|raw| !matches!(raw.get(), "null" | "\"\""));
        let Some(raw) = raw else {
            self.fault(key, &format!("is missing; it must be {expected}"));
            return None;
        };
        let value = match RawSecret::read(raw) {
            Some(RawSecret::Sealed(sealed)) => match self.means {
                Means::Given => return Some(SecretValue::new(Vec::new())),
                Means::Later(seals) => match seals.find(&format!("auth_config.{key}"), sealed) {
                    Ok(sealed) => {
                        self.seals.push((key, sealed));
                        return Some(SecretValue::new(Vec::new()));
                    }
                    Err(message) => {
                        self.fault(key, message);
                        return None;
                    }
                },
                Means::Open(seals) => match seals.iter().find(|(field, _)| *field == key).map(|(_, it)| it.open()) {
                    Some(Ok(value)) => value,
                    Some(Err(error)) => {
                        self.fault(key, &error.to_string());
                        return None;
                    }
                    None => {
                        self.fault(key, "cannot be read");
                        return None;
                    }
                },
            },
            Some(RawSecret::Clear(value)) => value,
            None => {
                self.fault(key, &format!("must be {expected}"));
                return None;
            }
        };
        if value.expose().len() <= MAX_TEXT_BYTES && value.expose_str().is_some_and(fits) {
            return Some(value);
        }
        self.fault(key, &format!("must be {expected}"));
        None
    }

    fn fault(&mut self, key: &'static str, message: &str) {
        self.faults.push(AuthFault { key, message: message.to_owned() });
    }
}

/// Fits into a header value, and no space that a server would trim.
fn is_visible(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_graphic())
}

fn is_plain(text: &str) -> bool {
    !text.chars().any(char::is_control)
}

/// As long as [`MAX_TEXT_BYTES`] lets it be; starts like a JSON object.
fn is_object(text: &str) -> bool {
    text.trim_start().starts_with('{')
}

/// Becomes a label of a host name.
fn is_region(text: &str) -> bool {
    (1..=32).contains(&text.len())
        && text.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
}

/// IAM API, type `accessKeyIdType`: 16 to 128 word characters.
fn is_access_key_id(text: &str) -> bool {
    (16..=128).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

/// `arn:<partition>:iam::<account>:role/<path and name>`.
fn is_role_arn(text: &str) -> bool {
    let parts: Vec<&str> = text.splitn(6, ':').collect();
    let &["arn", partition, "iam", "", account, role] = parts.as_slice() else { return false };
    let named = role.strip_prefix("role/").is_some_and(|name| !name.is_empty() && is_visible(name));
    is_region(partition) && account.len() == 12 && account.bytes().all(|byte| byte.is_ascii_digit()) && named
}

/// STS API, `ExternalId`.
fn is_external_id(text: &str) -> bool {
    (2..=1224).contains(&text.len())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+=,.@:/-_".contains(&byte))
}

/// A GUID or a verified domain: one segment of a URL path.
fn is_tenant(text: &str) -> bool {
    (1..=253).contains(&text.len())
        && text.split('.').all(|label| !label.is_empty())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-'))
}

fn is_client_id(text: &str) -> bool {
    (1..=64).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
}

/// A project id (also of a domain, `example.com:id`) or number: one segment of a URL path.
fn is_project(text: &str) -> bool {
    (1..=253).contains(&text.len())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b':'))
}

fn is_absolute_path(text: &str) -> bool {
    text.starts_with('/') && is_plain(text) && text.split('/').all(|segment| segment != "..")
}

#[cfg(test)]
mod tests;
