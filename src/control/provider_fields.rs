//! What integrations and virtual keys have in common: the plain key, the fields of a provider, and what is mapped onto them.
//!
//! Which fields a provider has, what they are called in either object and which hold credentials says the field table of
//! the data plane ([`FieldSpec`]). Credentials are sealed on arrival and shown as masks. A name that is not in the table is
//! refused: it could be of a credential, and would stay in clear. The whole is judged as a data plane will judge it.

mod judge;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, value::RawValue};
use url::Url;

pub(super) use self::judge::judge;
use super::{
    Refusal,
    access::Context,
    fields::{Fields, Given, Length},
    mapping::{self, Mapping},
    sealing::{self, Fed, Sealed, Stored},
    slug,
    store::{Kind, Object},
};
use crate::{
    model::{EntityKind, FIELDS, FieldRole, FieldSpec},
    seal::Place,
};

/// The plain key, in the body and in the place of a seal.
const KEY: &str = "key";
/// What reads put before the name of a sealed field, and what writes ignore.
const MASKED: &str = "masked_";
/// Longest id of a provider, in characters.
const MAX_PROVIDER: usize = 64;
/// Longest text that is no credential, in characters: it travels in a header.
const MAX_TEXT: usize = 4096;
/// Most Azure deployments of one object.
const MAX_DEPLOYMENTS: usize = 1000;
/// Names under which Azure deployments may be given.
const DEPLOYMENT_LISTS: [&str; 4] = ["azure_deployment_config", "deploymentConfig", "deployments", "deployment_config"];
/// What a deployment has, in its spellings.
const DEPLOYMENT_FIELDS: [&str; 14] = [
    "azure_deployment_name",
    "deploymentName",
    "deployment_name",
    "deployment_id",
    "azure_api_version",
    "apiVersion",
    "api_version",
    "azure_model_slug",
    "azureModelSlug",
    "azure_model_name",
    "aiModelName",
    "alias",
    "is_default",
    "isDefault",
];
/// Providers that take requests of anyone who reaches them.
const KEYLESS: [&str; 2] = ["ollama", "triton"];

/// Key, fields and mappings of one object.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProviderFields {
    /// The plain key.
    #[serde(default)]
    pub key: Option<Sealed>,
    /// Fields of the provider, as the object spells them.
    #[serde(default)]
    pub members: BTreeMap<String, Stored>,
    /// What is mapped onto them.
    #[serde(default)]
    pub mappings: Vec<Mapping>,
}

/// Whose fields they are.
#[derive(Clone, Copy, Debug)]
pub struct Subject<'a> {
    /// Integration or virtual key: decides how fields are spelled.
    pub kind: EntityKind,
    /// Id of the provider.
    pub provider: &'a str,
    /// The object, of which id and workspace count.
    pub object: &'a Object,
    /// Whether it may take its credentials from an integration.
    pub inherits: bool,
}

/// Reads fields into their place.
struct Reader<'a, 'b> {
    subject: &'a Subject<'a>,
    context: &'a Context<'b>,
    /// Fields that were given, by the name they are stored under.
    seen: Vec<&'static str>,
    /// Whether one of them was a credential.
    credential: bool,
}

/// What a name stands for.
#[derive(Clone, Copy)]
enum Slot {
    Field(&'static FieldSpec),
    /// The list of Azure deployments.
    Deployments,
}

// === impl ProviderFields ===

impl ProviderFields {
    /// The key, as a snapshot has it.
    pub fn fed_key(&self) -> Option<Fed<'_>> {
        self.key.as_ref().map(Sealed::fed)
    }

