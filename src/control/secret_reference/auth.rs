//! `auth_config` of a reference: merged field by field, checked as a data plane will, credentials sealed.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize, Serializer};
use serde_json::{Value, value::RawValue};
use zeroize::Zeroizing;

use crate::{
    control::{
        access::Context,
        fields::{Fields, Given},
        sealing::{self, Stored},
        store::Object,
    },
    model::{ManagerType, inspect_auth},
    seal::Place,
};

/// Key of the body.
const AUTH_CONFIG: &str = "auth_config";
/// What reads put before the name of a sealed field, and what writes ignore.
const MASKED: &str = "masked_";

/// Fields that hold a credential, or what Portkey shows as if it were one. Sealed at rest, masked on reads.
const SEALED: [&str; 8] = [
    "aws_access_key_id",
    "aws_secret_access_key",
    "aws_role_arn",
    "aws_external_id",
    "azure_entra_client_secret",
    "gcp_service_account_json",
    "vault_token",
    "vault_secret_id",
];
/// Fields that say where the credential goes.
const ADDRESSES: [&str; 3] = ["aws_region", "azure_vault_url", "vault_addr"];

/// A checked `auth_config`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct AuthConfig(BTreeMap<String, Stored>);

/// The fields of one way to log in.
struct Method {
    /// The field that says which way, and what it says; `None` = there is only one.
    chosen_by: Option<(&'static str, &'static str)>,
    fields: &'static [&'static str],
}

// === impl AuthConfig ===

impl AuthConfig {
    /// `vault_kv_version`, where it says one.
    pub fn kv_version(&self) -> Option<u8> {
        match self.0.get("vault_kv_version")? {
            Stored::Plain(Value::String(text)) => text.parse().ok(),
            Stored::Plain(value) => value.as_u64().and_then(|version| u8::try_from(version).ok()),
            Stored::Sealed(_) => None,
        }
    }

    /// As reads show it: `masked_<name>` in the place of what is sealed.
    pub fn masked(&self) -> Value {
        let shown = |(key, member): (&String, &Stored)| match member {
            Stored::Sealed(sealed) => (format!("{MASKED}{key}"), Value::from(sealed.mask.as_str())),
            Stored::Plain(value) => (key.clone(), value.clone()),
        };
        Value::Object(self.0.iter().map(shown).collect())
    }

    /// Writes it as a snapshot has it.
    pub(super) fn feed<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        sealing::feed(&self.0, serializer)
    }

    /// Merges what `fields` has under `auth_config`; returns whether an address changed and no credential with it.
    pub(super) fn take(
        &mut self,
        fields: &mut Fields<'_>,
        object: &Object,
        manager: ManagerType,
        context: &Context<'_>,
    ) -> bool {
        let mut given = match fields.object(AUTH_CONFIG) {
            Given::Value(given) => given,
            Given::Null => {
                fields.fault(AUTH_CONFIG, "must not be null");
                return false;
            }
            Given::Absent => return false,
        };
        let before = self.clone();
        let posted = self.merge(&mut given, object, manager, context);
        self.keep_method(manager);
        match inspect_auth(manager, &self.clear(&posted)) {
            Ok(None) => {}
            Ok(Some(url)) => {
                if let Err(reason) = (context.control.admit_address)(&url) {
                    let key = if manager == ManagerType::AzureKv { "azure_vault_url" } else { "vault_addr" };
                    given.fault(key, reason);
                }
            }
            Err(faults) => {
                for (key, message) in faults {
                    given.fault(key, message);
                }
            }
        }
        fields.absorb(given);
        let changed = |key: &&str| before.0.get(*key).is_some_and(|old| self.0.get(*key) != Some(old));
        ADDRESSES.iter().any(changed) && !posted.keys().any(|key| SEALED.contains(&key.as_str()))
    }

    /// What was posted and is not null, as it was posted.
    fn merge<'a>(
        &mut self,
        given: &mut Fields<'a>,
        object: &Object,
        manager: ManagerType,
        context: &Context<'_>,
    ) -> BTreeMap<String, &'a RawValue> {
        let members: Vec<(String, &RawValue)> = given
            .members()
            .map(|(key, raw)| (key.to_owned(), raw))
            .filter(|(key, _)| !key.starts_with(MASKED))
            .collect();
        let mut posted = BTreeMap::new();
        for (key, raw) in members {
            let known = methods(manager).iter().any(|method| method.has(&key));
            if !known {
                // A name that is not known could be of a credential, and would stay in clear.
                given.fault(&shortened(&key), format_args!("is no field of {}", manager.as_str()));
                continue;
            }
            if matches!(raw.get(), "null" | "\"\"") {
                self.0.remove(&key);
                continue;
            }
            let member = if SEALED.contains(&key.as_str()) {
                let field = format!("{AUTH_CONFIG}.{key}");
                let place = Place { organisation: context.caller.organisation(), object_id: &object.id, field: &field };
                context.control.sealer.seal(place, raw).map(Stored::Sealed)
            } else {
                serde_json::from_str(raw.get()).map(Stored::Plain).map_err(|_| "must be text".to_owned())
            };
            match member {
                Ok(member) => {
                    self.0.insert(key.clone(), member);
                    posted.insert(key, raw);
                }
                Err(message) => given.fault(&key, message),
            }
        }
        posted
    }

    /// Drops what the chosen way to log in does not have: a token of before is no use to a role of now.
    fn keep_method(&mut self, manager: ManagerType) {
        let chosen = methods(manager).iter().find(|method| match method.chosen_by {
            None => true,
            Some((key, value)) => self.0.get(key) == Some(&Stored::Plain(Value::from(value))),
        });
        if let Some(method) = chosen {
            self.0.retain(|key, _| method.has(key));
        }
    }

    /// The whole as JSON, with what was `posted` in the place of its seal. Sized once, wiped on drop.
    fn clear(&self, posted: &BTreeMap<String, &RawValue>) -> Zeroizing<String> {
        let kept: BTreeMap<&str, String> = self
            .0
            .iter()
            .filter(|(key, _)| !posted.contains_key(*key))
            .map(|(key, member)| (key.as_str(), serde_json::to_string(member).unwrap_or_default()))
            .collect();
        let posted = posted.iter().filter(|(key, _)| self.0.contains_key(*key));
        let members: Vec<(&str, &str)> = kept
            .iter()
            .map(|(key, json)| (*key, json.as_str()))
            .chain(posted.map(|(key, raw)| (key.as_str(), raw.get())))
            .collect();
        let length: usize = members.iter().map(|(key, json)| key.len() + json.len() + "\"\":,".len()).sum();
        let mut json = Zeroizing::new(String::with_capacity(length + "{}".len()));
        json.push('{');
        for (index, (key, value)) in members.iter().enumerate() {
            if index > 0 {
                json.push(',');
            }
            json.push('"');
            json.push_str(key);
            json.push_str("\":");
            json.push_str(value);
        }
        json.push('}');
        json
    }
}

