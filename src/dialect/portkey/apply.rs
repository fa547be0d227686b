//! Strip, then set: what the plan says happens to the head.
//!
//! Nothing of the client survives where something of ours stands, so the order cannot matter to the outcome: first
//! everything goes, then ours comes. A value that does not fit its place leaves the head unusable, and the request unsent.

use std::sync::Arc;

use http::{HeaderMap, HeaderName, HeaderValue, request::Parts, uri::PathAndQuery};

use super::{
    config_mode::Rebuilt,
    config_tree::render::{self, Form, Hole, Source},
    custom_headers, header_mode,
    inputs::{CONFIG, FORWARD_HEADERS, PROVIDER},
    placement::{CUSTOM_HEADERS, PlacedValue, Placement},
    plan::{Action, ConfigHeader, Plan},
    service_account, strip,
};
use crate::{
    model::{Entity, FieldSpec, FieldValue},
    secret::{Credential, is_header_safe},
};

/// What was put on a request, to be searched for in replies.
#[derive(Clone, Debug, Default)]
pub struct Injected {
    /// Every credential, resolved and stored.
    pub credentials: Vec<Arc<Credential>>,
}

/// A resolved value that cannot be placed where the plan wants it.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum ApplyError {
    /// The value of this mapping (index into [`Plan::mappings`]) does not fit its field: control characters, not a string,
    /// not an object.
    #[error("mapping {index} resolved to a value its field cannot carry")]
    Malformed {
        /// Which mapping.
        index: usize,
    },
    /// A credential stored in the snapshot does not fit its field.
    #[error("a stored credential of {slug} does not fit its field")]
    StoredMalformed {
        /// The entity.
        slug: Arc<str>,
    },
}

/// The plan's credentials.
struct Vault<'a> {
    plan: &'a Plan,
    resolved: &'a [Arc<Credential>],
}

/// Applies `plan` to the head it was made for.
///
/// # Errors
/// [`ApplyError`]; the head is then not to be sent.
pub(super) fn apply(plan: &Plan, resolved: &[Arc<Credential>], head: &mut Parts) -> Result<Injected, ApplyError> {
    if let Some(query) = &plan.query {
        set_query(head, query);
    }
    let vault = Vault { plan, resolved };
    match &plan.action {
        Action::Pass { config, drop_provider } => {
            pass(head, *drop_provider);
            set_config(head, config);
            Ok(Injected::default())
        }
        Action::Headers { placement, config } => {
            strip::client_credentials(head, &[CONFIG]);
            set_config(head, config);
            headers(&vault, placement, head)
        }
        Action::Config { rebuilt, .. } => {
            strip::client_credentials(head, &[CONFIG]);
            config(&vault, rebuilt, head)
        }
    }
}

/// The headers that [`apply`] takes from this head, values aside.
pub(super) fn removed(plan: &Plan, head: &Parts) -> Vec<HeaderName> {
    let stripped = stripped(plan, head);
    head.headers.keys().filter(|name| !stripped.headers.contains_key(*name)).cloned().collect()
}

/// Whether [`apply`] changes the query of this head: it names an entity, or holds a credential of the client.
pub(super) fn changes_query(plan: &Plan, head: &Parts) -> bool {
    plan.query.is_some() || stripped(plan, head).uri != head.uri
}

fn stripped(plan: &Plan, head: &Parts) -> Parts {
    let mut stripped = head.clone();
    match &plan.action {
        Action::Pass { drop_provider, .. } => pass(&mut stripped, *drop_provider),
        Action::Headers { .. } | Action::Config { .. } => strip::client_credentials(&mut stripped, &[CONFIG]),
    }
    stripped
}

/// What every request loses, also one that keeps its own credentials.
fn pass(head: &mut Parts, drop_provider: bool) {
    strip::unmatched(head);
    if drop_provider {
        head.headers.remove(PROVIDER);
    }
}

fn set_query(head: &mut Parts, query: &str) {
    let path = head.uri.path();
    let target = if query.is_empty() { path.to_owned() } else { format!("{path}?{query}") };
    let mut parts = std::mem::take(&mut head.uri).into_parts();
    if let Ok(target) = PathAndQuery::try_from(target) {
        parts.path_and_query = Some(target);
    }
    head.uri = http::Uri::from_parts(parts).unwrap_or_default();
}

fn set_config(head: &mut Parts, config: &ConfigHeader) {
    match config {
        ConfigHeader::Keep => {}
        ConfigHeader::Replace(value) => {
            head.headers.insert(CONFIG, value.clone());
        }
    }
}

fn headers(vault: &Vault<'_>, placement: &Placement, head: &mut Parts) -> Result<Injected, ApplyError> {
    let Some(entity) = vault.plan.entities.get(placement.entity) else { return Ok(Injected::default()) };
    let mut injected = Injected { credentials: Vec::with_capacity(entity.fields.len()) };
    if let Some(provider) = header_mode::provider_value(&entity.provider) {
        head.headers.insert(PROVIDER, provider);
    }
    let mut next = 0;
    for placed in placement.fields(entity) {
        let Some(name) = header_mode::header_of(placed.spec) else { continue };
        let (credential, source) = match placed.value {
            PlacedValue::Plain(text) => {
                // Linking lets only header text in.
                if let Ok(value) = HeaderValue::from_str(&text) {
                    head.headers.insert(name, value);
                }
                continue;
            }
            PlacedValue::Stored { field } => {
                let source = Source::Stored { entity: placement.entity, field };
                (vault.credential(source)?, source)
            }
            PlacedValue::Mapped(_) => {
                let source = Source::Mapped(next);
                next += 1;
                (vault.credential(source)?, source)
            }
        };
        let value = if placed.spec.name == FieldSpec::key().name {
            if credential.is_structured() {
                return Err(vault.malformed(source));
            }
            credential.bearer()
        } else {
            credential.header()
        };
        head.headers.insert(name, value.map_err(|_| vault.malformed(source))?);
        injected.credentials.push(credential);
    }
    let custom = entity.fields.iter().position(|field| field.spec.name == CUSTOM_HEADERS);
    if let Some(field) = custom {
        let source = Source::Stored { entity: placement.entity, field };
        let names = vault.set_custom(source, &mut head.headers, &mut injected)?;
        forward(&names, &mut head.headers);
    }
    Ok(injected)
}

