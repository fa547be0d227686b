//! `rotation_policy` and `/api-keys/{id}/rotate`: a new secret for a key, and a while in which the one before is good, too.
//!
//! Rules of Portkey's documentation: at most two secrets are good at once, so that no rotation begins while another is under
//! way; weekly is Monday, monthly the first, 00:00 UTC. When a rotation falls due nobody is there to be shown the secret that
//! is made: it is sealed to the recipients of `sealing.recipients`, for whoever has an identity (the escrow's, usually) to
//! open; the holder of the old secret does not get it, for that may be the thief it is rotated against. Without recipients no
//! secret is made: the old one ends all the same, and a call of `rotate` makes the new one while it still works.

use std::{sync::Arc, time::Duration};

use axum::extract::{Path, State};
use serde::{Deserialize, Serialize};
use serde_json::json;
use time::{Date, Month, OffsetDateTime, Time, Weekday};
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::{Body, find, millis};
use crate::{
    control::{
        Answer, Caller, Control, Refusal, Verb,
        answer::instant,
        fields::{Body as Posted, Fields, Given},
        key, limits,
        sealing::mask,
        store::{Action, Change, Hash, Kind, Object, Write, now},
    },
    seal::Place,
};

/// Shortest `key_transition_period_ms`, and what it is if nobody says: half an hour.
const LEAST_TRANSITION_MS: i64 = 30 * 60 * 1000;
const DAY_MS: i64 = 24 * 3600 * 1000;
/// Who did it, in the audit log.
const ACTOR: &str = "schedule";
/// How often the schedule is looked at: a rotation may be that late.
const LOOK: Duration = Duration::from_secs(10);
/// Rotations between two looks at the schedule.
const MAX_AT_ONCE: i64 = 100;
/// Field of a sealed secret.
const FIELD: &str = "key";

/// When a key gets a new secret by itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Policy {
    /// Again and again.
    pub rotation_period: Option<Period>,
    /// RFC 3339; when it does so next.
    pub next_rotation_at: Option<String>,
    /// How long the secret before stays good, in milliseconds.
    pub key_transition_period_ms: i64,
}

/// How often a key gets a new secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Period {
    /// Mondays, 00:00 UTC.
    Weekly,
    /// The first of a month, 00:00 UTC.
    Monthly,
}

// === impl Policy ===

impl Policy {
    /// `rotation_policy`, checked at `now`.
    pub(super) fn take(fields: &mut Fields<'_>, now: i64) -> Given<Self> {
        let mut given = match fields.object("rotation_policy") {
            Given::Value(given) => given,
            Given::Null => return Given::Null,
            Given::Absent => return Given::Absent,
        };
        let period = given.typed::<Period>("rotation_period", "must be weekly or monthly, or null").value();
        let at = limits::time(&mut given, "next_rotation_at").value();
        match (period, &at) {
            (Some(_), Some(_)) => given.fault("next_rotation_at", "cannot be given beside rotation_period"),
            (None, None) => given.fault("rotation_period", "or next_rotation_at has to be given"),
            (None, Some(at)) if millis(at).is_some_and(|at| at <= now) => {
                given.fault("next_rotation_at", "must lie ahead");
            }
            (Some(_), None) | (None, Some(_)) => {}
        }
        let key_transition_period_ms = transition(&mut given, period).unwrap_or(LEAST_TRANSITION_MS);
        fields.absorb(given);
        let next_rotation_at = at.or_else(|| Some(instant(period?.next(now))));
        Given::Value(Self { rotation_period: period, next_rotation_at, key_transition_period_ms })
    }

    /// What is left of it after a rotation at `now`: the next one of a period, the one of a day that lies ahead.
    fn after(self, now: i64) -> Option<Self> {
        let ahead = self.next_rotation_at.filter(|at| millis(at).is_some_and(|at| at > now));
        let next_rotation_at = match self.rotation_period {
            Some(period) => Some(instant(period.next(now))),
            None => Some(ahead?),
        };
        Some(Self { next_rotation_at, ..self })
    }
}

