//! What the control plane remembers: SQLite in a file, or PostgreSQL, with the same statements.
//!
//! All SQL is below this file. Objects are reached through a [`Tenant`] only, which is the store as one organisation sees
//! it, so that no statement can forget whose they are; the one exception is finding out who a caller is. Each [`Write`] is
//! one transaction: the new version of the organisation's snapshot comes first and puts its writes in a row, and without an
//! audit record it cannot be committed.

mod object;
mod schema;
mod sql;
mod tenant;
mod usage;
mod write;

pub use object::{Kind, Object, now};
pub use tenant::{Filter, Found, Page, Record, RecordFilter, Revision, Tenant, User};
pub use usage::{Tally, Used};
pub use write::{Action, Change, Hash, KEPT_VERSIONS, Write};

use std::{collections::HashMap, fmt, path::PathBuf};

use sqlx::error::{DatabaseError, ErrorKind};
use tokio::sync::watch;

use self::sql::{Arg, Database, Row};

/// Where the database is.
#[derive(Clone)]
pub enum Location {
    /// A SQLite file.
    File(PathBuf),
    /// A PostgreSQL URL, which may hold a password.
    #[cfg(feature = "postgres")]
    Url(String),
}

/// The database. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Store {
    database: Database,
    changes: watch::Sender<u64>,
}

/// Where the snapshot of an organisation stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Head {
    /// Of the database: versions of another epoch tell nothing.
    pub epoch: i64,
    /// One more with each write.
    pub version: i64,
}

/// Who presented something whose hash is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Presented {
    /// The organisation it belongs to.
    pub organisation: String,
    /// Of the whole hash, in hex.
    pub hash: String,
    /// Milliseconds since 1970; 0 = never.
    pub expires_at: i64,
    /// What it stands for: an API key or a data plane.
    pub object: Object,
}

/// Why the store did not do it.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The database did not answer, or refused.
    #[error("the database cannot be used")]
    Database(#[source] sqlx::Error),
    /// A later version of Sidekey wrote it.
    #[error("the database has schema {found}, this version of sidekey knows {known}; run the newer sidekey")]
    Newer {
        /// What was found.
        found: i64,
        /// The newest this build knows.
        known: i64,
    },
    /// The slug is another object's.
    #[error("the slug is taken")]
    Taken,
    /// Something else would be left without what it needs.
    #[error("the object is in use")]
    InUse,
    /// A row that this code did not write.
    #[error("the {} {id} cannot be read", kind.noun())]
    Corrupt {
        /// What it is.
        kind: Kind,
        /// Which one.
        id: String,
    },
    /// A row of a kind that this code does not know.
    #[error("an object of unknown kind cannot be read")]
    UnknownKind,
}

// === impl Location ===

impl fmt::Debug for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(file) => f.debug_tuple("File").field(file).finish(),
            #[cfg(feature = "postgres")]
            Self::Url(_) => f.write_str("Url(<redacted>)"),
        }
    }
}

// === impl Store ===

impl Store {
    /// Opens the database and brings its schema up to date.
    ///
    /// # Errors
    /// [`StoreError::Database`], or [`StoreError::Newer`].
    pub async fn open(location: &Location) -> Result<Self, StoreError> {
        let database = match location {
            Location::File(file) => Database::sqlite(file).await?,
            #[cfg(feature = "postgres")]
            Location::Url(url) => Database::postgres(url).await?,
        };
        schema::migrate(&database, now()).await?;
        let changes = watch::Sender::new(0);
        let heard = changes.clone();
        database.listen(move || heard.send_modify(|count| *count += 1));
        Ok(Self { database, changes })
    }

