//! `/virtual-keys`: what requests name, `@slug`. Portkey calls the same a provider since it has integrations.
//!
//! One row, two views: [`super::provider`] shows what is linked to an integration, this file what may stand alone, with
//! credentials of its own. Either may be written through both.

mod first;

pub(super) use self::first::{judge_heirs, make as make_first, remove as remove_first};

use std::{collections::HashMap, sync::Arc};

use axum::extract::{Path, State};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{
    Answer, Caller, Control, Refusal, Verb,
    access::Context,
    answer::{instant, without_nulls},
    fields::{Body as Posted, Fields, Given, Length},
    integration,
    limits::{self, RateLimit, UsageLimit},
    mapping,
    provider_fields::{self, ProviderFields, Subject, judge},
    query::Query,
    sealing::Fed,
    slug,
    store::{Action, Change, Filter, Kind, Object, Tenant, now},
    usage::{self, Standing},
};
use crate::model::EntityKind;

/// In scopes.
const RESOURCE: &str = "virtual_keys";
/// In answers.
const OBJECT: &str = "virtual-key";
/// On a page, if nobody says; and at most.
const PAGE_SIZE: (usize, usize) = (50, 1000);
/// Users named in a refusal.
const MAX_USERS_NAMED: i64 = 10;

/// What only a virtual key has.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Body {
    /// Id of the provider: its own, or its integration's.
    pub provider: String,
    /// Id of the integration it inherits from; `None` = it stands alone.
    pub integration_id: Option<String>,
    /// Whether it was made with its integration, and nobody has changed it since. It goes with it, then.
    #[serde(default)]
    pub is_default: bool,
    /// For people.
    pub note: Option<String>,
    /// Credentials and what else the provider needs.
    pub fields: ProviderFields,
    /// How much per period.
    #[serde(default)]
    pub usage_limits: Option<UsageLimit>,
    /// How much per time.
    #[serde(default)]
    pub rate_limits: Vec<RateLimit>,
    /// When somebody last had the use of it counted from 0, in milliseconds since 1970.
    #[serde(default)]
    pub usage_reset_at: Option<i64>,
    /// RFC 3339; `None` = never.
    #[serde(default)]
    pub expires_at: Option<String>,
}

/// `virtual_keys[]` of a snapshot.
#[derive(Debug, Serialize)]
pub struct Row<'a> {
    id: &'a str,
    slug: &'a str,
    integration_id: Option<&'a str>,
    provider: Option<&'a str>,
    workspace_id: Option<&'a str>,
    status: &'a str,
    expires_at: Option<&'a str>,
    key: Option<Fed<'a>>,
    #[serde(serialize_with = "provider_fields::feed")]
    model_config: &'a ProviderFields,
    secret_mappings: Vec<mapping::Row<'a>>,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    rate_limits: &'a [RateLimit],
    #[serde(skip_serializing_if = "Option::is_none")]
    usage_limits: Option<&'a UsageLimit>,
    #[serde(skip_serializing_if = "Option::is_none")]
    usage_reset_at: Option<String>,
}

/// A virtual key with what is known of its surroundings.
pub(super) struct Found {
    pub(super) object: Object,
    pub(super) body: Body,
    /// Slug of its integration.
    pub(super) integration: Option<String>,
    /// Name of its workspace.
    pub(super) workspace: Option<String>,
    /// How far it is with its budget.
    pub(super) standing: Standing,
}

/// The integration that a virtual key inherits from.
pub(super) struct Parent {
    object: Object,
    body: integration::Body,
}

// === impl Body ===

impl Body {
    /// Its row of a snapshot.
    pub fn snapshot_row<'a>(&'a self, object: &'a Object) -> Row<'a> {
        let integration_id = self.integration_id.as_deref();
        Row {
            id: &object.id,
            slug: &object.slug,
            integration_id,
            // What is linked has the provider of its integration.
            provider: integration_id.is_none().then_some(self.provider.as_str()),
            workspace_id: Some(object.workspace_id.as_str()).filter(|id| !id.is_empty()),
            status: &object.status,
            expires_at: self.expires_at.as_deref(),
            key: self.fields.fed_key(),
            model_config: &self.fields,
            secret_mappings: self.fields.fed_mappings(),
            rate_limits: &self.rate_limits,
            usage_limits: self.usage_limits.as_ref(),
            usage_reset_at: self.usage_reset_at.map(instant),
        }
    }

    /// What it needs.
    fn uses(&self, object: &Object) -> Vec<(Kind, String)> {
        let mut uses = self.fields.uses();
        uses.extend(self.integration_id.iter().map(|id| (Kind::Integration, id.clone())));
        uses.extend(Some(&object.workspace_id).filter(|id| !id.is_empty()).map(|id| (Kind::Workspace, id.clone())));
        uses
    }

