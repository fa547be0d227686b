//! The body of a delivery → what has changed. Read only after the sender was verified.
//!
//! An event that is of no concern is no error: a rule or subscription may be wider than it need be. Nothing of an event but
//! names of secrets is used, and no value is looked for in one. Doppler's users may replace its body, so that nothing in it is
//! asked for. Sources: Secrets Manager and Systems Manager, events for
//! EventBridge; Key Vault as an Event Grid source (both schemas); Secret Manager, event notifications; Infisical,
//! webhooks.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde::Deserialize;
use serde_json::Value;
use url::Url;

use super::target::{AwsName, Target};
use crate::model::ManagerType;

/// Most secrets that one delivery may name. Event Grid batches and our own lists; what is beyond waits for its lifetime.
pub const MAX_TARGETS: usize = 256;

/// The event with which Event Grid asks whether an endpoint wants its events.
const VALIDATION: &str = "Microsoft.EventGrid.SubscriptionValidationEvent";

/// The body is not what the source sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the body is not an event of this source")]
pub struct Malformed;

/// What Event Grid delivers.
#[derive(Debug, PartialEq, Eq)]
pub enum Grid {
    /// Events.
    Events(Vec<Target>),
    /// The code of a handshake, to be sent back.
    Validation(String),
}

/// The body of our own deliveries.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Ours {
    /// Slugs or ids.
    references: Vec<String>,
    /// `manager_type` of `paths`.
    manager: Option<String>,
    /// As references write them, or the folder above.
    paths: Vec<String>,
}

/// EventBridge: events of Secrets Manager and the Parameter Store, direct or by way of CloudTrail.
///
/// # Errors
/// [`Malformed`].
pub fn eventbridge(body: &[u8]) -> Result<Vec<Target>, Malformed> {
    let event: Value = object(body)?;
    let (Some(source), Some(_)) = (text(&event, "/source"), text(&event, "/detail-type")) else {
        return Err(Malformed);
    };
    let context = AwsName {
        region: text(&event, "/region").map(str::to_owned),
        account: text(&event, "/account").map(str::to_owned),
        name: String::new(),
    };
    // The account of a CloudTrail event is the caller's, who may have read or written a secret of another one.
    let context =
        if event.pointer("/detail/eventName").is_some() { AwsName { account: None, ..context } } else { context };
    let named = |kind: &str, pointers: &[&str]| {
        let resources = event.pointer("/resources").and_then(Value::as_array).into_iter().flatten();
        let resources = resources.filter_map(Value::as_str).filter_map(|arn| AwsName::from_arn(arn, kind));
        let mut names: Vec<AwsName> = resources.collect();
        for name in pointers.iter().filter_map(|pointer| text(&event, pointer)) {
            names.push(match name.starts_with("arn:") {
                true => match AwsName::from_arn(name, kind) {
                    Some(name) => name,
                    None => continue,
                },
                false => AwsName { name: name.to_owned(), ..context.clone() },
            });
        }
        names.dedup();
        names
    };
    // Secrets Manager writes the key of the ARN in three ways, depending on the action.
    const SECRET: [&str; 6] = [
        "/detail/responseElements/arn",
        "/detail/responseElements/aRN",
        "/detail/responseElements/ARN",
        "/detail/requestParameters/secretId",
        "/detail/additionalEventData/SecretId",
        "/detail/name",
    ];
    const PARAMETER: [&str; 2] = ["/detail/name", "/detail/requestParameters/name"];
    let targets = match source {
        "aws.secretsmanager" => named("secret", &SECRET).into_iter().map(Target::AwsSecret).collect(),
        "aws.ssm" => named("parameter", &PARAMETER).into_iter().map(Target::AwsParameter).collect(),
        _ => Vec::new(),
    };
    Ok(bounded(targets))
}

/// Event Grid, its own schema and CloudEvents 1.0, single and in batches.
///
/// # Errors
/// [`Malformed`].
pub fn event_grid(body: &[u8]) -> Result<Grid, Malformed> {
    let events = match serde_json::from_slice(body).map_err(|_| Malformed)? {
        Value::Array(events) => events,
        event @ Value::Object(_) => vec![event],
        _ => return Err(Malformed),
    };
    let mut targets = Vec::new();
    for event in &events {
        // `eventType` in the schema of Event Grid, `type` in CloudEvents.
        let kind = text(event, "/eventType").or_else(|| text(event, "/type")).ok_or(Malformed)?;
        if kind == VALIDATION {
            return text(event, "/data/validationCode").map(|code| Grid::Validation(code.to_owned())).ok_or(Malformed);
        }
        if kind.starts_with("Microsoft.KeyVault.Secret") {
            targets.extend(key_vault(event));
        }
    }
    Ok(Grid::Events(bounded(targets)))
}

