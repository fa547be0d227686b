//! What has been used, as data planes tell it: sums by object and day, and who has told how much of it.
//!
//! A tally is no [`Write`](super::Write): nothing of a snapshot changes by it, so that it makes no version, wakes nobody and
//! leaves no audit record. It holds the same lock, so that no reset happens in the middle of one.

use std::ops::{Deref, DerefMut};

use super::{
    Object, StoreError, Tenant, now,
    sql::{Arg, Row},
};

/// Days that are kept apart; a period is no longer than 366.
const KEPT_DAYS: i64 = 400;
/// How long a process that reports is remembered after its last report, in milliseconds: one that was away for longer, and whose last
/// answer was lost, would be counted twice.
const KEPT_REPORTERS_MS: i64 = 30 * DAY_MS;
const DAY_MS: i64 = 24 * 3600 * 1000;

/// A report that is being counted. Dropped without [`Tally::commit`], nothing of it was.
#[derive(Debug)]
pub struct Tally {
    tenant: Tenant,
}

/// A sum.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Used {
    /// Requests.
    pub requests: i64,
    /// Tokens.
    pub tokens: i64,
    /// Nano-dollars.
    pub cost: i64,
}

// === impl Tally ===

impl Tally {
    /// Begins the report `sequence` of `reporter`; `None` when it, or a later one, was counted already.
    pub(super) async fn begin(mut tenant: Tenant, reporter: &str, sequence: i64) -> Result<Option<Self>, StoreError> {
        const FORGET: &str = "DELETE FROM usage_reports WHERE organisation_id = $1 AND at < $2";
        const COUNT: &str = "INSERT INTO usage_reports (organisation_id, reporter, sequence, at) VALUES ($1, $2, $3, $4) \
            ON CONFLICT (organisation_id, reporter) DO UPDATE SET sequence = excluded.sequence, at = excluded.at \
            WHERE usage_reports.sequence < excluded.sequence";
        let organisation = tenant.organisation().to_owned();
        let organisation = Arg::Text(&organisation);
        let now = now();
        tenant.tx.execute("UPDATE organisations SET version = version WHERE id = $1", &[organisation]).await?;
        tenant.tx.execute(FORGET, &[organisation, Arg::Number(now - KEPT_REPORTERS_MS)]).await?;
        let args = [organisation, reporter.into(), Arg::Number(sequence), Arg::Number(now)];
        let is_new = tenant.tx.execute(COUNT, &args).await? > 0;
        Ok(is_new.then_some(Self { tenant }))
    }

    /// Adds what `object` has used on `day`, in days since 1970.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn add(&mut self, object: &Object, day: i64, used: Used) -> Result<(), StoreError> {
        const FIND: &str = "SELECT requests, tokens, cost FROM usage \
            WHERE organisation_id = $1 AND kind = $2 AND object_id = $3 AND day = $4";
        let known = {
            let organisation = self.organisation().to_owned();
            let args = [Arg::Text(&organisation), object.kind.as_str().into(), (&object.id).into(), Arg::Number(day)];
            self.tenant.tx.row(FIND, &args).await?
        };
        match known {
            Some(row) => self.set(object, day, Used::from_row(&row, 0)?.and(used)).await,
            None => {
                self.set(object, day, used).await?;
                self.fold(object, day - KEPT_DAYS).await
            }
        }
    }

    /// Makes it happen.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn commit(self) -> Result<(), StoreError> {
        Ok(self.tenant.tx.commit().await?)
    }

    /// Puts the days until `last` together.
    async fn fold(&mut self, object: &Object, last: i64) -> Result<(), StoreError> {
        const FORGET: &str =
            "DELETE FROM usage WHERE organisation_id = $1 AND kind = $2 AND object_id = $3 AND day > 0 AND day <= $4";
        let days = self.usage(object).await?;
        let old = days.iter().filter(|(day, _)| (1..=last).contains(day));
        let (count, sum) = old.fold((0, Used::default()), |(count, sum), (_, used)| (count + 1, sum.and(*used)));
        if count == 0 {
            return Ok(());
        }
        let before = days.iter().find(|(day, _)| *day == 0).map_or(Used::default(), |(_, used)| *used);
        self.set(object, 0, before.and(sum)).await?;
        let organisation = self.organisation().to_owned();
        let args = [Arg::Text(&organisation), object.kind.as_str().into(), (&object.id).into(), Arg::Number(last)];
        self.tenant.tx.execute(FORGET, &args).await?;
        Ok(())
    }

    async fn set(&mut self, object: &Object, day: i64, used: Used) -> Result<(), StoreError> {
        const SQL: &str = "INSERT INTO usage (organisation_id, kind, object_id, day, requests, tokens, cost) \
            VALUES ($1, $2, $3, $4, $5, $6, $7) ON CONFLICT (organisation_id, kind, object_id, day) \
            DO UPDATE SET requests = excluded.requests, tokens = excluded.tokens, cost = excluded.cost";
        let organisation = self.organisation().to_owned();
        let args = [
            Arg::Text(&organisation),
            object.kind.as_str().into(),
            (&object.id).into(),
            Arg::Number(day),
            Arg::Number(used.requests),
            Arg::Number(used.tokens),
            Arg::Number(used.cost),
        ];
        self.tenant.tx.execute(SQL, &args).await?;
        Ok(())
    }
}

impl Deref for Tally {
    type Target = Tenant;

    fn deref(&self) -> &Tenant {
        &self.tenant
    }
}

impl DerefMut for Tally {
    fn deref_mut(&mut self) -> &mut Tenant {
        &mut self.tenant
    }
}

// === impl Used ===

impl Used {
    /// Both together. Nothing is larger than the largest number.
    #[must_use]
    pub const fn and(self, other: Self) -> Self {
        Self {
            requests: self.requests.saturating_add(other.requests),
            tokens: self.tokens.saturating_add(other.tokens),
            cost: self.cost.saturating_add(other.cost),
        }
    }

    /// From three columns of a row.
    pub(super) fn from_row(row: &Row, first: usize) -> Result<Self, StoreError> {
        Ok(Self { requests: row.number(first)?, tokens: row.number(first + 1)?, cost: row.number(first + 2)? })
    }
}
