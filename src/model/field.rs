//! The field table: every provider field an entity may store, under its spellings.
//!
//! Facts measured on gateway 1.15.2. Integrations write `configurations.<field>` (snake_case), virtual keys
//! `model_config.<field>` (camelCase); the header and the config field the gateway reads are named differently again for
//! some. Fields are compared by [`FieldSpec::name`], the gateway's config name. What a client sends with each request
//! (trace id, beta headers, file names …) is no entity field and belongs to the dialect.

mod table;

pub use table::FIELDS;

/// One row: a field of one provider, or of any.
#[derive(Debug, PartialEq, Eq)]
pub struct FieldSpec {
    /// The gateway's config field, snake_case (`api_key`, `resource_name`, …): the identity of the field.
    pub name: &'static str,
    /// Providers that have it; empty = any.
    pub providers: &'static [&'static str],
    /// Spelling under `configurations.`; `None` = integrations do not have it there.
    pub configurations: Option<&'static str>,
    /// Spelling under `model_config.`; `None` = virtual keys do not have it there.
    pub model_config: Option<&'static str>,
    /// The request header the gateway reads, lower case; `None` = only a config can carry it.
    pub header: Option<&'static str>,
    /// Whether its value is a credential: never printed, redacted from replies.
    pub sensitive: bool,
    /// What the field decides, and so who may set it.
    pub role: FieldRole,
    /// Whether it decides where the credential goes or how it is used, so that no request may choose it:
    /// [`FieldRole::Destination`] or [`FieldRole::Authentication`].
    pub destination: bool,
    /// Whether its value may span lines (PEM, service-account JSON) and so travels in a config only.
    pub multiline: bool,
    /// Whether the gateway's config wants a JSON object here instead of text.
    pub structured: bool,
    /// The set it moves with on inheritance.
    pub set: Option<FieldSet>,
}

/// What a field decides.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FieldRole {
    /// A credential, a part of one, or an option of the provider.
    Option,
    /// Where the request goes: host, resource, region, account, bucket. Never the target of a mapping.
    Destination,
    /// How the credential is used: auth type, role, token scope.
    Authentication,
    /// A part of an Azure deployment, chosen for each request from [`super::Entity::deployments`]. Never the target of a
    /// mapping.
    Deployment,
}

/// Fields that are replaced together: half a credential of one entity never meets the other half of another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FieldSet {
    /// AWS access key id, secret access key and session token.
    AwsKeys,
    /// Entra tenant, client id and client secret.
    Entra,
}

// === impl FieldSpec ===

impl FieldSpec {
    /// The plain provider key: `key` of an entity, `Authorization` of a request.
    pub fn key() -> &'static Self {
        &table::KEY
    }

    /// The field of `provider` with this gateway name.
    pub fn named(provider: &str, name: &str) -> Option<&'static Self> {
        FIELDS.iter().find(|spec| spec.name == name && spec.has_provider(provider))
    }

    /// The field of `provider` that is stored as `spelling`: under `configurations.` or `model_config.`, without the prefix.
    /// Either object may use the other's casing, or the gateway's name. The plain key is no such field.
    pub fn stored(provider: &str, spelling: &str) -> Option<&'static Self> {
        FIELDS.iter().find(|spec| spec.is_stored_as(spelling) && spec.has_provider(provider))
    }

    /// As [`FieldSpec::stored`], of whichever provider has it.
    pub(super) fn stored_by_any(spelling: &str) -> Option<&'static Self> {
        FIELDS.iter().find(|spec| spec.is_stored_as(spelling))
    }

    /// Whether the field holds the base URL that the gateway calls, and not a part of one.
    pub fn is_base_url(&self) -> bool {
        ["custom_host", "azure_foundry_url", "huggingface_base_url"].contains(&self.name)
    }

    /// Whether a secret mapping may fill the field.
    pub const fn is_target(&self) -> bool {
        match self.role {
            FieldRole::Option | FieldRole::Authentication => true,
            FieldRole::Destination | FieldRole::Deployment => false,
        }
    }

    /// Whether `provider` has the field.
    pub fn has_provider(&self, provider: &str) -> bool {
        self.providers.is_empty() || self.providers.contains(&provider)
    }

    fn is_stored_as(&self, spelling: &str) -> bool {
        self.configurations == Some(spelling)
            || self.model_config == Some(spelling)
            || (self.configurations.is_some() && self.name == spelling)
    }
}

// === impl FieldSet ===

impl FieldSet {
    /// The gateway names without which the set is no credential.
    pub const fn required(self) -> &'static [&'static str] {
        match self {
            Self::AwsKeys => &["aws_access_key_id", "aws_secret_access_key"],
            Self::Entra => &["azure_entra_tenant_id", "azure_entra_client_id", "azure_entra_client_secret"],
        }
    }
}

#[cfg(test)]
mod tests;
