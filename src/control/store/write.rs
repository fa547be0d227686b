//! A write: one transaction, one version, one audit record.

use std::ops::{Deref, DerefMut};

use tokio::sync::watch;

use super::{
    Kind, Object, Revision, StoreError, Tenant, now,
    sql::{Arg, Row},
};

/// For how many versions back it is known what went. Whoever holds an older one asks for everything.
pub const KEPT_VERSIONS: i64 = 10_000;

/// One write of an organisation. Dropped without [`Write::commit`], nothing of it has happened.
#[derive(Debug)]
pub struct Write {
    tenant: Tenant,
    actor: String,
    version: i64,
    at: i64,
    changes: watch::Sender<u64>,
}

/// What was done, for the audit log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// What happened.
    pub action: Action,
    /// To what.
    pub kind: Kind,
    /// Its id.
    pub object_id: String,
    /// Its slug.
    pub slug: String,
    /// Names of the fields that were given. Never a value.
    pub fields: Vec<String>,
}

/// What happened to an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// It was made.
    Created,
    /// Some of it changed.
    Updated,
    /// The address that its credential is sent to changed, and the credential did not.
    AddressChanged,
    /// It got a new secret.
    Rotated,
    /// It is gone.
    Deleted,
}

/// A keyed hash of what a caller presents.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hash {
    /// Which key made it.
    pub kid: String,
    /// Its first digits, by which it is looked up.
    pub prefix: String,
    /// All of it, in hex.
    pub hash: String,
    /// Milliseconds since 1970; 0 = never.
    pub expires_at: i64,
}

// === impl Write ===

impl Write {
    pub(super) async fn begin(
        mut tenant: Tenant,
        actor: &str,
        changes: watch::Sender<u64>,
    ) -> Result<Self, StoreError> {
        // The row stays locked until the end, so that what is read from here on is not changed by another write.
        let organisation = tenant.organisation().to_owned();
        tenant
            .tx
            .execute("UPDATE organisations SET version = version + 1 WHERE id = $1", &[Arg::Text(&organisation)])
            .await?;
        let version = tenant.head().await?.version;
        Ok(Self { tenant, actor: actor.to_owned(), version, at: now(), changes })
    }

    /// The version that this write makes.
    pub fn version(&self) -> i64 {
        self.version
    }

    /// When it happens, in milliseconds since 1970.
    pub fn at(&self) -> i64 {
        self.at
    }

    /// Adds an object; author, times and version are filled in.
    ///
    /// # Errors
    /// [`StoreError::Taken`] when its slug is another's.
    pub async fn insert(&mut self, object: &mut Object) -> Result<(), StoreError> {
        const SQL: &str = "INSERT INTO objects (organisation_id, kind, id, workspace_id, slug, name, status, body, \
            created_by, created_at, updated_at, version) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)";
        object.created_by.clone_from(&self.actor);
        (object.created_at, object.updated_at, object.version) = (self.at, self.at, self.version);
        let organisation = self.tenant.organisation().to_owned();
        let args = [
            Arg::Text(&organisation),
            object.kind.as_str().into(),
            (&object.id).into(),
            (&object.workspace_id).into(),
            (&object.slug).into(),
            (&object.name).into(),
            (&object.status).into(),
            (&object.body).into(),
            (&object.created_by).into(),
            Arg::Number(object.created_at),
            Arg::Number(object.updated_at),
            Arg::Number(object.version),
        ];
        self.tenant.tx.execute(SQL, &args).await?;
        Ok(())
    }

    /// Replaces name, status, slug and body of an object.
    ///
    /// # Errors
    /// [`StoreError::Taken`] when its slug is another's.
    pub async fn update(&mut self, object: &mut Object) -> Result<(), StoreError> {
        const SQL: &str = "UPDATE objects SET slug = $4, name = $5, status = $6, body = $7, updated_at = $8, version = $9 \
            WHERE organisation_id = $1 AND kind = $2 AND id = $3";
        (object.updated_at, object.version) = (self.at, self.version);
        let organisation = self.tenant.organisation().to_owned();
        let args = [
            Arg::Text(&organisation),
            object.kind.as_str().into(),
            (&object.id).into(),
            (&object.slug).into(),
            (&object.name).into(),
            (&object.status).into(),
            (&object.body).into(),
            Arg::Number(object.updated_at),
            Arg::Number(object.version),
        ];
        self.tenant.tx.execute(SQL, &args).await?;
        Ok(())
    }

