//! Redis: one hash for each counter and window, one script for everything.
//!
//! A replica tells the whole of what it has counted in a window, not what came since: so an exchange may be repeated, or be lost,
//! and a store that has lost its memory is told again. The script adds the difference to the sum. Keys hold ids of accounts
//! and no secret; they expire with their window. All keys of a request are in one script, so that a cluster of several
//! primaries cannot serve it.

use std::{
    fmt,
    fs::File,
    io::{self, Read},
    net::IpAddr,
    path::{Path, PathBuf},
    sync::{Arc, LazyLock, Mutex, PoisonError},
    time::Duration,
};

use arc_swap::ArcSwapOption;
use redis::{
    Client, IntoConnectionInfo, Script, TlsCertificates,
    aio::{ConnectionManager, ConnectionManagerConfig},
};
use tracing::{info, warn};
use url::Url;
use uuid::Uuid;
use zeroize::Zeroizing;

use super::{Row, Told};
use crate::{
    clients::limits::Counter,
    model::{Counted, RateUnit, Reset, Spent, Window},
};

/// Largest file, in bytes.
const MAX_FILE_BYTES: u64 = 64 << 10;
/// How long a connection may take to come; nobody waits for it.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// How long what is over stays, for clocks that are behind.
const AFTERGLOW_SECS: i64 = 60;
/// Numbers that the script returns for each row.
const PER_ROW: usize = 3;

/// `KEYS`: a hash for each row. `ARGV`: the replica, whether to take, then own, takes, limit and end of each row. Returns whether
/// it was let in, then for each row what all had counted before, with what this replica told, and its part of that.
static SCRIPT: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("exchange.lua")));

/// Where the store is.
#[derive(Clone, Debug)]
pub struct Settings {
    /// `limits.redis.url_file`.
    pub url_file: PathBuf,
    /// `limits.redis.ca_file`.
    pub ca_file: Option<PathBuf>,
    /// `limits.redis.allow_plaintext`.
    pub allow_plaintext: bool,
    /// `limits.redis.prefix`.
    pub prefix: String,
}

/// Why a store cannot be used. Never what stands in the file, which may hold a password.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// A file cannot be read.
    #[error("{} cannot be read", file.display())]
    Read {
        /// Which.
        file: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It names no store that may be used.
    #[error("{} {reason}", file.display())]
    Invalid {
        /// Which.
        file: PathBuf,
        /// What is wrong.
        reason: &'static str,
    },
}

/// The store.
pub struct Store {
    settings: Settings,
    /// Of this process: counts of one that ended stay its own.
    replica: String,
    /// What stood in the files.
    seen: Mutex<Zeroizing<Vec<u8>>>,
    client: Mutex<Client>,
    connection: ArcSwapOption<ConnectionManager>,
}

/// The part of a key that tells windows apart.
struct Start(Window);

// === impl Start ===

impl fmt::Display for Start {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Window { start, end: _, reset_at } = self.0;
        write!(f, "{start}")?;
        if reset_at == 0 { Ok(()) } else { write!(f, ".{reset_at}") }
    }
}

// === impl Store ===