    /// Where each organisation stands.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn heads(&self) -> Result<HashMap<String, Head>, StoreError> {
        let sql = "SELECT o.id, i.epoch, o.version FROM organisations o CROSS JOIN installation i";
        let rows = self.database.look().await?.rows(sql, &[]).await?;
        let head = |row: &Row| Ok((row.text(0)?, Head { epoch: row.number(1)?, version: row.number(2)? }));
        rows.iter().map(head).collect()
    }

    /// Of every feed from this database.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn epoch(&self) -> Result<i64, StoreError> {
        let row = self.database.look().await?.row("SELECT epoch FROM installation", &[]).await?;
        Ok(row.map_or(Ok(0), |row| row.number(0))?)
    }

    /// Begins an epoch after `epoch`, unless another process did: the database was put back to an earlier state, so that its
    /// versions no longer say what they said.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn begin_epoch(&self, epoch: i64) -> Result<(), StoreError> {
        let sql = "UPDATE installation SET epoch = $1 WHERE epoch = $2";
        let mut tx = self.database.begin().await?;
        tx.execute(sql, &[Arg::Number(now().max(epoch + 1)), Arg::Number(epoch)]).await?;
        tx.notify().await?;
        tx.commit().await?;
        self.changes.send_modify(|count| *count += 1);
        Ok(())
    }

    /// Changes with every write that this process commits, or hears of from another.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    /// Whether the database answers.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn ping(&self) -> Result<(), StoreError> {
        self.database.look().await?.row("SELECT epoch FROM installation", &[]).await?;
        Ok(())
    }

    /// The ids of all organisations, the oldest first.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn organisations(&self) -> Result<Vec<String>, StoreError> {
        let rows =
            self.database.look().await?.rows("SELECT id FROM organisations ORDER BY created_at, id", &[]).await?;
        rows.iter().map(|row| Ok(row.text(0)?)).collect()
    }

    /// What hashes that begin with `prefix` under the key `kid` stand for. The only look-up without an organisation: it is
    /// how one is found. The caller compares the rest of the hash.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn presented(&self, kind: Kind, kid: &str, prefix: &str) -> Result<Vec<Presented>, StoreError> {
        const SQL: &str = concat!(
            "SELECT o.kind, o.id, o.workspace_id, o.slug, o.name, o.status, o.body, o.created_by, o.created_at, ",
            "o.updated_at, o.version, o.organisation_id, h.hash, h.expires_at FROM hashes h JOIN objects o ",
            "ON o.organisation_id = h.organisation_id AND o.kind = h.kind AND o.id = h.object_id ",
            "WHERE h.prefix = $1 AND h.kid = $2 AND h.kind = $3"
        );
        let args = [prefix.into(), kid.into(), kind.as_str().into()];
        let rows = self.database.look().await?.rows(SQL, &args).await?;
        let presented = |row| {
            let object = Object::from_row(row)?;
            Ok(Presented { object, organisation: row.text(11)?, hash: row.text(12)?, expires_at: row.number(13)? })
        };
        rows.iter().map(presented).collect()
    }

    /// What of this kind is due at `now`, the longest first, at most `limit`: organisation and id. Whoever sees to one looks
    /// again under its organisation's lock; another replica may have been there.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn due(&self, kind: Kind, now: i64, limit: i64) -> Result<Vec<(String, String)>, StoreError> {
        const SQL: &str =
            "SELECT organisation_id, object_id FROM due WHERE kind = $1 AND at <= $2 ORDER BY at, object_id LIMIT $3";
        let args = [kind.as_str().into(), Arg::Number(now), Arg::Number(limit)];
        let rows = self.database.look().await?.rows(SQL, &args).await?;
        rows.iter().map(|row| Ok((row.text(0)?, row.text(1)?))).collect()
    }

    /// Begins the write that makes the first organisation, called `name`; `None` when there is one. Of several processes that
    /// start at once, one makes it and the others wait for that.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn first(&self, name: &str, actor: &str) -> Result<Option<Write>, StoreError> {
        const SQL: &str = "INSERT INTO organisations (id, name, version, created_at) VALUES ($1, $2, $3, $4)";
        let mut tx = self.database.begin().await?;
        tx.lock().await?;
        if tx.row("SELECT id FROM organisations LIMIT 1", &[]).await?.is_some() {
            return Ok(None);
        }
        let id = Object::new_id();
        tx.execute(SQL, &[Arg::Text(&id), Arg::Text(name), Arg::Number(0), Arg::Number(now())]).await?;
        Write::begin(Tenant::new(&id, tx), actor, self.changes.clone()).await.map(Some)
    }

    /// The store as `organisation` sees it, at one moment, to read.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn tenant(&self, organisation: &str) -> Result<Tenant, StoreError> {
        Ok(Tenant::new(organisation, self.database.look().await?))
    }

    /// Begins a write of `organisation` by `actor`, after every write of it that is under way.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn write(&self, organisation: &str, actor: &str) -> Result<Write, StoreError> {
        let tenant = Tenant::new(organisation, self.database.begin().await?);
        Write::begin(tenant, actor, self.changes.clone()).await
    }

    /// Begins to count the report `sequence` of `reporter`, after every write of `organisation` that is under way; `None` when
    /// it was counted already.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn tally(&self, organisation: &str, reporter: &str, sequence: i64) -> Result<Option<Tally>, StoreError> {
        let tenant = Tenant::new(organisation, self.database.begin().await?);
        Tally::begin(tenant, reporter, sequence).await
    }

    /// Waits until every connection is closed.
    pub async fn close(&self) {
        self.database.close().await;
    }
}

// === impl StoreError ===

impl From<sqlx::Error> for StoreError {
    fn from(error: sqlx::Error) -> Self {
        match error.as_database_error().map(DatabaseError::kind) {
            Some(ErrorKind::UniqueViolation) => Self::Taken,
            Some(ErrorKind::ForeignKeyViolation) => Self::InUse,
            _ => Self::Database(error),
        }
    }
}
