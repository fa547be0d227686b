//! The hosts at which a placed entity's credential can arrive.
//!
//! For `allowed_hosts` of a reference, and for the hosts inside file ids. Source: gateway 1.15.2 `src/providers/*/api.ts`
//! `getBaseURL`, with the environment's `AWS_ENDPOINT_DOMAIN` unset.

use std::borrow::Cow;

use http::request::Parts;
use percent_encoding::percent_decode_str;
use url::Host;

use super::{
    endpoint::{self, Endpoint},
    host,
    placement::Placement,
    provider::{self, Host as BaseHost},
};
use crate::model::Entity;

/// Every host that a request to `endpoint` may send the credential to; `None`: they cannot be told.
pub(super) fn hosts(placement: &Placement, entity: &Entity, endpoint: Endpoint) -> Option<Vec<Host>> {
    let Some(custom) = placement.effective(entity, "custom_host") else { return base(placement, entity, endpoint) };
    // `binding` refuses requests for which the gateway would leave it aside.
    Some(vec![host::of_url(&custom.ok()?)?])
}

/// Whether the gateway leaves a custom host aside for this request and calls the provider's own: its WebSocket handler
/// always does, and so do the handlers that reach storage or put an answer together from several calls (measured:
/// `GET /v1/batches/b/output` of an openai target with a custom host asks api.openai.com, with the key).
///
/// Source: gateway 1.15.2 `src/handlers/realtimeHandlerNode.ts`, `requestHandlers` in `src/providers/*/index.ts`.
pub(super) fn ignores_custom_host(provider: &str, head: &Parts) -> bool {
    let path = head.uri.path();
    match endpoint::of(head) {
        Endpoint::Realtime => true,
        Endpoint::Storage => {
            matches!(provider, "bedrock" | "vertex-ai" | "fireworks-ai")
                || (path.starts_with("/v1/batches/") && path.ends_with("/output"))
        }
        Endpoint::Inference | Endpoint::Proxy => false,
    }
}

fn base(placement: &Placement, entity: &Entity, endpoint: Endpoint) -> Option<Vec<Host>> {
    let text = |field: &str| placement.effective(entity, field).and_then(Result::ok);
    let domain = |name: String| Host::parse(&name).ok();
    let storage = endpoint == Endpoint::Storage;
    let hosts = match &*entity.provider {
        "azure-openai" => vec![domain(format!("{}.openai.azure.com", text("resource_name")?))?],
        "azure-ai" => vec![host::of_url(&text("azure_foundry_url")?)?],
        "huggingface" => match text("huggingface_base_url") {
            Some(url) => vec![host::of_url(&url)?],
            None => vec![domain("api-inference.huggingface.co".to_owned())?],
        },
        "bedrock" => {
            let region = text("aws_region").unwrap_or(Cow::Borrowed("us-east-1"));
            let mut hosts = vec![
                domain(format!("bedrock-runtime.{region}.amazonaws.com"))?,
                domain(format!("bedrock.{region}.amazonaws.com"))?,
            ];
            if let Some(bucket) = text("aws_s3_bucket").filter(|_| storage) {
                hosts.push(domain(format!("{bucket}.s3.{region}.amazonaws.com"))?);
            }
            hosts
        }
        "sagemaker" => vec![domain(format!("runtime.sagemaker.{}.amazonaws.com", text("aws_region")?))?],
        "vertex-ai" => {
            let region = text("vertex_region")?;
            let prefix = if region == "global" { String::new() } else { format!("{region}-") };
            let mut hosts = vec![domain(format!("{prefix}aiplatform.googleapis.com"))?];
            if storage {
                hosts.push(domain("storage.googleapis.com".to_owned())?);
            }
            hosts
        }
        "oracle" => vec![domain(format!("inference.generativeai.{}.oci.oraclecloud.com", text("oracle_region")?))?],
        "cortex" => vec![domain(format!("{}.snowflakecomputing.com", text("snowflake_account")?))?],
        other => match provider::named(other)?.host {
            // Names as a parser would write them, which a test says.
            BaseHost::Fixed(name) => vec![Host::Domain(name.to_owned())],
            BaseHost::Computed | BaseHost::Custom => return None,
        },
    };
    Some(hosts)
}

/// The bucket that a provider cuts out of a file id in the URL, as the gateway cuts it: query and all.
pub(super) fn file_id_bucket(provider: &str, head: &Parts) -> Option<String> {
    const FILES: &str = "/v1/files/";
    let path = head.uri.path();
    path.strip_prefix(FILES)?;
    let target = head.uri.path_and_query()?.as_str();
    let id = match provider {
        "bedrock" => target.split(FILES).nth(1)?,
        "vertex-ai" if path.ends_with("/content") => target.rsplit('/').nth(1)?,
        "vertex-ai" => target.rsplit('/').next()?,
        _ => return None,
    };
    let id = percent_decode_str(id).decode_utf8_lossy();
    let id = if provider == "bedrock" { id.replacen("s3://", "", 1) } else { id.replace("gs://", "") };
    id.split('/').next().map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use http::Request;

    use super::*;

    #[test]
    fn file_ids_hide_a_host() {
        for (provider, uri, expected) in [
            ("bedrock", "/v1/files/bucket%2Fkey.jsonl", Some("bucket")),
            ("bedrock", "/v1/files/s3%3A%2F%2Fbucket%2Fkey", Some("bucket")),
            ("bedrock", "/v1/files/evil.example?x=/y", Some("evil.example?x=")),
            ("bedrock", "/v1/files/evil.example%23", Some("evil.example#")),
            ("bedrock", "/v1/files/a/content", Some("a")),
            ("bedrock", "/v1/files/a?b=/v1/files/c", Some("a?b=")),
            ("vertex-ai", "/v1/files/gs%3A%2F%2Fbucket%2Fkey", Some("bucket")),
            ("vertex-ai", "/v1/files/bucket%2Fkey/content", Some("bucket")),
            ("vertex-ai", "/v1/files/x?y=/evil%2Fz", Some("evil")),
            ("openai", "/v1/files/file-1", None),
            ("bedrock", "/v1/files", None),
            ("bedrock", "/v1/chat/completions", None),
        ] {
            let (head, ()) = Request::builder().uri(uri).body(()).unwrap().into_parts();
            assert_eq!(file_id_bucket(provider, &head).as_deref(), expected, "{provider} {uri}");
        }
    }
}