impl Store {
    /// By `settings`. Nothing is connected yet.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn new(settings: Settings) -> Result<Self, StoreError> {
        let (seen, client) = open(&settings)?;
        let replica = Uuid::now_v7().simple().to_string();
        let (seen, client) = (Mutex::new(seen), Mutex::new(client));
        Ok(Self { settings, replica, seen, client, connection: ArcSwapOption::empty() })
    }

    /// One round trip.
    ///
    /// # Errors
    /// Why there was none, for the log.
    pub async fn exchange(&self, take: bool, rows: &[Row]) -> Result<(bool, Vec<Told>), String> {
        let mut connection = self.connection().map_err(|error| error.to_string())?;
        let mut call = SCRIPT.prepare_invoke();
        call.arg(&self.replica).arg(u8::from(take));
        for row in rows {
            call.key(self.key(row));
            let end = row.window.over_at().map_or(0, |at| at.unix_timestamp() + AFTERGLOW_SECS);
            call.arg(row.own).arg(row.takes).arg(row.limit).arg(end);
        }
        let numbers: Vec<u64> = call.invoke_async(&mut connection).await.map_err(|error| error.to_string())?;
        let Some((admitted, told)) = numbers.split_first().filter(|(_, told)| told.len() == rows.len() * PER_ROW)
        else {
            return Err("the store answered something else".to_owned());
        };
        let told = told.chunks_exact(PER_ROW).map(|row| Told { before: row[0], total: row[1], mine: row[2] });
        Ok((*admitted == 1, told.collect()))
    }

    /// Reads the files again; connects anew if they changed.
    pub fn refresh(&self) {
        let file = &self.settings.url_file;
        match open(&self.settings) {
            Ok((now, client)) => {
                let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
                if *seen != now {
                    *seen = now;
                    *self.client.lock().unwrap_or_else(PoisonError::into_inner) = client;
                    self.connection.store(None);
                    info!(?file, "The address of the shared counters was reloaded.");
                }
            }
            Err(error) => {
                warn!(?file, %error, "The address of the shared counters cannot be read, the last one stays.");
            }
        }
    }

    /// The connection, which mends itself.
    fn connection(&self) -> redis::RedisResult<ConnectionManager> {
        if let Some(connection) = &*self.connection.load() {
            return Ok(ConnectionManager::clone(connection));
        }
        let config = ConnectionManagerConfig::new()
            .set_number_of_retries(1)
            .set_connection_timeout(Some(CONNECT_TIMEOUT))
            .set_response_timeout(Some(CONNECT_TIMEOUT));
        let client = self.client.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let connection = ConnectionManager::new_lazy_with_config(client, config)?;
        self.connection.store(Some(Arc::new(connection.clone())));
        Ok(connection)
    }

    /// `sidekey:api_key/ID:requests_rpm:1764064800`; after a reset by hand, `:cost_monthly:1764547200.1764700000000`.
    fn key(&self, row: &Row) -> String {
        let prefix = &self.settings.prefix;
        let (account, start) = (&row.account, Start(row.window));
        match row.counter {
            Counter::Rate(counts, per) => format!("{prefix}:{account}:{}_{}:{start}", counted(counts), unit(per)),
            Counter::Usage(counts, reset) => format!("{prefix}:{account}:{}_{}:{start}", spent(counts), period(reset)),
        }
    }
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Store").field("settings", &self.settings).finish_non_exhaustive()
    }
}

const fn counted(counts: Counted) -> &'static str {
    counts.as_str()
}

const fn unit(per: RateUnit) -> &'static str {
    per.as_str()
}

const fn spent(counts: Spent) -> &'static str {
    counts.as_str()
}

fn period(reset: Reset) -> String {
    match reset {
        Reset::Never => "ever".to_owned(),
        Reset::Weekly => "weekly".to_owned(),
        Reset::Monthly => "monthly".to_owned(),
        Reset::Days(days) => format!("days{days}"),
    }
}

