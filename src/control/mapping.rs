//! `secret_mappings`: which field of an integration or a virtual key a secret reference fills.
//!
//! Rules of Portkey's page on secret references: each target once, after the prefix was put before a bare name; an active
//! reference of the same organisation that is open to the workspace. Ours: a target must be a field of the provider that a
//! secret may fill, because a data plane would set the entity aside otherwise.

use serde::{Deserialize, Serialize};

use super::{
    Refusal,
    access::Context,
    fields::{Fields, Given, Length},
    provider_fields::Subject,
    secret_reference,
    store::Kind,
};
use crate::model::FieldSpec;

/// Key of the body.
const SECRET_MAPPINGS: &str = "secret_mappings";
/// The target that is the plain key.
const KEY: &str = "key";
/// Longest `target_field`, `secret_reference_id` and `secret_key`, in characters.
const MAX_NAME: usize = 255;
/// How a value may be given to its field.
const FORMATS: [&str; 2] = ["string", "json"];

/// One of `secret_mappings`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mapping {
    /// `key`, or prefix, dot, field.
    pub target_field: String,
    /// The reference as it was named: by its id or its slug, neither of which ever changes.
    pub secret_reference_id: String,
    /// Which key of the secret, instead of the reference's.
    pub secret_key: Option<String>,
    /// `string` or `json`.
    pub value_format: Option<String>,
    /// Id of the reference.
    pub reference: String,
}

/// As it is shown, and as a snapshot has it.
#[derive(Debug, Serialize)]
pub struct Row<'a> {
    target_field: &'a str,
    secret_reference_id: &'a str,
    secret_key: Option<&'a str>,
    value_format: Option<&'a str>,
}

// === impl Mapping ===

impl Mapping {
    /// As reads show it.
    pub fn shown(&self) -> Row<'_> {
        Row { secret_reference_id: &self.secret_reference_id, ..self.row() }
    }

    /// As a snapshot has it: the reference by its id.
    pub fn row(&self) -> Row<'_> {
        Row {
            target_field: &self.target_field,
            secret_reference_id: &self.reference,
            secret_key: self.secret_key.as_deref(),
            value_format: self.value_format.as_deref(),
        }
    }
}

/// `secret_mappings` of the body, checked.
///
/// # Errors
/// 500; faults go into `fields`.
pub(super) async fn take(
    fields: &mut Fields<'_>,
    subject: &Subject<'_>,
    context: &mut Context<'_>,
) -> Result<Option<Vec<Mapping>>, Refusal> {
    let rows = match fields.objects(SECRET_MAPPINGS) {
        Given::Value(rows) => rows,
        Given::Null => {
            fields.fault(SECRET_MAPPINGS, "must be a list of objects");
            return Ok(None);
        }
        Given::Absent => return Ok(None),
    };
    let mut mappings: Vec<Mapping> = Vec::with_capacity(rows.len());
    let mut targets: Vec<&FieldSpec> = Vec::with_capacity(rows.len());
    for mut row in rows {
        let target_field = row.text("target_field", Length(1, MAX_NAME));
        let mut target_field = row.require("target_field", target_field).unwrap_or_default();
        if !target_field.is_empty() {
            target_field = prefixed(&target_field, subject);
            match target(&target_field, subject) {
                Ok(spec) if targets.contains(&spec) => row.fault("target_field", "is mapped already"),
                Ok(spec) => targets.push(spec),
                Err(reason) => row.fault("target_field", reason),
            }
        }
        let name = row.text("secret_reference_id", Length(1, MAX_NAME));
        let name = row.require("secret_reference_id", name).unwrap_or_default();
        let reference = if name.is_empty() { None } else { reference(&mut row, &name, subject, context).await? };
        let secret_key = row.text("secret_key", Length(0, MAX_NAME)).value().filter(|key| !key.is_empty());
        let value_format = row.text("value_format", Length(0, MAX_NAME)).value();
        if value_format.as_deref().is_some_and(|format| !FORMATS.contains(&format)) {
            row.fault("value_format", format_args!("must be {}, or null", FORMATS.join(" or ")));
        }
        fields.absorb(row);
        let reference = reference.unwrap_or_default();
        mappings.push(Mapping { target_field, secret_reference_id: name, secret_key, value_format, reference });
    }
    Ok(Some(mappings))
}

/// A bare name gets the prefix of its object.
fn prefixed(target_field: &str, subject: &Subject<'_>) -> String {
    match target_field == KEY || target_field.contains('.') {
        true => target_field.to_owned(),
        false => format!("{}.{target_field}", subject.kind.prefix()),
    }
}

/// The field that a target with its prefix stands for.
fn target(target_field: &str, subject: &Subject<'_>) -> Result<&'static FieldSpec, String> {
    if target_field == KEY {
        return Ok(FieldSpec::key());
    }
    let prefix = subject.kind.prefix();
    let name = target_field.split_once('.').filter(|(written, _)| *written == prefix).map(|(_, name)| name);
    let Some(name) = name else { return Err(format!("must be key or {prefix}.<field>")) };
    match FieldSpec::stored(subject.provider, name) {
        Some(spec) if spec.is_target() => Ok(spec),
        Some(_) => Err(format!("decides where requests go, and no secret may; write it into {prefix}")),
        None => Err("is no field of this provider".to_owned()),
    }
}

/// The id of the reference that `name` (id or slug) stands for, if `subject` may use it.
async fn reference(
    row: &mut Fields<'_>,
    name: &str,
    subject: &Subject<'_>,
    context: &mut Context<'_>,
) -> Result<Option<String>, Refusal> {
    const FIELD: &str = "secret_reference_id";
    let found = context.tenant.named(Kind::SecretReference, name).await?.into_iter().next();
    let found = match found {
        Some(object) => Some((object.read::<secret_reference::Body>()?, object)),
        None => None,
    };
    let Some((body, object)) = found.filter(|(body, _)| body.is_open_to(context.caller.workspace_id())) else {
        row.fault(FIELD, "names a secret reference that does not exist");
        return Ok(None);
    };
    if object.status != "active" {
        row.fault(FIELD, "names a secret reference that is not active");
    }
    if !body.is_open_to(&subject.object.workspace_id) {
        row.fault(FIELD, "names a secret reference that is not open to the workspace");
    }
    let providers = &body.allowed_providers;
    if !providers.is_empty() && !providers.iter().any(|provider| provider == subject.provider) {
        row.fault(FIELD, "names a secret reference that is not for this provider");
    }
    Ok(Some(object.id))
}

#[cfg(test)]
mod tests;