// === impl Method ===

impl Method {
    const fn new(key: &'static str, value: &'static str, fields: &'static [&'static str]) -> Self {
        Self { chosen_by: Some((key, value)), fields }
    }

    fn has(&self, key: &str) -> bool {
        self.fields.contains(&key) || self.chosen_by.is_some_and(|(chosen_by, _)| chosen_by == key)
    }
}

/// Every way to log in that a manager has.
fn methods(manager: ManagerType) -> &'static [Method] {
    static AWS: [Method; 3] = [
        Method::new("aws_auth_type", "accessKey", &["aws_access_key_id", "aws_secret_access_key", "aws_region"]),
        Method::new("aws_auth_type", "assumedRole", &["aws_role_arn", "aws_external_id", "aws_region"]),
        Method::new("aws_auth_type", "serviceRole", &["aws_region"]),
    ];
    static AZURE: [Method; 3] = [
        Method::new(
            "azure_auth_mode",
            "entra",
            &["azure_entra_tenant_id", "azure_entra_client_id", "azure_entra_client_secret", "azure_vault_url"],
        ),
        Method::new("azure_auth_mode", "managed", &["azure_managed_client_id", "azure_vault_url"]),
        Method::new("azure_auth_mode", "default", &["azure_vault_url"]),
    ];
    static VAULT: [Method; 3] = [
        Method::new("vault_auth_type", "token", &["vault_addr", "vault_token", "vault_namespace", "vault_kv_version"]),
        Method::new(
            "vault_auth_type",
            "approle",
            &[
                "vault_addr",
                "vault_role_id",
                "vault_secret_id",
                "vault_auth_mount",
                "vault_namespace",
                "vault_kv_version",
            ],
        ),
        Method::new(
            "vault_auth_type",
            "kubernetes",
            &["vault_addr", "vault_role", "vault_auth_mount", "vault_jwt_file", "vault_namespace", "vault_kv_version"],
        ),
    ];
    static GCP: [Method; 2] = [
        Method::new(
            "gcp_auth_type",
            "serviceAccountKey",
            &["gcp_service_account_json", "gcp_project_id", "gcp_location"],
        ),
        Method::new("gcp_auth_type", "workloadIdentity", &["gcp_project_id", "gcp_location"]),
    ];
    static FILE: [Method; 1] = [Method { chosen_by: None, fields: &[] }];
    match manager {
        ManagerType::AwsSm | ManagerType::AwsSsm => &AWS,
        ManagerType::AzureKv => &AZURE,
        ManagerType::HashicorpVault => &VAULT,
        ManagerType::GcpSm => &GCP,
        ManagerType::File => &FILE,
    }
}

/// A name of the client's as a message may show it.
fn shortened(key: &str) -> String {
    key.chars().filter(char::is_ascii_graphic).take(64).collect()
}