    /// Removes an object, with its hashes and its uses of others.
    ///
    /// # Errors
    /// [`StoreError::InUse`] when another object uses it.
    pub async fn remove(&mut self, object: &Object) -> Result<(), StoreError> {
        let organisation = self.tenant.organisation().to_owned();
        let args = [Arg::Text(&organisation), object.kind.as_str().into(), (&object.id).into()];
        let sql = "DELETE FROM objects WHERE organisation_id = $1 AND kind = $2 AND id = $3";
        self.tenant.tx.execute(sql, &args).await?;
        let sql = "INSERT INTO removals (organisation_id, kind, id, version) VALUES ($1, $2, $3, $4)";
        let [organisation, kind, id] = args;
        self.tenant.tx.execute(sql, &[organisation, kind, id, Arg::Number(self.version)]).await?;
        let sql = "DELETE FROM removals WHERE organisation_id = $1 AND version <= $2";
        self.tenant.tx.execute(sql, &[organisation, Arg::Number(self.version - KEPT_VERSIONS)]).await?;
        Ok(())
    }

    /// Replaces what `user` uses.
    ///
    /// # Errors
    /// [`StoreError::InUse`] when one of `used` is not there.
    pub async fn set_uses(&mut self, user: &Object, used: &[(Kind, String)]) -> Result<(), StoreError> {
        let organisation = self.tenant.organisation().to_owned();
        let args = [Arg::Text(&organisation), user.kind.as_str().into(), (&user.id).into()];
        let sql = "DELETE FROM uses WHERE organisation_id = $1 AND user_kind = $2 AND user_id = $3";
        self.tenant.tx.execute(sql, &args).await?;
        let [organisation, user_kind, user_id] = args;
        for (kind, id) in used {
            let sql = "INSERT INTO uses (organisation_id, user_kind, user_id, used_kind, used_id) \
                VALUES ($1, $2, $3, $4, $5) ON CONFLICT DO NOTHING";
            let args = [organisation, user_kind, user_id, kind.as_str().into(), id.into()];
            self.tenant.tx.execute(sql, &args).await?;
        }
        Ok(())
    }

