//! `/admin/workspaces`: the rooms of an organisation, and who is in them.
//!
//! Users are opaque ids: Sidekey knows callers by their API keys, and keeps what a directory elsewhere says. Workspaces are
//! the organisation's to make and to remove; a workspace's key sees its own and nothing of another.

mod member;

pub use member::{add as add_members, list as list_members, read as read_member};
pub use member::{remove as remove_member, update as update_member};

use std::{collections::BTreeMap, sync::Arc};

use axum::extract::{Path, State};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use self::member::Member;
use super::{
    Answer, Caller, Control, Refusal, Verb,
    answer::instant,
    config,
    fields::{Body as Posted, Fields, Given, Length},
    integration,
    limits::{self, RateLimit, UsageLimit},
    query::Query,
    secret_reference, slug,
    store::{Action, Change, Filter, Kind, Object, StoreError, Tenant, Write},
};

/// In scopes.
const RESOURCE: &str = "workspaces";
/// In answers.
const OBJECT: &str = "workspace";
/// On a page, if nobody says; and at most.
const PAGE_SIZE: (usize, usize) = (50, 1000);
/// What a workspace can be.
const STATUSES: [&str; 2] = ["active", "archived"];
/// Members of one workspace.
const MAX_MEMBERS: usize = 10_000;
/// Largest `api_key_max_ttl_days`: ten years.
const MAX_TTL_DAYS: u32 = 3650;
/// Slugs named in a refusal.
const MAX_NAMED: usize = 10;
/// What goes with its workspace, users before what they use.
const BELONGINGS: [Kind; 4] = [Kind::ApiKey, Kind::Config, Kind::VirtualKey, Kind::Integration];
/// Of these, what is worth a question first.
const OBSTACLES: [Kind; 2] = [Kind::VirtualKey, Kind::Integration];

/// What only a workspace has.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Body {
    /// For people.
    #[serde(default)]
    pub description: Option<String>,
    /// What its API keys start from.
    #[serde(default)]
    pub defaults: Defaults,
    /// Who is in it.
    #[serde(default)]
    pub users: Vec<Member>,
    /// For all of it together.
    #[serde(default)]
    pub usage_limits: Vec<UsageLimit>,
    /// For all of it together.
    #[serde(default)]
    pub rate_limits: Vec<RateLimit>,
    /// When somebody last had the use of it counted from 0, in milliseconds since 1970. Ours.
    #[serde(default)]
    pub usage_reset_at: Option<i64>,
    /// How long its API keys may live at most, in days; `None` = for ever. Ours.
    #[serde(default)]
    pub api_key_max_ttl_days: Option<u32>,
}

/// What the API keys of a workspace start from.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Defaults {
    /// Joined with that of each request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metadata: Option<BTreeMap<String, String>>,
    /// Slugs of guardrails.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub input_guardrails: Option<Vec<String>>,
    /// Slugs of guardrails.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output_guardrails: Option<Vec<String>>,
    /// Config of keys that name none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user_api_key_config: Option<String>,
}

/// `workspaces[]` of a snapshot.
#[derive(Debug, Serialize)]
pub struct Row<'a> {
    id: &'a str,
    slug: &'a str,
    name: &'a str,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    rate_limits: &'a [RateLimit],
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    usage_limits: &'a [UsageLimit],
    #[serde(skip_serializing_if = "Option::is_none")]
    usage_reset_at: Option<String>,
}

// === impl Body ===

impl Body {
    /// Its row of a snapshot.
    pub fn snapshot_row<'a>(&'a self, object: &'a Object) -> Row<'a> {
        Row {
            id: &object.id,
            slug: &object.slug,
            name: &object.name,
            rate_limits: &self.rate_limits,
            usage_limits: &self.usage_limits,
            usage_reset_at: self.usage_reset_at.map(instant),
        }
    }

    fn take(&mut self, fields: &mut Fields<'_>, name: &mut String) {
        fields.text("name", Length(1, 255)).replace(name);
        fields.text("description", Length(0, 1024)).set(&mut self.description);
        match fields.object("defaults") {
            Given::Value(mut given) => {
                self.defaults.take(&mut given);
                fields.absorb(given);
            }
            Given::Null => self.defaults = Defaults::default(),
            Given::Absent => {}
        }
        limits::usage(fields).put(&mut self.usage_limits);
        limits::rates(fields).put(&mut self.rate_limits);
        fields
            .typed("api_key_max_ttl_days", "must be a whole number of days, or null")
            .set(&mut self.api_key_max_ttl_days);
        if self.api_key_max_ttl_days.is_some_and(|days| !(1..=MAX_TTL_DAYS).contains(&days)) {
            fields.fault("api_key_max_ttl_days", format_args!("must be 1 to {MAX_TTL_DAYS}"));
        }
    }
}

// === impl Defaults ===

impl Defaults {
    fn take(&mut self, fields: &mut Fields<'_>) {
        fields.typed("metadata", "must be an object of texts, or null").set(&mut self.metadata);
        fields.texts("input_guardrails").set(&mut self.input_guardrails);
        fields.texts("output_guardrails").set(&mut self.output_guardrails);
        fields.text("user_api_key_config", Length(1, slug::MAX)).set(&mut self.user_api_key_config);
    }

