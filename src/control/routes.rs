//! Which path is whose, under `/v1` and without it; what is logged of a call.

use std::sync::{Arc, atomic::Ordering};

use axum::{
    Json, Router,
    extract::{Request, State},
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing,
};
use http::{HeaderName, HeaderValue, StatusCode, header::CACHE_CONTROL};
use percent_encoding::percent_decode_str;
use serde_json::json;
use tokio::time::Instant;
use tracing::{debug, error, info};
use uuid::Uuid;

use super::{
    Control, Refusal, api_key, audit_log, config, data_plane, feed, integration, mcp,
    openapi::{Api, get, post},
    provider,
    refusal::Cause,
    secret_reference, usage, virtual_key, workspace,
};

/// SDKs repeat a call that failed with 5xx, unless the answer has it.
const REQUEST_ID: HeaderName = HeaderName::from_static("x-portkey-request-id");

/// The feed.
const SNAPSHOT: &str = "/snapshot";

/// Everything that is served.
pub(super) fn routes(control: Arc<Control>) -> Router {
    let (api, document) = api().finish();
    Router::new()
        .merge(api.clone())
        .nest("/v1", api)
        .route("/openapi.json", routing::get(move || std::future::ready(document.clone())))
        .route("/healthz", routing::get(async || Json(json!({ "alive": true }))))
        .route("/readyz", routing::get(ready))
        .fallback(async || Refusal::no_such_path())
        .method_not_allowed_fallback(async || Refusal::no_such_method())
        .layer(middleware::from_fn(refuse_unreadable))
        .layer(middleware::from_fn(log))
        .with_state(control)
}

/// What is served under `/v1` and without it; `/openapi.json` says all of it.
pub(super) fn api() -> Api {
    Api::default()
        .route(SNAPSHOT, get(feed::snapshot))
        .route("/usage", post(usage::report))
        .route("/data-planes", get(data_plane::list).post(data_plane::create))
        .route("/data-planes/{name}", get(data_plane::read).delete(data_plane::delete))
        .route("/data-planes/{name}/rotate", post(data_plane::rotate))
        .route("/secret-references", get(secret_reference::list).post(secret_reference::create))
        .route(
            "/secret-references/{name}",
            get(secret_reference::read).put(secret_reference::update).delete(secret_reference::delete),
        )
        .route("/api-keys", get(api_key::list))
        .route("/api-keys/{id}", get(api_key::read).put(api_key::update).delete(api_key::delete))
        .route("/api-keys/{id}/rotate", post(api_key::rotate))
        // Of a new key, the first is its type; the router wants one name for one place.
        .route("/api-keys/{id}/{sub_type}", post(api_key::create))
        .route("/audit-logs", get(audit_log::list))
        .route("/configs", get(config::list).post(config::create))
        .route("/configs/{slug}", get(config::read).put(config::update).delete(config::delete))
        .route("/configs/{slug}/versions", get(config::versions))
        .route("/integrations", get(integration::list).post(integration::create))
        .route("/integrations/{name}", get(integration::read).put(integration::update).delete(integration::delete))
        .route("/integrations/{name}/workspaces", get(integration::access::list).put(integration::access::update))
        .route(
            "/integrations/{name}/models",
            get(integration::model::list).put(integration::model::update).delete(integration::model::delete),
        )
        .unlisted("/mcp-integrations", routing::any(mcp::refuse))
        .unlisted("/mcp-integrations/{*rest}", routing::any(mcp::refuse))
        .route("/providers", get(provider::list).post(provider::create))
        .route("/providers/{name}", get(provider::read).put(provider::update).delete(provider::delete))
        .route("/virtual-keys", get(virtual_key::list).post(virtual_key::create))
        .route("/virtual-keys/{name}", get(virtual_key::read).put(virtual_key::update).delete(virtual_key::delete))
        .route("/admin/workspaces", get(workspace::list).post(workspace::create))
        .route("/admin/workspaces/{name}", get(workspace::read).put(workspace::update).delete(workspace::delete))
        .route("/admin/workspaces/{name}/users", get(workspace::list_members).post(workspace::add_members))
        .route(
            "/admin/workspaces/{name}/users/{user}",
            get(workspace::read_member).put(workspace::update_member).delete(workspace::remove_member),
        )
}

async fn ready(State(control): State<Arc<Control>>) -> Response {
    let reason = match control.store.ping().await {
        Ok(()) if !control.leaving.load(Ordering::Relaxed) => {
            return Json(json!({ "ready": true, "reasons": [] })).into_response();
        }
        Ok(()) => "it is shutting down",
        Err(_) => "the database does not answer",
    };
    (StatusCode::SERVICE_UNAVAILABLE, Json(json!({ "ready": false, "reasons": [reason] }))).into_response()
}

/// Names and filters are text, without a NUL character: no text of PostgreSQL holds one.
async fn refuse_unreadable(request: Request, next: Next) -> Response {
    let uri = request.uri();
    if percent_decode_str(uri.path()).decode_utf8().is_err() {
        return Refusal::invalid("the address is not UTF-8").into_response();
    }
    match uri.path().contains("%00") || uri.query().is_some_and(|query| query.contains("%00")) {
        true => Refusal::invalid("the address holds a NUL character").into_response(),
        false => next.run(request).await,
    }
}

/// Gives the call an id, and writes its line. The path is the route's, so that no name of a client's is in it.
async fn log(request: Request, next: Next) -> Response {
    let started = Instant::now();
    let id = Uuid::now_v7().to_string();
    let method = request.method().clone();
    let route = request.extensions().get::<axum::extract::MatchedPath>().map(|path| path.as_str().to_owned());
    let mut response = next.run(request).await;
    let (status, elapsed_ms) = (response.status().as_u16(), started.elapsed().as_millis());
    let route = route.unwrap_or_default();
    match response.extensions_mut().remove::<Cause>() {
        Some(Cause(cause)) => {
            let error = chain(&*cause);
            error!(request_id = id, %method, route, status, elapsed_ms, error, "A call failed.");
        }
        // Thousands of data planes ask again every minute.
        None if status < 400 && route.ends_with(SNAPSHOT) => {
            debug!(request_id = id, %method, route, status, elapsed_ms, "Answered a call.");
        }
        None => info!(request_id = id, %method, route, status, elapsed_ms, "Answered a call."),
    }
    if let Ok(id) = HeaderValue::from_str(&id) {
        response.headers_mut().insert(REQUEST_ID, id);
    }
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

pub(super) fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut behind = error.source();
    while let Some(cause) = behind {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        behind = cause.source();
    }
    text
}