    fn subject<'a>(&'a self, object: &'a Object) -> Subject<'a> {
        let inherits = self.integration_id.is_some();
        Subject { kind: EntityKind::VirtualKey, provider: &self.provider, object, inherits }
    }

    /// Takes over everything that may be created and changed; returns whether the place that a credential is sent to
    /// changed without it.
    async fn take(
        &mut self,
        fields: &mut Fields<'_>,
        object: &mut Object,
        context: &mut Context<'_>,
    ) -> Result<bool, Refusal> {
        fields.text("name", Length(1, 255)).replace(&mut object.name);
        fields.text("note", Length(0, 1024)).set(&mut self.note);
        limits::time(fields, "expires_at").set(&mut self.expires_at);
        match limits::usage(fields) {
            Given::Value(limits) if limits.len() > 1 => fields.fault("usage_limits", "must be one"),
            Given::Value(limits) => self.usage_limits = limits.into_iter().next(),
            Given::Null => self.usage_limits = None,
            Given::Absent => {}
        }
        limits::rates(fields).put(&mut self.rate_limits);
        if self.provider.is_empty() {
            return Ok(false);
        }
        let mut taken = self.fields.clone();
        let address_changed = taken.take(fields, &self.subject(object), context).await?;
        self.fields = taken;
        Ok(address_changed)
    }

    /// Says what a data plane would find wrong with it.
    fn judge(&self, fields: &mut Fields<'_>, object: &Object, parent: Option<&Parent>) {
        judge(fields, &self.subject(object), &self.snapshot_row(object), parent.map(Parent::judged));
    }

    /// `active`, or what it is instead.
    pub(super) fn status<'a>(&self, object: &'a Object, standing: &Standing) -> &'a str {
        let expired = self.expires_at.as_deref().and_then(limits::millis).is_some_and(|end| end <= now());
        match expired {
            true => "expired",
            false if standing.exhausted => "exhausted",
            false => &object.status,
        }
    }
}

// === impl Parent ===

impl Parent {
    /// Its provider and its row, to be judged with.
    fn judged(&self) -> (&str, Value) {
        let row = serde_json::to_value(self.body.snapshot_row(&self.object)).unwrap_or_default();
        (&self.body.ai_provider_id, row)
    }
}

/// `POST /virtual-keys`.
///
/// # Errors
/// [`Refusal`].
pub async fn create(State(control): State<Arc<Control>>, caller: Caller, posted: Posted) -> Result<Answer, Refusal> {
    caller.may(RESOURCE, Verb::Create)?;
    let object = make(&control, &caller, &posted, false).await?;
    // One description of Portkey's has the first two, its SDKs have the others.
    Ok(Answer::of(json!({
        "success": true, "data": { "slug": object.slug }, "id": object.id, "slug": object.slug, "object": OBJECT,
    })))
}

/// `GET /virtual-keys`.
///
/// # Errors
/// [`Refusal`].
pub async fn list(State(control): State<Arc<Control>>, caller: Caller, query: Query) -> Result<Answer, Refusal> {
    caller.may(RESOURCE, Verb::List)?;
    page(&control, &caller, &query, shown).await
}

/// `GET /virtual-keys/{name}`.
///
/// # Errors
/// [`Refusal`].
pub async fn read(
    State(control): State<Arc<Control>>,
    caller: Caller,
    Path(name): Path<String>,
    query: Query,
) -> Result<Answer, Refusal> {
    caller.may(RESOURCE, Verb::Read)?;
    Ok(Answer::of(shown(&caller, &one(&control, &caller, &name, &query).await?)))
}

/// `PUT /virtual-keys/{name}`.
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
    caller.may(RESOURCE, Verb::Update)?;
    change(&control, &caller, &name, &query, &posted).await?;
    Ok(Answer::done())
}

/// `DELETE /virtual-keys/{name}`.
///
/// # Errors
/// [`Refusal`].
pub async fn delete(
    State(control): State<Arc<Control>>,
    caller: Caller,
    Path(name): Path<String>,
    query: Query,
) -> Result<Answer, Refusal> {
    caller.may(RESOURCE, Verb::Delete)?;
    remove(&control, &caller, &name, &query).await
}