// === impl Period ===

impl Period {
    /// Its next beginning after `now`, in milliseconds since 1970.
    fn next(self, now: i64) -> i64 {
        let today =
            OffsetDateTime::from_unix_timestamp(now.div_euclid(1000)).unwrap_or(OffsetDateTime::UNIX_EPOCH).date();
        let next = match self {
            Self::Weekly => today.next_occurrence(Weekday::Monday),
            Self::Monthly => {
                let month = today.month().next();
                let year = if month == Month::January { today.year() + 1 } else { today.year() };
                Date::from_calendar_date(year, month, 1).unwrap_or(Date::MAX)
            }
        };
        next.with_time(Time::MIDNIGHT).assume_utc().unix_timestamp() * 1000
    }

    /// Its shortest length, in milliseconds.
    const fn shortest_ms(self) -> i64 {
        match self {
            Self::Weekly => 7 * DAY_MS,
            Self::Monthly => 28 * DAY_MS,
        }
    }
}

// === impl Body ===

impl Body {
    /// When the schedule has to see to it: after a rotation that is under way, and not if it ends before.
    pub(super) fn due_at(&self) -> Option<i64> {
        let next = millis(self.rotation_policy.as_ref()?.next_rotation_at.as_deref()?)?;
        let due = next.max(self.transition_ends_at);
        self.expires_at_millis().is_none_or(|end| due < end).then_some(due)
    }

    /// Gives it `secret` at `now`; the one before ends after `transition_ms`, unless its end is known already. `None`: there
    /// is no new one. Returns the hashes.
    fn turn(&mut self, before: Vec<Hash>, secret: Option<(&str, Hash)>, now: i64, transition_ms: i64) -> Vec<Hash> {
        let end = |hash: &Hash| if hash.expires_at == 0 { now.saturating_add(transition_ms) } else { hash.expires_at };
        let mut hashes: Vec<_> = live(before, now).map(|hash| Hash { expires_at: end(&hash), ..hash }).collect();
        self.transition_ends_at = hashes.iter().map(|hash| hash.expires_at).max().unwrap_or(now);
        self.last_rotated_at = now;
        self.sealed_key = None;
        self.rotation_policy = self.rotation_policy.take().and_then(|policy| policy.after(now));
        if let Some((secret, hash)) = secret {
            self.mask = mask(secret);
            hashes.push(hash);
        }
        hashes
    }
}

/// `POST /api-keys/{id}/rotate`.
///
/// # Errors
/// [`Refusal`]; 409 while a rotation is under way.
pub async fn rotate(
    State(control): State<Arc<Control>>,
    caller: Caller,
    Path(id): Path<String>,
    posted: Posted,
) -> Result<Answer, Refusal> {
    super::may_any(&caller, Verb::Rotate)?;
    let mut fields = posted.optional_fields()?;
    let mut write = caller.write(&control).await?;
    let (mut object, mut body) = find(&mut write, &caller, &id, Verb::Rotate).await?;
    if !caller.holds(&body.scopes) {
        // Whoever is shown the secret can do what it allows.
        return Err(Refusal::forbidden());
    }
    let period = body.rotation_policy.as_ref().and_then(|policy| policy.rotation_period);
    let asked = transition(&mut fields, period);
    fields.finish()?;
    let transition_ms = asked
        .or_else(|| body.rotation_policy.as_ref().map(|policy| policy.key_transition_period_ms))
        .unwrap_or(LEAST_TRANSITION_MS);
    let (at, before) = (write.at(), write.hashes_of(&object).await?);
    if live(before.clone(), at).count() > 1 {
        let end = instant(body.transition_ends_at);
        return Err(Refusal::conflict(format!("a rotation is under way until {end}; rotate the key after that")));
    }
    let secret = key::generate()?;
    let hash = control.hasher().hash(&secret, 0);
    let hashes = body.turn(before, Some((&secret, hash)), at, transition_ms);
    save(&mut write, &mut object, &body, &hashes).await?;
    write.commit(Change::of(Action::Rotated, &object, fields.names())).await?;
    let end = instant(body.transition_ends_at);
    Ok(Answer::of(json!({ "id": object.id, "key": *secret, "key_transition_expires_at": end })))
}