    /// Puts the slug of the config in the place of the name that was given; returns the id of the config. One that was named
    /// `before` may be gone: nobody looked then.
    async fn find_config(
        &mut self,
        fields: &mut Fields<'_>,
        tenant: &mut Tenant,
        workspace: &Object,
        before: Option<&str>,
    ) -> Result<Option<String>, StoreError> {
        let Some(name) = &self.user_api_key_config else { return Ok(None) };
        let found = config::reached(tenant, name, &workspace.id).await?;
        match &found {
            Some(config) => self.user_api_key_config = Some(config.slug.clone()),
            None if before == Some(name) => {}
            None => fields.fault("defaults.user_api_key_config", "names no config that keys of this workspace may use"),
        }
        Ok(found.map(|config| config.id))
    }
}

/// `POST /admin/workspaces`.
///
/// # Errors
/// [`Refusal`].
pub async fn create(State(control): State<Arc<Control>>, caller: Caller, posted: Posted) -> Result<Answer, Refusal> {
    may(&caller, Verb::Create)?;
    let mut fields = posted.fields()?;
    let mut write = caller.write(&control).await?;
    let mut object = Object::new(Kind::Workspace, Object::new_id(), String::new(), String::new());
    let mut body = Body::default();
    let name = fields.raw("name");
    fields.require("name", name);
    let chosen = slug::chosen(&mut fields, "slug");
    for id in fields.texts("users").value().unwrap_or_default() {
        body.users.push(Member::new(id, write.at()));
    }
    member::check(&mut fields, &mut body.users);
    body.take(&mut fields, &mut object.name);
    let config = body.defaults.find_config(&mut fields, &mut write, &object, None).await?;
    fields.finish()?;
    object.slug = chosen.unwrap_or_else(|| slug::make("ws-", &object.name));
    object.write(&body)?;
    write.insert(&mut object).await?;
    use_config(&mut write, &object, config).await?;
    integration::access::join(&mut write, &object).await?;
    write.commit(Change::of(Action::Created, &object, fields.names())).await?;
    Ok(Answer::of(shown(&object, &body)))
}

/// `GET /admin/workspaces`.
///
/// # Errors
/// [`Refusal`].
pub async fn list(State(control): State<Arc<Control>>, caller: Caller, query: Query) -> Result<Answer, Refusal> {
    caller.may(RESOURCE, Verb::List)?;
    let page = query.page(PAGE_SIZE.0, PAGE_SIZE.1)?;
    let statuses: Vec<String> =
        query.get("status").map_or_else(Vec::new, |list| list.split(',').map(trimmed).collect());
    if statuses.iter().any(|status| !STATUSES.contains(&status.as_str())) {
        return Err(Refusal::invalid(format!("status: must be of {}, by commas", STATUSES.join(", "))));
    }
    let text = |name: &str| query.get(name).unwrap_or_default().to_owned();
    let filter = Filter { exact_name: text("exact_name"), statuses, ..Filter::default() };
    let name_part = text("name");
    let mut tenant = caller.tenant(&control).await?;
    let found = if caller.is_organisation_wide() && name_part.is_empty() {
        tenant.page(Kind::Workspace, &filter, page).await?
    } else {
        // Names are searched with their case here, as Portkey says.
        let keep = |object: &Object| Ok(is_open_to(&caller, object) && object.name.contains(&name_part));
        tenant.page_of(Kind::Workspace, &filter, page, keep).await?
    };
    let mut data = Vec::with_capacity(found.objects.len());
    for object in &found.objects {
        data.push(shown(object, &object.read()?));
    }
    Ok(Answer::list(found.total, data))
}

/// `GET /admin/workspaces/{name}`.
///
/// # Errors
/// [`Refusal`].
pub async fn read(
    State(control): State<Arc<Control>>,
    caller: Caller,
    Path(name): Path<String>,
) -> Result<Answer, Refusal> {
    caller.may(RESOURCE, Verb::Read)?;
    let mut tenant = caller.tenant(&control).await?;
    let (object, body) = find(&mut tenant, &caller, &name).await?;
    let mut shown = shown(&object, &body);
    shown["users"] = body.users.iter().map(|member| member.shown(&object)).collect();
    Ok(Answer::of(shown))
}

/// `PUT /admin/workspaces/{name}`.
///
/// # Errors
/// [`Refusal`].
pub async fn update(
    State(control): State<Arc<Control>>,
    caller: Caller,
    Path(name): Path<String>,
    posted: Posted,
) -> Result<Answer, Refusal> {
    caller.may(RESOURCE, Verb::Update)?;
    let mut fields = posted.fields()?;
    let mut write = caller.write(&control).await?;
    let (mut object, mut body) = find(&mut write, &caller, &name).await?;
    let before = body.defaults.user_api_key_config.clone();
    body.take(&mut fields, &mut object.name);
    if fields.toggle("reset_usage").value() == Some(true) {
        body.usage_reset_at = Some(write.at());
        write.forget_usage(&object).await?;
    }
    let config = body.defaults.find_config(&mut fields, &mut write, &object, before.as_deref()).await?;
    fields.finish()?;
    use_config(&mut write, &object, config).await?;
    save(write, &mut object, &body, fields.names()).await
}

