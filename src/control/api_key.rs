//! `/api-keys`: who a client is, what it may do, and how much of it.
//!
//! The secret of a key is shown once, in the answer that made it; only keyed hashes are kept. A caller gives no key more
//! than it has itself, and a person's key manages no keys. Ours beside Portkey's fields: `sealed_key` (see [`rotation`]) and
//! `usage`, how far it is with its budgets.

mod defaults;
mod rotation;
mod scope;

pub use defaults::Defaults;
pub use rotation::{Policy, keep_rotating, rotate, rotate_due};

use std::sync::Arc;

use axum::extract::{Path, State};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use super::{
    Answer, Caller, Control, Refusal, Verb,
    answer::instant,
    fields::{Body as Posted, Fields, Given, Length},
    key,
    limits::{self, RateLimit, UsageLimit},
    query::Query,
    sealing::{Sealed, mask},
    store::{Action, Change, Filter, Hash, Kind, Object, Tenant, Write, now},
    usage::{self, Standing},
    workspace,
};

/// In answers.
const OBJECT: &str = "api-key";
/// On a page, if nobody says; and at most.
const PAGE_SIZE: (usize, usize) = (100, 1000);
/// Addresses that are told of one key's alerts.
const MAX_ALERT_EMAILS: usize = 50;
/// Longest address, in characters (RFC 5321, section 4.5.3.1.3, without the angle brackets).
const MAX_EMAIL: usize = 254;
/// Longest id of a user, in characters.
const MAX_USER_ID: usize = 255;

/// What only an API key has.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Body {
    /// What it may do beside its scopes.
    #[serde(default)]
    pub role: Role,
    /// Whose it is.
    #[serde(default, rename = "type")]
    pub kind: KeyType,
    /// What it may do.
    #[serde(default)]
    pub scopes: Vec<String>,
    /// What reads show of the key.
    #[serde(default)]
    pub mask: String,
    /// RFC 3339; `None` = never.
    #[serde(default)]
    pub expires_at: Option<String>,
    /// For people.
    #[serde(default)]
    pub description: Option<String>,
    /// Who holds it, if it is a person's.
    #[serde(default)]
    pub user_id: Option<String>,
    /// How much per time.
    #[serde(default)]
    pub rate_limits: Vec<RateLimit>,
    /// How much per period.
    #[serde(default)]
    pub usage_limits: Vec<UsageLimit>,
    /// What its requests start from.
    #[serde(default)]
    pub defaults: Defaults,
    /// Who is told of its alerts.
    #[serde(default)]
    pub alert_emails: Vec<String>,
    /// When it gets a new secret by itself.
    #[serde(default)]
    pub rotation_policy: Option<Policy>,
    /// When it got its secret, in milliseconds since 1970; 0 = when it was made.
    #[serde(default)]
    pub last_rotated_at: i64,
    /// When the secret before ends, in milliseconds since 1970; 0 = there was none.
    #[serde(default)]
    pub transition_ends_at: i64,
    /// A secret that was made when nobody was there to be shown it.
    #[serde(default)]
    pub sealed_key: Option<Sealed>,
    /// From when on its usage counts, in milliseconds since 1970; 0 = since it was made.
    #[serde(default)]
    pub usage_reset_at: i64,
}

/// What a key may do beside its scopes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Everything.
    Owner,
    /// Everything.
    Admin,
    /// What the scopes say.
    #[default]
    Member,
}

/// Whose a key is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum KeyType {
    /// A service of the organisation.
    #[default]
    OrganisationService,
    /// A service of a workspace.
    WorkspaceService,
    /// A person in a workspace.
    WorkspaceUser,
}

// === impl Body ===

impl Body {
    /// When it ends, in milliseconds since 1970.
    pub fn expires_at_millis(&self) -> Option<i64> {
        millis(self.expires_at.as_deref()?)
    }

