//! The store as one organisation sees it.

use std::collections::HashMap;

use super::{
    Hash, Kind, Object, StoreError,
    object::columns,
    sql::{Arg, Row, Transaction},
};

/// One organisation's objects, read at one moment.
#[derive(Debug)]
pub struct Tenant {
    organisation: String,
    pub(super) tx: Transaction,
}

/// Which objects of a kind are listed. Everything that is empty lets all pass.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    /// Id of a workspace: its own objects, and those of the whole organisation.
    pub workspace_id: String,
    /// Leave out what belongs to the whole organisation.
    pub own_only: bool,
    /// A part of the name, without case.
    pub name_part: String,
    /// The whole name.
    pub exact_name: String,
    /// One of these.
    pub statuses: Vec<String>,
}

/// A part of a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Page {
    /// Counted from 0.
    pub index: usize,
    /// Objects on a page.
    pub size: usize,
}

/// A page of a list, the newest first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// On all pages together.
    pub total: usize,
    /// On this one.
    pub objects: Vec<Object>,
}

/// One write, as the audit log has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Its id.
    pub id: String,
    /// The version it made.
    pub version: i64,
    /// Milliseconds since 1970.
    pub at: i64,
    /// Id of who did it.
    pub actor: String,
    /// What happened, as [`super::Action`] spells it.
    pub action: String,
    /// To what, as [`Kind`] spells it.
    pub kind: String,
    /// Id of the object.
    pub object_id: String,
    /// Its slug.
    pub slug: String,
    /// Names of the fields that were given.
    pub fields: Vec<String>,
}

/// What an object has been since some moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Revision {
    /// A UUID of version 7: sorts by time.
    pub id: String,
    /// The object's name then.
    pub name: String,
    /// As [`Object::body`].
    pub body: String,
    /// Id of who made it so.
    pub created_by: String,
    /// Milliseconds since 1970.
    pub created_at: i64,
}

/// Who uses an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    /// What it is.
    pub kind: Kind,
    /// Its slug.
    pub slug: String,
}

// === impl Tenant ===

impl Tenant {
    pub(super) fn new(organisation: &str, tx: Transaction) -> Self {
        Self { organisation: organisation.to_owned(), tx }
    }

    /// Whose objects these are.
    pub fn organisation(&self) -> &str {
        &self.organisation
    }

