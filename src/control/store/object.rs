//! Objects: one row for each thing an organisation has, whatever its kind.

use serde::{Serialize, de::DeserializeOwned};
use time::OffsetDateTime;
use uuid::Uuid;

use super::{StoreError, sql::Row};

/// The columns of an [`Object`], in the order of its fields.
macro_rules! columns {
    () => {
        "kind, id, workspace_id, slug, name, status, body, created_by, created_at, updated_at, version"
    };
}
pub(super) use columns;

/// What there is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    /// A workspace.
    Workspace,
    /// A secret reference.
    SecretReference,
    /// An integration: credentials of a provider, shared with workspaces.
    Integration,
    /// A virtual key, which Portkey also calls a provider.
    VirtualKey,
    /// A stored config.
    Config,
    /// An API key.
    ApiKey,
    /// A data plane that reads the feed.
    DataPlane,
}

/// One row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Object {
    /// What it is.
    pub kind: Kind,
    /// A UUID of version 7: sorts by creation.
    pub id: String,
    /// Id of its workspace; empty = the whole organisation's.
    pub workspace_id: String,
    /// Its name in paths, unique in its kind and workspace.
    pub slug: String,
    /// Its name for people.
    pub name: String,
    /// `active`, or what its kind has beside it.
    pub status: String,
    /// What only its kind has, as JSON; credentials in it are sealed.
    pub body: String,
    /// Id of who made it.
    pub created_by: String,
    /// Milliseconds since 1970.
    pub created_at: i64,
    /// Milliseconds since 1970.
    pub updated_at: i64,
    /// Of the snapshot that brought its last change.
    pub version: i64,
}

// === impl Kind ===

impl Kind {
    /// Every kind.
    pub const ALL: [Self; 7] = [
        Self::Workspace,
        Self::SecretReference,
        Self::Integration,
        Self::VirtualKey,
        Self::Config,
        Self::ApiKey,
        Self::DataPlane,
    ];

    /// Its spelling in the database and in the audit log.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Workspace => "workspace",
            Self::SecretReference => "secret_reference",
            Self::Integration => "integration",
            Self::VirtualKey => "virtual_key",
            Self::Config => "config",
            Self::ApiKey => "api_key",
            Self::DataPlane => "data_plane",
        }
    }

    pub(super) fn from_name(name: &str) -> Result<Self, StoreError> {
        Self::ALL.into_iter().find(|known| known.as_str() == name).ok_or(StoreError::UnknownKind)
    }

    /// Its name for people.
    pub const fn noun(self) -> &'static str {
        match self {
            Self::Workspace => "workspace",
            Self::SecretReference => "secret reference",
            Self::Integration => "integration",
            Self::VirtualKey => "virtual key",
            Self::Config => "config",
            Self::ApiKey => "API key",
            Self::DataPlane => "data plane",
        }
    }
}

// === impl Object ===

impl Object {
    /// A new id.
    pub fn new_id() -> String {
        Uuid::now_v7().to_string()
    }

    /// An active object of the whole organisation. Author, times and version come with the write.
    pub fn new(kind: Kind, id: String, slug: String, name: String) -> Self {
        Self {
            kind,
            id,
            workspace_id: String::new(),
            slug,
            name,
            status: "active".to_owned(),
            body: "{}".to_owned(),
            created_by: String::new(),
            created_at: 0,
            updated_at: 0,
            version: 0,
        }
    }

    /// What only its kind has.
    ///
    /// # Errors
    /// [`StoreError::Corrupt`] when it was not written by this code.
    pub fn read<T: DeserializeOwned>(&self) -> Result<T, StoreError> {
        // The parser's error would quote the row.
        serde_json::from_str(&self.body).map_err(|_| StoreError::Corrupt { kind: self.kind, id: self.id.clone() })
    }

    /// Takes over what only its kind has.
    ///
    /// # Errors
    /// [`StoreError::Corrupt`] when `body` cannot be JSON.
    pub fn write<T: Serialize>(&mut self, body: &T) -> Result<(), StoreError> {
        self.body =
            serde_json::to_string(body).map_err(|_| StoreError::Corrupt { kind: self.kind, id: self.id.clone() })?;
        Ok(())
    }

    pub(super) fn from_row(row: &Row) -> Result<Self, StoreError> {
        let (kind, id) = (row.text(0)?, row.text(1)?);
        Ok(Self {
            kind: Kind::from_name(&kind)?,
            id,
            workspace_id: row.text(2)?,
            slug: row.text(3)?,
            name: row.text(4)?,
            status: row.text(5)?,
            body: row.text(6)?,
            created_by: row.text(7)?,
            created_at: row.number(8)?,
            updated_at: row.number(9)?,
            version: row.number(10)?,
        })
    }
}

/// Milliseconds since 1970, now.
pub fn now() -> i64 {
    i64::try_from(OffsetDateTime::now_utc().unix_timestamp_nanos() / 1_000_000).unwrap_or(i64::MAX)
}
