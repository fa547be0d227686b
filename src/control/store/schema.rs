//! The schema, forward only: each step runs once, all of them under one lock, in one transaction.

use super::{
    StoreError,
    sql::{Arg, Database},
};

/// Every step there is; its number is its place, from 1. Only ever added to.
const STEPS: [&str; 3] =
    [include_str!("0001_objects.sql"), include_str!("0002_schedule.sql"), include_str!("0003_usage.sql")];

/// The newest schema this build knows.
pub(super) const NEWEST: i64 = STEPS.len() as i64;

/// Brings `database` up to [`NEWEST`].
///
/// # Errors
/// [`StoreError::Newer`] when a later version of Sidekey was here.
pub(super) async fn migrate(database: &Database, now: i64) -> Result<(), StoreError> {
    let mut tx = database.begin().await?;
    tx.lock().await?;
    tx.script("CREATE TABLE IF NOT EXISTS schema_steps (step BIGINT PRIMARY KEY, at BIGINT NOT NULL)").await?;
    let row = tx.row("SELECT COALESCE(MAX(step), 0) FROM schema_steps", &[]).await?;
    let found = row.map_or(Ok(0), |row| row.number(0))?;
    if found > NEWEST {
        return Err(StoreError::Newer { found, known: NEWEST });
    }
    for (step, sql) in (1..).zip(STEPS).skip_while(|(step, _)| *step <= found) {
        tx.script(sql).await?;
        tx.execute("INSERT INTO schema_steps (step, at) VALUES ($1, $2)", &[Arg::Number(step), Arg::Number(now)])
            .await?;
    }
    if found == 0 {
        tx.execute("INSERT INTO installation (epoch) VALUES ($1)", &[Arg::Number(now)]).await?;
    }
    tx.commit().await?;
    Ok(())
}
