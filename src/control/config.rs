//! `/configs`: stored configs, by which requests say where they go.
//!
//! A config is judged as the data plane would judge it when a request brings it, and holds no credential. What it names is
//! looked up when a request uses it, as Portkey does: it may be made before its virtual keys, and outlive them. Answers have
//! the shape of Portkey's specification and that of its SDKs at once, which differ.

use std::sync::Arc;

use axum::extract::{Path, State};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json, value::RawValue};

use super::{
    Answer, Caller, Control, Refusal, Verb,
    answer::instant,
    fields::{Body as Posted, Fields, Given, Length},
    query::Query,
    slug,
    store::{Action, Change, Filter, Kind, Object, Revision, StoreError, Tenant, Write},
};

/// In scopes.
const RESOURCE: &str = "configs";
/// In answers.
const OBJECT: &str = "config";
/// On a page, if nobody says, as the SDKs cannot; and at most.
const PAGE_SIZE: (usize, usize) = (1000, 1000);
/// What a config can be.
const STATUSES: [&str; 3] = ["active", "inactive", "archived"];
/// Revisions that are kept of one config, the one in force included.
const MAX_REVISIONS: usize = 100;
/// Users named in a refusal.
const MAX_USERS_NAMED: i64 = 10;

/// What only a config has.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Body {
    /// The config, as JSON text.
    pub config: String,
    /// Whether people's tools offer it first.
    #[serde(default)]
    pub is_default: bool,
    /// Id of the revision that is in force; none in a revision itself.
    #[serde(default)]
    pub version_id: String,
    /// Id of who changed it last.
    #[serde(default)]
    pub updated_by: String,
}

// === impl Body ===

impl Body {
    /// Its row of a snapshot.
    pub fn snapshot_row(&self, object: &Object) -> Value {
        json!({
            "id": object.id,
            "slug": object.slug,
            "workspace_id": Some(&object.workspace_id).filter(|id| !id.is_empty()),
            "status": object.status,
            "config": self.value(),
        })
    }

    /// The config itself.
    fn value(&self) -> Value {
        serde_json::from_str(&self.config).unwrap_or_default()
    }

    /// Takes over everything that may be created and changed.
    fn take(&mut self, fields: &mut Fields<'_>, object: &mut Object, control: &Control) {
        fields.text("name", Length(1, 255)).replace(&mut object.name);
        // SDKs write either; the number is Portkey's.
        for key in ["is_default", "isDefault"] {
            let given = fields.typed::<u8>(key, "must be 0 or 1").value();
            match given {
                None => {}
                Some(flag @ 0..=1) => self.is_default = flag == 1,
                Some(_) => fields.fault(key, "must be 0 or 1"),
            }
        }
        if let Given::Value(raw) = fields.raw("config") {
            match text(raw).map_err(str::to_owned).and_then(|text| (control.check_config)(&text).map(|()| text)) {
                Ok(text) => self.config = text,
                Err(reason) => fields.fault("config", reason),
            }
        }
    }
}

/// `POST /configs`.
///
/// # Errors
/// [`Refusal`].
pub async fn create(State(control): State<Arc<Control>>, caller: Caller, posted: Posted) -> Result<Answer, Refusal> {
    caller.may(RESOURCE, Verb::Create)?;
    let mut fields = posted.fields()?;
    let mut write = caller.write(&control).await?;
    let mut object = Object::new(Kind::Config, Object::new_id(), String::new(), String::new());
    let mut body = Body { updated_by: caller.key_id().to_owned(), ..Body::default() };
    for key in ["name", "config"] {
        let given = fields.raw(key);
        fields.require(key, given);
    }
    let workspace = fields.text("workspace_id", Length(0, 255)).value().filter(|name| !name.is_empty());
    object.workspace_id = match workspace {
        Some(name) => caller.workspace(&mut write, "workspace_id", &name).await?,
        None => caller.workspace_id().to_owned(),
    };
    body.take(&mut fields, &mut object, &control);
    fields.finish()?;
    object.slug = slug::make("pc-", &object.name);
    object.write(&body)?;
    write.insert(&mut object).await?;
    save(&mut write, &mut object, &mut body, true).await?;
    write.commit(Change::of(Action::Created, &object, fields.names())).await?;
    let made = json!({ "id": object.id, "slug": object.slug, "version_id": body.version_id });
    Ok(Answer::of(doubled(made)))
}

