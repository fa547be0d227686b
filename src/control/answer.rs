//! What is answered: the shapes that every resource shares, and times as Portkey writes them.

use axum::{
    Json,
    response::{IntoResponse, Response},
};
use serde_json::{Value, json};
use time::{OffsetDateTime, format_description::FormatItem, macros::format_description};

use super::store::Object;

/// `2026-05-03T17:08:55.000Z`.
const INSTANT: &[FormatItem<'_>] =
    format_description!("[year]-[month]-[day]T[hour]:[minute]:[second].[subsecond digits:3]Z");

/// A 200.
#[derive(Clone, Debug)]
pub struct Answer(Value);

// === impl Answer ===

impl Answer {
    /// `object` was made.
    pub fn created(object: &Object, noun: &str) -> Self {
        Self(json!({ "id": object.id, "slug": object.slug, "object": noun }))
    }

    /// It was changed, or is gone.
    pub fn done() -> Self {
        Self(json!({}))
    }

    /// A page of a list that has `total` objects.
    pub fn list(total: usize, data: Vec<Value>) -> Self {
        Self(json!({ "object": "list", "total": total, "data": data }))
    }

    /// As it is.
    pub fn of(value: Value) -> Self {
        Self(value)
    }
}

impl IntoResponse for Answer {
    fn into_response(self) -> Response {
        Json(self.0).into_response()
    }
}

/// Milliseconds since 1970 as text; a time that no clock shows becomes 1970.
pub fn instant(millis: i64) -> String {
    let instant = OffsetDateTime::from_unix_timestamp_nanos(i128::from(millis) * 1_000_000);
    instant.unwrap_or(OffsetDateTime::UNIX_EPOCH).format(INSTANT).unwrap_or_default()
}

/// `shown` without the members that are null: what is not there is left out where Portkey's schemas have no null.
pub fn without_nulls(mut shown: Value) -> Value {
    if let Value::Object(members) = &mut shown {
        members.retain(|_, value| !value.is_null());
    }
    shown
}
