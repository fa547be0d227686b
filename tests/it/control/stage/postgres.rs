//! The database of a stage on the PostgreSQL of `CONTROL_TESTS_DATABASE_URL`.

use std::{env, fs, path::Path};

use sidekey::{
    control::{key::Hasher, store::Object},
    seal::signature::SigningKey,
};
use sqlx::{AssertSqlSafe, PgPool, Row as _};

use super::URL_FILE;

/// Makes a database, and the files that a control plane on PostgreSQL has to be given; nothing where there is no server.
pub async fn prepare(folder: &Path) {
    let Ok(url) = env::var("CONTROL_TESTS_DATABASE_URL") else { return };
    let name = format!("control_{}", Object::new_id().replace('-', ""));
    let pool = PgPool::connect(&url).await.unwrap();
    // Copied from the template one after the other.
    sqlx::query("SELECT pg_advisory_lock(1)").execute(&pool).await.unwrap();
    sqlx::query(AssertSqlSafe(format!("CREATE DATABASE {name}"))).execute(&pool).await.unwrap();
    pool.close().await;
    let (server, _) = url.rsplit_once('/').unwrap();
    fs::write(folder.join(URL_FILE), format!("{server}/{name}")).unwrap();
    fs::write(folder.join("api-key-hash"), &*Hasher::generate().unwrap()).unwrap();
    fs::write(folder.join("signing-key.pem"), &*SigningKey::generate().unwrap().expose().unwrap()).unwrap();
}

/// Runs a statement of the test's own; whether the stage's database is here.
pub async fn execute(folder: &Path, sql: &str) -> bool {
    let Ok(url) = fs::read_to_string(folder.join(URL_FILE)) else { return false };
    let pool = PgPool::connect(&url).await.unwrap();
    sqlx::query(AssertSqlSafe(sql.to_owned())).execute(&pool).await.unwrap();
    pool.close().await;
    true
}

/// What the tables of the stage's database hold, by name.
pub async fn kept(folder: &Path) -> Vec<(String, Vec<u8>)> {
    let Ok(url) = fs::read_to_string(folder.join(URL_FILE)) else { return Vec::new() };
    let mut kept = Vec::new();
    let pool = PgPool::connect(&url).await.unwrap();
    let tables = sqlx::query("SELECT tablename::text FROM pg_tables WHERE schemaname = 'public'");
    for table in tables.fetch_all(&pool).await.unwrap() {
        let table: String = table.get(0);
        let rows = AssertSqlSafe(format!("SELECT COALESCE(string_agg(t::text, ' '), '(empty)') FROM {table} t"));
        let text: String = sqlx::query(rows).fetch_one(&pool).await.unwrap().get(0);
        kept.push((table, text.into_bytes()));
    }
    pool.close().await;
    kept
}
