//! Who calls, and what that caller may do and see.
//!
//! A caller is an API key: its organisation bounds everything, its workspace (if it has one) bounds what is seen in there.
//! OWNER and ADMIN keys may do everything in their bounds, others what their scopes name. What a caller may not see is
//! answered like what does not exist.

use std::sync::Arc;

use axum::extract::FromRequestParts;
use http::{HeaderMap, header::AUTHORIZATION, request::Parts};

use super::{
    Control, Refusal, api_key,
    fields::{Fields, Length},
    key::same,
    query::Query,
    slug,
    store::{Filter, Kind, Object, Presented, Tenant, Write, now},
};

/// Longest key that is hashed, in bytes; ours are far shorter.
const MAX_KEY_BYTES: usize = 512;
/// Scopes of an organisation's own objects begin with it where a workspace's begin otherwise.
const ORGANISATION: &str = "organisation_";

/// An authenticated caller.
#[derive(Clone, Debug)]
pub struct Caller {
    organisation: String,
    key_id: String,
    /// Empty = the whole organisation.
    workspace_id: String,
    role: api_key::Role,
    /// Whether a person holds the key.
    is_user: bool,
    scopes: Vec<String>,
}

/// What is to be done with a kind of object. The scope is `<resource>.<verb>`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verb {
    /// To make one.
    Create,
    /// To see one.
    Read,
    /// To change one.
    Update,
    /// To remove one.
    Delete,
    /// To see them all.
    List,
    /// To give one a new secret.
    Rotate,
}

/// What a body is judged with.
pub(super) struct Context<'a> {
    pub(super) control: &'a Control,
    pub(super) caller: &'a Caller,
    pub(super) tenant: &'a mut Tenant,
}

// === impl Caller ===

impl Caller {
    /// The organisation of the key.
    pub fn organisation(&self) -> &str {
        &self.organisation
    }

    /// Id of the key.
    pub fn key_id(&self) -> &str {
        &self.key_id
    }

    /// The workspace of the key; empty when it is the organisation's.
    pub fn workspace_id(&self) -> &str {
        &self.workspace_id
    }

    /// Whether the key is the organisation's and not a workspace's.
    pub fn is_organisation_wide(&self) -> bool {
        self.workspace_id.is_empty()
    }

    /// Whether the key is an OWNER's or ADMIN's.
    pub fn is_admin(&self) -> bool {
        match self.role {
            api_key::Role::Owner | api_key::Role::Admin => true,
            api_key::Role::Member => false,
        }
    }

    /// Whether the key is a person's and not a service's.
    pub fn is_user(&self) -> bool {
        self.is_user
    }

    /// The scopes of the key.
    pub fn scopes(&self) -> &[String] {
        &self.scopes
    }

    /// Whether the caller may do itself what `scopes` allow: nobody gives away more than that.
    pub fn holds(&self, scopes: &[String]) -> bool {
        let plain = |scope: &str| scope.strip_prefix("portkey.").unwrap_or(scope).to_owned();
        self.is_admin() || scopes.iter().all(|scope| self.scopes.iter().any(|own| plain(own) == plain(scope)))
    }

    /// Whether the key has `<resource>.<verb>`, or `organisation_<resource>.<verb>` as an organisation's key.
    ///
    /// # Errors
    /// 403.
    pub fn may(&self, resource: &str, verb: Verb) -> Result<(), Refusal> {
        let wanted = format!("{resource}.{}", verb.as_str());
        let has = self.scopes.iter().any(|scope| {
            let scope = scope.strip_prefix("portkey.").unwrap_or(scope);
            scope == wanted || (self.is_organisation_wide() && scope.strip_prefix(ORGANISATION) == Some(&wanted))
        });
        if self.is_admin() || has { Ok(()) } else { Err(Refusal::forbidden()) }
    }

    /// Whether the caller is in a workspace that `object` belongs to: any, for an organisation's key.
    pub fn is_of(&self, object: &Object) -> bool {
        self.is_organisation_wide() || object.workspace_id == self.workspace_id
    }

    /// Whether the caller may know of `object`: it is in the caller's workspace, or the organisation's.
    pub fn sees(&self, object: &Object) -> bool {
        object.workspace_id.is_empty() || self.is_of(object)
    }

    /// Which objects the caller may list, by where they belong.
    pub fn filter(&self) -> Filter {
        Filter { workspace_id: self.workspace_id.clone(), ..Filter::default() }
    }

    /// What the caller's organisation has, to read.
    ///
    /// # Errors
    /// 500.
    pub async fn tenant(&self, control: &Control) -> Result<Tenant, Refusal> {
        Ok(control.store.tenant(&self.organisation).await?)
    }

    /// Begins a write in the caller's organisation and name.
    ///
    /// # Errors
    /// 500.
    pub async fn write(&self, control: &Control) -> Result<Write, Refusal> {
        Ok(control.store.write(&self.organisation, &self.key_id).await?)
    }

    /// Whether the caller may change `object`, which it sees: a workspace's key changes only what is the workspace's.
    ///
    /// # Errors
    /// 403.
    pub fn owns(&self, object: &Object) -> Result<(), Refusal> {
        if self.is_of(object) { Ok(()) } else { Err(Refusal::forbidden()) }
    }