    /// Takes over everything that may be created and changed.
    async fn take(
        &mut self,
        fields: &mut Fields<'_>,
        object: &mut Object,
        context: &mut Context<'_>,
    ) -> Result<(), Refusal> {
        fields.text("name", Length(1, 255)).replace(&mut object.name);
        fields.text("description", Length(0, 1024)).set(&mut self.description);
        self.take_scopes(fields, context.caller);
        limits::explicit_rates(fields).put(&mut self.rate_limits);
        limits::usage(fields).put(&mut self.usage_limits);
        self.defaults.take(fields, context.write, &object.workspace_id).await?;
        fields.texts("alert_emails").put(&mut self.alert_emails);
        if self.alert_emails.len() > MAX_ALERT_EMAILS {
            fields.fault("alert_emails", format_args!("must be {MAX_ALERT_EMAILS} at most"));
        }
        if !self.alert_emails.iter().all(|email| is_email(email)) {
            fields.fault("alert_emails", "must be addresses like name@example.com");
        }
        self.take_end(fields, context, &object.workspace_id).await?;
        Policy::take(fields, context.write.at()).set(&mut self.rotation_policy);
        if self.role != Role::Member && (self.expires_at.is_some() || self.rotation_policy.is_some()) {
            fields.fault("expires_at", "and rotation_policy cannot be given to an OWNER's key: nobody would be left");
        }
        Ok(())
    }

    fn take_scopes(&mut self, fields: &mut Fields<'_>, caller: &Caller) {
        let Given::Value(mut scopes) = fields.texts("scopes") else { return };
        if scopes.len() > scope::MAX {
            fields.fault("scopes", format_args!("must be {} at most", scope::MAX));
        }
        if !scopes.iter().all(|scope| scope::is_scope(scope)) {
            fields.fault("scopes", "must be scopes like completions.write");
        }
        scopes.sort();
        scopes.dedup();
        let new: Vec<_> = scopes.iter().filter(|scope| !self.scopes.contains(scope)).cloned().collect();
        if !caller.holds(&new) {
            fields.fault("scopes", "must be scopes of the key that gives them");
        }
        self.scopes = scopes;
    }

    /// `expires_at`, which the workspace may demand and bound.
    async fn take_end(
        &mut self,
        fields: &mut Fields<'_>,
        context: &mut Context<'_>,
        workspace_id: &str,
    ) -> Result<(), Refusal> {
        let at = context.write.at();
        let given = limits::time(fields, "expires_at");
        let is_new = self.mask.is_empty();
        if let Given::Value(end) = &given
            && millis(end).is_none_or(|end| end <= at)
        {
            fields.fault("expires_at", "must lie ahead");
        }
        if !is_new && given == Given::Absent {
            return Ok(());
        }
        given.set(&mut self.expires_at);
        let workspace = context.write.get(Kind::Workspace, workspace_id).await?;
        let workspace: Option<workspace::Body> = workspace.map(|workspace| workspace.read()).transpose()?;
        if let Some(days) = workspace.and_then(|workspace| workspace.api_key_max_ttl_days) {
            let latest = at.saturating_add(i64::from(days) * 24 * 3600 * 1000);
            if self.expires_at_millis().is_none_or(|end| end > latest) {
                fields.fault("expires_at", format_args!("must lie within {days} days in this workspace"));
            }
        }
        Ok(())
    }

    /// Its row of a snapshot. `hashes` are those of `object`; `workspace` is what the keys of its workspace start from.
    pub fn snapshot_row(&self, object: &Object, hashes: &[Hash], workspace: Option<&workspace::Defaults>) -> Value {
        let hash = |Hash { kid, hash, expires_at, .. }: &Hash| {
            let expires_at = (*expires_at != 0).then(|| instant(*expires_at));
            json!({ "kid": kid, "hmac_sha256": hash, "expires_at": expires_at })
        };
        let mut row = json!({
            "id": object.id,
            "workspace_id": Some(&object.workspace_id).filter(|id| !id.is_empty()),
            "scopes": self.scopes,
            "status": object.status,
            "expires_at": self.expires_at,
            "defaults": self.defaults.snapshot_member(self.kind, workspace),
            "hashes": hashes.iter().map(hash).collect::<Vec<_>>(),
            "rate_limits": self.rate_limits,
            "usage_limits": Some(&self.usage_limits).filter(|limits| !limits.is_empty()),
        });
        if self.usage_reset_at != 0 {
            row["usage_reset_at"] = instant(self.usage_reset_at).into();
        }
        if !self.alert_emails.is_empty() {
            row["alert_emails"] = json!(self.alert_emails);
        }
        row
    }
}

// === impl KeyType ===

