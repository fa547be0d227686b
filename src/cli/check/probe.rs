//! One fetch of every reference, as a table. Never a value.

use futures_util::{StreamExt, stream};

use super::{
    super::{
        Screen,
        screen::{Tone, printable},
        table::Table,
    },
    count,
};
use crate::{
    model::{Reference, Snapshot},
    resolve::{Probe, Resolver},
    secret::fingerprint::Fingerprints,
};

/// Fetches under way at once; managers bound their own below that.
const CONCURRENT: usize = 16;

/// What came of the fetches.
#[derive(Debug)]
pub struct Probed {
    table: Table<7>,
    /// References that could not be fetched.
    pub failed: usize,
    fetched: usize,
}

/// Fetches every reference of `snapshot` once, past the cache.
pub async fn all(snapshot: &Snapshot, resolver: &Resolver, fingerprints: &Fingerprints) -> Probed {
    let table = Table::new(["REFERENCE", "MANAGER", "IDENTITY", "CLASS", "VERSION", "LATENCY", "FINGERPRINT"]);
    let mut probed = Probed { table, failed: 0, fetched: 0 };
    let mut rows =
        stream::iter(&snapshot.references).map(|reference| row(reference, resolver, fingerprints)).buffered(CONCURRENT);
    while let Some((fetched, row)) = rows.next().await {
        probed.table.push(row);
        if fetched {
            probed.fetched += 1;
        } else {
            probed.failed += 1;
        }
    }
    probed
}

async fn row(reference: &Reference, resolver: &Resolver, fingerprints: &Fingerprints) -> (bool, [String; 7]) {
    let Probe { identity, elapsed, outcome } = resolver.probe(reference).await;
    let slug = printable(&reference.slug);
    let manager = reference.manager_type.as_str().to_owned();
    let identity = printable(&identity.unwrap_or_default());
    let latency = format!("{:.1} ms", elapsed.as_secs_f64() * 1000.0);
    match outcome {
        Ok(read) => {
            let version = read.version.map_or_else(String::new, |version| printable(&version.0));
            let fingerprint = fingerprints.of(read.value.expose().as_bytes());
            (true, [slug, manager, identity, "ok".to_owned(), version, latency, fingerprint])
        }
        Err(error) => {
            let class = match &error.code {
                Some(code) => format!("{} ({})", error.class.as_str(), printable(code)),
                None => error.class.as_str().to_owned(),
            };
            (false, [slug, manager, identity, class, String::new(), latency, String::new()])
        }
    }
}

// === impl Probed ===

impl Probed {
    /// Writes the table and a line that sums it up.
    pub fn print(&self, screen: &mut Screen) {
        for (at, line) in self.table.lines().into_iter().enumerate() {
            let line = if at == 0 { screen.tint(Tone::Faint, line) } else { line };
            screen.line(line);
        }
        let verdict = match (self.fetched, self.failed) {
            (fetched, 0) => screen.tint(Tone::Good, format_args!("{} fetched", count(fetched, "reference"))),
            (fetched, failed) => {
                screen.tint(Tone::Bad, format_args!("{fetched} of {} fetched", count(fetched + failed, "reference")))
            }
        };
        screen.line(verdict);
    }
}