/// `GET /configs`.
///
/// # Errors
/// [`Refusal`].
pub async fn list(State(control): State<Arc<Control>>, caller: Caller, query: Query) -> Result<Answer, Refusal> {
    caller.may(RESOURCE, Verb::List)?;
    let page = query.page(PAGE_SIZE.0, PAGE_SIZE.1)?;
    let mut tenant = caller.tenant(&control).await?;
    let mut filter = caller.filter();
    if let Some(name) = query.get("workspace_id") {
        filter.workspace_id = caller.workspace(&mut tenant, "workspace_id", name).await?;
    }
    let found = tenant.page(Kind::Config, &filter, page).await?;
    let mut data = Vec::with_capacity(found.objects.len());
    for object in &found.objects {
        data.push(summary(object, &object.read()?, &caller));
    }
    Ok(Answer::of(json!({ "success": true, "object": "list", "total": found.total, "data": data })))
}

/// `GET /configs/{slug}`.
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
    let mut shown = detail(&object, &body, &caller);
    shown["success"] = true.into();
    // Text where SDKs look for it, an object where the specification has it.
    shown["data"] = json!({ "config": body.value() });
    Ok(Answer::of(shown))
}

/// `GET /configs/{slug}/versions`.
///
/// # Errors
/// [`Refusal`].
pub async fn versions(
    State(control): State<Arc<Control>>,
    caller: Caller,
    Path(name): Path<String>,
) -> Result<Answer, Refusal> {
    caller.may(RESOURCE, Verb::Read)?;
    let mut tenant = caller.tenant(&control).await?;
    let (object, body) = find(&mut tenant, &caller, &name).await?;
    let revisions = tenant.revisions(&object).await?;
    let mut data = Vec::with_capacity(revisions.len());
    for Revision { id, name, body: then, created_by, created_at } in revisions {
        let then = Object { name, body: then, updated_at: created_at, ..object.clone() };
        let config = then.read::<Body>()?.config;
        let body = Body { config, version_id: id, updated_by: created_by, ..body.clone() };
        data.push(detail(&then, &body, &caller));
    }
    Ok(Answer::list(data.len(), data))
}

/// `PUT /configs/{slug}`.
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
    let (mut object, mut body) = find_own(&mut write, &caller, &name).await?;
    let before = body.config.clone();
    body.take(&mut fields, &mut object, &control);
    match fields.text("status", Length(1, 64)).value() {
        Some(status) if !STATUSES.contains(&status.as_str()) => {
            fields.fault("status", format_args!("must be one of {}", STATUSES.join(", ")));
        }
        Some(status) => object.status = status,
        None => {}
    }
    fields.finish()?;
    let names = fields.names();
    if names.is_empty() {
        return Err(Refusal::invalid("no field to update was given"));
    }
    caller.key_id().clone_into(&mut body.updated_by);
    let is_new = body.config != before;
    save(&mut write, &mut object, &mut body, is_new).await?;
    write.commit(Change::of(Action::Updated, &object, names)).await?;
    Ok(Answer::of(doubled(json!({ "version_id": body.version_id }))))
}

/// `DELETE /configs/{slug}`.
///
/// # Errors
/// [`Refusal`]; 400 while it is the default of an API key or a workspace.
pub async fn delete(
    State(control): State<Arc<Control>>,
    caller: Caller,
    Path(name): Path<String>,
) -> Result<Answer, Refusal> {
    caller.may(RESOURCE, Verb::Delete)?;
    let mut write = caller.write(&control).await?;
    let (object, _) = find_own(&mut write, &caller, &name).await?;
    let users = write.users(object.kind, &object.id, MAX_USERS_NAMED).await?;
    if !users.is_empty() {
        return Err(Refusal::in_use(object.kind.noun(), &users));
    }
    write.remove(&object).await?;
    write.commit(Change::of(Action::Deleted, &object, Vec::new())).await?;
    Ok(Answer::done())
}