    /// Mappings, as a snapshot has them.
    pub fn fed_mappings(&self) -> Vec<mapping::Row<'_>> {
        self.mappings.iter().map(Mapping::row).collect()
    }

    /// Mappings, as reads show them.
    pub fn shown_mappings(&self) -> Vec<mapping::Row<'_>> {
        self.mappings.iter().map(Mapping::shown).collect()
    }

    /// What reads show of the key.
    pub fn key_mask(&self) -> Option<&str> {
        self.key.as_ref().map(|key| key.mask.as_str())
    }

    /// Fields, as reads show them: `masked_<name>` in the place of what is sealed.
    pub fn shown_members(&self) -> Value {
        let shown = |(name, value): (&String, &Stored)| match value {
            Stored::Sealed(sealed) => (format!("{MASKED}{name}"), Value::from(sealed.mask.as_str())),
            Stored::Plain(value) => (name.clone(), value.clone()),
        };
        Value::Object(self.members.iter().map(shown).collect())
    }

    /// The references that are mapped.
    pub fn uses(&self) -> Vec<(Kind, String)> {
        self.mappings.iter().map(|mapping| (Kind::SecretReference, mapping.reference.clone())).collect()
    }

    /// Takes over what `fields` has; returns whether the place that a credential is sent to changed without the credential.
    ///
    /// # Errors
    /// 500; faults go into `fields`.
    pub(super) async fn take(
        &mut self,
        fields: &mut Fields<'_>,
        subject: &Subject<'_>,
        context: &mut Context<'_>,
    ) -> Result<bool, Refusal> {
        let before = self.clone();
        let mut reader = Reader { subject, context, seen: Vec::new(), credential: false };
        reader.key(fields, &mut self.key);
        reader.nested(fields, &mut self.members);
        if subject.kind == EntityKind::VirtualKey {
            reader.flat(fields, &mut self.members);
        }
        let credential = reader.credential;
        let mappings = mapping::take(fields, subject, context).await?;
        let credential = credential || mappings.is_some();
        if let Some(mappings) = mappings {
            self.mappings = mappings;
        }
        if !subject.inherits && !self.authenticates(subject) && !fields.has(KEY) {
            fields.fault(KEY, "is missing; give it, or map a secret reference onto it");
        }
        Ok(before.authenticates(subject) && !credential && self.goes_elsewhere_than(&before, subject))
    }

    /// Whether anything in here lets a provider know who asks.
    fn authenticates(&self, subject: &Subject<'_>) -> bool {
        let member = |(name, value): (&String, &Stored)| match (value, FieldSpec::stored(subject.provider, name)) {
            (Stored::Sealed(_), _) => true,
            (Stored::Plain(_), Some(spec)) => spec.role == FieldRole::Authentication || spec.name == "custom_host",
            (Stored::Plain(_), None) => false,
        };
        self.key.is_some()
            || !self.mappings.is_empty()
            || KEYLESS.contains(&subject.provider)
            || self.members.iter().any(member)
    }

    fn goes_elsewhere_than(&self, before: &Self, subject: &Subject<'_>) -> bool {
        let destination = |name: &str| {
            FieldSpec::stored(subject.provider, name).is_some_and(|spec| spec.role == FieldRole::Destination)
        };
        let differs = |one: &Self, other: &Self| {
            one.members.iter().any(|(name, value)| destination(name) && other.members.get(name) != Some(value))
        };
        differs(self, before) || differs(before, self)
    }
}

// === impl Reader ===

impl Reader<'_, '_> {
    fn place<'f>(&'f self, field: &'f str) -> Place<'f> {
        Place { organisation: self.context.caller.organisation(), object_id: &self.subject.object.id, field }
    }

    /// The plain key. Reads show it empty, so an empty one changes nothing.
    fn key(&mut self, fields: &mut Fields<'_>, key: &mut Option<Sealed>) {
        match fields.raw(KEY) {
            Given::Value(raw) if raw.get() == "\"\"" => {}
            Given::Value(raw) => match self.context.control.sealer.seal(self.place(KEY), raw) {
                Ok(sealed) => {
                    *key = Some(sealed);
                    self.credential = true;
                }
                Err(reason) => fields.fault(KEY, reason),
            },
            Given::Null => *key = None,
            Given::Absent => {}
        }
    }

    /// The fields under the prefix of the object.
    fn nested(&mut self, fields: &mut Fields<'_>, members: &mut BTreeMap<String, Stored>) {
        let Given::Value(mut given) = fields.object(self.subject.kind.prefix()) else { return };
        let named: Vec<(String, &RawValue)> = given
            .members()
            .filter(|(name, _)| !name.starts_with(MASKED))
            .map(|(name, raw)| (name.to_owned(), raw))
            .collect();
        for (name, raw) in named {
            match self.subject.slot(&name) {
                Some(slot) => self.member(&mut given, &name, slot, raw, members),
                None => {
                    let name: String = name.chars().filter(char::is_ascii_graphic).take(64).collect();
                    given.fault(&name, "is no field of this provider");
                }
            }
        }
        fields.absorb(given);
    }

    /// The fields that stand in the body itself, as Portkey has them when a virtual key is made.
    fn flat(&mut self, fields: &mut Fields<'_>, members: &mut BTreeMap<String, Stored>) {
        let provider = self.subject.provider;
        let specs = FIELDS.iter().filter(|spec| spec.has_provider(provider));
        let spellings = specs.flat_map(|spec| [spec.model_config, spec.configurations, Some(spec.name)]).flatten();
        let mut spellings: Vec<&'static str> = spellings.chain(DEPLOYMENT_LISTS).collect();
        spellings.sort_unstable();
        spellings.dedup();
        for name in spellings {
            let Some(slot) = self.subject.slot(name) else { continue };
            let null: &RawValue = RawValue::NULL;
            match fields.raw(name) {
                Given::Value(raw) => self.member(fields, name, slot, raw, members),
                Given::Null => self.member(fields, name, slot, null, members),
                Given::Absent => {}
            }
        }
    }

