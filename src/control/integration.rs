//! `/integrations`: the credentials of a provider, shared with workspaces.
//!
//! Shapes and rules of Portkey's admin API. One of a workspace is that workspace's alone; one of the organisation is open to
//! the workspaces that were let in ([`access`]). Requests name an integration through a virtual key, and so the first
//! one may be made with it. The credentials are sealed on arrival and shown as masks.

pub mod access;
pub mod model;
mod pricing;

use std::sync::Arc;

use axum::extract::{Path, State};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use self::{access::Access, model::Models, pricing::Pricing};
use super::{
    Answer, Caller, Control, Refusal, Verb,
    access::Context,
    answer::{instant, without_nulls},
    fields::{Body as Posted, Fields, Length},
    mapping,
    provider_fields::{self, ProviderFields, Subject, judge},
    query::Query,
    sealing::Fed,
    slug,
    store::{Action, Change, Filter, Kind, Object, Tenant, Write},
    virtual_key,
};
use crate::model::EntityKind;

/// In answers.
const OBJECT: &str = "integration";
/// On a page, if nobody says; and at most.
const PAGE_SIZE: (usize, usize) = (100, 1000);
/// Users named in a refusal.
const MAX_USERS_NAMED: i64 = 10;

/// What only an integration has.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Body {
    /// Id of the provider.
    pub ai_provider_id: String,
    /// For people.
    pub description: Option<String>,
    /// Credentials and what else the provider needs.
    pub fields: ProviderFields,
    /// Who may use one of the organisation.
    pub access: Access,
    /// Which models may be used. Kept and shown; no data plane asks.
    pub models: Models,
    /// Kept and shown; no data plane asks.
    pub pricing_adjustments: Option<Pricing>,
}

/// `integrations[]` of a snapshot.
#[derive(Debug, Serialize)]
pub struct Row<'a> {
    id: &'a str,
    slug: &'a str,
    ai_provider_id: &'a str,
    workspace_id: Option<&'a str>,
    status: &'a str,
    key: Option<Fed<'a>>,
    #[serde(serialize_with = "provider_fields::feed")]
    configurations: &'a ProviderFields,
    allow_all_workspaces: bool,
    allowed_workspaces: Vec<&'a str>,
    secret_mappings: Vec<mapping::Row<'a>>,
}

// === impl Body ===

impl Body {
    /// Its row of a snapshot.
    pub fn snapshot_row<'a>(&'a self, object: &'a Object) -> Row<'a> {
        let workspace_id = Some(object.workspace_id.as_str()).filter(|id| !id.is_empty());
        Row {
            id: &object.id,
            slug: &object.slug,
            ai_provider_id: &self.ai_provider_id,
            workspace_id,
            status: &object.status,
            key: self.fields.fed_key(),
            configurations: &self.fields,
            // Its own workspace needs no leave.
            allow_all_workspaces: workspace_id.is_some(),
            allowed_workspaces: if workspace_id.is_some() { Vec::new() } else { self.access.open_to().collect() },
            secret_mappings: self.fields.fed_mappings(),
        }
    }

    /// Whether `workspace_id` may use it; every workspace, for an organisation's key.
    pub fn is_open_to(&self, object: &Object, workspace_id: &str) -> bool {
        match (object.workspace_id.as_str(), workspace_id) {
            (_, "") => true,
            ("", workspace) => self.access.open_to().any(|open| open == workspace),
            (owner, workspace) => owner == workspace,
        }
    }

    /// What it needs.
    fn uses(&self, object: &Object) -> Vec<(Kind, String)> {
        let owner = Some(&object.workspace_id).filter(|id| !id.is_empty());
        let workspaces = owner.into_iter().chain(self.access.workspaces.keys());
        let mut uses = self.fields.uses();
        uses.extend(workspaces.map(|id| (Kind::Workspace, id.clone())));
        uses
    }

    /// How many workspaces may use it; of those, how many the caller may know of.
    fn workspace_count(&self, caller: &Caller, object: &Object) -> usize {
        let single = !object.workspace_id.is_empty() || !caller.is_organisation_wide();
        if single { 1 } else { self.access.open_to().count() }
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
        fields.text("description", Length(0, 1024)).set(&mut self.description);
        fields.typed("pricing_adjustments", Pricing::EXPECTED).set(&mut self.pricing_adjustments);
        if self.pricing_adjustments.as_ref().is_some_and(|pricing| !pricing.is_valid()) {
            fields.fault("pricing_adjustments", Pricing::EXPECTED);
        }
        if self.ai_provider_id.is_empty() {
            return Ok(false);
        }
        let provider = &self.ai_provider_id;
        let subject = Subject { kind: EntityKind::Integration, provider, object, inherits: false };
        self.fields.take(fields, &subject, context).await
    }

