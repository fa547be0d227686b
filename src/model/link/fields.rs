//! What an entity itself says: literals, mappings and deployments, before inheritance.

use std::{fmt, sync::Arc};

use serde_json::value::RawValue;

use super::{
    findings::{Quoted, Report},
    literal,
    reference::{References, secret_key},
};
use crate::model::{
    Deployment, EntityField, EntityKind, FieldRole, FieldSpec, FieldValue, Lifespan, Mapping, TargetField, ValueFormat,
    destination,
    raw::{self, Given, Members},
    seals::Seals,
};

/// Names under which deployments are stored, the first one wins.
const DEPLOYMENT_LISTS: [&str; 4] = ["azure_deployment_config", "deployments", "deploymentConfig", "deployment_config"];

/// An entity's own statements.
#[derive(Default)]
pub(super) struct Own {
    /// Each name once; a mapping has replaced the literal of the same name.
    pub(super) fields: Vec<EntityField>,
    pub(super) deployments: Vec<Deployment>,
}

/// What an entity is, for reading its fields.
pub(super) struct Subject<'a> {
    pub(super) kind: EntityKind,
    /// Empty = unknown, which is a fault already and no reason to find one in every field.
    pub(super) provider: &'a str,
    pub(super) seals: Seals<'a>,
}

/// A key of one element of a list.
struct Element {
    list: &'static str,
    index: usize,
    key: &'static str,
}

/// Where the fields of one entity are written.
pub(super) struct Written<'a> {
    pub(super) key: Given<&'a RawValue>,
    pub(super) members: Given<Members<'a>>,
    pub(super) mappings: Given<Vec<&'a RawValue>>,
}

/// Reads everything `subject` says about itself.
pub(super) fn read(
    subject: &Subject<'_>,
    written: Written<'_>,
    references: &References,
    report: &mut Report<'_>,
) -> Own {
    let prefix = subject.kind.prefix();
    let members = report.value(prefix, written.members, "an object").unwrap_or(Members::none());
    let mut own = Own { fields: Vec::new(), deployments: deployments(subject, &members, report) };
    if let Some(key) = report.value("key", written.key, "text, or null") {
        match literal::value(FieldSpec::key(), key, "key", &subject.seals) {
            Ok(value) => own.fields.extend(value.map(|value| EntityField { spec: FieldSpec::key(), value })),
            Err(message) => report.fault("key", message),
        }
    }
    for (name, raw) in members.iter() {
        let Some(spec) = subject.field(name) else {
            if !DEPLOYMENT_LISTS.contains(&name) {
                let provider = Quoted(subject.provider);
                report.ignored(prefix, format_args!("{} is no field of the provider {provider}", Quoted(name)));
            }
            continue;
        };
        if spec.role == FieldRole::Deployment {
            continue;
        }
        match literal::value(spec, raw, &format!("{prefix}.{name}"), &subject.seals) {
            Ok(None) => {}
            Ok(Some(_)) if own.has(spec) => {
                report.fault(format_args!("{prefix}.{name}"), format_args!("gives {} a second time", spec.name));
            }
            Ok(Some(value)) => {
                if let FieldValue::Plain(plain) = &value
                    && let Some(message) = plain.as_str().and_then(|text| destination::fault(spec, text))
                {
                    report.fault(format_args!("{prefix}.{name}"), message);
                }
                own.fields.push(EntityField { spec, value });
            }
            Err(message) => report.fault(format_args!("{prefix}.{name}"), message),
        }
    }
    for mapping in mappings(subject, written.mappings, references, report) {
        let spec = mapping.target.spec;
        own.fields.retain(|field| field.spec != spec);
        own.fields.push(EntityField { spec, value: FieldValue::Mapped(Arc::new(mapping)) });
    }
    own
}

fn mappings(
    subject: &Subject<'_>,
    given: Given<Vec<&RawValue>>,
    references: &References,
    report: &mut Report<'_>,
) -> Vec<Mapping> {
    let rows = report.value("secret_mappings", given, "a list").unwrap_or_default();
    let mut linked: Vec<Mapping> = Vec::with_capacity(rows.len());
    for (index, row) in rows.into_iter().enumerate() {
        let at = |key| Element { list: "secret_mappings", index, key };
        let Some(row) = raw::row::<raw::Mapping<'_>>(row) else {
            report.fault(at(""), "must be an object that names each of its fields once");
            continue;
        };
        let spec = report.required_text(at(".target_field"), row.target_field).and_then(|field| {
            target(subject, &field).map_err(|message| report.fault(at(".target_field"), message)).ok()
        });
        let is_repeated = spec.is_some_and(|spec| linked.iter().any(|earlier| earlier.target.spec == spec));
        if is_repeated {
            report.fault(at(".target_field"), "is mapped already");
        }
        let reference = report.required_text(at(".secret_reference_id"), row.secret_reference_id).and_then(|name| {
            references.usable(&name).map_err(|message| report.fault(at(".secret_reference_id"), message)).ok()
        });
        let own_key = secret_key(|| at(".secret_key"), row.secret_key, report);
        let format = match report.text(at(".value_format"), row.value_format).as_deref() {
            None | Some("string") => ValueFormat::String,
            Some("json") => ValueFormat::Json,
            Some(_) => {
                report.fault(at(".value_format"), "must be string, json or null");
                ValueFormat::String
            }
        };
        if let Some((spec, reference)) = spec.zip(reference)
            && !is_repeated
        {
            let secret_key = own_key.or_else(|| reference.secret_key.clone());
            linked.push(Mapping { target: TargetField { spec }, reference, secret_key, format });
        }
    }
    linked
}

