//! `/data-planes`: who may read the feed. Ours; Portkey has nothing like it.
//!
//! A data plane is a token: of the configuration (by digest, for the first organisation), or made here, shown once and kept
//! as a keyed hash. Its token is replaced with both valid for a transition, in which its sidecars are given the new one.
//! Whoever has one receives everything of the organisation, so that they are for the organisation's own keys to make.

mod grant;

pub use grant::{Grant, Grants, admit};

use std::{sync::Arc, time::Duration};

use axum::extract::{Path, State};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{
    Answer, Caller, Control, Refusal, Verb,
    answer::instant,
    fields::{Body as Posted, Fields, Length},
    key,
    query::Query,
    sealing::mask,
    slug,
    store::{Action, Change, Filter, Hash, Kind, Object, Tenant, now},
};

/// In scopes.
const RESOURCE: &str = "data_planes";
/// In answers.
const OBJECT: &str = "data-plane";
/// On a page, if nobody says; and at most.
const PAGE_SIZE: (usize, usize) = (50, 1000);
/// How long the old token stays valid, if nobody says.
const TRANSITION: Duration = Duration::from_hours(24);
/// And at most.
const MAX_TRANSITION: Duration = Duration::from_hours(30 * 24);

/// What only a data plane has.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Body {
    /// What reads show of its token.
    #[serde(default)]
    pub mask: String,
}

/// `POST /data-planes`.
///
/// # Errors
/// [`Refusal`].
pub async fn create(State(control): State<Arc<Control>>, caller: Caller, posted: Posted) -> Result<Answer, Refusal> {
    may(&caller, Verb::Create)?;
    let mut fields = posted.fields()?;
    let name = fields.text("name", Length(1, 255));
    let name = fields.require("name", name).unwrap_or_default();
    let chosen = slug::chosen(&mut fields, "slug");
    fields.finish()?;
    let mut write = caller.write(&control).await?;
    let mut object = Object::new(Kind::DataPlane, Object::new_id(), String::new(), name);
    object.slug = chosen.unwrap_or_else(|| slug::make("dp-", &object.name));
    let token = key::generate_token().map_err(|_| Refusal::busy("no random numbers can be had"))?;
    object.write(&Body { mask: mask(&token) })?;
    write.insert(&mut object).await?;
    write.set_hashes(&object, &[control.hasher().hash(&token, 0)]).await?;
    write.commit(Change::of(Action::Created, &object, fields.names())).await?;
    Ok(Answer::of(json!({ "id": object.id, "slug": object.slug, "token": *token, "object": OBJECT })))
}

/// `GET /data-planes`.
///
/// # Errors
/// [`Refusal`].
pub async fn list(State(control): State<Arc<Control>>, caller: Caller, query: Query) -> Result<Answer, Refusal> {
    may(&caller, Verb::List)?;
    let page = query.page(PAGE_SIZE.0, PAGE_SIZE.1)?;
    let mut tenant = caller.tenant(&control).await?;
    let found = tenant.page(Kind::DataPlane, &Filter::default(), page).await?;
    let mut data = Vec::with_capacity(found.objects.len());
    for object in &found.objects {
        let hashes = hashes(&mut tenant, object).await?;
        data.push(shown(object, &hashes)?);
    }
    Ok(Answer::list(found.total, data))
}

/// `GET /data-planes/{name}`.
///
/// # Errors
/// [`Refusal`].
pub async fn read(
    State(control): State<Arc<Control>>,
    caller: Caller,
    Path(name): Path<String>,
) -> Result<Answer, Refusal> {
    may(&caller, Verb::Read)?;
    let mut tenant = caller.tenant(&control).await?;
    let object = find(&mut tenant, &name).await?;
    let hashes = hashes(&mut tenant, &object).await?;
    Ok(Answer::of(shown(&object, &hashes)?))
}