/// Pub/Sub push: an event notification of Secret Manager.
///
/// # Errors
/// [`Malformed`].
pub fn pubsub(body: &[u8]) -> Result<Vec<Target>, Malformed> {
    let delivery = object(body)?;
    let message = delivery.pointer("/message").filter(|message| message.is_object()).ok_or(Malformed)?;
    let name = match text(message, "/attributes/secretId") {
        Some(name) => name.to_owned(),
        // A subscription that drops attributes still has the resource in its data.
        None => match text(message, "/data").and_then(|data| STANDARD.decode(data).ok()) {
            Some(data) => match object(&data).ok().as_ref().and_then(|resource| text(resource, "/name")) {
                Some(name) => name.to_owned(),
                None => return Ok(Vec::new()),
            },
            None => return Ok(Vec::new()),
        },
    };
    let segments: Vec<&str> = name.split('/').collect();
    let (project, location, name) = match segments.as_slice() {
        ["projects", project, "secrets", name, ..] => (project, None, name),
        ["projects", project, "locations", location, "secrets", name, ..] => (project, Some(*location), name),
        _ => return Ok(Vec::new()),
    };
    let (project, location) = ((*project).to_owned(), location.map(str::to_owned));
    Ok(vec![Target::GcpSecret { project, location, name: (*name).to_owned() }])
}

/// Infisical: when it was sent, in milliseconds since 1970, and whether a secret was changed.
///
/// # Errors
/// [`Malformed`].
pub fn infisical(body: &[u8]) -> Result<(u64, bool), Malformed> {
    let event = object(body)?;
    let at = event.pointer("/timestamp").and_then(Value::as_u64).ok_or(Malformed)?;
    Ok((at, text(&event, "/event").ok_or(Malformed)? == "secrets.modified"))
}

/// Ours: `{"references": ["slug"]}`, `{"manager": "hashicorp_vault", "paths": ["secret/data/team"]}`, or both.
///
/// # Errors
/// [`Malformed`].
pub fn ours(body: &[u8]) -> Result<Vec<Target>, Malformed> {
    let Ours { references, manager, paths } = serde_json::from_slice(body).map_err(|_| Malformed)?;
    let manager = manager.map(|name| ManagerType::from_name(&name).ok_or(Malformed)).transpose()?;
    let mut targets: Vec<_> = references.into_iter().map(Target::Reference).collect();
    match manager {
        Some(manager) => targets.extend(paths.into_iter().map(|path| Target::Path { manager, path })),
        None if paths.is_empty() => {}
        None => return Err(Malformed),
    }
    if targets.is_empty() || targets.len() > MAX_TARGETS {
        return Err(Malformed);
    }
    Ok(targets)
}

/// The secret of an event of Key Vault.
fn key_vault(event: &Value) -> Option<Target> {
    // `Id` is the secret's address, version included; it says more than `VaultName`.
    let address = text(event, "/data/Id").or_else(|| text(event, "/data/id")).and_then(|id| Url::parse(id).ok());
    let host = address.as_ref().and_then(Url::host_str);
    let vault = host.or_else(|| text(event, "/data/VaultName")).or_else(|| text(event, "/data/vaultName"))?;
    let name = text(event, "/data/ObjectName").or_else(|| text(event, "/data/objectName"));
    let name = name.or_else(|| address.as_ref()?.path_segments()?.nth(1)).or_else(|| text(event, "/subject"))?;
    Some(Target::AzureSecret { vault: vault.to_owned(), name: name.to_owned() })
}

fn object(body: &[u8]) -> Result<Value, Malformed> {
    match serde_json::from_slice(body) {
        Ok(object @ Value::Object(_)) => Ok(object),
        Ok(_) | Err(_) => Err(Malformed),
    }
}

fn text<'v>(value: &'v Value, pointer: &str) -> Option<&'v str> {
    value.pointer(pointer).and_then(Value::as_str).filter(|text| !text.is_empty())
}

fn bounded(mut targets: Vec<Target>) -> Vec<Target> {
    targets.truncate(MAX_TARGETS);
    targets
}

#[cfg(test)]
mod tests;