/// The field that `target_field` names. A bare name gets the prefix, as the admin API adds it.
fn target(subject: &Subject<'_>, target_field: &str) -> Result<&'static FieldSpec, String> {
    let prefix = subject.kind.prefix();
    if target_field == "key" {
        return Ok(FieldSpec::key());
    }
    let name = match target_field.split_once('.') {
        Some((written, name)) if written == prefix => name,
        None => target_field,
        Some(_) => return Err(format!("{} is no target here; write key or {prefix}.<field>", Quoted(target_field))),
    };
    match subject.field(name) {
        Some(spec) if spec.is_target() => Ok(spec),
        Some(_) => Err(format!(
            "{} decides where the request goes, and no secret may; write it into {prefix}",
            Quoted(target_field)
        )),
        None => Err(format!("{} is no field of the provider {}", Quoted(target_field), Quoted(subject.provider))),
    }
}

/// Azure deployments: a list under one of its names, or one deployment written flat.
fn deployments(subject: &Subject<'_>, members: &Members<'_>, report: &mut Report<'_>) -> Vec<Deployment> {
    let is_deployment = |name: &str| subject.field(name).is_some_and(|spec| spec.role == FieldRole::Deployment);
    if !is_deployment("deployment_id") {
        return Vec::new();
    }
    let prefix = subject.kind.prefix();
    let list = DEPLOYMENT_LISTS.iter().find_map(|name| {
        let raw = members.get(name).filter(|raw| !matches!(raw.get(), "null" | "[]"))?;
        Some((format!("{prefix}.{name}"), raw))
    });
    if let Some((at, raw)) = list {
        let rows: Vec<&RawValue> = match serde_json::from_str(raw.get()) {
            Ok(rows) => rows,
            Err(_) if raw.get().starts_with('{') => vec![raw],
            Err(_) => {
                report.fault(at, "must be a list of deployments");
                return Vec::new();
            }
        };
        let rows = rows.into_iter().enumerate();
        return rows
            .filter_map(|(index, row)| match serde_json::from_str::<Members<'_>>(row.get()) {
                Ok(row) => deployment(&row, false, &format!("{at}[{index}]"), report),
                Err(_) => {
                    report.fault(format_args!("{at}[{index}]"), "must be an object");
                    None
                }
            })
            .collect();
    }
    let flat = members.iter().any(|(name, raw)| is_deployment(name) && !matches!(raw.get(), "null" | "\"\""));
    if flat { deployment(members, true, prefix, report).into_iter().collect() } else { Vec::new() }
}

fn deployment(row: &Members<'_>, is_default: bool, at: &str, report: &mut Report<'_>) -> Option<Deployment> {
    let mut text = |names: &[&str]| -> Option<Arc<str>> {
        let (name, raw) = names.iter().find_map(|name| Some((name, row.get(name)?)))?;
        match literal::text(raw) {
            Ok(text) => text,
            Err(message) => {
                report.fault(format_args!("{at}.{name}"), message);
                None
            }
        }
    };
    let deployment_id = text(&["azure_deployment_name", "deploymentName", "deployment_name", "deployment_id"]);
    let api_version = text(&["azure_api_version", "apiVersion", "api_version"]);
    let model_name = text(&["azure_model_slug", "aiModelName", "azure_model_name", "azureModelSlug"]);
    let alias = text(&["alias"]);
    let is_default = match ["is_default", "isDefault"].iter().find_map(|name| row.get(name)).map(RawValue::get) {
        Some("true") => true,
        Some("false" | "null") | None => is_default,
        Some(_) => {
            report.fault(format_args!("{at}.is_default"), "must be true or false");
            false
        }
    };
    let Some(deployment_id) = deployment_id else {
        report.fault(at, "names no deployment (azure_deployment_name or deploymentName)");
        return None;
    };
    Some(Deployment { deployment_id, api_version, model_name, alias, is_default })
}

// === impl Subject ===

impl Subject<'_> {
    fn field(&self, spelling: &str) -> Option<&'static FieldSpec> {
        match self.provider {
            "" => FieldSpec::stored_by_any(spelling),
            provider => FieldSpec::stored(provider, spelling),
        }
    }
}

// === impl Element ===

impl fmt::Display for Element {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}[{}]{}", self.list, self.index, self.key)
    }
}

// === impl Own ===

impl Own {
    fn has(&self, spec: &FieldSpec) -> bool {
        self.fields.iter().any(|field| field.spec == spec)
    }

    /// The lifespan of every reference that is mapped here, together.
    pub(super) fn mapped_lifespan(fields: &[EntityField]) -> Lifespan {
        fields.iter().fold(Lifespan::UNLIMITED, |lifespan, field| match &field.value {
            FieldValue::Mapped(mapping) => lifespan.and(mapping.reference.lifespan),
            FieldValue::Plain(_) | FieldValue::Stored(_) => lifespan,
        })
    }
}
