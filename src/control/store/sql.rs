//! One way to run a statement on SQLite and on PostgreSQL: the same text, `$1` and so on, texts and whole numbers only.
//!
//! This is the only file that names the two. There is no `NULL` in the schema: empty text and 0 stand for "none".

use sqlx::{
    Connection as _, Database as Kind, Decode, Encode, Row as _, Sqlite, SqlitePool, Type,
    query::Query,
    sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteRow, SqliteSynchronous},
};
#[cfg(feature = "postgres")]
use sqlx::{
    PgPool, Postgres,
    postgres::{PgListener, PgPoolOptions, PgRow},
};

#[cfg(feature = "postgres")]
use tracing::warn;

use std::{fs::OpenOptions, io, os::unix::fs::OpenOptionsExt as _, path::Path, time::Duration};

/// Connections at once. SQLite has one writer whatever is asked; more readers than cores gain nothing.
const MAX_CONNECTIONS: u32 = 8;
/// How long a statement may wait for a connection or, on SQLite, for the writer before it.
const WAIT: Duration = Duration::from_secs(5);

/// What processes agree on that migrate at once: `sidekey` in ASCII.
#[cfg(feature = "postgres")]
const MIGRATION: i64 = 0x0073_6964_656b_6579;

/// On which processes tell each other that something changed.
#[cfg(feature = "postgres")]
const CHANNEL: &str = "sidekey_changes";
/// Until they listen again after that failed.
#[cfg(feature = "postgres")]
const LISTEN_PAUSE: Duration = Duration::from_secs(1);

/// A database and its connections. Cheap to clone.
#[derive(Clone, Debug)]
pub(super) enum Database {
    Sqlite(SqlitePool),
    #[cfg(feature = "postgres")]
    Postgres(PgPool),
}

