//! `POST /usage`: what a data plane has counted, and what of it is shown.
//!
//! A report says which process made it and which of its reports it is, so that one that is sent again is counted once. It is
//! about accounts of the data plane's organisation; what it says of others, or of what has been removed, is passed over, and so
//! is what was counted before a reset that the data plane did not know of. Ours: Portkey has no such path.

use std::sync::Arc;

use axum::extract::State;
use http::HeaderMap;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{
    Answer, Control, Refusal,
    access::bearer,
    answer::instant,
    api_key,
    data_plane::admit,
    fields::{Body as Posted, Length},
    limits::UsageLimit,
    store::{Kind, Object, StoreError, Tenant, Used, now},
    virtual_key, workspace,
};
use crate::model::{NANODOLLARS, Window};

/// In answers.
const OBJECT: &str = "usage-report";
/// Rows of one report.
const MAX_ROWS: usize = 1000;
/// Largest number in one.
const MAX_AMOUNT: i64 = 1_000_000_000_000_000_000;
const DAY_MS: i64 = 24 * 3600 * 1000;

/// What one account has used on one day.
#[derive(Debug, Deserialize)]
struct Row {
    kind: AccountKind,
    id: String,
    /// Since 1970.
    day: i64,
    /// The reset that was known, in milliseconds since 1970; 0 = none.
    reset_at: i64,
    requests: i64,
    tokens: i64,
    cost_nanodollars: i64,
}

/// Whose limits are counted.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
enum AccountKind {
    ApiKey,
    VirtualKey,
    Workspace,
}

/// How far an object is with its limits.
#[derive(Debug, Default)]
pub struct Standing {
    /// Whether one of its budgets is spent.
    pub exhausted: bool,
    /// `usage`: a row for each budget; `None` = it has none.
    pub shown: Option<Value>,
}

/// `POST /usage`.
///
/// # Errors
/// 401 for an unknown token, 400 for a report that cannot be read.
pub async fn report(
    State(control): State<Arc<Control>>,
    headers: HeaderMap,
    posted: Posted,
) -> Result<Answer, Refusal> {
    let token = bearer(&headers).ok_or_else(Refusal::unauthorised)?;
    let grant = admit(&control, token).await?.ok_or_else(Refusal::unauthorised)?;
    let mut fields = posted.fields()?;
    let reporter = fields.text("reporter", Length(1, 64));
    let reporter = fields.require("reporter", reporter).unwrap_or_default();
    let sequence = fields.typed::<i64>("sequence", "must be a whole number");
    let sequence = fields.require("sequence", sequence).unwrap_or_default();
    let rows = fields.typed::<Vec<Row>>("usage", "must be a list of what accounts have used");
    let rows = fields.require("usage", rows).unwrap_or_default();
    if rows.len() > MAX_ROWS {
        fields.fault("usage", format_args!("must have {MAX_ROWS} rows at most"));
    }
    if !rows.iter().all(|row| row.is_possible(now() / DAY_MS)) {
        fields.fault("usage", "must have days that have begun, and amounts from 0 on");
    }
    fields.finish()?;
    let Some(mut tally) = control.store().tally(grant.organisation(), &reporter, sequence).await? else {
        return Ok(Answer::of(json!({ "object": OBJECT, "counted": false })));
    };
    for row in &rows {
        let Some(object) = tally.get(row.kind.kind(), &row.id).await? else { continue };
        if reset_at(&object)? == row.reset_at {
            let used = Used { requests: row.requests, tokens: row.tokens, cost: row.cost_nanodollars };
            tally.add(&object, row.day, used).await?;
        }
    }
    tally.commit().await?;
    Ok(Answer::of(json!({ "object": OBJECT, "counted": true })))
}

/// How far `object`, which has these limits, is with them.
///
/// # Errors
/// 500.
pub async fn standing(tenant: &mut Tenant, object: &Object, limits: &[UsageLimit]) -> Result<Standing, Refusal> {
    if limits.is_empty() {
        return Ok(Standing::default());
    }
    let days = tenant.usage(object).await?;
    let mut standing = Standing::default();
    let rows = limits.iter().map(|limit| {
        let rule = limit.rule();
        let period = Window::of_usage(&rule, now().div_euclid(1000));
        let begins = period.start.div_euclid(DAY_MS / 1000);
        let within = days.iter().filter(|(day, _)| *day >= begins);
        let used = within.fold(Used::default(), |sum, (_, used)| sum.and(*used));
        let (amount, shown) = match limit.counts.as_str() {
            "tokens" => (used.tokens, json!(used.tokens)),
            _ => (used.cost, json!(dollars(used.cost))),
        };
        standing.exhausted |= u64::try_from(amount).is_ok_and(|amount| amount >= rule.limit);
        let end = period.over_at().map(|end| instant(end.unix_timestamp() * 1000));
        json!({ "type": limit.counts, "used": shown, "requests": used.requests, "resets_at": end })
    });
    let rows: Vec<Value> = rows.collect();
    standing.shown = Some(rows.into());
    Ok(standing)
}

// === impl Row ===

impl Row {
    fn is_possible(&self, today: i64) -> bool {
        // A clock may be ahead.
        let amounts = [self.requests, self.tokens, self.cost_nanodollars];
        (1..=today + 1).contains(&self.day) && amounts.iter().all(|amount| (0..=MAX_AMOUNT).contains(amount))
    }
}

// === impl AccountKind ===

impl AccountKind {
    const fn kind(self) -> Kind {
        match self {
            Self::ApiKey => Kind::ApiKey,
            Self::VirtualKey => Kind::VirtualKey,
            Self::Workspace => Kind::Workspace,
        }
    }
}

/// When somebody last had the use of `object` start anew.
fn reset_at(object: &Object) -> Result<i64, StoreError> {
    match object.kind {
        Kind::ApiKey => Ok(object.read::<api_key::Body>()?.usage_reset_at),
        Kind::VirtualKey => Ok(object.read::<virtual_key::Body>()?.usage_reset_at.unwrap_or_default()),
        Kind::Workspace => Ok(object.read::<workspace::Body>()?.usage_reset_at.unwrap_or_default()),
        Kind::SecretReference | Kind::Integration | Kind::Config | Kind::DataPlane => Ok(0),
    }
}

#[expect(clippy::cast_precision_loss, reason = "for people")]
fn dollars(nanodollars: i64) -> f64 {
    nanodollars as f64 / NANODOLLARS as f64
}