impl KeyType {
    /// Every type.
    pub const ALL: [Self; 3] = [Self::OrganisationService, Self::WorkspaceService, Self::WorkspaceUser];

    /// The type that a path names.
    fn of_path(kind: &str, sub_kind: &str) -> Result<Self, Refusal> {
        match (kind, sub_kind) {
            ("organisation", "service") => Ok(Self::OrganisationService),
            ("workspace", "service") => Ok(Self::WorkspaceService),
            ("workspace", "user") => Ok(Self::WorkspaceUser),
            ("organisation", "user") => Err(Refusal::invalid("users have keys of workspaces: use workspace/user")),
            _ => Err(Refusal::invalid("the path must be organisation or workspace, then user or service")),
        }
    }

    /// Its spelling.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::OrganisationService => "organisation-service",
            Self::WorkspaceService => "workspace-service",
            Self::WorkspaceUser => "workspace-user",
        }
    }

    /// In scopes.
    const fn resource(self) -> &'static str {
        match self {
            Self::OrganisationService => "organisation_service_api_keys",
            Self::WorkspaceService => "workspace_service_api_keys",
            Self::WorkspaceUser => "workspace_user_api_keys",
        }
    }
}

/// What a call is judged with.
struct Context<'a> {
    caller: &'a Caller,
    write: &'a mut Write,
}

/// `POST /api-keys/{type}/{sub-type}`.
///
/// # Errors
/// [`Refusal`].
pub async fn create(
    State(control): State<Arc<Control>>,
    caller: Caller,
    Path((kind, sub_kind)): Path<(String, String)>,
    posted: Posted,
) -> Result<Answer, Refusal> {
    may_any(&caller, Verb::Create)?;
    let kind = KeyType::of_path(&kind, &sub_kind)?;
    may(&caller, kind, Verb::Create)?;
    let mut fields = posted.fields()?;
    let mut write = caller.write(&control).await?;
    let mut object = Object::new(Kind::ApiKey, Object::new_id(), String::new(), String::new());
    object.slug.clone_from(&object.id);
    let mut body = Body { kind, ..Body::default() };
    for key in ["name", "scopes"] {
        let given = fields.raw(key);
        fields.require(key, given);
    }
    caller.stays_home(&mut fields);
    object.workspace_id = workspace_of(&mut fields, &caller, &mut write, kind).await?;
    if kind == KeyType::WorkspaceUser {
        let user = fields.text("user_id", Length(1, MAX_USER_ID));
        body.user_id = fields.require("user_id", user);
    }
    let mut context = Context { caller: &caller, write: &mut write };
    body.take(&mut fields, &mut object, &mut context).await?;
    fields.finish()?;
    let secret = key::generate()?;
    body.mask = mask(&secret);
    object.write(&body)?;
    write.insert(&mut object).await?;
    write.set_hashes(&object, &[control.hasher().hash(&secret, 0)]).await?;
    bind(&mut write, &object, &body).await?;
    write.commit(Change::of(Action::Created, &object, fields.names())).await?;
    Ok(Answer::of(json!({ "id": object.id, "key": *secret, "object": OBJECT })))
}

/// `GET /api-keys`.
///
/// # Errors
/// [`Refusal`].
pub async fn list(State(control): State<Arc<Control>>, caller: Caller, query: Query) -> Result<Answer, Refusal> {
    may_any(&caller, Verb::List)?;
    let page = query.page(PAGE_SIZE.0, PAGE_SIZE.1)?;
    let mut tenant = caller.tenant(&control).await?;
    let mut filter = Filter { own_only: true, ..caller.filter() };
    if let Some(name) = query.get("workspace_id") {
        filter.workspace_id = caller.workspace(&mut tenant, "workspace_id", name).await?;
    }
    let lists = |kind: KeyType| may(&caller, kind, Verb::List).is_ok();
    let found = if !caller.is_user() && KeyType::ALL.into_iter().all(lists) {
        tenant.page(Kind::ApiKey, &filter, page).await?
    } else {
        // The type of a key stands in its body.
        let keep = |object: &Object| Ok(lists(object.read::<Body>()?.kind) && is_of(&caller, object));
        tenant.page_of(Kind::ApiKey, &filter, page, keep).await?
    };
    let mut data = Vec::with_capacity(found.objects.len());
    for object in &found.objects {
        let body: Body = object.read()?;
        let standing = usage::standing(&mut tenant, object, &body.usage_limits).await?;
        data.push(shown(object, &body, standing, &caller));
    }
    Ok(Answer::list(found.total, data))
}

