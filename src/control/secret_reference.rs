//! `/secret-references`: where a credential lies, and how a data plane proves who it is there.
//!
//! Shapes and rules of Portkey's admin API. Ours beside them: the managers `file`, `aws_ssm` and `gcp_sm`, `ttl_secs`,
//! `allowed_providers` and `allowed_hosts`. The credentials inside `auth_config` are sealed on arrival and shown as masks.

mod auth;

use std::{collections::BTreeMap, sync::Arc};

use axum::extract::{Path, State};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use self::auth::AuthConfig;
use super::{
    Answer, Caller, Control, Refusal, Verb,
    access::Context,
    answer::instant,
    fields::{Body as Posted, Fields, Length},
    query::Query,
    slug,
    store::{Action, Change, Kind, Object, Tenant},
};
use crate::model::{ManagerType, SecretLocation};

/// In scopes.
const RESOURCE: &str = "secret_references";
/// In answers.
const OBJECT: &str = "secret-reference";
/// On a page, if nobody says; and at most.
const PAGE_SIZE: (usize, usize) = (20, 100);
/// Longest `ttl_secs`: a year, as a data plane reads it.
const MAX_TTL_SECS: u64 = 365 * 24 * 3600;
/// Tags of one reference: more are not tags.
const MAX_TAGS: usize = 50;
/// Users named in a refusal.
const MAX_USERS_NAMED: i64 = 10;

/// What only a secret reference has.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Body {
    /// For people.
    pub description: Option<String>,
    /// Who stores the secret.
    pub manager_type: String,
    /// How a data plane proves who it is; credentials are sealed.
    pub auth_config: AuthConfig,
    /// Where the secret lies.
    pub secret_path: String,
    /// Which key of it is meant.
    pub secret_key: Option<String>,
    /// Whether every workspace may use it.
    pub allow_all_workspaces: bool,
    /// Ids of those that may, otherwise.
    pub allowed_workspaces: Vec<String>,
    /// For people.
    pub tags: Option<BTreeMap<String, String>>,
    /// Its own lifetime in a data plane's cache.
    pub ttl_secs: Option<u64>,
    /// Providers it may be used for; empty = any.
    pub allowed_providers: Vec<String>,
    /// Hosts it may be sent to; empty = any.
    pub allowed_hosts: Vec<String>,
}

/// `secret_references[]` of a snapshot.
#[derive(Debug, Serialize)]
pub struct Row<'a> {
    id: &'a str,
    slug: &'a str,
    manager_type: &'a str,
    #[serde(serialize_with = "AuthConfig::feed")]
    auth_config: &'a AuthConfig,
    secret_path: &'a str,
    secret_key: Option<&'a str>,
    status: &'a str,
    ttl_secs: Option<u64>,
    allow_all_workspaces: bool,
    allowed_workspaces: &'a [String],
    allowed_providers: &'a [String],
    allowed_hosts: &'a [String],
}

// === impl Body ===

impl Body {
    /// Its row of a snapshot.
    pub fn snapshot_row<'a>(&'a self, object: &'a Object) -> Row<'a> {
        Row {
            id: &object.id,
            slug: &object.slug,
            manager_type: &self.manager_type,
            auth_config: &self.auth_config,
            secret_path: &self.secret_path,
            secret_key: self.secret_key.as_deref(),
            status: &object.status,
            ttl_secs: self.ttl_secs,
            allow_all_workspaces: self.allow_all_workspaces,
            allowed_workspaces: &self.allowed_workspaces,
            allowed_providers: &self.allowed_providers,
            allowed_hosts: &self.allowed_hosts,
        }
    }

    /// Whether `workspace_id` may use it; every workspace, for an organisation's key.
    pub fn is_open_to(&self, workspace_id: &str) -> bool {
        workspace_id.is_empty()
            || self.allow_all_workspaces
            || self.allowed_workspaces.iter().any(|allowed| allowed == workspace_id)
    }

    fn empty() -> Self {
        Self {
            description: None,
            manager_type: String::new(),
            auth_config: AuthConfig::default(),
            secret_path: String::new(),
            secret_key: None,
            allow_all_workspaces: true,
            allowed_workspaces: Vec::new(),
            tags: None,
            ttl_secs: None,
            allowed_providers: Vec::new(),
            allowed_hosts: Vec::new(),
        }
    }

