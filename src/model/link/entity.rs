//! `integrations[]` and `virtual_keys[]` → [`Entity`].

use std::{collections::HashMap, sync::Arc};

use super::{
    Context,
    fields::{self, Own, Subject, Written},
    findings::{Findings, Ids, Naming, Quoted, Report},
    inherit::{self, Effective},
    limits,
    reference::References,
    rows,
};
use crate::model::{
    AccountKind, Entity, EntityKind, Hidden, Lifespan, Snapshot, Workspaces,
    raw::{self, Given, Rows, Text},
};

/// Linked integrations by id, for the virtual keys that inherit from them.
pub(super) type Parents = HashMap<Arc<str>, Parent>;

/// An integration as virtual keys see it.
pub(super) struct Parent {
    entity: Arc<Entity>,
    /// Without the references it maps: a virtual key may map others instead.
    lifespan: Lifespan,
}

/// Links the integrations into `snapshot`.
pub(super) fn link_integrations(
    given: Rows<'_>,
    references: &References,
    context: &mut Context<'_>,
    findings: &mut Findings,
    snapshot: &mut Snapshot,
) -> Parents {
    const LIST: &str = "integrations";
    let mut parents = Parents::new();
    let mut ids = Ids::default();
    let rows = findings.rows(LIST, given);
    rows::each(&rows, |index, row: Option<raw::Entity<'_>>| {
        let Some(row) = findings.known(LIST, index, row) else { return };
        let mut report = findings.report(LIST, index);
        let Some(named) = report.named(row.id, row.slug) else { return };
        let workspace_id = context.workspaces.owner(row.workspace_id, &mut report);
        let Naming { id, slug } = report.identified(named, workspace_id.as_deref(), &mut ids);
        if !snapshot.integrations.is_free(workspace_id.as_deref(), &slug) {
            report.refuse("slug", "is the slug of an earlier integration of the same scope, too");
        }
        let provider = first([row.ai_provider_id, row.provider]);
        let provider = report.required_text("ai_provider_id", provider).unwrap_or_default();
        let lifespan = report.lifespan(row.status, row.expires_at);
        let shared_with = context.workspaces.sharing(row.allow_all_workspaces, row.allowed_workspaces, &mut report);
        let seals = context.seals(&id);
        let subject = Subject { kind: EntityKind::Integration, provider: &provider, seals };
        let written = Written { key: row.key, members: row.configurations, mappings: row.secret_mappings };
        let effective = inherit::alone(fields::read(&subject, written, references, &mut report));
        inherit::check_sets(&effective.fields, &mut report);
        let fault = report.into_fault();
        let effective = if fault.is_none() { effective } else { Effective::nothing() };
        let entity = Entity {
            kind: EntityKind::Integration,
            id: Arc::clone(&id),
            slug,
            provider: context.names.intern(&provider),
            workspace_id: workspace_id.clone(),
            lifespan: lifespan.and(Own::mapped_lifespan(&effective.fields)),
            fields: effective.fields,
            deployments: effective.deployments,
            integration: None,
            shared_with,
            account: None,
            fault,
            is_open: false,
        };
        let entity = Arc::new(entity.settled());
        snapshot.integrations.insert(workspace_id.as_ref(), Arc::clone(&entity));
        parents.insert(id, Parent { entity, lifespan });
    });
    parents
}

