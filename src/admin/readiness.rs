//! Whether requests should come here, and what an operator should know beside that.

use std::sync::atomic::Ordering;

use serde_json::{Value, json};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use super::Vitals;
use crate::{
    feed::{Origin, Refused},
    model::{Problem, Snapshot},
    proxy::{Proxy, Stage},
    resolve::SlotState,
    seal::opener::Opener,
};

/// Of what there may be thousands, as many are listed; the count says how many there are.
const LISTED: usize = 100;

/// The answer of `/readyz`.
#[derive(Debug)]
pub struct Readiness {
    reasons: Vec<&'static str>,
    snapshot: Value,
    sealed: Value,
    degraded: Value,
}

// === impl Readiness ===

impl Readiness {
    /// No reason speaks against it.
    pub fn is_ready(&self) -> bool {
        self.reasons.is_empty()
    }

    /// For people and machines. Objects are named, values never.
    pub fn report(self) -> Value {
        json!({
            "ready": self.is_ready(),
            "reasons": self.reasons,
            "snapshot": self.snapshot,
            "sealed": self.sealed,
            "degraded": self.degraded,
        })
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
        (vitals.prewarming.load(Ordering::Relaxed), "prewarming"),
    ];
    let degraded: Vec<Value> = snapshot.iter().flat_map(|snapshot| degraded(&vitals.proxy, snapshot)).collect();
    let degraded = listed(degraded.into_iter());
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
    let reasons = reasons.into_iter().filter_map(|(applies, reason)| applies.then_some(reason)).collect();
    let sealed =
        vitals.opener.as_ref().map(|opener| json!({ "recipients": opener.recipients(), "unopened": unopened(opener) }));
    Readiness { reasons, snapshot, sealed: sealed.unwrap_or_default(), degraded }
}

/// References whose last read failed: requests are served the old value, or nothing.
fn degraded(proxy: &Proxy, snapshot: &Snapshot) -> impl Iterator<Item = Value> + use<> {
    proxy.slots(snapshot).into_iter().filter_map(|slot| {
        let class = slot.class?;
        let serves = match slot.state {
            SlotState::Fresh => "fresh",
            SlotState::Stale => "stale",
            SlotState::Empty | SlotState::Refused => "nothing",
        };
        Some(json!({
            "reference": &*slot.reference.slug,
            "manager": slot.reference.manager_type.as_str(),
            "class": class.as_str(),
            "failures": slot.failures,
            "serves": serves,
            "age_secs": slot.age.map(|age| age.as_secs()),
        }))
    })
}

/// Sealed values that requests needed and that are of no use.
fn unopened(opener: &Opener) -> Value {
    let unopened = opener.unopened();
    listed(unopened.into_iter().map(|(at, reason)| json!({ "at": at, "message": reason.to_string() })))
}

fn refused(refused: &Refused) -> Value {
    let at = OffsetDateTime::from(refused.at).format(&Rfc3339).ok();
    json!({ "at": at, "problems": problems(&refused.problems) })
}

fn problems(problems: &[Problem]) -> Value {
    listed(problems.iter().map(|problem| json!({ "at": problem.at, "message": problem.message })))
}

fn listed(items: impl ExactSizeIterator<Item = Value>) -> Value {
    json!({ "count": items.len(), "first": items.take(LISTED).collect::<Vec<_>>() })
}