/// Makes one; `linked` says that it has to have an integration.
pub(super) async fn make(control: &Control, caller: &Caller, posted: &Posted, linked: bool) -> Result<Object, Refusal> {
    let mut fields = posted.fields()?;
    let mut write = caller.write(control).await?;
    let mut object = Object::new(Kind::VirtualKey, Object::new_id(), String::new(), String::new());
    object.workspace_id = caller.home(&mut fields, &mut write).await?;
    let mut body = Body::default();
    let name = fields.raw("name");
    fields.require("name", name);
    let chosen = slug::chosen(&mut fields, "slug");
    let named = fields.text("integration_id", Length(0, slug::MAX));
    let named = if linked { fields.require("integration_id", named) } else { named.value() };
    let mut parent = None;
    if let Some(name) = named.filter(|name| !name.is_empty()) {
        parent = self::parent(&mut fields, &mut write, caller, &object, &name).await?;
        body.integration_id = Some(parent.as_ref().map(|parent| parent.object.id.clone()).unwrap_or_default());
    }
    let provider = provider_fields::provider(&mut fields, "provider");
    body.provider = match (&parent, provider) {
        (Some(parent), Given::Value(provider)) if provider != parent.body.ai_provider_id => {
            fields.fault("provider", "differs from the provider of the integration");
            String::new()
        }
        (Some(parent), _) => parent.body.ai_provider_id.clone(),
        // What is wrong with the integration is said.
        (None, _) if body.integration_id.is_some() => String::new(),
        (None, provider) => fields.require("provider", provider).unwrap_or_default(),
    };
    let mut context = Context { control, caller, tenant: &mut write };
    body.take(&mut fields, &mut object, &mut context).await?;
    object.slug = chosen.unwrap_or_else(|| slug::make("", &object.name));
    body.judge(&mut fields, &object, parent.as_ref());
    fields.finish()?;
    object.write(&body)?;
    write.insert(&mut object).await?;
    write.set_uses(&object, &body.uses(&object)).await?;
    write.commit(Change::of(Action::Created, &object, fields.names())).await?;
    Ok(object)
}

/// A page of a list, each as `shown` shows it.
pub(super) async fn page(
    control: &Control,
    caller: &Caller,
    query: &Query,
    shown: fn(&Caller, &Found) -> Value,
) -> Result<Answer, Refusal> {
    let page = query.page(PAGE_SIZE.0, PAGE_SIZE.1)?;
    let mut tenant = caller.tenant(control).await?;
    let workspace_id = caller.place(&mut tenant, query).await?;
    let filter = Filter { workspace_id, ..Filter::default() };
    let page = tenant.page(Kind::VirtualKey, &filter, page).await?;
    let mut known = HashMap::new();
    let mut rows = Vec::with_capacity(page.objects.len());
    for object in page.objects {
        rows.push(shown(caller, &around(&mut tenant, object, &mut known).await?));
    }
    Ok(Answer::list(page.total, rows))
}

/// The one that `name` (id or slug) stands for.
pub(super) async fn one(control: &Control, caller: &Caller, name: &str, query: &Query) -> Result<Found, Refusal> {
    let mut tenant = caller.tenant(control).await?;
    let place = caller.place(&mut tenant, query).await?;
    let object = caller.find(&mut tenant, Kind::VirtualKey, name, &place).await?;
    around(&mut tenant, object, &mut HashMap::new()).await
}

/// Changes the one that `name` stands for.
pub(super) async fn change(
    control: &Control,
    caller: &Caller,
    name: &str,
    query: &Query,
    posted: &Posted,
) -> Result<Object, Refusal> {
    let mut fields = posted.fields()?;
    let mut write = caller.write(control).await?;
    let mut place = caller.place(&mut write, query).await?;
    if place.is_empty() {
        // The SDK for Node has it in the body.
        place = caller.home(&mut fields, &mut write).await?;
    }
    let mut object = caller.find(&mut write, Kind::VirtualKey, name, &place).await?;
    caller.owns(&object)?;
    let mut body: Body = object.read()?;
    let mut parent = None;
    if let Some(id) = &body.integration_id
        && let Some(object) = write.get(Kind::Integration, id).await?
    {
        parent = Some(Parent { body: object.read()?, object });
    }
    body.is_default = false;
    if fields.toggle("reset_usage").value() == Some(true) {
        body.usage_reset_at = Some(write.at());
        write.forget_usage(&object).await?;
    }
    let mut context = Context { control, caller, tenant: &mut write };
    let address_changed = body.take(&mut fields, &mut object, &mut context).await?;
    body.judge(&mut fields, &object, parent.as_ref());
    fields.finish()?;
    let mut names = fields.names();
    names.retain(|name| name != "workspace_id");
    if names.is_empty() {
        return Err(Refusal::invalid("no field to update was given"));
    }
    object.write(&body)?;
    write.update(&mut object).await?;
    write.set_uses(&object, &body.uses(&object)).await?;
    let action = if address_changed { Action::AddressChanged } else { Action::Updated };
    write.commit(Change::of(action, &object, names)).await?;
    Ok(object)
}

