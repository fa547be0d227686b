//! `/integrations/{slug}/workspaces`: which workspaces may use an integration of the organisation, and how much.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::Arc,
};

use axum::extract::{Path, State};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{Body, find, save};
use crate::control::{
    Answer, Caller, Control, Refusal, Verb,
    fields::{Body as Posted, Fields, Given, Length},
    limits::{self, RateLimit, UsageLimit},
    query::Query,
    slug,
    store::{Action, Filter, Kind, Object, Write},
    virtual_key,
};

/// Most usage or rate limits of one workspace.
const MAX_LIMITS: usize = 1;

/// Who may use an integration.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Access {
    /// What new workspaces start with.
    pub global: Option<Settings>,
    /// Whether new workspaces start without a virtual key for it.
    pub without_first: bool,
    /// What was set for a workspace, by its id.
    pub workspaces: BTreeMap<String, Settings>,
}

/// What one workspace may do.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Settings {
    /// Whether it may use the integration.
    pub enabled: bool,
    /// Kept and shown; no data plane asks.
    pub usage_limits: Vec<UsageLimit>,
    /// Kept and shown; no data plane asks.
    pub rate_limits: Vec<RateLimit>,
}

/// The virtual key that a workspace gets with an integration; Portkey calls it the default provider.
#[derive(Clone, Debug, Default)]
pub(super) struct FirstProvider {
    wanted: Option<bool>,
    slug: Option<String>,
}

// === impl Access ===

impl Access {
    /// Ids of the workspaces that may use it, in order.
    pub fn open_to(&self) -> impl Iterator<Item = &str> {
        self.workspaces.iter().filter(|(_, settings)| settings.enabled).map(|(id, _)| id.as_str())
    }
}

// === impl Settings ===

impl Settings {
    fn take(&mut self, fields: &mut Fields<'_>) {
        let enabled = fields.flag("enabled");
        self.enabled = fields.require("enabled", enabled).unwrap_or_default();
        limits::usage(fields).put(&mut self.usage_limits);
        limits::rates(fields).put(&mut self.rate_limits);
        for (key, count) in [("usage_limits", self.usage_limits.len()), ("rate_limits", self.rate_limits.len())] {
            if count > MAX_LIMITS {
                fields.fault(key, format_args!("must be {MAX_LIMITS} at most"));
            }
        }
    }
}

// === impl FirstProvider ===

impl FirstProvider {
    pub(super) fn read(fields: &mut Fields<'_>) -> Self {
        let wanted = fields.flag("create_default_provider").value();
        Self { wanted, slug: slug::chosen(fields, "default_provider_slug") }
    }

    pub(super) fn is_wanted(&self) -> bool {
        self.wanted.unwrap_or(true)
    }

    pub(super) fn slug(&self) -> Option<&str> {
        self.slug.as_deref()
    }

    /// What is said for one workspace, over what is said for all.
    fn over(self, general: &Self) -> Self {
        Self { wanted: self.wanted.or(general.wanted), slug: self.slug.or_else(|| general.slug.clone()) }
    }
}

/// `GET /integrations/{name}/workspaces`.
///
/// # Errors
/// [`Refusal`].
pub async fn list(
    State(control): State<Arc<Control>>,
    caller: Caller,
    Path(name): Path<String>,
    query: Query,
) -> Result<Answer, Refusal> {
    let mut tenant = caller.tenant(&control).await?;
    let (object, mut body) = find(&mut tenant, &caller, Verb::Read, &name, &query).await?;
    if !object.workspace_id.is_empty() {
        let own = Settings { enabled: true, ..Settings::default() };
        body.access.workspaces = BTreeMap::from([(object.workspace_id, own)]);
    }
    if !caller.is_organisation_wide() {
        body.access.workspaces.retain(|id, _| id == caller.workspace_id());
        body.access.global = None;
    }
    let workspaces = tenant.all(Kind::Workspace, &Filter::default()).await?;
    let workspaces: HashMap<&str, &Object> = workspaces.iter().map(|object| (object.id.as_str(), object)).collect();
    let shown = |(id, settings): (&String, &Settings)| {
        let workspace = workspaces.get(id.as_str());
        json!({
            "id": id,
            "slug": workspace.map(|workspace| &workspace.slug),
            "name": workspace.map(|workspace| &workspace.name),
            "enabled": settings.enabled,
            // The SDK for Python takes no list here, be it empty.
            "usage_limits": Some(&settings.usage_limits).filter(|limits| !limits.is_empty()),
            "rate_limits": Some(&settings.rate_limits).filter(|limits| !limits.is_empty()),
        })
    };
    let rows: Vec<Value> = body.access.workspaces.iter().map(shown).collect();
    Ok(Answer::of(json!({
        "object": "list", "total": rows.len(), "workspaces": rows, "global_workspace_access": body.access.global,
    })))
}