    /// Takes over everything that may be created and changed. `object` is the reference; returns whether the address that
    /// a credential is sent to changed without it.
    async fn take(
        &mut self,
        fields: &mut Fields<'_>,
        object: &mut Object,
        manager: Option<ManagerType>,
        context: &mut Context<'_>,
    ) -> Result<bool, Refusal> {
        fields.text("name", Length(1, 255)).replace(&mut object.name);
        fields.text("description", Length(0, 1024)).set(&mut self.description);
        fields.text("secret_path", Length(1, 1024)).replace(&mut self.secret_path);
        fields.text("secret_key", Length(1, 255)).set(&mut self.secret_key);
        fields.typed("tags", "must be an object of texts, or null").set(&mut self.tags);
        if self.tags.as_ref().is_some_and(|tags| tags.len() > MAX_TAGS) {
            fields.fault("tags", format_args!("must be {MAX_TAGS} at most"));
        }
        fields.typed("ttl_secs", "must be a whole number of seconds, or null").set(&mut self.ttl_secs);
        if self.ttl_secs.is_some_and(|secs| secs > MAX_TTL_SECS) {
            fields.fault("ttl_secs", format_args!("must be 0 to {MAX_TTL_SECS}"));
        }
        fields.texts("allowed_providers").replace(&mut self.allowed_providers);
        fields.texts("allowed_hosts").replace(&mut self.allowed_hosts);
        self.share(fields, context).await?;
        let Some(manager) = manager else { return Ok(false) };
        let address_changed = self.auth_config.take(fields, object, manager, context);
        if fields.has("secret_path") || fields.has("auth_config") {
            let location = SecretLocation::parse(manager, &self.secret_path, self.auth_config.kv_version());
            if let Err(error) = location {
                fields.fault("secret_path", error);
            }
        }
        Ok(address_changed)
    }

    /// `allow_all_workspaces` and `allowed_workspaces`, which exclude each other.
    async fn share(&mut self, fields: &mut Fields<'_>, context: &mut Context<'_>) -> Result<(), Refusal> {
        let all = fields.flag("allow_all_workspaces").value();
        let named = fields.texts("allowed_workspaces").value();
        match (all, named) {
            (Some(true), Some(_)) => {
                fields.fault("allowed_workspaces", "cannot be given beside allow_all_workspaces: true");
            }
            (_, Some(named)) if named.is_empty() => {
                fields.fault("allowed_workspaces", "must name one workspace at least");
            }
            (_, Some(named)) => {
                let mut ids = Vec::with_capacity(named.len());
                for name in &named {
                    ids.push(context.caller.workspace(context.tenant, "allowed_workspaces", name).await?);
                }
                ids.sort();
                ids.dedup();
                (self.allow_all_workspaces, self.allowed_workspaces) = (false, ids);
            }
            (Some(true), None) => {
                (self.allow_all_workspaces, self.allowed_workspaces) = (true, Vec::new());
            }
            (Some(false), None) => self.allow_all_workspaces = false,
            (None, None) => {}
        }
        Ok(())
    }
}

/// `POST /secret-references`.
///
/// # Errors
/// [`Refusal`].
pub async fn create(State(control): State<Arc<Control>>, caller: Caller, posted: Posted) -> Result<Answer, Refusal> {
    caller.may(RESOURCE, Verb::Create)?;
    let mut fields = posted.fields()?;
    let mut write = caller.write(&control).await?;
    let mut object = Object::new(Kind::SecretReference, Object::new_id(), String::new(), String::new());
    let mut body = Body::empty();
    let manager = fields.text("manager_type", Length(1, 64));
    let manager = fields.require("manager_type", manager).and_then(|name| manager_type(&mut fields, &name));
    for key in ["name", "auth_config", "secret_path"] {
        let given = fields.raw(key);
        fields.require(key, given);
    }
    let chosen = slug::chosen(&mut fields, "slug");
    caller.stays_home(&mut fields);
    if !caller.is_organisation_wide() {
        // What a workspace's key makes is the workspace's.
        (body.allow_all_workspaces, body.allowed_workspaces) = (false, vec![caller.workspace_id().to_owned()]);
    }
    let mut context = Context { control: &control, caller: &caller, tenant: &mut write };
    body.take(&mut fields, &mut object, manager, &mut context).await?;
    fields.finish()?;
    check_reach(&caller, &body)?;
    object.slug = chosen.unwrap_or_else(|| slug::make("", &object.name));
    body.manager_type = manager.map(ManagerType::as_str).unwrap_or_default().to_owned();
    object.write(&body)?;
    write.insert(&mut object).await?;
    write.commit(Change::of(Action::Created, &object, fields.names())).await?;
    Ok(Answer::created(&object, OBJECT))
}

