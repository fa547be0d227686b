//! What of an object data planes see, and in which list: seals and hashes, never a credential.

use std::collections::HashMap;

use serde::Serialize;
use tracing::error;

use crate::control::{
    api_key, config, integration, secret_reference,
    store::{Hash, Kind, Object, StoreError},
    virtual_key, workspace,
};

/// The lists of a snapshot, in their order. Workspaces come first: rows of API keys say what their workspace sets.
pub(super) const LISTS: [(Kind, &str); 6] = [
    (Kind::Workspace, "workspaces"),
    (Kind::SecretReference, "secret_references"),
    (Kind::Integration, "integrations"),
    (Kind::VirtualKey, "virtual_keys"),
    (Kind::Config, "configs"),
    (Kind::ApiKey, "api_keys"),
];

/// What rows say beside their own objects.
#[derive(Debug, Default)]
pub(super) struct Surroundings {
    /// By which objects are presented; by the id of the object, by which they are sorted.
    pub(super) hashes: Vec<(String, Hash)>,
    /// What the API keys of a workspace start from, by its id; nothing, if they start from nothing.
    pub(super) defaults: HashMap<String, workspace::Defaults>,
}

/// Appends the row of `object` to `buffer`; `None` = it is nothing to data planes.
///
/// # Errors
/// [`StoreError::Corrupt`]; nothing is appended then.
pub(super) fn write(object: &Object, around: &Surroundings, buffer: &mut Vec<u8>) -> Result<Option<()>, StoreError> {
    match object.kind {
        Kind::Workspace => json(buffer, object, &object.read::<workspace::Body>()?.snapshot_row(object)),
        Kind::SecretReference => json(buffer, object, &object.read::<secret_reference::Body>()?.snapshot_row(object)),
        Kind::Integration => json(buffer, object, &object.read::<integration::Body>()?.snapshot_row(object)),
        Kind::VirtualKey => json(buffer, object, &object.read::<virtual_key::Body>()?.snapshot_row(object)),
        Kind::Config => json(buffer, object, &object.read::<config::Body>()?.snapshot_row(object)),
        Kind::ApiKey => {
            let body: api_key::Body = object.read()?;
            let hashes = around.hashes_of(&object.id);
            json(buffer, object, &body.snapshot_row(object, &hashes, around.defaults.get(&object.workspace_id)))
        }
        Kind::DataPlane => Ok(None),
    }
}

/// Whether objects of this kind are presented by hashes that data planes see.
pub(super) fn has_hashes(kind: Kind) -> bool {
    kind == Kind::ApiKey
}

// === impl Surroundings ===

impl Surroundings {
    /// Remembers what the API keys of `workspace` start from.
    pub(super) fn add(&mut self, workspace: &Object) {
        match workspace.read::<workspace::Body>() {
            Ok(body) if body.defaults == workspace::Defaults::default() => {}
            Ok(body) => drop(self.defaults.insert(workspace.id.clone(), body.defaults)),
            Err(cause) => error!(error = %cause, "API keys start without the defaults of their workspace."),
        }
    }

    fn hashes_of(&self, id: &str) -> Vec<Hash> {
        let from = self.hashes.partition_point(|(other, _)| other.as_str() < id);
        self.hashes[from..].iter().take_while(|(other, _)| other == id).map(|(_, hash)| hash.clone()).collect()
    }
}

fn json(buffer: &mut Vec<u8>, object: &Object, row: &impl Serialize) -> Result<Option<()>, StoreError> {
    let length = buffer.len();
    serde_json::to_writer(&mut *buffer, row).map(Some).map_err(|_| {
        buffer.truncate(length);
        StoreError::Corrupt { kind: object.kind, id: object.id.clone() }
    })
}
