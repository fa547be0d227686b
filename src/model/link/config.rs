//! `configs[]` → [`StoredConfig`].

use std::sync::Arc;

use serde_json::{Value, value::RawValue};

use super::{
    Context,
    findings::{Findings, Ids, Naming},
};
use crate::model::{
    Snapshot, StoredConfig,
    raw::{self, Rows},
};

/// Links the stored configs into `snapshot`. What they name inside is looked up when a request uses them.
pub(super) fn link(given: Rows<'_>, context: &Context<'_>, findings: &mut Findings, snapshot: &mut Snapshot) {
    const LIST: &str = "configs";
    let mut ids = Ids::default();
    for (index, row) in findings.rows(LIST, given).into_iter().enumerate() {
        let Some(row) = findings.row::<raw::Config<'_>>(LIST, index, row) else { continue };
        let mut report = findings.report(LIST, index);
        let Some(named) = report.named(row.id, row.slug) else { continue };
        let workspace_id = context.workspaces.owner(row.workspace_id, &mut report);
        let Naming { id, slug } = report.identified(named, workspace_id.as_deref(), &mut ids);
        let config = report.value("config", row.config, "an object").and_then(object);
        if config.is_none() {
            report.fault("config", "must be an object, or text that holds one");
        }
        if !snapshot.configs.is_free(workspace_id.as_deref(), &slug) {
            report.refuse("slug", "is the slug of an earlier config of the same scope, too");
        }
        let lifespan = report.lifespan(row.status, row.expires_at);
        let fault = report.into_fault();
        let config = config.unwrap_or_default();
        let workspace = workspace_id.clone();
        let stored = StoredConfig { id, slug, workspace_id, lifespan, config, fault };
        snapshot.configs.insert(workspace.as_ref(), Arc::new(stored));
    }
}

/// The admin API gives a config as JSON text, a file more likely as an object.
fn object(raw: &RawValue) -> Option<Value> {
    let value = match serde_json::from_str(raw.get()).ok()? {
        Value::String(text) => serde_json::from_str(&text).ok()?,
        value => value,
    };
    value.is_object().then_some(value)
}