/// The config that `name` (slug or id) stands for, if the caller may know of it.
async fn find(tenant: &mut Tenant, caller: &Caller, name: &str) -> Result<(Object, Body), Refusal> {
    let found = tenant.named(Kind::Config, name).await?.into_iter().find(|object| caller.sees(object));
    let object = found.ok_or_else(|| Refusal::not_found(Kind::Config.noun()))?;
    let body = object.read()?;
    Ok((object, body))
}

/// The config that `name` (slug or id) stands for in a workspace: its own first, then the organisation's; empty = only those.
///
/// # Errors
/// [`StoreError`].
pub(super) async fn reached(tenant: &mut Tenant, name: &str, workspace_id: &str) -> Result<Option<Object>, StoreError> {
    let mut found = tenant.named(Kind::Config, name).await?;
    found.retain(|config| config.workspace_id.is_empty() || config.workspace_id == workspace_id);
    found.sort_by_key(|config| config.workspace_id.is_empty());
    Ok(found.into_iter().next())
}

/// As [`find`]; what is the organisation's is not a workspace's to change.
async fn find_own(tenant: &mut Tenant, caller: &Caller, name: &str) -> Result<(Object, Body), Refusal> {
    let (object, body) = find(tenant, caller, name).await?;
    if caller.is_of(&object) { Ok((object, body)) } else { Err(Refusal::forbidden()) }
}

/// Writes the config, a revision of it if it `is_new`, and takes the rank of default from others if it has it.
async fn save(write: &mut Write, object: &mut Object, body: &mut Body, is_new: bool) -> Result<(), Refusal> {
    if is_new {
        object.write(&Body { version_id: String::new(), ..body.clone() })?;
        body.version_id = write.keep_revision(object, MAX_REVISIONS).await?;
    }
    if body.is_default {
        let filter = Filter { workspace_id: object.workspace_id.clone(), own_only: true, ..Filter::default() };
        let others = write.all(Kind::Config, &filter).await?.into_iter();
        for mut other in others.filter(|other| other.id != object.id && other.workspace_id == object.workspace_id) {
            let mut theirs: Body = other.read()?;
            if theirs.is_default {
                theirs.is_default = false;
                other.write(&theirs)?;
                write.update(&mut other).await?;
            }
        }
    }
    object.write(body)?;
    write.update(object).await?;
    Ok(())
}

/// The text of a config, which is given as an object or as text that holds one.
fn text(raw: &RawValue) -> Result<String, &'static str> {
    match raw.get().trim_start().starts_with('"') {
        true => serde_json::from_str(raw.get()).map_err(|_| "must be an object"),
        false => Ok(raw.get().to_owned()),
    }
}

/// What the SDKs read at the top, and the specification has below `data`.
fn doubled(data: Value) -> Value {
    let mut answer = data.clone();
    answer["object"] = OBJECT.into();
    answer["success"] = true.into();
    answer["data"] = data;
    answer
}

fn summary(object: &Object, body: &Body, caller: &Caller) -> Value {
    let mut summary = json!({
        "id": object.id,
        "name": object.name,
        "slug": object.slug,
        "organisation_id": caller.organisation(),
        "is_default": u8::from(body.is_default),
        "status": object.status,
        "owner_id": object.created_by,
        "updated_by": body.updated_by,
        "created_at": instant(object.created_at),
        "last_updated_at": instant(object.updated_at),
        "object": OBJECT,
    });
    if !object.workspace_id.is_empty() {
        summary["workspace_id"] = object.workspace_id.clone().into();
    }
    summary
}

fn detail(object: &Object, body: &Body, caller: &Caller) -> Value {
    let mut detail = summary(object, body, caller);
    detail["config"] = body.config.clone().into();
    detail["format"] = "json".into();
    detail["type"] = if object.workspace_id.is_empty() { "ORG_CONFIG" } else { "WORKSPACE_CONFIG" }.into();
    detail["version_id"] = body.version_id.clone().into();
    detail
}
