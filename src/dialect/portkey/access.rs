//! How an entity proves itself to its provider, and whether it has all that takes.
//!
//! The gateway never refuses a missing credential: it sends `Bearer undefined`, or signs with an empty key. So what is not
//! complete is refused here. Source: gateway 1.15.2 `src/providers/*/api.ts`.

use crate::model::{Entity, FieldSet, FieldValue};

use super::provider::{self, Key};

/// Whether the plain key (`Authorization`, `api_key`) travels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Access {
    /// It does.
    Key,
    /// Other fields do its work, or none is needed; the gateway must not get one.
    Fields,
}

/// Decides for `entity`.
///
/// # Errors
/// What is missing, for the log.
pub(super) fn of(entity: &Entity) -> Result<Access, &'static str> {
    let has = |name: &str| entity.field(name).is_some();
    let key = |missing: &'static str| if has("api_key") { Ok(Access::Key) } else { Err(missing) };
    let complete = |set: FieldSet| set.required().iter().all(|name| has(name));
    match &*entity.provider {
        // The gateway puts the plain key into x-api-key there, whatever the mode.
        "azure-ai" if plain(entity, "azure_foundry_url").is_some_and(|url| url.contains("anthropic")) => {
            key("an anthropic model on azure-ai needs a key")
        }
        "azure-openai" | "azure-ai" => match plain(entity, "azure_auth_mode") {
            _ if has("azure_ad_token") => Ok(Access::Fields),
            Some("entra") if complete(FieldSet::Entra) => Ok(Access::Fields),
            Some("managed" | "workload") => Ok(Access::Fields),
            Some("entra") => key("azure_auth_mode entra needs tenant, client id and client secret"),
            Some(_) | None => key("azure needs a key, a token or an auth mode"),
        },
        "bedrock" | "sagemaker" => match plain(entity, "aws_auth_type") {
            Some("apiKey") if &*entity.provider == "bedrock" => key("aws_auth_type apiKey needs a key"),
            Some("assumedRole") if has("aws_role_arn") => Ok(Access::Fields),
            Some("assumedRole") => Err("aws_auth_type assumedRole needs aws_role_arn"),
            Some("serviceRole") => Err("aws_auth_type serviceRole is not known to this gateway"),
            Some(_) | None if complete(FieldSet::AwsKeys) => Ok(Access::Fields),
            Some(_) | None => Err("aws needs an access key id and a secret access key"),
        },
        "vertex-ai" if has("vertex_service_account_json") => Ok(Access::Fields),
        "vertex-ai" => key("vertex-ai needs a service account or a token"),
        "oracle" => {
            let needed = ["oracle_tenancy", "oracle_user", "oracle_fingerprint", "oracle_private_key"];
            if needed.into_iter().all(has) {
                Ok(Access::Fields)
            } else {
                Err("oracle needs tenancy, user, fingerprint and key")
            }
        }
        other => match provider::key(other) {
            Key::Optional if !has("api_key") => Ok(Access::Fields),
            Key::Optional | Key::Bearer | Key::Other | Key::Query { .. } => key("the provider needs a key"),
        },
    }
}

/// A stored text that is no credential.
pub(super) fn plain<'e>(entity: &'e Entity, name: &str) -> Option<&'e str> {
    match &entity.field(name)?.value {
        FieldValue::Plain(value) => value.as_str(),
        FieldValue::Stored(_) | FieldValue::Mapped(_) => None,
    }
}