/// `DELETE /admin/workspaces/{name}`.
///
/// # Errors
/// [`Refusal`]; 409 while virtual keys or integrations are in it, unless `force_delete` says that they go, too.
pub async fn delete(
    State(control): State<Arc<Control>>,
    caller: Caller,
    Path(name): Path<String>,
    posted: Posted,
) -> Result<Answer, Refusal> {
    may(&caller, Verb::Delete)?;
    let mut fields = posted.optional_fields()?;
    let mut write = caller.write(&control).await?;
    let (object, _) = find(&mut write, &caller, &name).await?;
    let confirmed = fields.text("name", Length(0, 255)).value();
    if confirmed.is_some_and(|confirmed| confirmed != object.name) {
        fields.fault("name", "is not the name of this workspace");
    }
    let force = fields.flag("force_delete").value().unwrap_or_default();
    fields.finish()?;
    let filter = Filter { workspace_id: object.id.clone(), own_only: true, ..Filter::default() };
    if !force {
        let mut named = Vec::new();
        for kind in OBSTACLES {
            named.extend(write.all(kind, &filter).await?.iter().map(|found| format!("{} {}", kind.noun(), found.slug)));
        }
        if !named.is_empty() {
            named.truncate(MAX_NAMED);
            let named = named.join(", ");
            return Err(Refusal::conflict(format!("the workspace still has {named}; remove them first")));
        }
    }
    use_config(&mut write, &object, None).await?;
    for kind in BELONGINGS {
        for belonging in write.all(kind, &filter).await? {
            write.remove(&belonging).await?;
        }
    }
    close_references(&mut write, &object).await?;
    integration::access::leave(&mut write, &object).await?;
    write.remove(&object).await?;
    write.commit(Change::of(Action::Deleted, &object, fields.names())).await?;
    Ok(Answer::done())
}

/// Records the config that a workspace names, which cannot be removed while it does.
async fn use_config(write: &mut Write, workspace: &Object, config: Option<String>) -> Result<(), StoreError> {
    let used: Vec<_> = config.into_iter().map(|id| (Kind::Config, id)).collect();
    write.set_uses(workspace, &used).await
}

/// Takes a workspace that goes out of what is open to it.
async fn close_references(write: &mut Write, workspace: &Object) -> Result<(), Refusal> {
    for mut object in write.all(Kind::SecretReference, &Filter::default()).await? {
        let mut body: secret_reference::Body = object.read()?;
        let before = body.allowed_workspaces.len();
        body.allowed_workspaces.retain(|id| *id != workspace.id);
        if body.allowed_workspaces.len() != before {
            object.write(&body)?;
            write.update(&mut object).await?;
        }
    }
    Ok(())
}

/// The workspace that `name` (id or slug) stands for, if the caller may know of it.
async fn find(tenant: &mut Tenant, caller: &Caller, name: &str) -> Result<(Object, Body), Refusal> {
    let found = tenant.named(Kind::Workspace, name).await?.into_iter().next();
    let object = found.filter(|object| is_open_to(caller, object));
    let object = object.ok_or_else(|| Refusal::not_found(Kind::Workspace.noun()))?;
    let body = object.read()?;
    Ok((object, body))
}

async fn save(mut write: Write, object: &mut Object, body: &Body, names: Vec<String>) -> Result<Answer, Refusal> {
    if names.is_empty() {
        return Err(Refusal::invalid("no field to update was given"));
    }
    object.write(body)?;
    write.update(object).await?;
    write.commit(Change::of(Action::Updated, object, names)).await?;
    Ok(Answer::done())
}

/// Workspaces are made and removed with a key of the organisation.
fn may(caller: &Caller, verb: Verb) -> Result<(), Refusal> {
    caller.may(RESOURCE, verb)?;
    if caller.is_organisation_wide() { Ok(()) } else { Err(Refusal::forbidden()) }
}

fn is_open_to(caller: &Caller, workspace: &Object) -> bool {
    caller.is_organisation_wide() || caller.workspace_id() == workspace.id
}

fn trimmed(text: &str) -> String {
    text.trim().to_owned()
}

fn shown(object: &Object, body: &Body) -> Value {
    json!({
        "id": object.id,
        "slug": object.slug,
        "name": object.name,
        "description": body.description,
        "status": object.status,
        "is_default": 0,
        "created_at": instant(object.created_at),
        "last_updated_at": instant(object.updated_at),
        "defaults": body.defaults,
        "usage_limits": body.usage_limits,
        "rate_limits": body.rate_limits,
        "last_reset_at": body.usage_reset_at.map(instant),
        "api_key_max_ttl_days": body.api_key_max_ttl_days,
        "object": OBJECT,
    })
}