/// Removes the one that `name` stands for.
pub(super) async fn remove(control: &Control, caller: &Caller, name: &str, query: &Query) -> Result<Answer, Refusal> {
    let mut write = caller.write(control).await?;
    let place = caller.place(&mut write, query).await?;
    let object = caller.find(&mut write, Kind::VirtualKey, name, &place).await?;
    caller.owns(&object)?;
    let users = write.users(object.kind, &object.id, MAX_USERS_NAMED).await?;
    if !users.is_empty() {
        return Err(Refusal::in_use(object.kind.noun(), &users));
    }
    write.remove(&object).await?;
    write.commit(Change::of(Action::Deleted, &object, Vec::new())).await?;
    Ok(Answer::done())
}

/// The integration that `name` (id or slug) stands for, if `object` may inherit from it.
async fn parent(
    fields: &mut Fields<'_>,
    tenant: &mut Tenant,
    caller: &Caller,
    object: &Object,
    name: &str,
) -> Result<Option<Parent>, Refusal> {
    const FIELD: &str = "integration_id";
    let place = &object.workspace_id;
    let mut found = tenant.named(Kind::Integration, name).await?;
    found.retain(|integration| caller.sees(integration));
    let at_home = |integration: &&Object| integration.workspace_id.is_empty() || integration.workspace_id == *place;
    // An id wins over a slug, then the workspace's own over the organisation's.
    let best = found.iter().filter(at_home).max_by_key(|found| (found.id == name, !found.workspace_id.is_empty()));
    let Some(best) = best.cloned() else {
        let reason = match found.is_empty() {
            true => "names an integration that does not exist",
            false => "names an integration of another workspace",
        };
        fields.fault(FIELD, reason);
        return Ok(None);
    };
    let body: integration::Body = best.read()?;
    if !body.is_open_to(&best, place) {
        let reason = match caller.is_organisation_wide() {
            true => "names an integration that is not open to the workspace",
            false => "names an integration that does not exist",
        };
        fields.fault(FIELD, reason);
        return Ok(None);
    }
    Ok(Some(Parent { object: best, body }))
}

/// `object` with what is known of its surroundings; `known` remembers names of this page.
async fn around(
    tenant: &mut Tenant,
    object: Object,
    known: &mut HashMap<String, Option<String>>,
) -> Result<Found, Refusal> {
    let body: Body = object.read()?;
    let mut name = async |kind: Kind, id: &str| {
        if let Some(name) = known.get(id) {
            return Ok::<_, Refusal>(name.clone());
        }
        let found = tenant.get(kind, id).await?;
        let name = found.map(|found| if kind == Kind::Workspace { found.name } else { found.slug });
        known.insert(id.to_owned(), name.clone());
        Ok(name)
    };
    let integration = match &body.integration_id {
        Some(id) => name(Kind::Integration, id).await?,
        None => None,
    };
    let workspace = match object.workspace_id.as_str() {
        "" => None,
        id => name(Kind::Workspace, id).await?,
    };
    let standing = usage::standing(tenant, &object, body.usage_limits.as_slice()).await?;
    Ok(Found { object, body, integration, workspace, standing })
}

fn shown(caller: &Caller, found: &Found) -> Value {
    let Found { object, body, integration, workspace, standing } = found;
    let mut shown = without_nulls(json!({
        "id": object.id,
        "organisation_id": caller.organisation(),
        "workspace_id": Some(&object.workspace_id).filter(|id| !id.is_empty()),
        "workspace_name": workspace,
        "slug": object.slug,
        "name": object.name,
        "status": body.status(object, standing),
        // Lists of Portkey's have the first, details the second.
        "provider": body.provider,
        "ai_provider_name": body.provider,
        "integration_id": integration,
        "model_config": body.fields.shown_members(),
        "key": "",
        "masked_api_key": body.fields.key_mask(),
        "secret_mappings": body.fields.shown_mappings(),
        "usage_limits": body.usage_limits,
        "usage": standing.shown,
        "last_reset_at": body.usage_reset_at.map(instant),
        "created_at": instant(object.created_at),
        "last_updated_at": instant(object.updated_at),
        "expires_at": body.expires_at,
        "object": OBJECT,
    }));
    shown["note"] = json!(body.note);
    shown["rate_limits"] = json!(Some(&body.rate_limits).filter(|limits| !limits.is_empty()));
    shown["reset_usage"] = Value::Null;
    shown
}
