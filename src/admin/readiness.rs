//! Whether requests should come here, and what an operator should know beside that.

use serde_json::{Value, json};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use super::Vitals;
use crate::{
    feed::{Origin, Refused},
    model::Problem,
    proxy::Stage,
};

/// The answer of `/readyz`.
#[derive(Debug)]
pub struct Readiness {
    reasons: Vec<&'static str>,
    snapshot: Value,
}

// === impl Readiness ===

impl Readiness {
    /// No reason speaks against it.
    pub fn is_ready(&self) -> bool {
        self.reasons.is_empty()
    }

    /// For people and machines. Objects are named, values never.
    pub fn report(self) -> Value {
        json!({ "ready": self.is_ready(), "reasons": self.reasons, "snapshot": self.snapshot })
    }
}

/// `gateway` is whether it answers, `late` what stands still.
pub fn judge(vitals: &Vitals, gateway: bool, late: &[&str]) -> Readiness {
    let snapshot = vitals.feed.current();
    let reasons = [
        (vitals.shutdown.stage() > Stage::Running, "shutting_down"),
        (snapshot.is_none(), "no_snapshot"),
        (!late.is_empty(), "not_accepting"),
        (!gateway, "gateway_unreachable"),
    ];
    let status = vitals.feed.status();
    let snapshot = snapshot.map(|snapshot| {
        json!({
            "version": snapshot.version,
            "generation": status.generation,
            "age_secs": vitals.feed.age().map(|age| age.as_secs()),
            "origin": status.loaded.map(|loaded| match loaded.origin {
                Origin::Source => "source",
                Origin::LastGood => "last_good",
            }),
            "set_aside": problems(&snapshot.set_aside),
            "refused": status.refused.as_ref().map(refused),
        })
    });
    let snapshot = snapshot.unwrap_or_else(|| json!({ "refused": status.refused.as_ref().map(refused) }));
    Readiness {
        reasons: reasons.into_iter().filter_map(|(applies, reason)| applies.then_some(reason)).collect(),
        snapshot,
    }
}

fn refused(refused: &Refused) -> Value {
    let at = OffsetDateTime::from(refused.at).format(&Rfc3339).ok();
    json!({ "at": at, "problems": problems(&refused.problems) })
}

fn problems(problems: &[Problem]) -> Vec<Value> {
    problems.iter().map(|problem| json!({ "at": problem.at, "message": problem.message })).collect()
}
