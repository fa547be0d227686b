//! What accounts have used, until the control plane knows it.
//!
//! Sums by account and day of UTC: so many rows as accounts have used something since the last report, whatever the load and
//! however long the control plane is away. A report is told until it is acknowledged, byte for byte the same, and has a number by
//! which it is counted once. Nothing waits for it; what was not told when the process dies is lost.

use std::{
    collections::{HashMap, hash_map::Entry},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};

use bytes::Bytes;
use serde::Serialize;
use time::OffsetDateTime;
use tokio::time::{MissedTickBehavior, interval, sleep};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};
use uuid::Uuid;

use super::limits::Amounts;
use crate::{
    feed::control_plane::{Reporter, Untold},
    metric::{Metrics, OutcomeLabels},
    model::{Account, AccountKind},
};

/// How long a report may take once the process ends, and the last one after it. Both fit into what background tasks are given.
const FAREWELL: Duration = Duration::from_millis(900);
/// Rows of one report, as the control plane takes them.
const MAX_BATCH: usize = 1000;
/// Rows that wait. More accounts than a snapshot has, twice over.
const MAX_ROWS: usize = 250_000;
/// Largest sum that the control plane takes.
const MAX_AMOUNT: u64 = 1_000_000_000_000_000_000;
const DAY_SECS: i64 = 86_400;

/// What is not told yet.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    rows: Mutex<HashMap<Row, Sum>>,
    /// Whether it was full, and that was said.
    full: AtomicBool,
}

/// Whose, and when.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
struct Row {
    #[serde(serialize_with = "kind")]
    kind: AccountKind,
    #[serde(serialize_with = "text")]
    id: Arc<str>,
    /// Since 1970.
    day: i64,
    /// [`crate::model::UsageLimit::reset_at`].
    reset_at: i64,
}

/// How much.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
struct Sum {
    requests: u64,
    tokens: u64,
    cost_nanodollars: u64,
}

#[derive(Serialize)]
struct Told<'a> {
    #[serde(flatten)]
    row: &'a Row,
    #[serde(flatten)]
    sum: Sum,
}

#[derive(Serialize)]
struct Report<'a> {
    /// This process.
    reporter: &'a str,
    /// From 1 on.
    sequence: u64,
    usage: Vec<Told<'a>>,
}

// === impl Ledger ===

impl Ledger {
    /// A request of `account` has used this, if it has used anything.
    pub(super) fn add(&self, account: &Account, amounts: Amounts, now: OffsetDateTime) {
        let Some(limit) = account.usage_limits.first().filter(|_| amounts.tokens > 0 || amounts.cost > 0) else {
            return;
        };
        let (id, day) = (Arc::clone(&account.id), now.unix_timestamp().div_euclid(DAY_SECS));
        let row = Row { kind: account.kind, id, day, reset_at: limit.reset_at };
        let mut rows = self.rows.lock().unwrap_or_else(PoisonError::into_inner);
        let is_full = rows.len() >= MAX_ROWS;
        let sum = match rows.entry(row) {
            Entry::Occupied(entry) => entry.into_mut(),
            Entry::Vacant(_) if is_full => {
                if !self.full.swap(true, Relaxed) {
                    warn!(
                        rows = MAX_ROWS,
                        "More accounts were used than can be told, the control plane learns of some only."
                    );
                }
                return;
            }
            Entry::Vacant(entry) => entry.insert(Sum::default()),
        };
        sum.requests = sum.requests.saturating_add(1);
        sum.tokens = sum.tokens.saturating_add(amounts.tokens).min(MAX_AMOUNT);
        sum.cost_nanodollars = sum.cost_nanodollars.saturating_add(amounts.cost).min(MAX_AMOUNT);
    }

    /// Tells `to` every so often until `end`, and then once more.
    pub(super) async fn report(&self, mut to: Reporter, every: Duration, metrics: &Metrics, end: CancellationToken) {
        let reporter = Uuid::now_v7().to_string();
        let (mut sequence, mut pending, mut away) = (0, None, false);
        let mut ticks = interval(every);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let ended = end.run_until_cancelled(ticks.tick()).await.is_none();
            let hurried = async {
                end.cancelled().await;
                sleep(FAREWELL).await;
            };
            // What is left in the middle of it is still pending.
            let told = tokio::select! {
                told = self.tell(&mut to, &reporter, &mut sequence, &mut pending, metrics) => told,
                () = hurried => Ok(()),
            };
            match told {
                Ok(()) if std::mem::take(&mut away) => info!("The control plane is told again what is used."),
                Ok(()) => {}
                Err(error) if !std::mem::replace(&mut away, true) => {
                    warn!(error, "The control plane cannot be told what is used, it is told later.");
                }
                Err(_) => {}
            }
            if ended {
                return;
            }
        }
    }

    /// Everything there is; what could not be told is `pending`.
    async fn tell(
        &self,
        to: &mut Reporter,
        reporter: &str,
        sequence: &mut u64,
        pending: &mut Option<Bytes>,
        metrics: &Metrics,
    ) -> Result<(), String> {
        let count = |outcome| {
            metrics.usage_reports.get_or_create(&OutcomeLabels { outcome }).inc();
        };
        loop {
            let report = match pending {
                Some(report) => report.clone(),
                None => match self.take(reporter, *sequence + 1) {
                    Some(report) => {
                        *sequence += 1;
                        pending.insert(report).clone()
                    }
                    None => return Ok(()),
                },
            };
            match to.tell(report).await {
                Ok(()) => count("delivered"),
                Err(Untold::Away(reason)) => {
                    count("failed");
                    return Err(reason);
                }
                Err(refused @ Untold::Refused(_)) => {
                    count("refused");
                    warn!(error = %refused, "A report of what is used is lost.");
                }
            }
            *pending = None;
        }
    }

    /// The next report; `None` when there is nothing to tell.
    fn take(&self, reporter: &str, sequence: u64) -> Option<Bytes> {
        let taken: Vec<(Row, Sum)> = {
            let mut rows = self.rows.lock().unwrap_or_else(PoisonError::into_inner);
            let batch: Vec<Row> = rows.keys().take(MAX_BATCH).cloned().collect();
            batch.into_iter().filter_map(|row| rows.remove_entry(&row)).collect()
        };
        self.full.store(false, Relaxed);
        let usage: Vec<_> = taken.iter().map(|(row, sum)| Told { row, sum: *sum }).collect();
        if usage.is_empty() {
            return None;
        }
        serde_json::to_vec(&Report { reporter, sequence, usage }).ok().map(Bytes::from)
    }
}

// `serialize_with` gives references.
#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
fn kind<S: serde::Serializer>(kind: &AccountKind, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(kind.as_str())
}

fn text<S: serde::Serializer>(text: &Arc<str>, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(text)
}