/// Carries out what falls due until `end`. Every replica does; whoever comes second to a key finds it done.
pub async fn keep_rotating(control: Arc<Control>, end: CancellationToken) {
    let mut look = tokio::time::interval(LOOK);
    look.set_missed_tick_behavior(MissedTickBehavior::Delay);
    while end.run_until_cancelled(look.tick()).await.is_some() {
        rotate_due(&control, now()).await;
    }
}

/// Rotates what is due at `now` (milliseconds since 1970), each key in a transaction of its own: how many keys.
pub async fn rotate_due(control: &Control, now: i64) -> usize {
    let due = match control.store.due(Kind::ApiKey, now, MAX_AT_ONCE).await {
        Ok(due) => due,
        Err(error) => {
            warn!(%error, "The schedule of rotations cannot be read.");
            return 0;
        }
    };
    let mut rotated = 0;
    for (organisation, id) in due {
        match rotate_one(control, &organisation, &id, now).await {
            Ok(done) => rotated += usize::from(done),
            Err(error) => warn!(api_key = id, error = ?error, "An API key could not be rotated."),
        }
    }
    rotated
}

async fn rotate_one(control: &Control, organisation: &str, id: &str, now: i64) -> Result<bool, Refusal> {
    let mut write = control.store.write(organisation, ACTOR).await?;
    let Some(mut object) = write.get(Kind::ApiKey, id).await? else { return Ok(false) };
    let mut body: Body = object.read()?;
    let Some(policy) = body.rotation_policy.clone() else { return Ok(false) };
    if body.due_at().is_none_or(|due| due > now) {
        return Ok(false);
    }
    let before = write.hashes_of(&object).await?;
    let secret = key::generate()?;
    let place = Place { organisation, object_id: id, field: FIELD };
    let sealed = control.sealer.seal_text(place, &secret).map_err(Refusal::invalid)?;
    let new = sealed.is_some().then(|| (secret.as_str(), control.hasher().hash(&secret, 0)));
    let hashes = body.turn(before, new, now, policy.key_transition_period_ms);
    body.sealed_key = sealed;
    save(&mut write, &mut object, &body, &hashes).await?;
    let is_sealed = body.sealed_key.is_some();
    write.commit(Change::of(Action::Rotated, &object, Vec::new())).await?;
    let end = instant(body.transition_ends_at);
    match is_sealed {
        true => info!(api_key = id, old_ends_at = end, "An API key was rotated; its new secret is sealed."),
        false => warn!(
            api_key = id,
            old_ends_at = end,
            "An API key ends: its rotation was due, and there is nobody to seal a new secret to. Rotate it by the API."
        ),
    }
    Ok(true)
}

async fn save(write: &mut Write, object: &mut Object, body: &Body, hashes: &[Hash]) -> Result<(), Refusal> {
    object.write(body)?;
    write.update(object).await?;
    write.set_hashes(object, hashes).await?;
    write.set_due(object, body.due_at()).await?;
    Ok(())
}

/// `key_transition_period_ms`, shorter than `period`.
fn transition(fields: &mut Fields<'_>, period: Option<Period>) -> Option<i64> {
    const KEY: &str = "key_transition_period_ms";
    let given = fields.typed::<i64>(KEY, "must be a whole number of milliseconds").value()?;
    // Without a period there is none to stay below; the longest one keeps a secret from being good for ever.
    let below = period.unwrap_or(Period::Monthly).shortest_ms();
    if !(LEAST_TRANSITION_MS..below).contains(&given) {
        fields
            .fault(KEY, format_args!("must be {LEAST_TRANSITION_MS} at least and below {below}, the rotation period"));
    }
    Some(given)
}

