//! `GET /audit-logs`: who did what, and when. Which fields were given is known, what stood in them is not.
//!
//! Portkey's path, query and names as far as they are recorded here: a record is of a write that happened, so that there is no
//! other status than 200, and no address of a client. Ours beside them: `id`, `version` (of the snapshot that brought it),
//! `resource_id`, `resource_slug` and `fields`. The log is the organisation's, and for its keys alone.

use std::sync::Arc;

use axum::extract::State;
use serde_json::{Value, json};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use super::{
    Answer, Caller, Control, Refusal, Verb,
    answer::instant,
    query::Query,
    store::{Action, Record, RecordFilter},
};

/// In scopes.
const RESOURCE: &str = "audit_logs";
/// On a page, if nobody says; and at most.
const PAGE_SIZE: (usize, usize) = (100, 100);
/// Methods by which something is written.
const METHODS: [&str; 3] = ["POST", "PUT", "DELETE"];
/// Filters of Portkey's that are of what is not recorded.
const UNKNOWN: [&str; 5] = ["uri", "request_id", "workspace_id", "client_ip", "country"];
/// Of every record: the schedule and the first start are named like keys.
const USER_TYPE: &str = "api_key";

/// `GET /audit-logs`.
///
/// # Errors
/// [`Refusal`].
pub async fn list(State(control): State<Arc<Control>>, caller: Caller, query: Query) -> Result<Answer, Refusal> {
    caller.may(RESOURCE, Verb::List)?;
    if !caller.is_organisation_wide() {
        return Err(Refusal::forbidden());
    }
    if let Some(name) = UNKNOWN.into_iter().find(|name| query.get(name).is_some()) {
        return Err(Refusal::invalid(format!("{name}: is not recorded, so that nothing can be found by it")));
    }
    let page = query.page(PAGE_SIZE.0, PAGE_SIZE.1)?;
    let text = |name: &str| query.get(name).unwrap_or_default().to_owned();
    let method = query.word("method", &METHODS)?;
    let actions = Action::ALL.into_iter().filter(|action| method.is_none_or(|method| method_of(*action) == method));
    let named = query.word("action", &Action::ALL.map(Action::as_str))?;
    let filter = RecordFilter {
        from: time(&query, "start_time")?.unwrap_or(i64::MIN),
        until: time(&query, "end_time")?.unwrap_or(i64::MAX),
        actor: text("user_id"),
        kind: text("resource_type"),
        actions: actions.map(Action::as_str).filter(|action| named.is_none_or(|named| named == *action)).collect(),
    };
    // Nothing else is recorded than what an API key did, in this organisation, and what was done.
    let is_other = |name: &str, only: &str| query.get(name).is_some_and(|given| given != only);
    let nothing = is_other("user_type", USER_TYPE)
        || is_other("organisation_id", caller.organisation())
        || is_other("response_status_code", "200");
    let (total, records) = match nothing {
        true => (0, Vec::new()),
        false => caller.tenant(&control).await?.audit_page(&filter, page).await?,
    };
    let records: Vec<Value> = records.iter().map(|record| shown(record, &caller)).collect();
    Ok(Answer::of(json!({ "object": "list", "total": total, "records": records })))
}

fn shown(record: &Record, caller: &Caller) -> Value {
    let method = Action::ALL.into_iter().find(|action| action.as_str() == record.action).map(method_of);
    json!({
        "id": record.id,
        "timestamp": instant(record.at),
        "method": method,
        "action": record.action,
        "user_id": record.actor,
        "user_type": USER_TYPE,
        "organisation_id": caller.organisation(),
        "resource_type": record.kind,
        "resource_id": record.object_id,
        "resource_slug": record.slug,
        "response_status_code": 200,
        "fields": record.fields,
        "version": record.version,
    })
}

/// The method that usually does it.
const fn method_of(action: Action) -> &'static str {
    match action {
        Action::Created | Action::Rotated => "POST",
        Action::Updated | Action::AddressChanged => "PUT",
        Action::Deleted => "DELETE",
    }
}

/// A time of the query, in milliseconds since 1970.
fn time(query: &Query, name: &str) -> Result<Option<i64>, Refusal> {
    let Some(text) = query.get(name) else { return Ok(None) };
    // A `+` that was not escaped has become a blank.
    let instant = OffsetDateTime::parse(&text.replace(' ', "+"), &Rfc3339);
    let instant = instant.map_err(|_| Refusal::invalid(format!("{name}: must be a time like 2026-11-21T03:00:00Z")))?;
    Ok(i64::try_from(instant.unix_timestamp_nanos() / 1_000_000).ok())
}