/// Adds `names` to those the request wants forwarded.
fn forward(names: &[HeaderName], headers: &mut HeaderMap) {
    let asked = headers.get(FORWARD_HEADERS).map(HeaderValue::as_bytes).unwrap_or_default();
    let mut list = asked.to_vec();
    for name in names {
        if !list.is_empty() {
            list.push(b',');
        }
        list.extend_from_slice(name.as_str().as_bytes());
    }
    if let Ok(value) = HeaderValue::from_bytes(&list) {
        headers.insert(FORWARD_HEADERS, value);
    }
}

fn config(vault: &Vault<'_>, rebuilt: &Rebuilt, head: &mut Parts) -> Result<Injected, ApplyError> {
    let mut injected = Injected { credentials: rebuilt.literals.clone() };
    for hole in rebuilt.template.holes() {
        let credential = vault.credential(hole.source)?;
        if hole.form != Form::Names && !injected.credentials.iter().any(|other| Arc::ptr_eq(other, &credential)) {
            injected.credentials.push(Arc::clone(&credential));
        }
        // A reply may show the key without the JSON around it.
        if hole.form == Form::Object {
            injected.credentials.extend(service_account::private_key(credential.expose()));
        }
    }
    // Both stand in the config now, for each leaf.
    head.headers.remove(PROVIDER);
    head.headers.remove(FORWARD_HEADERS);
    let filled = rebuilt.template.fill(|hole, out| vault.write(hole, out))?;
    // Rendering and filling write ASCII only.
    head.headers.insert(CONFIG, filled.unwrap_or_else(|| HeaderValue::from_static("{}")));
    for &source in &rebuilt.custom {
        vault.set_custom(source, &mut head.headers, &mut injected)?;
    }
    if let Some((name, source)) = rebuilt.key_header {
        let value = vault.credential(source)?.header().map_err(|_| vault.malformed(source))?;
        head.headers.insert(HeaderName::from_static(name), value);
    }
    Ok(injected)
}

// === impl Vault ===

impl<'a> Vault<'a> {
    fn credential(&self, source: Source) -> Result<Arc<Credential>, ApplyError> {
        let found = match source {
            Source::Mapped(index) => self.resolved.get(index).cloned(),
            Source::Stored { entity, field } => match self.stored(entity, field) {
                // What cannot be opened was told when the request was planned, unless it was forgotten since.
                Some(FieldValue::Stored(stored)) => stored.credential().ok(),
                Some(FieldValue::Plain(_) | FieldValue::Mapped(_)) | None => None,
            },
        };
        found.ok_or_else(|| self.malformed(source))
    }

    fn stored(&self, entity: usize, field: usize) -> Option<&'a FieldValue> {
        self.plan.entities.get(entity)?.fields.get(field).map(|field| &field.value)
    }

    fn malformed(&self, source: Source) -> ApplyError {
        match source {
            Source::Mapped(index) => ApplyError::Malformed { index },
            Source::Stored { entity, .. } => {
                let slug = self.plan.entities.get(entity).map(|entity: &Arc<Entity>| Arc::clone(&entity.slug));
                ApplyError::StoredMalformed { slug: slug.unwrap_or_default() }
            }
        }
    }

    /// Writes the value of a hole as JSON.
    fn write(&self, hole: Hole, out: &mut dyn FnMut(&str)) -> Result<(), ApplyError> {
        let credential = self.credential(hole.source)?;
        let text = credential.expose();
        let fits = match hole.form {
            Form::Key if credential.is_structured() => false,
            // A structure is compact ASCII JSON already.
            Form::Line if credential.is_structured() => {
                out(text);
                true
            }
            Form::Key | Form::Line => write_if(is_header_safe(text), text, out),
            Form::Lines => write_if(is_text(text), text, out),
            Form::Object => service_account::write(text, out),
            Form::Names => match custom_headers::names(text) {
                Ok(names) => {
                    for (at, name) in names.iter().enumerate() {
                        out(if at == 0 { "" } else { "," });
                        render::quoted(name.as_str(), out);
                    }
                    true
                }
                Err(custom_headers::NotHeaders) => false,
            },
        };
        if fits { Ok(()) } else { Err(self.malformed(hole.source)) }
    }

    fn set_custom(
        &self,
        source: Source,
        headers: &mut HeaderMap,
        injected: &mut Injected,
    ) -> Result<Vec<HeaderName>, ApplyError> {
        let credential = self.credential(source)?;
        let custom = custom_headers::read(credential.expose()).map_err(|_| self.malformed(source))?;
        let mut names = Vec::with_capacity(custom.len());
        for header in custom {
            names.push(header.name.clone());
            headers.insert(header.name, header.value);
            injected.credentials.push(header.credential);
        }
        Ok(names)
    }
}

/// Whether `text` is not empty and holds nothing but lines of ASCII text.
fn is_text(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| matches!(byte, b' '..=b'~' | b'\n' | b'\r' | b'\t'))
}

fn write_if(fits: bool, text: &str, out: &mut dyn FnMut(&str)) -> bool {
    if fits {
        render::quoted(text, out);
    }
    fits
}
