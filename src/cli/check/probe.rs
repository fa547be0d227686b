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
    manager::FailureClass,
    model::{Reference, Snapshot},
    resolve::{Probe, Resolver, Unusable, Uses},
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
    let uses = Uses::of(snapshot);
    let rows = stream::iter(&snapshot.references).map(|reference| row(reference, &uses, resolver, fingerprints));
    let mut rows = rows.buffered(CONCURRENT);
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

async fn row(
    reference: &Reference,
    uses: &Uses,
    resolver: &Resolver,
    fingerprints: &Fingerprints,
) -> (bool, [String; 7]) {
    let Probe { identity, elapsed, outcome } = resolver.probe(reference, uses).await;
    let slug = printable(&reference.slug);
    let manager = reference.manager_type.as_str().to_owned();
    let identity = printable(&identity.unwrap_or_default());
    let latency = format!("{:.1} ms", elapsed.as_secs_f64() * 1000.0);
    match outcome {
        Ok(read) => {
            let version = read.version.map_or_else(String::new, |version| printable(&version.0));
            let fingerprint = fingerprints.of(read.value.expose().as_bytes());
            let (fine, class) = match read.unusable.as_slice() {
                [] => (true, "ok".to_owned()),
                [Unusable { entity, field, reason }, ..] => {
                    let whom = entity.as_ref().zip(*field);
                    let whom = whom.map_or_else(String::new, |(entity, field)| format!("{field} of @{entity}: "));
                    let class = FailureClass::Malformed.as_str();
                    (false, format!("{class} ({}{reason})", printable(&whom)))
                }
            };
            (fine, [slug, manager, identity, class, version, latency, fingerprint])
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