/// A transaction. Dropped without [`Transaction::commit`], nothing of it has happened.
#[derive(Debug)]
pub(super) enum Transaction {
    Sqlite(sqlx::Transaction<'static, Sqlite>),
    #[cfg(feature = "postgres")]
    Postgres(sqlx::Transaction<'static, Postgres>),
}

/// What is bound to a `$n`.
#[derive(Clone, Copy, Debug)]
pub(super) enum Arg<'a> {
    Text(&'a str),
    Number(i64),
}

/// A row of an answer, by column.
#[derive(Debug)]
pub(super) enum Row {
    Sqlite(SqliteRow),
    #[cfg(feature = "postgres")]
    Postgres(PgRow),
}

// === impl Database ===

impl Database {
    /// Opens `file`, made 0600 if it is not there.
    pub(super) async fn sqlite(file: &Path) -> Result<Self, sqlx::Error> {
        // SQLite gives its journal the mode of the file.
        let made = OpenOptions::new().write(true).create_new(true).mode(0o600).open(file);
        match made {
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(sqlx::Error::Io(error)),
        }
        let options = SqliteConnectOptions::new()
            .filename(file)
            .foreign_keys(true)
            .journal_mode(SqliteJournalMode::Wal)
            // What was acknowledged is there after the power has failed, too.
            .synchronous(SqliteSynchronous::Full)
            .busy_timeout(WAIT);
        // A full disk ends a transaction by itself; the driver believes in it for ever, and begins no other there.
        let pool = SqlitePoolOptions::new()
            .max_connections(MAX_CONNECTIONS)
            .acquire_timeout(WAIT)
            .before_acquire(|connection, _| Box::pin(async { Ok(!connection.is_in_transaction()) }));
        pool.connect_with(options).await.map(Self::Sqlite)
    }

    /// Connects to PostgreSQL at `url`.
    #[cfg(feature = "postgres")]
    pub(super) async fn postgres(url: &str) -> Result<Self, sqlx::Error> {
        let pool = PgPoolOptions::new().max_connections(MAX_CONNECTIONS).acquire_timeout(WAIT);
        pool.connect(url).await.map(Self::Postgres)
    }

    /// Calls `heard` whenever another process may have changed something, until the connections are closed. Nobody shares a
    /// SQLite file.
    pub(super) fn listen(&self, heard: impl Fn() + Send + Sync + 'static) {
        match self {
            Self::Sqlite(_) => drop(heard),
            #[cfg(feature = "postgres")]
            Self::Postgres(pool) => {
                tokio::spawn(listen(pool.clone(), heard));
            }
        }
    }

    /// A transaction that may write. On SQLite it is the only one from here on; one that begins by reading and then wants
    /// to write would be refused instead of waiting.
    pub(super) async fn begin(&self) -> Result<Transaction, sqlx::Error> {
        match self {
            Self::Sqlite(pool) => pool.begin_with("BEGIN IMMEDIATE").await.map(Transaction::Sqlite),
            #[cfg(feature = "postgres")]
            Self::Postgres(pool) => pool.begin().await.map(Transaction::Postgres),
        }
    }

    /// A transaction that reads one state of the database, whatever is written meanwhile.
    pub(super) async fn look(&self) -> Result<Transaction, sqlx::Error> {
        match self {
            Self::Sqlite(pool) => pool.begin().await.map(Transaction::Sqlite),
            #[cfg(feature = "postgres")]
            Self::Postgres(pool) => {
                let begun = pool.begin_with("BEGIN ISOLATION LEVEL REPEATABLE READ, READ ONLY");
                begun.await.map(Transaction::Postgres)
            }
        }
    }

    /// Waits until every connection is closed.
    pub(super) async fn close(&self) {
        match self {
            Self::Sqlite(pool) => pool.close().await,
            #[cfg(feature = "postgres")]
            Self::Postgres(pool) => pool.close().await,
        }
    }
}

// === impl Transaction ===

impl Transaction {
    /// Runs `sql`: how many rows it changed.
    pub(super) async fn execute(&mut self, sql: &'static str, args: &[Arg<'_>]) -> Result<u64, sqlx::Error> {
        match self {
            Self::Sqlite(tx) => bound(sql, args).execute(&mut **tx).await.map(|done| done.rows_affected()),
            #[cfg(feature = "postgres")]
            Self::Postgres(tx) => bound(sql, args).execute(&mut **tx).await.map(|done| done.rows_affected()),
        }
    }

    /// Every row of the answer.
    pub(super) async fn rows(&mut self, sql: &'static str, args: &[Arg<'_>]) -> Result<Vec<Row>, sqlx::Error> {
        match self {
            Self::Sqlite(tx) => {
                let rows = bound(sql, args).fetch_all(&mut **tx).await?;
                Ok(rows.into_iter().map(Row::Sqlite).collect())
            }
            #[cfg(feature = "postgres")]
            Self::Postgres(tx) => {
                let rows = bound(sql, args).fetch_all(&mut **tx).await?;
                Ok(rows.into_iter().map(Row::Postgres).collect())
            }
        }
    }