/// Links the virtual keys into `snapshot`, whose integrations are linked already.
pub(super) fn link_virtual_keys(
    given: Rows<'_>,
    parents: &Parents,
    references: &References,
    context: &mut Context<'_>,
    findings: &mut Findings,
    snapshot: &mut Snapshot,
) {
    const LIST: &str = "virtual_keys";
    let rows = findings.rows(LIST, given);
    let mut ids = Ids::of(rows.len());
    snapshot.virtual_keys.reserve(rows.len());
    rows::each(&rows, |index, row: Option<raw::Entity<'_>>| {
        let Some(row) = findings.known(LIST, index, row) else { return };
        let mut report = findings.report(LIST, index);
        let Some(named) = report.named(row.id, row.slug) else { return };
        let workspace_id = context.workspaces.owner(row.workspace_id, &mut report);
        let Naming { id, slug } = report.identified(named, workspace_id.as_deref(), &mut ids);
        if !snapshot.virtual_keys.is_free(workspace_id.as_deref(), &slug) {
            report.refuse("slug", "is the slug of an earlier virtual key of the same scope, too");
        }
        let stands_alone = row.integration_id.is_blank();
        let parent = parent(row.integration_id, workspace_id.as_deref(), parents, snapshot, &mut report);
        let provider = first([row.provider, row.ai_provider_name, row.ai_provider_id]);
        let provider = provider_of(provider, parent, stands_alone, &mut report);
        let seals = context.seals(&id);
        let subject = Subject { kind: EntityKind::VirtualKey, provider: &provider, seals };
        let written = Written { key: row.key, members: row.model_config, mappings: row.secret_mappings };
        let own = fields::read(&subject, written, references, &mut report);
        let mut lifespan = report.lifespan(row.status, row.expires_at);
        let owner = (AccountKind::VirtualKey, &id);
        let account =
            limits::account(owner, false, row.rate_limits, (row.usage_limits, row.usage_reset_at), &mut report);
        let effective = match parent {
            Some(parent) => {
                lifespan = lifespan.and(parent.lifespan);
                inherit::over(&parent.entity, own, &mut report)
            }
            None => inherit::alone(own),
        };
        if report.is_clean() {
            inherit::check_sets(&effective.fields, &mut report);
        }
        let fault = report.into_fault();
        let effective = if fault.is_none() { effective } else { Effective::nothing() };
        if let Some(parent) = parent {
            snapshot.linked.entry(Arc::clone(&parent.entity.id)).or_default().add(workspace_id.as_ref());
        }
        let entity = Entity {
            kind: EntityKind::VirtualKey,
            id,
            slug,
            provider: context.names.intern(&provider),
            workspace_id: workspace_id.clone(),
            lifespan: lifespan.and(Own::mapped_lifespan(&effective.fields)),
            fields: effective.fields,
            deployments: effective.deployments,
            integration: parent.map(|parent| Arc::clone(&parent.entity)),
            shared_with: Workspaces::All,
            account,
            fault,
            is_open: false,
        };
        snapshot.virtual_keys.insert(workspace_id.as_ref(), Arc::new(entity.settled()));
    });
}

/// The first that is there: APIs and versions spell the provider differently.
fn first<const N: usize>(spellings: [Given<Text<'_>>; N]) -> Given<Text<'_>> {
    spellings.into_iter().find(|given| !matches!(given, Given::Absent)).unwrap_or_default()
}

/// The integration a virtual key is linked to. Its slug is looked up from the key's workspace; an id wins over a slug.
fn parent<'a>(
    given: Given<Text<'_>>,
    workspace: Option<&str>,
    parents: &'a Parents,
    snapshot: &Snapshot,
    report: &mut Report<'_>,
) -> Option<&'a Parent> {
    let name = report.text("integration_id", given)?;
    let found = match parents.get(&*name) {
        Some(parent) => Ok(parent),
        None => snapshot.integrations.find(&name, workspace).map(|entity| &parents[&entity.id]),
    };
    match found {
        Ok(parent) if parent.entity.fault.is_some() => {
            report.fault("integration_id", format_args!("{} is an integration with a fault of its own", Quoted(&name)));
            Some(parent)
        }
        Ok(parent) => Some(parent),
        Err(Hidden::Ambiguous) => {
            report.fault("integration_id", format_args!("{} names several integrations; write the id", Quoted(&name)));
            None
        }
        Err(_) => {
            report.fault("integration_id", format_args!("{} is no integration of this snapshot", Quoted(&name)));
            None
        }
    }
}

/// The provider of a virtual key: its own, or that of its integration. Two different ones would send a credential to a
/// stranger.
fn provider_of<'t>(
    given: Given<Text<'t>>,
    parent: Option<&'t Parent>,
    stands_alone: bool,
    report: &mut Report<'_>,
) -> Text<'t> {
    if stands_alone {
        return report.required_text("provider", given).unwrap_or_default();
    }
    match (report.text("provider", given), parent) {
        (Some(own), Some(parent)) if *own != *parent.entity.provider && parent.entity.fault.is_none() => {
            let theirs = &parent.entity.provider;
            report.fault("provider", format_args!("differs from {} of the integration; remove it", Quoted(theirs)));
            own
        }
        (Some(own), _) => own,
        (None, Some(parent)) => Text::Borrowed(&parent.entity.provider),
        // The integration is not known, which is said already.
        (None, None) => Text::default(),
    }
}