/// `GET /api-keys/{id}`.
///
/// # Errors
/// [`Refusal`].
pub async fn read(
    State(control): State<Arc<Control>>,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<Answer, Refusal> {
    may_any(&caller, Verb::Read)?;
    let mut tenant = caller.tenant(&control).await?;
    let (object, body) = find(&mut tenant, &caller, &id, Verb::Read).await?;
    let standing = usage::standing(&mut tenant, &object, &body.usage_limits).await?;
    let mut shown = shown(&object, &body, standing, &caller);
    if let Some(sealed) = &body.sealed_key {
        // Only an identity opens it; where that is, the key's new secret belongs.
        shown["sealed_key"] = json!({ "$sealed": sealed.sealed });
    }
    Ok(Answer::of(shown))
}

/// `PUT /api-keys/{id}`.
///
/// # Errors
/// [`Refusal`].
pub async fn update(
    State(control): State<Arc<Control>>,
    caller: Caller,
    Path(id): Path<String>,
    posted: Posted,
) -> Result<Answer, Refusal> {
    may_any(&caller, Verb::Update)?;
    let mut fields = posted.fields()?;
    let mut write = caller.write(&control).await?;
    let (mut object, mut body) = find(&mut write, &caller, &id, Verb::Update).await?;
    let mut context = Context { caller: &caller, write: &mut write };
    body.take(&mut fields, &mut object, &mut context).await?;
    if fields.toggle("reset_usage").value() == Some(true) {
        body.usage_reset_at = write.at();
        write.forget_usage(&object).await?;
        if object.status == "exhausted" {
            "active".clone_into(&mut object.status);
        }
    }
    fields.finish()?;
    let names = fields.names();
    if names.is_empty() {
        return Err(Refusal::invalid("no field to update was given"));
    }
    object.write(&body)?;
    write.update(&mut object).await?;
    bind(&mut write, &object, &body).await?;
    write.commit(Change::of(Action::Updated, &object, names)).await?;
    Ok(Answer::done())
}

/// `DELETE /api-keys/{id}`.
///
/// # Errors
/// [`Refusal`]; 409 for the key of an OWNER.
pub async fn delete(
    State(control): State<Arc<Control>>,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<Answer, Refusal> {
    may_any(&caller, Verb::Delete)?;
    let mut write = caller.write(&control).await?;
    let (object, body) = find(&mut write, &caller, &id, Verb::Delete).await?;
    if body.role == Role::Owner {
        return Err(Refusal::conflict("the key of the OWNER cannot be removed: nobody would be left; rotate it"));
    }
    write.remove(&object).await?;
    write.commit(Change::of(Action::Deleted, &object, Vec::new())).await?;
    Ok(Answer::done())
}

/// The key `id`, if the caller may know of it and do this to it.
async fn find(tenant: &mut Tenant, caller: &Caller, id: &str, verb: Verb) -> Result<(Object, Body), Refusal> {
    let found = tenant.get(Kind::ApiKey, id).await?.filter(|object| is_of(caller, object));
    let object = found.ok_or_else(|| Refusal::not_found(Kind::ApiKey.noun()))?;
    let body: Body = object.read()?;
    may(caller, body.kind, verb)?;
    match (body.role, verb) {
        (Role::Member, _) | (_, Verb::Read | Verb::List) => {}
        // What may do everything is not a matter of scopes.
        (Role::Owner | Role::Admin, _) if caller.is_admin() => {}
        (Role::Owner | Role::Admin, _) => return Err(Refusal::forbidden()),
    }
    Ok((object, body))
}

/// Records what the key names, and when it is due.
async fn bind(write: &mut Write, object: &Object, body: &Body) -> Result<(), Refusal> {
    let uses = body.defaults.uses(write, &object.workspace_id).await?;
    write.set_uses(object, &uses).await?;
    write.set_due(object, body.due_at()).await?;
    Ok(())
}

/// The workspace of a new key. One of the organisation may be bound to a workspace, too: it reaches no further then.
async fn workspace_of(
    fields: &mut Fields<'_>,
    caller: &Caller,
    tenant: &mut Tenant,
    kind: KeyType,
) -> Result<String, Refusal> {
    let named = fields.text("workspace_id", Length(0, 255)).value().filter(|name| !name.is_empty());
    match named {
        Some(name) => caller.workspace(tenant, "workspace_id", &name).await,
        None => {
            if caller.is_organisation_wide() && kind != KeyType::OrganisationService {
                fields.fault("workspace_id", "is missing: the key that asks belongs to no workspace");
            }
            Ok(caller.workspace_id().to_owned())
        }
    }
}

/// Whether the caller may do this to keys of one type at least.
fn may_any(caller: &Caller, verb: Verb) -> Result<(), Refusal> {
    match KeyType::ALL.into_iter().any(|kind| may(caller, kind, verb).is_ok()) {
        true => Ok(()),
        false => Err(Refusal::forbidden()),
    }
}

/// Whether the caller may do this to keys of this type. Keys of the organisation are for keys of the organisation.
fn may(caller: &Caller, kind: KeyType, verb: Verb) -> Result<(), Refusal> {
    let reaches = match kind {
        KeyType::OrganisationService => caller.is_organisation_wide(),
        KeyType::WorkspaceService | KeyType::WorkspaceUser => true,
    };
    let manages = !caller.is_user() || verb != Verb::Create;
    if reaches && manages { caller.may(kind.resource(), verb) } else { Err(Refusal::forbidden()) }
}

/// Whether the caller may know of the key: a service knows those in its bounds, a person the own one.
fn is_of(caller: &Caller, object: &Object) -> bool {
    caller.is_of(object) && (!caller.is_user() || object.id == caller.key_id())
}

fn is_email(text: &str) -> bool {
    let is_visible = text.chars().all(|char| !char.is_whitespace() && !char.is_control());
    let parts = text.rsplit_once('@').filter(|(name, host)| !name.is_empty() && !host.is_empty());
    is_visible && text.chars().count() <= MAX_EMAIL && parts.is_some()
}

fn shown(object: &Object, body: &Body, standing: Standing, caller: &Caller) -> Value {
    let status = match body.expires_at_millis().is_some_and(|end| end <= now()) {
        true => "expired",
        false if standing.exhausted => "exhausted",
        false => &object.status,
    };
    let mut defaults = json!(body.defaults);
    defaults["allow_config_override"] = body.defaults.allow_config_override.unwrap_or(true).into();
    let mut shown = json!({
        "id": object.id,
        "key": body.mask,
        "name": object.name,
        "type": body.kind.as_str(),
        "organisation_id": caller.organisation(),
        "status": status,
        "created_at": instant(object.created_at),
        "last_updated_at": instant(object.updated_at),
        "creation_mode": "api",
        "rate_limits": body.rate_limits,
        "reset_usage": 0,
        "scopes": body.scopes,
        "defaults": defaults,
        "alert_emails": body.alert_emails,
        "object": OBJECT,
    });
    let time = |millis: i64| (millis != 0).then(|| Value::from(instant(millis)));
    let usage_limits = match body.usage_limits.as_slice() {
        [] => None,
        [limit] => Some(json!(limit)),
        limits => Some(json!(limits)),
    };
    // Portkey's schema has no null here: what a key does not have is left out.
    let more = [
        ("description", body.description.clone().map(Value::from)),
        ("workspace_id", Some(object.workspace_id.clone()).filter(|id| !id.is_empty()).map(Value::from)),
        ("user_id", body.user_id.clone().map(Value::from)),
        ("usage_limits", usage_limits),
        ("usage", standing.shown),
        ("expires_at", body.expires_at.clone().map(Value::from)),
        ("rotation_policy", body.rotation_policy.as_ref().map(|policy| json!(policy))),
        ("last_rotated_at", time(body.last_rotated_at)),
        ("key_transition_expires_at", time(body.transition_ends_at)),
    ];
    for (name, value) in more {
        if let Some(value) = value {
            shown[name] = value;
        }
    }
    shown
}

/// Milliseconds since 1970 of a time of RFC 3339.
fn millis(text: &str) -> Option<i64> {
    let instant = OffsetDateTime::parse(text, &Rfc3339).ok()?;
    i64::try_from(instant.unix_timestamp_nanos() / 1_000_000).ok()
}

#[cfg(test)]
mod tests;
