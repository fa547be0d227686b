//! `/mcp-integrations`: refused with a reason, because nothing would inject their secrets yet.

use std::sync::Arc;

use axum::extract::State;

use super::{Answer, Caller, Control, Refusal, fields::Body as Posted};

/// Every call.
///
/// # Errors
/// 400 for what has secret mappings, else 404.
pub async fn refuse(State(_): State<Arc<Control>>, _: Caller, posted: Posted) -> Result<Answer, Refusal> {
    if posted.optional_fields().is_ok_and(|fields| fields.has("secret_mappings")) {
        return Err(Refusal::invalid(
            "secret_mappings: are not possible on MCP integrations: no data plane would put the secrets in their place yet",
        ));
    }
    Err(Refusal::not_served("MCP integrations are not served: no data plane knows them yet"))
}