/// What stands in the files, and a client by it.
fn open(settings: &Settings) -> Result<(Zeroizing<Vec<u8>>, Client), StoreError> {
    let file = &settings.url_file;
    let invalid = |reason| StoreError::Invalid { file: file.clone(), reason };
    let mut seen = read(file)?;
    let text = std::str::from_utf8(&seen).map_err(|_| invalid("is not UTF-8 text"))?.trim();
    let url: Url = text.parse().map_err(|_| invalid("holds no address like rediss://user:password@host:6379/0"))?;
    // Of a scheme that is not the web's, the URL's parser takes every host for a name.
    let host = url.host_str().unwrap_or_default().trim_matches(['[', ']']);
    if host.is_empty() {
        return Err(invalid("holds an address without a host"));
    }
    let is_loopback = host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback());
    match url.scheme() {
        "rediss" => {}
        "redis" if is_loopback || settings.allow_plaintext => {}
        "redis" => {
            return Err(invalid(
                "names another host without TLS; use rediss, or set limits.redis.allow_plaintext: true",
            ));
        }
        _ => return Err(invalid("holds an address that begins neither with redis:// nor with rediss://")),
    }
    let ca = settings.ca_file.as_deref().map(read).transpose()?;
    let info = text.into_connection_info().map_err(|_| invalid("holds an address that cannot be used"))?;
    let certificates = TlsCertificates { client_tls: None, root_cert: ca.as_deref().cloned() };
    let client = match url.scheme() {
        "rediss" => Client::build_with_tls(info, certificates),
        _ => Client::open(info),
    };
    let client =
        client.map_err(|_| invalid("holds an address that cannot be used, or limits.redis.ca_file no certificate"))?;
    seen.extend_from_slice(ca.as_deref().map(Vec::as_slice).unwrap_or_default());
    Ok((seen, client))
}

fn read(file: &Path) -> Result<Zeroizing<Vec<u8>>, StoreError> {
    let mut bytes = Zeroizing::new(Vec::with_capacity(4096));
    File::open(file)
        .and_then(|open| open.take(MAX_FILE_BYTES).read_to_end(&mut bytes))
        .map_err(|source| StoreError::Read { file: file.to_owned(), source })?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_checked_and_never_shown() {
        let folder = tempfile::tempdir().unwrap();
        let url_file = folder.path().join("redis");
        let settings =
            Settings { url_file: url_file.clone(), ca_file: None, allow_plaintext: false, prefix: "p".into() };
        for (text, reason) in [
            ("redis://127.0.0.1:6379", None),
            ("redis://:hidden@localhost:6379/1\n", None),
            ("redis://[::1]", None),
            ("redis://u:hidden@redis.internal:6379", Some("without TLS")),
            ("http://hidden@127.0.0.1", Some("begins neither")),
            ("hidden", Some("no address")),
            ("redis:///hidden", Some("without a host")),
            ("redis://127.0.0.1/hidden", Some("cannot be used")),
        ] {
            std::fs::write(&url_file, text).unwrap();
            let shown = open(&settings).err().map(|error| error.to_string());
            match (reason, shown) {
                (None, None) => {}
                (Some(reason), Some(shown)) => {
                    assert!(shown.contains(reason) && !shown.contains("hidden"), "{text}: {shown}");
                }
                (_, shown) => panic!("{text}: {shown:?}"),
            }
        }
        std::fs::write(&url_file, "redis://redis.internal").unwrap();
        assert!(open(&Settings { allow_plaintext: true, ..settings }).is_ok());
    }

    #[test]
    fn each_counter_of_each_window_has_a_key() {
        let folder = tempfile::tempdir().unwrap();
        let url_file = folder.path().join("redis");
        std::fs::write(&url_file, "redis://127.0.0.1").unwrap();
        let store =
            Store::new(Settings { url_file, ca_file: None, allow_plaintext: false, prefix: "sidekey".into() }).unwrap();
        let key = |counter, start, reset_at| {
            let window = Window { start, end: start + 60, reset_at };
            let row =
                Row { account: "api_key/k".into(), counter, window, own: 0, takes: 0, limit: 0, alert_threshold: None };
            store.key(&row)
        };
        let rate = Counter::Rate(Counted::Requests, RateUnit::Minute);
        assert_eq!(key(rate, 60, 0), "sidekey:api_key/k:requests_rpm:60");
        assert_eq!(key(Counter::Usage(Spent::Cost, Reset::Days(30)), 0, 0), "sidekey:api_key/k:cost_days30:0");
        assert_eq!(key(Counter::Usage(Spent::Tokens, Reset::Never), 0, 0), "sidekey:api_key/k:tokens_ever:0");
        assert_eq!(key(Counter::Usage(Spent::Tokens, Reset::Never), 0, 7), "sidekey:api_key/k:tokens_ever:0.7");
    }
}