    /// The only row of the answer, if there is one.
    pub(super) async fn row(&mut self, sql: &'static str, args: &[Arg<'_>]) -> Result<Option<Row>, sqlx::Error> {
        Ok(self.rows(sql, args).await?.into_iter().next())
    }

    /// Runs every statement of `sql`.
    pub(super) async fn script(&mut self, sql: &'static str) -> Result<(), sqlx::Error> {
        match self {
            Self::Sqlite(tx) => sqlx::raw_sql(sql).execute(&mut **tx).await.map(drop),
            #[cfg(feature = "postgres")]
            Self::Postgres(tx) => sqlx::raw_sql(sql).execute(&mut **tx).await.map(drop),
        }
    }

    /// Holds back every other process that migrates or starts for the first time, until the end. SQLite's writer holds everyone back anyway.
    pub(super) async fn lock(&mut self) -> Result<(), sqlx::Error> {
        match self {
            Self::Sqlite(_) => Ok(()),
            #[cfg(feature = "postgres")]
            Self::Postgres(_) => {
                self.rows("SELECT pg_advisory_xact_lock($1)", &[Arg::Number(MIGRATION)]).await.map(drop)
            }
        }
    }

    /// Tells other processes, once it has happened.
    pub(super) async fn notify(&mut self) -> Result<(), sqlx::Error> {
        match self {
            Self::Sqlite(_) => Ok(()),
            #[cfg(feature = "postgres")]
            Self::Postgres(_) => self.rows("SELECT pg_notify($1, '')", &[Arg::Text(CHANNEL)]).await.map(drop),
        }
    }

    /// Makes it happen.
    pub(super) async fn commit(self) -> Result<(), sqlx::Error> {
        match self {
            Self::Sqlite(tx) => tx.commit().await,
            #[cfg(feature = "postgres")]
            Self::Postgres(tx) => tx.commit().await,
        }
    }
}

// === impl Arg ===

impl<'a> From<&'a str> for Arg<'a> {
    fn from(text: &'a str) -> Self {
        Self::Text(text)
    }
}

impl<'a> From<&'a String> for Arg<'a> {
    fn from(text: &'a String) -> Self {
        Self::Text(text)
    }
}

impl From<i64> for Arg<'_> {
    fn from(number: i64) -> Self {
        Self::Number(number)
    }
}

// === impl Row ===

impl Row {
    /// The text in a column.
    pub(super) fn text(&self, column: usize) -> Result<String, sqlx::Error> {
        self.get(column)
    }

    /// The number in a column.
    pub(super) fn number(&self, column: usize) -> Result<i64, sqlx::Error> {
        self.get(column)
    }

    #[cfg(feature = "postgres")]
    fn get<T>(&self, column: usize) -> Result<T, sqlx::Error>
    where
        T: for<'r> Decode<'r, Sqlite> + Type<Sqlite> + for<'r> Decode<'r, Postgres> + Type<Postgres>,
    {
        match self {
            Self::Sqlite(row) => row.try_get(column),
            Self::Postgres(row) => row.try_get(column),
        }
    }

    #[cfg(not(feature = "postgres"))]
    fn get<T>(&self, column: usize) -> Result<T, sqlx::Error>
    where
        T: for<'r> Decode<'r, Sqlite> + Type<Sqlite>,
    {
        let Self::Sqlite(row) = self;
        row.try_get(column)
    }
}

#[cfg(feature = "postgres")]
async fn listen(pool: PgPool, heard: impl Fn() + Send + Sync) {
    while !pool.is_closed() {
        if let Err(error) = hear(&pool, &heard).await
            && !matches!(error, sqlx::Error::PoolClosed)
        {
            warn!(%error, "Listening for changes of other replicas failed; the database is asked instead.");
            tokio::time::sleep(LISTEN_PAUSE).await;
        }
    }
}

#[cfg(feature = "postgres")]
async fn hear(pool: &PgPool, heard: &(impl Fn() + Send + Sync)) -> Result<(), sqlx::Error> {
    let mut listener = PgListener::connect_with(pool).await?;
    listener.listen(CHANNEL).await?;
    loop {
        // At the beginning and after a lost connection, something may have been missed.
        heard();
        while listener.try_recv().await?.is_some() {
            heard();
        }
    }
}

fn bound<'q, DB>(sql: &'static str, args: &[Arg<'q>]) -> Query<'q, DB, DB::Arguments>
where
    DB: Kind,
    &'q str: Encode<'q, DB> + Type<DB>,
    i64: Encode<'q, DB> + Type<DB>,
{
    args.iter().fold(sqlx::query(sql), |query, arg| match *arg {
        Arg::Text(text) => query.bind(text),
        Arg::Number(number) => query.bind(number),
    })
}