    /// The version of the snapshot.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn version(&mut self) -> Result<i64, StoreError> {
        let sql = "SELECT version FROM organisations WHERE id = $1";
        let row = self.tx.row(sql, &[Arg::Text(&self.organisation)]).await?;
        row.map_or(Ok(0), |row| Ok(row.number(0)?))
    }

    /// The object of this kind with this id.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn get(&mut self, kind: Kind, id: &str) -> Result<Option<Object>, StoreError> {
        const SQL: &str =
            concat!("SELECT ", columns!(), " FROM objects WHERE organisation_id = $1 AND kind = $2 AND id = $3");
        let args = [Arg::Text(&self.organisation), kind.as_str().into(), id.into()];
        self.tx.row(SQL, &args).await?.as_ref().map(Object::from_row).transpose()
    }

    /// Every object of this kind with this id or slug: the one with the id first, then the organisation's, then those of
    /// workspaces.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn named(&mut self, kind: Kind, name: &str) -> Result<Vec<Object>, StoreError> {
        const SQL: &str = concat!(
            "SELECT ",
            columns!(),
            " FROM objects WHERE organisation_id = $1 AND kind = $2 AND (id = $3 OR slug = $3) ",
            "ORDER BY CASE WHEN id = $3 THEN 0 ELSE 1 END, workspace_id"
        );
        let args = [Arg::Text(&self.organisation), kind.as_str().into(), name.into()];
        objects(&self.tx.rows(SQL, &args).await?)
    }

    /// Every object of this kind that passes, the newest first.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn all(&mut self, kind: Kind, filter: &Filter) -> Result<Vec<Object>, StoreError> {
        const SQL: &str = concat!(
            "SELECT ",
            columns!(),
            " FROM objects WHERE organisation_id = $1 AND kind = $2 ",
            "AND ($3 = '' OR workspace_id = $3 OR workspace_id = $4) ",
            "AND ($5 = '' OR lower(name) LIKE $5 ESCAPE '\\') AND ($6 = '' OR name = $6) ",
            "AND ($7 = '' OR $7 LIKE '%,' || status || ',%') ORDER BY id DESC"
        );
        let name_part = like(&filter.name_part);
        let also = if filter.own_only { &filter.workspace_id } else { "" };
        let statuses = match filter.statuses.as_slice() {
            [] => String::new(),
            statuses => format!(",{},", statuses.join(",")),
        };
        let args = [
            Arg::Text(&self.organisation),
            kind.as_str().into(),
            (&filter.workspace_id).into(),
            also.into(),
            (&name_part).into(),
            (&filter.exact_name).into(),
            (&statuses).into(),
        ];
        objects(&self.tx.rows(SQL, &args).await?)
    }

    /// Everything there is, for a snapshot.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn everything(&mut self) -> Result<Vec<Object>, StoreError> {
        const SQL: &str = concat!("SELECT ", columns!(), " FROM objects WHERE organisation_id = $1 ORDER BY kind, id");
        objects(&self.tx.rows(SQL, &[Arg::Text(&self.organisation)]).await?)
    }

    /// The latest writes, the newest first, at most `limit`.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn audit(&mut self, limit: i64) -> Result<Vec<Record>, StoreError> {
        const SQL: &str = "SELECT id, version, at, actor, action, kind, object_id, slug, fields FROM audit \
            WHERE organisation_id = $1 ORDER BY id DESC LIMIT $2";
        let rows = self.tx.rows(SQL, &[Arg::Text(&self.organisation), Arg::Number(limit)]).await?;
        rows.iter().map(Record::from_row).collect()
    }

    /// The hashes by which the objects of this kind are presented, by the id of the object.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn hashes(&mut self, kind: Kind) -> Result<HashMap<String, Vec<Hash>>, StoreError> {
        const SQL: &str = "SELECT kid, prefix, hash, expires_at, object_id FROM hashes \
            WHERE organisation_id = $1 AND kind = $2 ORDER BY object_id, expires_at, hash";
        let mut hashes: HashMap<String, Vec<Hash>> = HashMap::new();
        for row in self.tx.rows(SQL, &[Arg::Text(&self.organisation), kind.as_str().into()]).await? {
            hashes.entry(row.text(4)?).or_default().push(Hash::from_row(&row)?);
        }
        Ok(hashes)
    }

    /// The hashes by which `object` is presented; those without an end first.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn hashes_of(&mut self, object: &Object) -> Result<Vec<Hash>, StoreError> {
        const SQL: &str = "SELECT kid, prefix, hash, expires_at FROM hashes \
            WHERE organisation_id = $1 AND kind = $2 AND object_id = $3 ORDER BY expires_at, hash";
        let args = [Arg::Text(&self.organisation), object.kind.as_str().into(), (&object.id).into()];
        self.tx.rows(SQL, &args).await?.iter().map(Hash::from_row).collect()
    }

    /// What `object` has been, the latest first.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn revisions(&mut self, object: &Object) -> Result<Vec<Revision>, StoreError> {
        const SQL: &str = "SELECT id, name, body, created_by, created_at FROM revisions \
            WHERE organisation_id = $1 AND kind = $2 AND object_id = $3 ORDER BY id DESC";
        let args = [Arg::Text(&self.organisation), object.kind.as_str().into(), (&object.id).into()];
        self.tx.rows(SQL, &args).await?.iter().map(Revision::from_row).collect()
    }

    /// Who uses the object, at most `limit` of them.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn users(&mut self, kind: Kind, id: &str, limit: i64) -> Result<Vec<User>, StoreError> {
        const SQL: &str = "SELECT o.kind, o.slug FROM uses u JOIN objects o ON o.organisation_id = u.organisation_id \
            AND o.kind = u.user_kind AND o.id = u.user_id \
            WHERE u.organisation_id = $1 AND u.used_kind = $2 AND u.used_id = $3 ORDER BY o.kind, o.slug LIMIT $4";
        let args = [Arg::Text(&self.organisation), kind.as_str().into(), id.into(), Arg::Number(limit)];
        let rows = self.tx.rows(SQL, &args).await?;
        let user = |row: &Row| {
            let kind = row.text(0)?;
            let kind = Kind::ALL.into_iter().find(|known| known.as_str() == kind).ok_or(StoreError::UnknownKind)?;
            Ok(User { kind, slug: row.text(1)? })
        };
        rows.iter().map(user).collect()
    }
}

// === impl Record ===

impl Record {
    fn from_row(row: &Row) -> Result<Self, StoreError> {
        Ok(Self {
            id: row.text(0)?,
            version: row.number(1)?,
            at: row.number(2)?,
            actor: row.text(3)?,
            action: row.text(4)?,
            kind: row.text(5)?,
            object_id: row.text(6)?,
            slug: row.text(7)?,
            // Written by this code; a name that cannot be read is no reason to show nothing.
            fields: serde_json::from_str(&row.text(8)?).unwrap_or_default(),
        })
    }
}

// === impl Revision ===

impl Revision {
    fn from_row(row: &Row) -> Result<Self, StoreError> {
        Ok(Self {
            id: row.text(0)?,
            name: row.text(1)?,
            body: row.text(2)?,
            created_by: row.text(3)?,
            created_at: row.number(4)?,
        })
    }
}

// === impl Page ===

impl Page {
    /// The page of what passes `keep`.
    pub fn of(self, objects: Vec<Object>, keep: impl FnMut(&Object) -> bool) -> Found {
        let mut objects = objects;
        objects.retain(keep);
        let total = objects.len();
        let objects = objects.into_iter().skip(self.index.saturating_mul(self.size)).take(self.size).collect();
        Found { total, objects }
    }
}

fn objects(rows: &[Row]) -> Result<Vec<Object>, StoreError> {
    rows.iter().map(Object::from_row).collect()
}

/// The pattern for a part of a name, in lower case; empty for none.
fn like(part: &str) -> String {
    if part.is_empty() {
        return String::new();
    }
    let mut pattern = String::with_capacity(part.len() + 2);
    pattern.push('%');
    for char in part.to_lowercase().chars() {
        if matches!(char, '%' | '_' | '\\') {
            pattern.push('\\');
        }
        pattern.push(char);
    }
    pattern.push('%');
    pattern
}