    /// Replaces the hashes by which `object` is presented, which counts as a change of it.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn set_hashes(&mut self, object: &Object, hashes: &[Hash]) -> Result<(), StoreError> {
        let organisation = self.tenant.organisation().to_owned();
        let args = [Arg::Text(&organisation), object.kind.as_str().into(), (&object.id).into()];
        let sql = "DELETE FROM hashes WHERE organisation_id = $1 AND kind = $2 AND object_id = $3";
        self.tenant.tx.execute(sql, &args).await?;
        let [organisation, kind, id] = args;
        for Hash { kid, prefix, hash, expires_at } in hashes {
            let sql = "INSERT INTO hashes (organisation_id, kind, object_id, kid, prefix, hash, expires_at) \
                VALUES ($1, $2, $3, $4, $5, $6, $7)";
            let args = [organisation, kind, id, kid.into(), prefix.into(), hash.into(), Arg::Number(*expires_at)];
            self.tenant.tx.execute(sql, &args).await?;
        }
        let sql = "UPDATE objects SET version = $4 WHERE organisation_id = $1 AND kind = $2 AND id = $3";
        self.tenant.tx.execute(sql, &[organisation, kind, id, Arg::Number(self.version)]).await?;
        Ok(())
    }

    /// Forgets what `object` has used.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn forget_usage(&mut self, object: &Object) -> Result<(), StoreError> {
        let organisation = self.tenant.organisation().to_owned();
        let args = [Arg::Text(&organisation), object.kind.as_str().into(), (&object.id).into()];
        let sql = "DELETE FROM usage WHERE organisation_id = $1 AND kind = $2 AND object_id = $3";
        self.tenant.tx.execute(sql, &args).await?;
        Ok(())
    }

    /// When the control plane has to see to `object` by itself; `None` = never.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn set_due(&mut self, object: &Object, at: Option<i64>) -> Result<(), StoreError> {
        let organisation = self.tenant.organisation().to_owned();
        let args = [Arg::Text(&organisation), object.kind.as_str().into(), (&object.id).into()];
        let sql = "DELETE FROM due WHERE organisation_id = $1 AND kind = $2 AND object_id = $3";
        self.tenant.tx.execute(sql, &args).await?;
        if let Some(at) = at {
            let [organisation, kind, id] = args;
            let sql = "INSERT INTO due (organisation_id, kind, object_id, at) VALUES ($1, $2, $3, $4)";
            self.tenant.tx.execute(sql, &[organisation, kind, id, Arg::Number(at)]).await?;
        }
        Ok(())
    }

    /// Keeps what `object` is from now on as a revision; of the earlier ones, all but the latest `most - 1` go. Its id.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn keep_revision(&mut self, object: &Object, most: usize) -> Result<String, StoreError> {
        let id = Object::new_id();
        let earlier = self.tenant.revisions(object).await?;
        let organisation = self.tenant.organisation().to_owned();
        let (kind, object_id) = (object.kind.as_str().into(), Arg::Text(&object.id));
        for Revision { id, .. } in earlier.iter().skip(most.saturating_sub(1)) {
            let sql = "DELETE FROM revisions WHERE organisation_id = $1 AND kind = $2 AND object_id = $3 AND id = $4";
            self.tenant.tx.execute(sql, &[Arg::Text(&organisation), kind, object_id, id.into()]).await?;
        }
        let sql = "INSERT INTO revisions (organisation_id, kind, object_id, id, name, body, created_by, created_at) \
            VALUES ($1, $2, $3, $4, $5, $6, $7, $8)";
        let args = [
            Arg::Text(&organisation),
            kind,
            object_id,
            (&id).into(),
            (&object.name).into(),
            (&object.body).into(),
            (&self.actor).into(),
            Arg::Number(self.at),
        ];
        self.tenant.tx.execute(sql, &args).await?;
        Ok(id)
    }

    /// Records `change` and makes it all happen; whoever waits for changes is woken.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn commit(self, change: Change) -> Result<(), StoreError> {
        const SQL: &str = "INSERT INTO audit (organisation_id, id, version, at, actor, action, kind, object_id, slug, \
            fields) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)";
        let Self { mut tenant, actor, version, at, changes } = self;
        let (id, fields) = (Object::new_id(), serde_json::Value::from(change.fields).to_string());
        let organisation = tenant.organisation().to_owned();
        let args = [
            Arg::Text(&organisation),
            (&id).into(),
            Arg::Number(version),
            Arg::Number(at),
            (&actor).into(),
            change.action.as_str().into(),
            change.kind.as_str().into(),
            (&change.object_id).into(),
            (&change.slug).into(),
            (&fields).into(),
        ];
        tenant.tx.execute(SQL, &args).await?;
        tenant.tx.notify().await?;
        tenant.tx.commit().await?;
        changes.send_modify(|count| *count += 1);
        Ok(())
    }
}

impl Deref for Write {
    type Target = Tenant;

    fn deref(&self) -> &Tenant {
        &self.tenant
    }
}

impl DerefMut for Write {
    fn deref_mut(&mut self) -> &mut Tenant {
        &mut self.tenant
    }
}

// === impl Change ===

impl Change {
    /// `action` on `object`, by the fields that were given.
    pub fn of(action: Action, object: &Object, fields: Vec<String>) -> Self {
        Self { action, kind: object.kind, object_id: object.id.clone(), slug: object.slug.clone(), fields }
    }
}

// === impl Action ===

impl Action {
    /// Everything that can happen.
    pub const ALL: [Self; 5] = [Self::Created, Self::Updated, Self::AddressChanged, Self::Rotated, Self::Deleted];

    /// Its spelling in the audit log.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Created => "created",
            Self::Updated => "updated",
            Self::AddressChanged => "address_changed",
            Self::Rotated => "rotated",
            Self::Deleted => "deleted",
        }
    }
}

// === impl Hash ===

impl Hash {
    /// From the first columns of a row: kid, prefix, hash, end.
    pub(super) fn from_row(row: &Row) -> Result<Self, StoreError> {
        Ok(Self { kid: row.text(0)?, prefix: row.text(1)?, hash: row.text(2)?, expires_at: row.number(3)? })
    }
}