    /// Says what a data plane would find wrong with it.
    fn judge(&self, fields: &mut Fields<'_>, object: &Object) {
        let provider = &self.ai_provider_id;
        let subject = Subject { kind: EntityKind::Integration, provider, object, inherits: false };
        judge(fields, &subject, &self.snapshot_row(object), None);
    }
}

/// `POST /integrations`.
///
/// # Errors
/// [`Refusal`].
pub async fn create(State(control): State<Arc<Control>>, caller: Caller, posted: Posted) -> Result<Answer, Refusal> {
    may(&caller, Verb::Create, None)?;
    let mut fields = posted.fields()?;
    let mut write = caller.write(&control).await?;
    let mut object = Object::new(Kind::Integration, Object::new_id(), String::new(), String::new());
    object.workspace_id = caller.home(&mut fields, &mut write).await?;
    may(&caller, Verb::Create, Some(&object))?;
    let mut body = Body::default();
    let name = fields.raw("name");
    fields.require("name", name);
    let provider = provider_fields::provider(&mut fields, "ai_provider_id");
    body.ai_provider_id = fields.require("ai_provider_id", provider).unwrap_or_default();
    let chosen = slug::chosen(&mut fields, "slug");
    let first = access::FirstProvider::read(&mut fields);
    let mut context = Context { control: &control, caller: &caller, tenant: &mut write };
    body.take(&mut fields, &mut object, &mut context).await?;
    object.slug = chosen.unwrap_or_else(|| slug::make("", &object.name));
    body.judge(&mut fields, &object);
    fields.finish()?;
    object.write(&body)?;
    write.insert(&mut object).await?;
    write.set_uses(&object, &body.uses(&object)).await?;
    if !object.workspace_id.is_empty() && first.is_wanted() {
        virtual_key::make_first(&mut write, &object, &body, &object.workspace_id, first.slug()).await?;
    }
    write.commit(Change::of(Action::Created, &object, fields.names())).await?;
    Ok(Answer::created(&object, OBJECT))
}

/// `GET /integrations`.
///
/// # Errors
/// [`Refusal`].
pub async fn list(State(control): State<Arc<Control>>, caller: Caller, query: Query) -> Result<Answer, Refusal> {
    may(&caller, Verb::List, None)?;
    let page = query.page(PAGE_SIZE.0, PAGE_SIZE.1)?;
    let kind = query.word("type", &["workspace", "organisation", "all"])?;
    let mut tenant = caller.tenant(&control).await?;
    let workspace_id = caller.place(&mut tenant, &query).await?;
    let filter = Filter { workspace_id: workspace_id.clone(), ..Filter::default() };
    let keep = |object: &Object| {
        let of_kind = match kind {
            Some("workspace") => !object.workspace_id.is_empty(),
            Some("organisation") => object.workspace_id.is_empty(),
            _ => true,
        };
        let may = of_kind && may(&caller, Verb::List, Some(object)).is_ok();
        Ok(may && object.read::<Body>()?.is_open_to(object, &workspace_id))
    };
    let found = tenant.page_of(Kind::Integration, &filter, page, keep).await?;
    let mut data = Vec::with_capacity(found.objects.len());
    for object in &found.objects {
        data.push(summary(&caller, object, &object.read()?));
    }
    Ok(Answer::list(found.total, data))
}

/// `GET /integrations/{name}`.
///
/// # Errors
/// [`Refusal`].
pub async fn read(
    State(control): State<Arc<Control>>,
    caller: Caller,
    Path(name): Path<String>,
    query: Query,
) -> Result<Answer, Refusal> {
    let mut tenant = caller.tenant(&control).await?;
    let (object, body) = find(&mut tenant, &caller, Verb::Read, &name, &query).await?;
    let mut shown = summary(&caller, &object, &body);
    let detail = json!({
        "masked_key": body.fields.key_mask(),
        "configurations": body.fields.shown_members(),
        "global_workspace_access_settings": body.access.global.as_ref().filter(|_| caller.is_organisation_wide()),
        "allow_all_models": body.models.allow_all,
        "workspace_count": body.workspace_count(&caller, &object),
        "secret_mappings": body.fields.shown_mappings(),
        "pricing_adjustments": body.pricing_adjustments,
    });
    if let (Value::Object(shown), Value::Object(detail)) = (&mut shown, without_nulls(detail)) {
        shown.extend(detail);
    }
    Ok(Answer::of(shown))
}

