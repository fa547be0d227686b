//! `/providers`: virtual keys as Portkey shows them since it has integrations.
//!
//! The same rows as [`super::virtual_key`]: what is made here is linked to an integration and shows no credentials.

use std::sync::Arc;

use axum::extract::{Path, State};
use serde_json::{Value, json};

use super::{
    Answer, Caller, Control, Refusal, Verb,
    answer::{instant, without_nulls},
    fields::Body as Posted,
    query::Query,
    virtual_key::{self, Found},
};

/// In scopes.
const RESOURCE: &str = "providers";
/// In answers.
const OBJECT: &str = "provider";

/// `POST /providers`.
///
/// # Errors
/// [`Refusal`].
pub async fn create(State(control): State<Arc<Control>>, caller: Caller, posted: Posted) -> Result<Answer, Refusal> {
    caller.may(RESOURCE, Verb::Create)?;
    let object = virtual_key::make(&control, &caller, &posted, true).await?;
    Ok(Answer::created(&object, OBJECT))
}

/// `GET /providers`.
///
/// # Errors
/// [`Refusal`].
pub async fn list(State(control): State<Arc<Control>>, caller: Caller, query: Query) -> Result<Answer, Refusal> {
    caller.may(RESOURCE, Verb::List)?;
    virtual_key::page(&control, &caller, &query, shown).await
}

/// `GET /providers/{name}`.
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
    Ok(Answer::of(shown(&caller, &virtual_key::one(&control, &caller, &name, &query).await?)))
}

/// `PUT /providers/{name}`.
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
    let object = virtual_key::change(&control, &caller, &name, &query, &posted).await?;
    Ok(Answer::created(&object, OBJECT))
}

/// `DELETE /providers/{name}`.
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
    virtual_key::remove(&control, &caller, &name, &query).await
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
        "integration_id": integration,
        "ai_provider_id": body.provider,
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