/// Those of `hashes` that are good at `now`.
fn live(hashes: Vec<Hash>, now: i64) -> impl Iterator<Item = Hash> {
    hashes.into_iter().filter(move |hash| hash.expires_at == 0 || hash.expires_at > now)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn periods_begin_at_midnight_of_mondays_and_firsts() {
        // (period, now, next)
        let cases = [
            (Period::Weekly, "2026-11-25T14:00:00Z", "2026-11-30T00:00:00.000Z"),
            (Period::Weekly, "2026-11-29T23:59:59.999Z", "2026-11-30T00:00:00.000Z"),
            (Period::Weekly, "2026-11-30T00:00:00Z", "2026-12-07T00:00:00.000Z"),
            (Period::Weekly, "2026-12-29T12:00:00Z", "2027-01-04T00:00:00.000Z"),
            (Period::Monthly, "2026-11-25T14:00:00Z", "2026-12-01T00:00:00.000Z"),
            (Period::Monthly, "2026-12-01T00:00:00Z", "2027-01-01T00:00:00.000Z"),
            (Period::Monthly, "2028-01-31T23:00:00Z", "2028-02-01T00:00:00.000Z"),
        ];
        for (period, now, next) in cases {
            assert_eq!(instant(period.next(millis(now).unwrap())), next, "{period:?} {now}");
        }
    }

    #[test]
    fn a_policy_goes_on_by_its_period_and_ends_with_its_day() {
        let now = millis("2026-11-30T00:00:01Z").unwrap();
        let policy = |period, next: &str| Policy {
            rotation_period: period,
            next_rotation_at: Some(next.to_owned()),
            key_transition_period_ms: LEAST_TRANSITION_MS,
        };
        let cases = [
            (policy(Some(Period::Weekly), "2026-11-30T00:00:00.000Z"), Some("2026-12-07T00:00:00.000Z")),
            // Rotated by hand before its time: the next is the one after.
            (policy(Some(Period::Monthly), "2027-05-01T00:00:00.000Z"), Some("2026-12-01T00:00:00.000Z")),
            (policy(None, "2026-11-30T00:00:00Z"), None),
            (policy(None, "2026-12-24T00:00:00Z"), Some("2026-12-24T00:00:00Z")),
        ];
        for (policy, next) in cases {
            let shown = format!("{policy:?}");
            let after = policy.after(now).and_then(|policy| policy.next_rotation_at);
            assert_eq!(after.as_deref(), next, "{shown}");
        }
    }

    #[test]
    fn a_key_is_due_after_its_transition_and_not_after_its_end() {
        // (next, transition ends, expires, due)
        let cases = [
            (Some("2026-12-01T00:00:00Z"), None, None, Some("2026-12-01T00:00:00.000Z")),
            (Some("2026-12-01T00:00:00Z"), Some("2026-12-01T00:10:00Z"), None, Some("2026-12-01T00:10:00.000Z")),
            (Some("2026-12-01T00:00:00Z"), Some("2026-11-01T00:10:00Z"), None, Some("2026-12-01T00:00:00.000Z")),
            (Some("2026-12-01T00:00:00Z"), None, Some("2026-12-01T00:00:00Z"), None),
            (Some("2026-12-01T00:00:00Z"), None, Some("2026-12-02T00:00:00Z"), Some("2026-12-01T00:00:00.000Z")),
            (None, None, None, None),
        ];
        for (next, transition, expires_at, due) in cases {
            let policy = next.map(|next| Policy {
                rotation_period: None,
                next_rotation_at: Some(next.to_owned()),
                key_transition_period_ms: LEAST_TRANSITION_MS,
            });
            let body = Body {
                rotation_policy: policy,
                transition_ends_at: transition.and_then(millis).unwrap_or_default(),
                expires_at: expires_at.map(str::to_owned),
                ..Body::default()
            };
            assert_eq!(body.due_at().map(instant).as_deref(), due, "{body:?}");
        }
    }
}