    /// The id of the workspace that a new object belongs to: `workspace_id` of the body, else the caller's; empty = the
    /// organisation.
    ///
    /// # Errors
    /// As for [`Caller::workspace`].
    pub async fn home(&self, fields: &mut Fields<'_>, tenant: &mut Tenant) -> Result<String, Refusal> {
        match fields.text("workspace_id", Length(0, slug::MAX)).value() {
            Some(name) if !name.is_empty() => self.workspace(tenant, "workspace_id", &name).await,
            Some(_) | None => Ok(self.workspace_id.clone()),
        }
    }

    /// The id of the workspace that a call is about: `workspace_id` of the query, else the caller's; empty = all of them.
    ///
    /// # Errors
    /// As for [`Caller::workspace`].
    pub async fn place(&self, tenant: &mut Tenant, query: &Query) -> Result<String, Refusal> {
        match query.get("workspace_id") {
            Some(name) => self.workspace(tenant, "workspace_id", name).await,
            None => Ok(self.workspace_id.clone()),
        }
    }

    /// The object that `name` (id or slug) stands for, if the caller may know of it: of the workspace `place` (an id; empty =
    /// the caller's), else the organisation's. An id wins over a slug.
    ///
    /// # Errors
    /// 404; 400 when no place is in force and several workspaces have the slug.
    pub async fn find(&self, tenant: &mut Tenant, kind: Kind, name: &str, place: &str) -> Result<Object, Refusal> {
        let place = if place.is_empty() { &self.workspace_id } else { place };
        let mut found = tenant.named(kind, name).await?;
        found.retain(|object| {
            let inside = place.is_empty() || object.workspace_id.is_empty() || object.workspace_id == place;
            inside && self.sees(object)
        });
        let by_id = found.iter().position(|object| object.id == name);
        let at_home = || found.iter().position(|object| object.workspace_id == *place);
        match (by_id.or_else(at_home), found.len()) {
            (Some(index), _) => Ok(found.swap_remove(index)),
            (None, 1) => Ok(found.swap_remove(0)),
            (None, 0) => Err(Refusal::not_found(kind.noun())),
            (None, _) => Err(Refusal::invalid("workspace_id: is needed, several workspaces have this slug")),
        }
    }

    /// Says so when `organisation_id` names another organisation than the caller's; it may be left out.
    pub fn stays_home(&self, fields: &mut Fields<'_>) {
        let named = fields.text("organisation_id", Length(0, 255)).value().filter(|id| !id.is_empty());
        if named.is_some_and(|id| id != self.organisation) {
            fields.fault("organisation_id", "is not the organisation of the key that asks");
        }
    }

    /// The id of the workspace that `name` (id or slug) stands for, if the caller may name it.
    ///
    /// # Errors
    /// 400, in the same words whether there is none or it is another's.
    pub async fn workspace(&self, tenant: &mut Tenant, field: &str, name: &str) -> Result<String, Refusal> {
        let found = tenant.named(Kind::Workspace, name).await?.into_iter().next();
        match found.filter(|workspace| self.is_organisation_wide() || workspace.id == self.workspace_id) {
            Some(workspace) => Ok(workspace.id),
            None => Err(Refusal::invalid(format!("{field}: names a workspace that does not exist"))),
        }
    }
}

impl FromRequestParts<Arc<Control>> for Caller {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, control: &Arc<Control>) -> Result<Self, Refusal> {
        let key = presented(&parts.headers).ok_or_else(Refusal::unauthorised)?;
        let Presented { organisation, object, .. } =
            identify(control, Kind::ApiKey, key).await?.ok_or_else(Refusal::unauthorised)?;
        let body: api_key::Body = object.read()?;
        let expired = body.expires_at_millis().is_some_and(|end| end <= now());
        if expired || object.status != "active" {
            return Err(Refusal::unauthorised());
        }
        Ok(Self {
            organisation,
            key_id: object.id,
            workspace_id: object.workspace_id,
            role: body.role,
            is_user: body.kind == api_key::KeyType::WorkspaceUser,
            scopes: body.scopes,
        })
    }
}

// === impl Verb ===

impl Verb {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Create => "create",
            Self::Read => "read",
            Self::Update => "update",
            Self::Delete => "delete",
            Self::List => "list",
            Self::Rotate => "rotate",
        }
    }
}

/// Whom `presented` stands for, while it is valid.
///
/// # Errors
/// 500.
pub async fn identify(control: &Control, kind: Kind, presented: &str) -> Result<Option<Presented>, Refusal> {
    if presented.len() > MAX_KEY_BYTES {
        return Ok(None);
    }
    let hashes: Vec<_> = control.hasher().hashes(presented).collect();
    for hash in hashes {
        for found in control.store.presented(kind, &hash.kid, &hash.prefix).await? {
            if same(&found.hash, &hash.hash) {
                let expired = found.expires_at != 0 && found.expires_at <= now();
                return Ok((!expired).then_some(found));
            }
        }
    }
    Ok(None)
}

/// `x-portkey-api-key`, else `Authorization: Bearer`. SDKs send the first one empty when they have none.
fn presented(headers: &HeaderMap) -> Option<&str> {
    let own = headers.get("x-portkey-api-key").and_then(|value| value.to_str().ok()).map(str::trim);
    own.filter(|key| !key.is_empty()).or_else(|| bearer(headers))
}

/// The token of `Authorization: Bearer`.
pub fn bearer(headers: &HeaderMap) -> Option<&str> {
    let (scheme, token) = headers.get(AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    let token = token.trim();
    (scheme.eq_ignore_ascii_case("bearer") && !token.is_empty()).then_some(token)
}
