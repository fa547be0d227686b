//! The field table: every provider field of an entity under its three spellings.
//!
//! Facts measured on gateway 1.15.2. Integrations write `configurations.<field>` (snake_case), virtual keys
//! `model_config.<field>` (camelCase); the gateway reads a header and a config field whose names differ again for some.
//! Fields are compared by [`FieldSpec::name`], the gateway's config name.

/// One row: a field of one provider, or of any.
#[derive(Debug, PartialEq, Eq)]
pub struct FieldSpec {
    /// The gateway's config field, snake_case (`api_key`, `resource_name`, …): the identity of the field.
    pub name: &'static str,
    /// Providers that have it; empty = any.
    pub providers: &'static [&'static str],
    /// Spelling under `configurations.`; `None` = integrations do not have it.
    pub configurations: Option<&'static str>,
    /// Spelling under `model_config.`; `None` = virtual keys do not have it.
    pub model_config: Option<&'static str>,
    /// The request header the gateway reads; `None` = only a config can carry it.
    pub header: Option<&'static str>,
    /// Whether its value is a credential: never printed, redacted from replies.
    pub sensitive: bool,
    /// Whether it decides where the credential goes or how it is used, so that no request may choose it.
    pub destination: bool,
    /// Whether its value may span lines (PEM, service-account JSON) and so travels in a config only.
    pub multiline: bool,
    /// The set it moves with on inheritance.
    pub set: Option<FieldSet>,
}

/// Fields that are replaced together: half a credential of one entity never meets the other half of another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FieldSet {
    /// AWS access key id, secret access key and session token.
    AwsKeys,
    /// Entra tenant, client id and client secret.
    Entra,
}

/// Every row.
pub static FIELDS: &[FieldSpec] = &[];