/// `GET /secret-references`.
///
/// # Errors
/// [`Refusal`].
pub async fn list(State(control): State<Arc<Control>>, caller: Caller, query: Query) -> Result<Answer, Refusal> {
    caller.may(RESOURCE, Verb::List)?;
    let page = query.page(PAGE_SIZE.0, PAGE_SIZE.1)?;
    let manager = query.word("manager_type", &ManagerType::ALL.map(ManagerType::as_str))?;
    let tags: BTreeMap<String, String> = match query.get("tags").map(serde_json::from_str) {
        None => BTreeMap::new(),
        Some(tags) => tags.map_err(|_| Refusal::invalid("tags: must be a JSON object of texts"))?,
    };
    let mut filter = caller.filter();
    query.get("search").unwrap_or_default().clone_into(&mut filter.name_part);
    let mut tenant = caller.tenant(&control).await?;
    let found = if caller.is_organisation_wide() && manager.is_none() && tags.is_empty() {
        tenant.page(Kind::SecretReference, &filter, page).await?
    } else {
        let keep = |object: &Object| {
            let body: Body = object.read()?;
            let tagged = |(key, value)| body.tags.as_ref().and_then(|tags| tags.get(key)) == Some(value);
            Ok(body.is_open_to(caller.workspace_id())
                && manager.is_none_or(|manager| body.manager_type == manager)
                && tags.iter().all(tagged))
        };
        tenant.page_of(Kind::SecretReference, &filter, page, keep).await?
    };
    let mut data = Vec::with_capacity(found.objects.len());
    for object in &found.objects {
        data.push(summary(object, &object.read()?));
    }
    Ok(Answer::list(found.total, data))
}

/// `GET /secret-references/{name}`.
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
    let mut shown = summary(&object, &body);
    let detail = json!({
        "organisation_id": caller.organisation(),
        "description": body.description,
        "secret_path": body.secret_path,
        "secret_key": body.secret_key,
        "allow_all_workspaces": body.allow_all_workspaces,
        "tags": body.tags,
        "created_by": object.created_by,
        "auth_config": body.auth_config.masked(),
        "ttl_secs": body.ttl_secs,
        "allowed_providers": body.allowed_providers,
        "allowed_hosts": body.allowed_hosts,
    });
    if let (Value::Object(shown), Value::Object(detail)) = (&mut shown, detail) {
        shown.extend(detail);
    }
    Ok(Answer::of(shown))
}

/// `PUT /secret-references/{name}`.
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
    check_reach(&caller, &body)?;
    let manager = ManagerType::from_name(&body.manager_type);
    let mut context = Context { control: &control, caller: &caller, tenant: &mut write };
    let address_changed = body.take(&mut fields, &mut object, manager, &mut context).await?;
    fields.finish()?;
    check_reach(&caller, &body)?;
    let names = fields.names();
    if names.is_empty() {
        return Err(Refusal::invalid("no field to update was given"));
    }
    object.write(&body)?;
    write.update(&mut object).await?;
    let action = if address_changed { Action::AddressChanged } else { Action::Updated };
    write.commit(Change::of(action, &object, names)).await?;
    Ok(Answer::done())
}

/// `DELETE /secret-references/{name}`.
///
/// # Errors
/// [`Refusal`].
pub async fn delete(
    State(control): State<Arc<Control>>,
    caller: Caller,
    Path(name): Path<String>,
) -> Result<Answer, Refusal> {
    caller.may(RESOURCE, Verb::Delete)?;
    let mut write = caller.write(&control).await?;
    let (object, body) = find(&mut write, &caller, &name).await?;
    check_reach(&caller, &body)?;
    let users = write.users(object.kind, &object.id, MAX_USERS_NAMED).await?;
    if !users.is_empty() {
        return Err(Refusal::in_use(object.kind.noun(), &users));
    }
    write.remove(&object).await?;
    write.commit(Change::of(Action::Deleted, &object, Vec::new())).await?;
    Ok(Answer::done())
}

/// The reference that `name` (id or slug) stands for, if the caller may know of it.
async fn find(tenant: &mut Tenant, caller: &Caller, name: &str) -> Result<(Object, Body), Refusal> {
    let found = tenant.named(Kind::SecretReference, name).await?.into_iter().next();
    let missing = || Refusal::not_found(Kind::SecretReference.noun());
    let object = found.ok_or_else(missing)?;
    let body: Body = object.read()?;
    if body.is_open_to(caller.workspace_id()) { Ok((object, body)) } else { Err(missing()) }
}

/// A workspace's key writes only what is the workspace's alone.
fn check_reach(caller: &Caller, body: &Body) -> Result<(), Refusal> {
    let own = [caller.workspace_id().to_owned()];
    let alone = !body.allow_all_workspaces && body.allowed_workspaces == own;
    if caller.is_organisation_wide() || alone { Ok(()) } else { Err(Refusal::forbidden()) }
}

fn manager_type(fields: &mut Fields<'_>, name: &str) -> Option<ManagerType> {
    let manager = ManagerType::from_name(name);
    if manager.is_none() {
        let known = ManagerType::ALL.map(ManagerType::as_str).join(", ");
        fields.fault("manager_type", format_args!("must be one of {known}"));
    }
    manager
}

fn summary(object: &Object, body: &Body) -> Value {
    json!({
        "id": object.id,
        "name": object.name,
        "slug": object.slug,
        "manager_type": body.manager_type,
        "status": object.status.to_ascii_uppercase(),
        "created_at": instant(object.created_at),
        "last_updated_at": instant(object.updated_at),
        "object": OBJECT,
    })
}
