//! `auth_config` as written → [`AuthConfig`], all faults at once, and the fingerprint of the whole.
//!
//! Vault's client turns tokens, namespaces and mounts into headers and URL paths without checking them, so what does not fit
//! there is refused here.

use std::sync::Arc;

use serde_json::value::RawValue;
use sha2::{Digest, Sha256};
use url::Url;

use super::{AuthConfig, ManagerType, VaultAuth, VaultMethod};
use crate::{
    model::{
        Identity,
        raw::{Members, RawSecret},
    },
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

/// Reads fields of one `auth_config` and collects what is wrong with them.
struct Reader<'a> {
    members: &'a Members<'a>,
    faults: Vec<AuthFault>,
}

/// Checks `members` for `manager`.
pub(in crate::model) fn parse(manager: ManagerType, members: &Members<'_>) -> Result<AuthConfig, Vec<AuthFault>> {
    let mut reader = Reader { members, faults: Vec::new() };
    let auth = match manager {
        ManagerType::HashicorpVault => reader.vault().map(AuthConfig::Vault),
        ManagerType::File => Some(AuthConfig::File),
        ManagerType::AwsSm | ManagerType::AwsSsm | ManagerType::AzureKv | ManagerType::GcpSm => None,
    };
    match auth {
        Some(auth) if reader.faults.is_empty() => Ok(auth),
        _ => Err(reader.faults),
    }
}

/// SHA-256 over the manager type and every member that is set, sorted by key, each part with its length before it.
pub(in crate::model) fn identity(manager: ManagerType, members: &Members<'_>) -> Identity {
    let mut parts: Vec<(&str, &RawValue)> = members.iter().filter(|(_, value)| value.get() != "null").collect();
    parts.sort_by(|a, b| a.0.cmp(b.0));
    let mut hash = Sha256::new();
    let mut feed = |part: &[u8]| {
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part);
    };
    feed(manager.as_str().as_bytes());
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

// === impl Reader ===

impl Reader<'_> {
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

    fn secret(&mut self, key: &'static str, expected: &str, fits: fn(&str) -> bool) -> Option<SecretValue> {
        let raw = self.members.get(key).filter(|raw| !matches!(raw.get(), "null" | "\"\""));
        let Some(raw) = raw else {
            self.fault(key, &format!("is missing; it must be {expected}"));
            return None;
        };
        match RawSecret::read(raw) {
            Some(RawSecret::Sealed) => self.fault(key, RawSecret::SEALED),
            Some(RawSecret::Clear(value)) if value.expose().len() <= MAX_TEXT_BYTES => {
                if value.expose_str().is_some_and(fits) {
                    return Some(value);
                }
                self.fault(key, &format!("must be {expected}"));
            }
            Some(RawSecret::Clear(_)) | None => self.fault(key, &format!("must be {expected}")),
        }
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

fn is_absolute_path(text: &str) -> bool {
    text.starts_with('/') && is_plain(text) && text.split('/').all(|segment| segment != "..")
}

#[cfg(test)]
mod tests;