/// `PUT /integrations/{name}/workspaces`. Workspaces that are not named keep what they have, unless
/// `override_existing_workspace_access` says that they lose it; what is said for all workspaces is for new ones otherwise.
///
/// # Errors
/// [`Refusal`].
pub async fn update(
    State(control): State<Arc<Control>>,
    caller: Caller,
    Path(name): Path<String>,
    query: Query,
    posted: Posted,
) -> Result<Answer, Refusal> {
    let mut fields = posted.fields()?;
    let mut write = caller.write(&control).await?;
    let (mut object, mut body) = find(&mut write, &caller, Verb::Update, &name, &query).await?;
    caller.owns(&object)?;
    if !object.workspace_id.is_empty() {
        return Err(Refusal::invalid("the integration belongs to a workspace, and no other can be let in"));
    }
    let before: HashSet<String> = body.access.open_to().map(str::to_owned).collect();
    let general = FirstProvider::read(&mut fields);
    // As Portkey's API has it, and as its SDK for Python spells it.
    let overrides = ["override_existing_workspace_access", "override_existing_workspaces_access"]
        .map(|key| fields.flag(key).value() == Some(true))
        .contains(&true);
    if overrides {
        body.access.workspaces.clear();
    }
    match fields.object("global_workspace_access") {
        Given::Value(mut given) => {
            let global = body.access.global.get_or_insert_default();
            global.take(&mut given);
            body.access.without_first = !general.is_wanted();
            if overrides && global.enabled {
                let everyone = write.all(Kind::Workspace, &Filter::default()).await?;
                body.access.workspaces = everyone.into_iter().map(|workspace| (workspace.id, global.clone())).collect();
            }
            fields.absorb(given);
        }
        Given::Null => body.access.global = None,
        Given::Absent => {}
    }
    let mut firsts = HashMap::new();
    for mut row in fields.objects("workspaces").value().unwrap_or_default() {
        let id = row.text("id", Length(1, slug::MAX));
        let id = row.require("id", id);
        let first = FirstProvider::read(&mut row).over(&general);
        // Usage is counted where requests pass.
        row.toggle("reset_usage");
        let mut settings = Settings::default();
        if let Some(id) = id {
            let id = caller.workspace(&mut write, "workspaces", &id).await?;
            settings = body.access.workspaces.remove(&id).unwrap_or_default();
            settings.take(&mut row);
            firsts.insert(id.clone(), first);
            body.access.workspaces.insert(id, settings);
        } else {
            settings.take(&mut row);
        }
        fields.absorb(row);
    }
    fields.finish()?;
    let joined: Vec<String> = body.access.open_to().filter(|id| !before.contains(*id)).map(str::to_owned).collect();
    for id in joined {
        let first = firsts.get(&id).unwrap_or(&general);
        if first.is_wanted() {
            virtual_key::make_first(&mut write, &object, &body, &id, first.slug()).await?;
        }
    }
    save(write, &mut object, &body, Action::Updated, &fields).await
}

/// Lets a new workspace into every integration that is open to new ones.
///
/// # Errors
/// 500.
pub async fn join(write: &mut Write, workspace: &Object) -> Result<(), Refusal> {
    for mut object in write.all(Kind::Integration, &Filter::default()).await? {
        let mut body: Body = object.read()?;
        let Some(global) = body.access.global.as_ref().filter(|global| global.enabled) else { continue };
        body.access.workspaces.insert(workspace.id.clone(), global.clone());
        if !body.access.without_first {
            virtual_key::make_first(write, &object, &body, &workspace.id, None).await?;
        }
        object.write(&body)?;
        write.update(&mut object).await?;
        write.set_uses(&object, &body.uses(&object)).await?;
    }
    Ok(())
}

/// Takes a workspace that goes out of every integration that it was let into.
///
/// # Errors
/// 500.
pub async fn leave(write: &mut Write, workspace: &Object) -> Result<(), Refusal> {
    for mut object in write.used_by(Kind::Workspace, &workspace.id, Kind::Integration).await? {
        let mut body: Body = object.read()?;
        body.access.workspaces.remove(&workspace.id);
        object.write(&body)?;
        write.update(&mut object).await?;
        write.set_uses(&object, &body.uses(&object)).await?;
    }
    Ok(())
}
