//! Everything by which a request could choose where the gateway sends it, or how a credential is used.
//!
//! One row per field of a config and its header. Binding compares them with the entity, containment with the operator's
//! hosts. Source: gateway 1.15.2 `src/handlers/handlerUtils.ts`, `src/providers/*/api.ts`; measured in the lab.

use self::Kind::{Label, Method, Region, Segment, Url};
use super::config_tree::key;

/// One input that steers.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Steering {
    /// The gateway's config field, snake_case.
    pub(super) field: &'static str,
    /// The request header.
    pub(super) header: Option<&'static str>,
    /// What its value becomes.
    pub(super) kind: Kind,
}

/// What the value of a steering input becomes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// A base URL.
    Url,
    /// The first part of a host that ends like this.
    Label(&'static str),
    /// A part of a host of the provider's own; a plain one leads nowhere else.
    Region,
    /// A path segment on the provider's own host.
    Segment,
    /// How the credential is used: auth type, role, token scope. Leads nowhere, but is not a request's to choose.
    Method,
}

/// Every row.
#[rustfmt::skip]
pub(super) static STEERING: [Steering; 23] = [
    row("custom_host", "x-portkey-custom-host", Url),
    row("azure_foundry_url", "x-portkey-azure-foundry-url", Url),
    row("huggingface_base_url", "x-portkey-huggingface-base-url", Url),
    row("resource_name", "x-portkey-azure-resource-name", Label(".openai.azure.com")),
    row("azure_resource_name", "", Label(".openai.azure.com")),
    row("azure_endpoint_name", "x-portkey-azure-endpoint-name", Label(".inference.ml.azure.com")),
    row("snowflake_account", "x-portkey-snowflake-account", Label(".snowflakecomputing.com")),
    row("databricks_workspace", "x-portkey-databricks-workspace", Label(".azuredatabricks.net")),
    row("aws_s3_bucket", "x-portkey-aws-s3-bucket", Label(".amazonaws.com")),
    row("aws_region", "x-portkey-aws-region", Region),
    row("vertex_region", "x-portkey-vertex-region", Region),
    row("oracle_region", "x-portkey-oracle-region", Region),
    row("azure_region", "", Region),
    row("azure_deployment_type", "", Region),
    row("vertex_storage_bucket_name", "x-portkey-vertex-storage-bucket-name", Segment),
    row("workers_ai_account_id", "x-portkey-workers-ai-account-id", Segment),
    row("fireworks_account_id", "x-portkey-fireworks-account-id", Segment),
    row("aws_auth_type", "x-portkey-aws-auth-type", Method),
    row("aws_role_arn", "x-portkey-aws-role-arn", Method),
    row("aws_external_id", "x-portkey-aws-external-id", Method),
    row("azure_auth_mode", "x-portkey-azure-auth-mode", Method),
    row("azure_entra_scope", "x-portkey-azure-entra-scope", Method),
    row("vertex_auth_type", "x-portkey-vertex-auth-type", Method),
];

const fn row(field: &'static str, header: &'static str, kind: Kind) -> Steering {
    Steering { field, header: if header.is_empty() { None } else { Some(header) }, kind }
}

// === impl Steering ===

impl Steering {
    /// The field of an entity to compare with. Integrations spell the resource name `azure_resource_name`, and clients take
    /// that for a config field too; the gateway ignores it.
    pub(super) fn stored_as(&self) -> &'static str {
        if self.field == "azure_resource_name" { "resource_name" } else { self.field }
    }
}

/// The row of a request header, lower case.
pub(super) fn of_header(name: &str) -> Option<&'static Steering> {
    STEERING.iter().find(|steering| steering.header == Some(name))
}

/// The row of a config key in the gateway's camel form.
pub(super) fn of_key(camel: &str) -> Option<&'static Steering> {
    STEERING.iter().find(|steering| key::is_field(camel, steering.field))
}

/// Whether `value` is a region that stays below the provider's own hosts.
pub(super) fn is_plain_region(value: &str) -> bool {
    (1..=32).contains(&value.len())
        && value.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
}

/// Whether `value` is one path segment, or the labels of a host, and nothing else.
pub(super) fn is_plain_segment(value: &str) -> bool {
    (1..=128).contains(&value.len())
        && value.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.'))
        && !value.starts_with('.')
        && !value.ends_with('.')
        && !value.contains("..")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::FIELDS;

    #[test]
    fn every_destination_of_the_field_table_has_a_row() {
        for spec in FIELDS.iter().filter(|spec| spec.destination) {
            let steering = STEERING.iter().find(|steering| steering.field == spec.name);
            assert_eq!(steering.and_then(|steering| steering.header), spec.header, "{}", spec.name);
        }
    }

    #[test]
    fn every_spelling_finds_its_row() {
        for steering in &STEERING {
            assert_eq!(of_key(&key::camel(steering.field)), Some(steering));
            assert_eq!(steering.header.and_then(of_header), steering.header.map(|_| steering));
        }
        assert_eq!(of_key("weight"), None);
    }

    #[test]
    fn plain_values() {
        for (value, region, segment) in [
            ("us-east-1", true, true),
            ("global", true, true),
            ("", false, false),
            ("127.0.0.1/#", false, false),
            ("evil.example", false, true),
            ("US-EAST-1", false, true),
            ("..", false, false),
            ("a..b", false, false),
            ("a/b", false, false),
            ("aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", false, true),
        ] {
            assert_eq!((is_plain_region(value), is_plain_segment(value)), (region, segment), "{value}");
        }
    }
}