/// `POST /data-planes/{name}/rotate`: a new token, the old one valid for `token_transition_period_ms` more; 0 ends it now.
///
/// # Errors
/// [`Refusal`]; 400 while an older token is still valid, unless that is to end now.
pub async fn rotate(
    State(control): State<Arc<Control>>,
    caller: Caller,
    Path(name): Path<String>,
    posted: Posted,
) -> Result<Answer, Refusal> {
    may(&caller, Verb::Rotate)?;
    let mut fields = posted.optional_fields()?;
    let transition = transition(&mut fields);
    fields.finish()?;
    let mut write = caller.write(&control).await?;
    let mut object = find(&mut write, &name).await?;
    let mut kept = hashes(&mut write, &object).await?;
    if transition.is_zero() {
        kept.clear();
    }
    if kept.iter().any(|hash| hash.expires_at != 0) {
        return Err(Refusal::invalid(
            "an older token is still valid; wait until it ends, or give token_transition_period_ms: 0",
        ));
    }
    let end = write.at() + i64::try_from(transition.as_millis()).unwrap_or(i64::MAX);
    for hash in &mut kept {
        hash.expires_at = end;
    }
    let token = key::generate_token().map_err(|_| Refusal::busy("no random numbers can be had"))?;
    kept.push(control.hasher().hash(&token, 0));
    object.write(&Body { mask: mask(&token) })?;
    write.update(&mut object).await?;
    write.set_hashes(&object, &kept).await?;
    write.commit(Change::of(Action::Rotated, &object, fields.names())).await?;
    Ok(Answer::of(json!({
        "id": object.id,
        "token": *token,
        "token_transition_expires_at": (!transition.is_zero()).then(|| instant(end)),
    })))
}

/// `DELETE /data-planes/{name}`: none of its tokens is valid any more, those who wait for the feed with one included.
///
/// # Errors
/// [`Refusal`].
pub async fn delete(
    State(control): State<Arc<Control>>,
    caller: Caller,
    Path(name): Path<String>,
) -> Result<Answer, Refusal> {
    may(&caller, Verb::Delete)?;
    let mut write = caller.write(&control).await?;
    let object = find(&mut write, &name).await?;
    write.remove(&object).await?;
    write.commit(Change::of(Action::Deleted, &object, Vec::new())).await?;
    Ok(Answer::done())
}

fn may(caller: &Caller, verb: Verb) -> Result<(), Refusal> {
    caller.may(RESOURCE, verb)?;
    if caller.is_organisation_wide() { Ok(()) } else { Err(Refusal::forbidden()) }
}

async fn find(tenant: &mut Tenant, name: &str) -> Result<Object, Refusal> {
    let found = tenant.named(Kind::DataPlane, name).await?.into_iter().next();
    found.ok_or_else(|| Refusal::not_found(Kind::DataPlane.noun()))
}

/// Of the tokens that are valid.
async fn hashes(tenant: &mut Tenant, object: &Object) -> Result<Vec<Hash>, Refusal> {
    let mut hashes = tenant.hashes_of(object).await?;
    hashes.retain(|hash| hash.expires_at == 0 || hash.expires_at > now());
    Ok(hashes)
}

fn transition(fields: &mut Fields<'_>) -> Duration {
    const KEY: &str = "token_transition_period_ms";
    let most = MAX_TRANSITION.as_millis();
    let given = fields.typed::<u64>(KEY, "must be a whole number of milliseconds").value().map(Duration::from_millis);
    if given.is_some_and(|given| given > MAX_TRANSITION) {
        fields.fault(KEY, format_args!("must be 0 to {most}"));
    }
    given.unwrap_or(TRANSITION)
}

fn shown(object: &Object, hashes: &[Hash]) -> Result<Value, Refusal> {
    let Body { mask } = object.read()?;
    let ends = hashes.iter().map(|hash| hash.expires_at).filter(|end| *end != 0).max();
    Ok(json!({
        "id": object.id,
        "slug": object.slug,
        "name": object.name,
        "token": mask,
        "token_transition_expires_at": ends.map(instant),
        "created_at": instant(object.created_at),
        "last_updated_at": instant(object.updated_at),
        "object": OBJECT,
    }))
}
