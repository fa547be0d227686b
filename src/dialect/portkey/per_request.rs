//! Provider options that a request carries in headers of its own.
//!
//! Config mode makes the gateway ignore them, so they are copied into the leaves of the providers that read them. Source:
//! gateway 1.15.2 `src/handlers/handlerUtils.ts` `constructConfigFromRequestHeaders`.

use http::HeaderMap;

/// A provider option that a request may carry.
#[derive(Debug)]
pub(super) struct Carried {
    /// Headers the gateway reads it from; the first that is not empty.
    pub(super) headers: &'static [&'static str],
    /// The config field.
    pub(super) field: &'static str,
    /// Providers that read it.
    pub(super) providers: &'static [&'static str],
}

const CLAUDE: &[&str] = &["anthropic", "bedrock", "vertex-ai", "azure-ai"];
const AWS: &[&str] = &["bedrock"];
const VERTEX: &[&str] = &["vertex-ai"];
const STABILITY: &[&str] = &["stability-ai"];

/// Every row.
#[rustfmt::skip]
pub(super) static CARRIED: [Carried; 16] = [
    row(&["x-portkey-anthropic-beta", "anthropic-beta"], "anthropic_beta", &["anthropic", "bedrock", "vertex-ai"]),
    row(&["x-portkey-anthropic-version", "anthropic-version"], "anthropic_version", CLAUDE),
    row(&["x-portkey-openai-beta", "openai-beta"], "openai_beta", &["openai", "azure-openai"]),
    row(&["x-portkey-mistral-fim-completion"], "mistral_fim_completion", &["mistral-ai"]),
    row(&["x-portkey-azure-extra-params"], "azure_extra_parameters", &["azure-ai"]),
    row(&["x-portkey-stability-client-id"], "stability_client_id", STABILITY),
    row(&["x-portkey-stability-client-user-id"], "stability_client_user_id", STABILITY),
    row(&["x-portkey-stability-client-version"], "stability_client_version", STABILITY),
    row(&["x-portkey-aws-s3-object-key", "x-portkey-provider-file-name"], "aws_s3_object_key", AWS),
    row(&["x-portkey-aws-bedrock-model", "x-portkey-provider-model"], "aws_bedrock_model", AWS),
    row(&["x-portkey-amz-server-side-encryption"], "aws_server_side_encryption", AWS),
    // The gateway's own casing: no snake_case name leads to it.
    row(&["x-portkey-amz-server-side-encryption-aws-kms-key-id"], "awsServerSideEncryptionKMSKeyId", AWS),
    row(&["x-portkey-provider-file-name"], "filename", VERTEX),
    row(&["x-portkey-provider-model"], "vertex_model_name", VERTEX),
    row(&["x-portkey-provider-batch-endpoint"], "vertex_batch_endpoint", VERTEX),
    row(&["x-portkey-file-upload-size"], "fireworks_file_length", &["fireworks-ai"]),
];

const fn row(headers: &'static [&'static str], field: &'static str, providers: &'static [&'static str]) -> Carried {
    Carried { headers, field, providers }
}

// === impl Carried ===

impl Carried {
    /// The request's value, if it has one that is text.
    pub(super) fn value<'h>(&self, headers: &'h HeaderMap) -> Option<&'h str> {
        self.headers
            .iter()
            .filter_map(|name| headers.get(*name))
            .filter_map(|value| value.to_str().ok())
            .find(|text| !text.is_empty())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dialect::portkey::{config_tree::key, inputs::PREFIX, steering, strip};
    use crate::model::FIELDS;

    #[test]
    fn nothing_that_is_ours_survives() {
        let ours = FIELDS.iter().filter_map(|spec| spec.header).filter(|header| !header.contains("mistral"));
        let steering = steering::STEERING.iter().filter_map(|steering| steering.header);
        for header in ours.chain(steering).chain(["x-portkey-api-key", "x-portkey-virtual-key", "x-portkey-config"]) {
            assert!(!header.strip_prefix(PREFIX).is_some_and(strip::is_per_request), "{header}");
        }
    }

    #[test]
    fn what_is_carried_survives_and_steers_nothing() {
        for carried in &CARRIED {
            assert!(
                carried.headers.iter().all(|name| name.strip_prefix(PREFIX).is_none_or(strip::is_per_request)),
                "{carried:?}"
            );
            assert_eq!(steering::of_key(&key::camel(carried.field)), None, "{carried:?}");
        }
    }

    #[test]
    fn the_first_header_with_text_counts() {
        let mut headers = HeaderMap::new();
        headers.insert("x-portkey-anthropic-beta", "".parse().unwrap());
        headers.insert("anthropic-beta", "a".parse().unwrap());
        assert_eq!(CARRIED[0].value(&headers), Some("a"));
        headers.insert("x-portkey-anthropic-beta", "b".parse().unwrap());
        assert_eq!(CARRIED[0].value(&headers), Some("b"));
    }
}
