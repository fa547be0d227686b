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

#[cfg(test)]
mod tests {
    use super::*;

    async fn told(database: &Database, sql: &'static str) -> Vec<String> {
        let mut look = database.look().await.unwrap();
        look.rows(sql, &[]).await.unwrap().iter().map(|row| row.text(0).unwrap()).collect()
    }

    async fn tables(database: &Database) -> Vec<String> {
        told(database, "SELECT COALESCE(sql, name) FROM sqlite_master ORDER BY name").await
    }

    #[tokio::test]
    async fn every_older_schema_is_brought_up_to_date_and_keeps_its_rows() {
        let folder = tempfile::tempdir().unwrap();
        let fresh = Database::sqlite(&folder.path().join("fresh.db")).await.unwrap();
        migrate(&fresh, 7).await.unwrap();
        for found in 1..NEWEST {
            let older = Database::sqlite(&folder.path().join(format!("{found}.db"))).await.unwrap();
            let mut tx = older.begin().await.unwrap();
            tx.script("CREATE TABLE IF NOT EXISTS schema_steps (step BIGINT PRIMARY KEY, at BIGINT NOT NULL)")
                .await
                .unwrap();
            for (step, sql) in (1..=found).zip(STEPS) {
                tx.script(sql).await.unwrap();
                let step = [Arg::Number(step)];
                tx.execute("INSERT INTO schema_steps (step, at) VALUES ($1, 1)", &step).await.unwrap();
            }
            tx.script("INSERT INTO installation (epoch) VALUES (1)").await.unwrap();
            tx.script("INSERT INTO organisations (id, name, version, created_at) VALUES ('o', 'Kept', 41, 1)")
                .await
                .unwrap();
            tx.commit().await.unwrap();

            for _ in 0..2 {
                migrate(&older, 7).await.unwrap();
                assert_eq!(tables(&older).await, tables(&fresh).await, "from {found}");
                assert_eq!(told(&older, "SELECT name FROM organisations WHERE version = 41").await, ["Kept"]);
                assert_eq!(
                    told(&older, "SELECT CAST(epoch AS TEXT) FROM installation").await,
                    ["1"],
                    "a state goes on"
                );
            }
        }
    }
}
