//! The store as one organisation sees it.

use std::collections::HashMap;

use super::{
    Hash, Head, Kind, Object, StoreError,
    object::columns,
    sql::{Arg, Row, Transaction},
    usage::Used,
};

/// Longest name, in characters; what is longer is a part of none. Databases bound their patterns, too.
const MAX_NAME: usize = 255;
/// How many objects are read at once where all are looked through.
const PART: usize = 1000;

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

/// Which writes are listed. Empty lets all pass.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecordFilter {
    /// From then on, in milliseconds since 1970.
    pub from: i64,
    /// Until then.
    pub until: i64,
    /// Id of who did it.
    pub actor: String,
    /// To what kind of object, as [`Kind`] spells it.
    pub kind: String,
    /// Any of these happened; none means that none did.
    pub actions: Vec<&'static str>,
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

/// What a filter becomes in a statement.
struct Patterns {
    name_part: String,
    statuses: String,
}

/// Whether an object passes a filter: `$1` to `$7`, as [`Patterns::args`] gives them.
macro_rules! passes {
    () => {
        "organisation_id = $1 AND kind = $2 AND ($3 = '' OR workspace_id = $3 OR workspace_id = $4) \
         AND ($5 = '' OR lower(name) LIKE lower($5) ESCAPE '\\') AND ($6 = '' OR name = $6) \
         AND ($7 = '' OR $7 LIKE '%,' || status || ',%')"
    };
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

    /// Where the organisation's snapshot stands.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn head(&mut self) -> Result<Head, StoreError> {
        let sql = "SELECT i.epoch, o.version FROM organisations o CROSS JOIN installation i WHERE o.id = $1";
        let row = self.tx.row(sql, &[Arg::Text(&self.organisation)]).await?;
        row.map_or(Ok(Head::default()), |row| Ok(Head { epoch: row.number(0)?, version: row.number(1)? }))
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
        const SQL: &str = concat!("SELECT ", columns!(), " FROM objects WHERE ", passes!(), " ORDER BY id DESC");
        let patterns = Patterns::of(filter);
        objects(&self.tx.rows(SQL, &patterns.args(&self.organisation, kind, filter)).await?)
    }

    /// A page of the objects of this kind that pass, the newest first; the database counts and cuts.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn page(&mut self, kind: Kind, filter: &Filter, page: Page) -> Result<Found, StoreError> {
        const COUNT: &str = concat!("SELECT COUNT(*) FROM objects WHERE ", passes!());
        const SQL: &str =
            concat!("SELECT ", columns!(), " FROM objects WHERE ", passes!(), " ORDER BY id DESC LIMIT $8 OFFSET $9");
        let patterns = Patterns::of(filter);
        let mut args = patterns.args(&self.organisation, kind, filter).to_vec();
        let total = self.tx.row(COUNT, &args).await?.map_or(Ok(0), |row| row.number(0))?;
        args.extend([number(page.size), number(page.index.saturating_mul(page.size))]);
        let objects = objects(&self.tx.rows(SQL, &args).await?)?;
        Ok(Found { total: usize::try_from(total).unwrap_or_default(), objects })
    }

    /// As [`Tenant::page`], of those that `keep` takes, too: what only a body says. Reads all that pass, a part at a time.
    ///
    /// # Errors
    /// [`StoreError`], also of `keep`.
    pub async fn page_of(
        &mut self,
        kind: Kind,
        filter: &Filter,
        page: Page,
        mut keep: impl FnMut(&Object) -> Result<bool, StoreError>,
    ) -> Result<Found, StoreError> {
        let wanted = page.index.saturating_mul(page.size)..page.index.saturating_add(1).saturating_mul(page.size);
        let mut found = Found { total: 0, objects: Vec::new() };
        let mut before = String::new();
        loop {
            let part = self.part_before(kind, filter, &before).await?;
            let Some(last) = part.last() else { return Ok(found) };
            before.clone_from(&last.id);
            for object in part {
                if keep(&object)? {
                    if wanted.contains(&found.total) {
                        found.objects.push(object);
                    }
                    found.total += 1;
                }
            }
        }
    }

    /// Up to [`PART`] objects that pass, the newest first, from the one before the id `before` on; empty = from the newest on.
    async fn part_before(&mut self, kind: Kind, filter: &Filter, before: &str) -> Result<Vec<Object>, StoreError> {
        const SQL: &str = concat!(
            "SELECT ",
            columns!(),
            " FROM objects WHERE ",
            passes!(),
            " AND ($8 = '' OR id < $8) ORDER BY id DESC LIMIT $9"
        );
        let patterns = Patterns::of(filter);
        let mut args = patterns.args(&self.organisation, kind, filter).to_vec();
        args.extend([before.into(), number(PART)]);
        objects(&self.tx.rows(SQL, &args).await?)
    }

    /// Up to [`PART`] objects of this kind by their ids, from the one after the id `after` on; empty = from the first on.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn part(&mut self, kind: Kind, after: &str) -> Result<Vec<Object>, StoreError> {
        const SQL: &str = concat!(
            "SELECT ",
            columns!(),
            " FROM objects WHERE organisation_id = $1 AND kind = $2 AND id > $3 ORDER BY id LIMIT $4"
        );
        let args = [Arg::Text(&self.organisation), kind.as_str().into(), after.into(), number(PART)];
        objects(&self.tx.rows(SQL, &args).await?)
    }

    /// At most `limit` objects that changed after `version`, by kind and id.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn changed(&mut self, version: i64, limit: usize) -> Result<Vec<Object>, StoreError> {
        const SQL: &str = concat!(
            "SELECT ",
            columns!(),
            " FROM objects WHERE organisation_id = $1 AND version > $2 ORDER BY kind, id LIMIT $3"
        );
        objects(&self.tx.rows(SQL, &[Arg::Text(&self.organisation), version.into(), number(limit)]).await?)
    }

    /// At most `limit` ids of what went after `version`, by kind and id. Complete for the last [`super::KEPT_VERSIONS`] only.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn removed(&mut self, version: i64, limit: usize) -> Result<Vec<(Kind, String)>, StoreError> {
        const SQL: &str = "SELECT kind, id FROM removals WHERE organisation_id = $1 AND version > $2 \
            ORDER BY kind, id LIMIT $3";
        let rows = self.tx.rows(SQL, &[Arg::Text(&self.organisation), version.into(), number(limit)]).await?;
        rows.iter().map(|row| Ok((Kind::from_name(&row.text(0)?)?, row.text(1)?))).collect()
    }

    /// Whether an object of this kind came, changed or went after `version`.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn has_changed(&mut self, kind: Kind, version: i64) -> Result<bool, StoreError> {
        const SQL: &str = "SELECT 1 WHERE EXISTS \
            (SELECT 1 FROM objects WHERE organisation_id = $1 AND version > $2 AND kind = $3) OR EXISTS \
            (SELECT 1 FROM removals WHERE organisation_id = $1 AND version > $2 AND kind = $3)";
        let args = [Arg::Text(&self.organisation), version.into(), kind.as_str().into()];
        Ok(self.tx.row(SQL, &args).await?.is_some())
    }

    /// The hashes by which objects of this kind, with ids from `first` to `last`, are presented; each beside its object's id,
    /// by which they are sorted.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn hashes_between(
        &mut self,
        kind: Kind,
        first: &str,
        last: &str,
    ) -> Result<Vec<(String, Hash)>, StoreError> {
        const SQL: &str = "SELECT kid, prefix, hash, expires_at, object_id FROM hashes \
            WHERE organisation_id = $1 AND kind = $2 AND object_id >= $3 AND object_id <= $4 \
            ORDER BY object_id, expires_at, hash";
        let args = [Arg::Text(&self.organisation), kind.as_str().into(), first.into(), last.into()];
        let rows = self.tx.rows(SQL, &args).await?;
        rows.iter().map(|row| Ok((row.text(4)?, Hash::from_row(row)?))).collect()
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

    /// A page of the writes that pass, the newest first, and how many there are.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn audit_page(&mut self, filter: &RecordFilter, page: Page) -> Result<(i64, Vec<Record>), StoreError> {
        macro_rules! passing {
            ($what:literal, $rest:literal) => {
                concat!(
                    "SELECT ",
                    $what,
                    " FROM audit WHERE organisation_id = $1 AND at >= $2 AND at <= $3 ",
                    "AND ($4 = '' OR actor = $4) AND ($5 = '' OR kind = $5) AND $6 LIKE '%,' || action || ',%'",
                    $rest
                )
            };
        }
        let actions = format!(",{},", filter.actions.join(","));
        let (limit, offset) = (page.size, page.index.saturating_mul(page.size));
        let number = |number: usize| Arg::Number(i64::try_from(number).unwrap_or(i64::MAX));
        let organisation = self.organisation.clone();
        let args = [
            Arg::Text(&organisation),
            Arg::Number(filter.from),
            Arg::Number(filter.until),
            (&filter.actor).into(),
            (&filter.kind).into(),
            (&actions).into(),
            number(limit),
            number(offset),
        ];
        let counted = self.tx.row(passing!("COUNT(*)", ""), &args[..6]).await?;
        let total = counted.map_or(Ok(0), |row| row.number(0))?;
        let sql = passing!(
            "id, version, at, actor, action, kind, object_id, slug, fields",
            " ORDER BY id DESC LIMIT $7 OFFSET $8"
        );
        let rows = self.tx.rows(sql, &args).await?;
        Ok((total, rows.iter().map(Record::from_row).collect::<Result<_, _>>()?))
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

    /// What `object` has used by day, in days since 1970, the earliest first; 0 stands for all the days before.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn usage(&mut self, object: &Object) -> Result<Vec<(i64, Used)>, StoreError> {
        const SQL: &str = "SELECT day, requests, tokens, cost FROM usage \
            WHERE organisation_id = $1 AND kind = $2 AND object_id = $3 ORDER BY day";
        let args = [Arg::Text(&self.organisation), object.kind.as_str().into(), (&object.id).into()];
        let rows = self.tx.rows(SQL, &args).await?;
        rows.iter().map(|row| Ok((row.number(0)?, Used::from_row(row, 1)?))).collect()
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

    /// Every object of the kind `user` that uses the object, the oldest first.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn used_by(&mut self, kind: Kind, id: &str, user: Kind) -> Result<Vec<Object>, StoreError> {
        const SQL: &str = concat!(
            "SELECT ",
            columns!(),
            " FROM objects WHERE organisation_id = $1 AND kind = $2 AND id IN (SELECT user_id FROM uses ",
            "WHERE organisation_id = $1 AND user_kind = $2 AND used_kind = $3 AND used_id = $4) ORDER BY id"
        );
        let args = [Arg::Text(&self.organisation), user.as_str().into(), kind.as_str().into(), id.into()];
        objects(&self.tx.rows(SQL, &args).await?)
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
        let user = |row: &Row| Ok(User { kind: Kind::from_name(&row.text(0)?)?, slug: row.text(1)? });
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

// === impl Patterns ===

impl Patterns {
    fn of(filter: &Filter) -> Self {
        let statuses = match filter.statuses.as_slice() {
            [] => String::new(),
            statuses => format!(",{},", statuses.join(",")),
        };
        Self { name_part: like(&filter.name_part), statuses }
    }

    /// What [`passes`] asks for.
    fn args<'a>(&'a self, organisation: &'a str, kind: Kind, filter: &'a Filter) -> [Arg<'a>; 7] {
        let also = if filter.own_only { &filter.workspace_id } else { "" };
        [
            Arg::Text(organisation),
            kind.as_str().into(),
            (&filter.workspace_id).into(),
            also.into(),
            (&self.name_part).into(),
            (&filter.exact_name).into(),
            (&self.statuses).into(),
        ]
    }
}

fn number(size: usize) -> Arg<'static> {
    Arg::Number(i64::try_from(size).unwrap_or(i64::MAX))
}

fn objects(rows: &[Row]) -> Result<Vec<Object>, StoreError> {
    rows.iter().map(Object::from_row).collect()
}

/// The pattern for a part of a name; empty for none. The database compares without case as far as it knows letters.
fn like(part: &str) -> String {
    if part.is_empty() {
        return String::new();
    }
    let mut pattern = String::with_capacity(part.len() + 2);
    pattern.push('%');
    for char in part.chars().take(MAX_NAME + 1) {
        if matches!(char, '%' | '_' | '\\') {
            pattern.push('\\');
        }
        pattern.push(char);
    }
    pattern.push('%');
    pattern
}
