//! Raw → linked: finds every fault at once, resolves names to objects, computes effective fields.
//!
//! Three severities. What leaves the document without a meaning (not JSON, another `schema_version`, duplicate ids or slugs)
//! refuses the whole of it. Everything else is a fault of one object: it refuses the whole when strict; otherwise the object
//! and what depends on it are set aside and stay nameable, so that a request is told `reference_misconfigured` and not that
//! the name is unknown. A dangling id in an allow-list sets nothing aside: nobody can be in a workspace that does not exist.

mod api_key;
mod config;
mod entity;
mod fields;
mod findings;
mod inherit;
mod limits;
mod literal;
mod reference;
mod rows;
mod scope;

use std::{fmt, sync::Arc};

use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use self::{
    findings::Findings,
    reference::References,
    scope::{Interner, WorkspaceIndex},
};
use super::{
    AuthConfig, ManagerType, SecretLocation, Snapshot,
    raw::{Document, Given},
    seals::Seals,
};
use crate::seal::opener::Opener;

/// The only `schema_version` there is.
const SCHEMA_VERSION: u64 = 1;

/// What linking needs to know from outside.
pub struct LinkRules<'a> {
    /// Refuse the snapshot for any fault, instead of setting the faulty object aside.
    pub strict: bool,
    /// Whether this process can and may use such a reference: manager compiled in and switched on, address and path admitted.
    /// Asked without a location when that cannot be read, so that the rest is judged all the same. The error is a reason for
    /// people, without secrets.
    pub admit: &'a Admission<'a>,
    /// Who opens sealed values; with `None` each of them is a fault.
    pub opener: Option<&'a Arc<Opener>>,
}

/// The shape of [`LinkRules::admit`].
pub type Admission<'a> =
    dyn Fn(ManagerType, &AuthConfig, Option<&SecretLocation>) -> Result<(), String> + Send + Sync + 'a;

/// One fault: where, what, and what to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Path of the key, like `secret_references[2].secret_path (openai-prod)`, with the object's slug where it has one.
    pub at: String,
    /// What is wrong and how to mend it. Never a secret, never a neighbouring value.
    pub message: String,
}

/// Why a snapshot was refused: all faults at once.
#[derive(Debug, thiserror::Error)]
#[error("{} problem(s) in the snapshot", problems.len())]
pub struct SnapshotError {
    /// Every fault, in document order.
    pub problems: Vec<Problem>,
}

/// What every object is linked with.
struct Context<'a> {
    rules: &'a LinkRules<'a>,
    workspaces: &'a WorkspaceIndex,
    organisation: Arc<str>,
    names: Interner,
}

/// Parses and links `json`.
///
/// # Errors
/// [`SnapshotError`] when the document is not JSON, has another `schema_version`, duplicate ids or slugs, or, when
/// strict, any fault at all.
pub fn link(json: &[u8], rules: &LinkRules<'_>) -> Result<Snapshot, SnapshotError> {
    let document = Document::parse(json).map_err(|message| SnapshotError::single("snapshot", message))?;
    if !matches!(document.schema_version, Given::Value(SCHEMA_VERSION)) {
        return Err(SnapshotError::single("schema_version", format!("must be {SCHEMA_VERSION}")));
    }
    let mut findings = Findings::default();
    let mut snapshot = Snapshot {
        version: findings.value("version", document.version, "a whole number").unwrap_or_default(),
        generated_at: findings
            .value("generated_at", document.generated_at, "a time like 2026-11-21T03:00:00Z")
            .and_then(|text| findings.instant("generated_at", &text)),
        organisation_id: findings.value("organisation_id", document.organisation_id, "text").unwrap_or_default().into(),
        ..Snapshot::default()
    };

    let workspaces = WorkspaceIndex::link(document.workspaces, &mut findings);
    let organisation = Arc::clone(&snapshot.organisation_id);
    let mut context = Context { rules, workspaces: &workspaces, organisation, names: Interner::default() };
    let references = References::link(document.secret_references, &mut context, &mut findings);
    let parents =
        entity::link_integrations(document.integrations, &references, &mut context, &mut findings, &mut snapshot);
    entity::link_virtual_keys(document.virtual_keys, &parents, &references, &mut context, &mut findings, &mut snapshot);
    config::link(document.configs, &context, &mut findings, &mut snapshot);
    api_key::link(document.api_keys, &mut context, &mut findings, &mut snapshot);

    snapshot.references = references.into_usable();
    workspaces.fill(&mut snapshot);
    snapshot.ignored = findings.take_ignored();
    snapshot.objects_set_aside = findings.set_aside();
    let (problems, refused) = findings.into_problems();
    if refused || (rules.strict && !problems.is_empty()) {
        return Err(SnapshotError { problems });
    }
    snapshot.set_aside = problems;
    Ok(snapshot)
}

fn parse_instant(text: &str) -> Option<OffsetDateTime> {
    OffsetDateTime::parse(text, &Rfc3339).ok()
}

// === impl Context ===

impl<'a> Context<'a> {
    /// What is sealed for the object with this id.
    fn seals<'s>(&'s self, object_id: &'s Arc<str>) -> Seals<'s>
    where
        'a: 's,
    {
        Seals { opener: self.rules.opener, organisation: &self.organisation, object_id }
    }
}

// === impl LinkRules ===

impl LinkRules<'_> {
    /// Strict, and every well-formed reference is admitted: what a snapshot means, whatever this process can reach.
    pub const STRICT: LinkRules<'static> = LinkRules { strict: true, admit: &|_, _, _| Ok(()), opener: None };
    /// As [`LinkRules::STRICT`], but faults set objects aside.
    pub const LENIENT: LinkRules<'static> = LinkRules { strict: false, admit: &|_, _, _| Ok(()), opener: None };
}

impl fmt::Debug for LinkRules<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LinkRules").field("strict", &self.strict).finish_non_exhaustive()
    }
}

// === impl Problem ===

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.at, self.message)
    }
}

// === impl SnapshotError ===

impl SnapshotError {
    fn single(at: &str, message: String) -> Self {
        Self { problems: vec![Problem { at: at.to_owned(), message }] }
    }
}

#[cfg(test)]
mod tests;