    fn member(
        &mut self,
        fields: &mut Fields<'_>,
        name: &str,
        slot: Slot,
        raw: &RawValue,
        members: &mut BTreeMap<String, Stored>,
    ) {
        let stored_as = self.subject.spelling(slot);
        if self.seen.contains(&stored_as) {
            return fields.fault(name, "is given a second time, under another spelling");
        }
        self.seen.push(stored_as);
        if matches!(raw.get(), "null" | "\"\"" | "{}" | "[]") {
            members.remove(stored_as);
            return;
        }
        let value = match slot {
            Slot::Deployments => deployments(raw).map(Stored::Plain),
            Slot::Field(spec) if spec.sensitive => {
                self.credential = true;
                let field = format!("{}.{stored_as}", self.subject.kind.prefix());
                let (sealer, place) = (&self.context.control.sealer, self.place(&field));
                let sealed = if spec.structured { sealer.seal_structure(place, raw) } else { sealer.seal(place, raw) };
                sealed.map(Stored::Sealed)
            }
            Slot::Field(spec) => plain(raw).and_then(|value| match &value {
                Value::String(text) if spec.role == FieldRole::Destination && holds_user_info(text) => {
                    Err("holds user info, which no client of HTTP sends; remove it".to_owned())
                }
                // What is no URL is said by the judge.
                Value::String(text)
                    if spec.is_base_url()
                        && let Ok(url) = Url::parse(text) =>
                {
                    (self.context.control.admit_base_url)(&url).map(|()| Stored::Plain(value))
                }
                _ => Ok(Stored::Plain(value)),
            }),
        };
        match value {
            Ok(value) => {
                members.insert(stored_as.to_owned(), value);
            }
            Err(reason) => fields.fault(name, reason),
        }
    }
}

// === impl Subject ===

impl Subject<'_> {
    fn slot(&self, name: &str) -> Option<Slot> {
        let deployments =
            DEPLOYMENT_LISTS.contains(&name) && FieldSpec::named(self.provider, "deployment_id").is_some();
        if deployments { Some(Slot::Deployments) } else { FieldSpec::stored(self.provider, name).map(Slot::Field) }
    }

    /// The name under which the object stores it.
    fn spelling(&self, slot: Slot) -> &'static str {
        match (slot, self.kind) {
            (Slot::Deployments, EntityKind::Integration) => DEPLOYMENT_LISTS[0],
            (Slot::Deployments, EntityKind::VirtualKey) => DEPLOYMENT_LISTS[1],
            (Slot::Field(spec), EntityKind::Integration) => spec.configurations.unwrap_or(spec.name),
            (Slot::Field(spec), EntityKind::VirtualKey) => spec.model_config.unwrap_or(spec.name),
        }
    }
}

/// The id of a provider.
pub(super) fn provider(fields: &mut Fields<'_>, key: &'static str) -> Given<String> {
    let provider = fields.text(key, Length(1, MAX_PROVIDER));
    match &provider {
        Given::Value(id) if !slug::is_slug(id) => {
            fields.fault(key, "must be letters, digits, `_` and `-`");
            Given::Absent
        }
        _ => provider,
    }
}

/// Writes fields as a snapshot has them.
///
/// # Errors
/// Those of the serializer.
pub(super) fn feed<S: serde::Serializer>(fields: &ProviderFields, serializer: S) -> Result<S::Ok, S::Error> {
    sealing::feed(&fields.members, serializer)
}

/// A value that is no credential.
fn plain(raw: &RawValue) -> Result<Value, String> {
    const EXPECTED: &str = "must be text, a number or true or false";
    match serde_json::from_str(raw.get()) {
        Ok(Value::String(text)) if text.chars().count() > MAX_TEXT => {
            Err(format!("must be text of at most {MAX_TEXT} characters"))
        }
        Ok(value @ (Value::String(_) | Value::Number(_) | Value::Bool(_))) => Ok(value),
        Ok(Value::Null | Value::Array(_) | Value::Object(_)) | Err(_) => Err(EXPECTED.to_owned()),
    }
}

/// Whether `text` is a URL with a name or a password before its host, which would stay in clear.
fn holds_user_info(text: &str) -> bool {
    Url::parse(text).is_ok_and(|url| !url.username().is_empty() || url.password().is_some())
}

/// Azure deployments. What they have beside the names we know is left out: it could be a credential.
fn deployments(raw: &RawValue) -> Result<Value, String> {
    const EXPECTED: &str = "must be a list of objects whose values are text, true or false";
    let rows: Vec<Map<String, Value>> = serde_json::from_str(raw.get()).map_err(|_| EXPECTED.to_owned())?;
    if rows.len() > MAX_DEPLOYMENTS {
        return Err(format!("must be {MAX_DEPLOYMENTS} at most"));
    }
    let mut deployments = Vec::with_capacity(rows.len());
    for mut row in rows {
        row.retain(|name, value| DEPLOYMENT_FIELDS.contains(&name.as_str()) && !value.is_null());
        let fits = |value: &Value| match value {
            Value::String(text) => text.chars().count() <= MAX_TEXT,
            Value::Bool(_) => true,
            Value::Null | Value::Number(_) | Value::Array(_) | Value::Object(_) => false,
        };
        if !row.values().all(fits) {
            return Err(EXPECTED.to_owned());
        }
        deployments.push(Value::Object(row));
    }
    Ok(Value::Array(deployments))
}

#[cfg(test)]
mod tests;