/// `PUT /integrations/{name}`.
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
    may(&caller, Verb::Update, None)?;
    let mut fields = posted.fields()?;
    let mut write = caller.write(&control).await?;
    let (mut object, mut body) = find(&mut write, &caller, Verb::Update, &name, &query).await?;
    caller.owns(&object)?;
    let mut context = Context { control: &control, caller: &caller, tenant: &mut write };
    let address_changed = body.take(&mut fields, &mut object, &mut context).await?;
    body.judge(&mut fields, &object);
    virtual_key::judge_heirs(&mut fields, &mut write, &object, &body).await?;
    let action = if address_changed { Action::AddressChanged } else { Action::Updated };
    save(write, &mut object, &body, action, &fields).await
}

/// `DELETE /integrations/{name}`.
///
/// # Errors
/// [`Refusal`].
pub async fn delete(
    State(control): State<Arc<Control>>,
    caller: Caller,
    Path(name): Path<String>,
    query: Query,
) -> Result<Answer, Refusal> {
    may(&caller, Verb::Delete, None)?;
    let mut write = caller.write(&control).await?;
    let (object, _) = find(&mut write, &caller, Verb::Delete, &name, &query).await?;
    caller.owns(&object)?;
    virtual_key::remove_first(&mut write, &object).await?;
    let users = write.users(object.kind, &object.id, MAX_USERS_NAMED).await?;
    if !users.is_empty() {
        return Err(Refusal::in_use(object.kind.noun(), &users));
    }
    write.remove(&object).await?;
    write.commit(Change::of(Action::Deleted, &object, Vec::new())).await?;
    Ok(Answer::done())
}

/// The integration that `name` (id or slug) stands for, if the caller may know of it and do `verb` with it.
async fn find(
    tenant: &mut Tenant,
    caller: &Caller,
    verb: Verb,
    name: &str,
    query: &Query,
) -> Result<(Object, Body), Refusal> {
    may(caller, verb, None)?;
    let place = caller.place(tenant, query).await?;
    let object = caller.find(tenant, Kind::Integration, name, &place).await?;
    let body: Body = object.read()?;
    if !body.is_open_to(&object, caller.workspace_id()) {
        return Err(Refusal::not_found(Kind::Integration.noun()));
    }
    may(caller, verb, Some(&object))?;
    Ok((object, body))
}

/// Ends a write that changed `object`.
async fn save(
    mut write: Write,
    object: &mut Object,
    body: &Body,
    action: Action,
    fields: &Fields<'_>,
) -> Result<Answer, Refusal> {
    fields.finish()?;
    let names = fields.names();
    if names.is_empty() {
        return Err(Refusal::invalid("no field to update was given"));
    }
    object.write(body)?;
    write.update(object).await?;
    write.set_uses(object, &body.uses(object)).await?;
    write.commit(Change::of(action, object, names)).await?;
    Ok(Answer::done())
}

/// Integrations of the organisation and those of a workspace have scopes of their own. Without an object: whether there is
/// any that the caller might.
fn may(caller: &Caller, verb: Verb, object: Option<&Object>) -> Result<(), Refusal> {
    let as_workspace = || caller.may("workspace_integrations", verb);
    match object {
        _ if !caller.is_organisation_wide() => as_workspace(),
        Some(object) if object.workspace_id.is_empty() => caller.may("integrations", verb),
        Some(_) | None => caller.may("integrations", verb).or_else(|_| as_workspace()),
    }
}

fn summary(caller: &Caller, object: &Object, body: &Body) -> Value {
    without_nulls(json!({
        "id": object.id,
        "organisation_id": caller.organisation(),
        "workspace_id": Some(&object.workspace_id).filter(|id| !id.is_empty()),
        "type": if object.workspace_id.is_empty() { "organisation" } else { "workspace" },
        "ai_provider_id": body.ai_provider_id,
        "name": object.name,
        "status": object.status,
        "created_at": instant(object.created_at),
        "last_updated_at": instant(object.updated_at),
        "slug": object.slug,
        "description": body.description,
        "object": OBJECT,
    }))
}
