//! Limits by table, on a wall clock that the test moves.

use time::format_description::well_known::Rfc3339;

use super::*;
use crate::model::{AccountKind, RateLimit, UsageLimit};

fn at(text: &str) -> OffsetDateTime {
    OffsetDateTime::parse(text, &Rfc3339).unwrap()
}

fn key(rate_limits: Vec<RateLimit>, usage_limits: Vec<UsageLimit>) -> Arc<Account> {
    Account::new(AccountKind::ApiKey, &"k".into(), false, rate_limits, usage_limits).unwrap()
}

async fn admit(limits: &Limits, key: &Arc<Account>, spends: bool, now: OffsetDateTime) -> Result<Quota, Denied> {
    limits.admit(std::slice::from_ref(key), 1, spends, now).await
}

fn limits() -> Limits {
    Limits::new(None, None, Arc::new(Metrics::new()))
}

#[tokio::test]
async fn each_unit_lets_in_as_many_as_it_says_and_starts_anew_at_its_edge() {
    use RateUnit::*;
    #[rustfmt::skip]
    let cases = [
        (Second, "2026-11-25T10:46:35Z", "2026-11-25T10:46:35.9Z", "2026-11-25T10:46:36Z", 1),
        (Minute, "2026-11-25T10:46:00Z", "2026-11-25T10:46:59Z", "2026-11-25T10:47:00Z", 1),
        (Hour, "2026-11-25T10:00:00Z", "2026-11-25T10:59:30Z", "2026-11-25T11:00:00Z", 30),
        (Day, "2026-12-31T00:00:00Z", "2026-12-31T23:59:59Z", "2027-01-01T00:00:00Z", 1),
        // The nights on which clocks in Europe are set back and forth.
        (Day, "2026-10-25T00:00:00Z", "2026-10-25T23:00:00Z", "2026-10-26T00:00:00Z", 3600),
        (Hour, "2027-03-28T01:00:00Z", "2027-03-28T01:59:59Z", "2027-03-28T02:00:00Z", 1),
        (Week, "2026-12-27T00:00:00Z", "2027-01-02T23:59:00Z", "2027-01-03T00:00:00Z", 60),
    ];
    for (per, first, last, next, secs) in cases {
        let limits = limits();
        let key = key(vec![RateLimit { counts: Counted::Requests, per, value: 2 }], vec![]);
        for (moment, remaining) in [(first, 1), (last, 0)] {
            let quota = admit(&limits, &key, true, at(moment)).await.unwrap();
            assert_eq!(quota.requests.unwrap().remaining, remaining, "{per:?} {moment}");
        }
        let denied = admit(&limits, &key, true, at(last)).await.unwrap_err();
        let Denied::RateLimited { counts, per: unit, retry_after, quota, .. } = denied else { panic!("{denied:?}") };
        assert_eq!((counts, unit, retry_after.as_secs()), (Counted::Requests, per, secs), "{per:?}");
        assert_eq!(quota.requests, Some(Remaining { limit: 2, remaining: 0, reset_secs: secs }), "{per:?}");
        assert!(admit(&limits, &key, true, at(next)).await.is_ok(), "{per:?}");
    }
}

#[tokio::test]
async fn tokens_count_when_they_are_known() {
    let limits = limits();
    let key = key(vec![RateLimit { counts: Counted::Tokens, per: RateUnit::Minute, value: 100 }], vec![]);
    let (now, next) = (at("2026-11-25T10:46:10Z"), at("2026-11-25T10:47:00Z"));
    for (spent, remaining) in [(60, 100), (60, 40)] {
        let quota = admit(&limits, &key, true, now).await.unwrap();
        assert_eq!((quota.requests, quota.tokens.unwrap().remaining), (None, remaining));
        limits.settle(&key, Amounts { tokens: spent, ..Amounts::default() }, now);
    }
    let denied = admit(&limits, &key, true, now).await.unwrap_err();
    assert!(matches!(denied, Denied::RateLimited { counts: Counted::Tokens, .. }), "{denied:?}");
    assert_eq!(admit(&limits, &key, true, next).await.unwrap().tokens.unwrap().remaining, 100);
}

#[tokio::test]
async fn of_several_limits_the_slowest_says_when_to_come_back() {
    let limits = limits();
    let limit = |per, value| RateLimit { counts: Counted::Requests, per, value };
    let key = key(vec![limit(RateUnit::Second, 1), limit(RateUnit::Hour, 2), limit(RateUnit::Day, 9)], vec![]);
    assert!(admit(&limits, &key, true, at("2026-11-25T10:50:00Z")).await.is_ok());
    let denied = admit(&limits, &key, true, at("2026-11-25T10:50:00Z")).await.unwrap_err();
    assert!(matches!(denied, Denied::RateLimited { per: RateUnit::Second, .. }), "{denied:?}");
    assert!(admit(&limits, &key, true, at("2026-11-25T10:50:01Z")).await.is_ok());
    for moment in ["2026-11-25T10:50:01Z", "2026-11-25T10:50:02Z"] {
        let denied = admit(&limits, &key, true, at(moment)).await.unwrap_err();
        assert!(matches!(denied, Denied::RateLimited { per: RateUnit::Hour, .. }), "{denied:?}");
    }
}

#[tokio::test]
async fn a_limit_of_nothing_lets_nothing_in() {
    for counts in [Counted::Requests, Counted::Tokens] {
        let key = key(vec![RateLimit { counts, per: RateUnit::Day, value: 0 }], vec![]);
        assert!(admit(&limits(), &key, true, at("2026-11-25T10:50:00Z")).await.is_err(), "{counts:?}");
    }
}

#[tokio::test]
async fn a_budget_ends_at_its_limit_and_starts_anew_with_its_period() {
    let usage = |counts, reset, next: Option<&str>| UsageLimit {
        counts,
        limit: 100,
        alert_threshold: Some(80),
        reset,
        next_reset_at: next.map(at),
        reset_at: 0,
    };
    #[rustfmt::skip]
    let cases = [
        (usage(Spent::Cost, Reset::Monthly, None), "2026-12-31T23:59:59Z", "2027-01-01T00:00:00Z"),
        (usage(Spent::Tokens, Reset::Weekly, None), "2026-11-28T23:59:59Z", "2026-11-29T00:00:00Z"),
        (usage(Spent::Cost, Reset::Days(30), Some("2026-12-10T00:00:00Z")), "2027-01-08T23:59:59Z", "2027-01-09T00:00:00Z"),
        (usage(Spent::Tokens, Reset::Never, Some("2026-12-10T00:00:00Z")), "2026-12-09T23:59:59Z", "2026-12-10T00:00:00Z"),
    ];
    for (limit, last, next) in cases {
        let limits = limits();
        let key = key(vec![], vec![limit]);
        let amounts = match limit.counts {
            Spent::Cost => Amounts { requests: 0, tokens: 1, cost: 50 },
            Spent::Tokens => Amounts { requests: 0, tokens: 50, cost: 1 },
        };
        let alerts =
            || limits.metrics.usage_alerts.get_or_create(&CountedLabels { counts: limit.counts.as_str() }).get();
        for alerted in [0, 1] {
            assert!(admit(&limits, &key, true, at(last)).await.is_ok(), "{limit:?}");
            limits.settle(&key, amounts, at(last));
            assert_eq!(alerts(), alerted, "{limit:?}");
        }
        let denied = admit(&limits, &key, true, at(last)).await.unwrap_err();
        let Denied::BudgetExhausted { counts, over_at, .. } = denied else { panic!("{denied:?}") };
        assert_eq!((counts, over_at), (Some(limit.counts), Some(at(next))));
        // Reading files spends nothing.
        assert!(admit(&limits, &key, false, at(last)).await.is_ok(), "{limit:?}");
        assert!(admit(&limits, &key, true, at(next)).await.is_ok(), "{limit:?}");
        limits.settle(&key, amounts, at(next));
        assert_eq!(alerts(), 1, "once in a period: {limit:?}");
    }
}

#[tokio::test]
async fn a_budget_that_somebody_resets_starts_anew_and_its_rates_do_not() {
    let limits = limits();
    let now = at("2026-11-25T10:50:00Z");
    let at_reset = |reset_at| {
        let budget = UsageLimit {
            counts: Spent::Tokens,
            limit: 100,
            alert_threshold: None,
            reset: Reset::Monthly,
            next_reset_at: None,
            reset_at,
        };
        key(vec![RateLimit { counts: Counted::Tokens, per: RateUnit::Day, value: 250 }], vec![budget])
    };
    let (before, after) = (at_reset(0), at_reset(1_764_067_799_000));
    let spend = |key: &Arc<Account>| limits.settle(key, Amounts { requests: 0, tokens: 100, cost: 0 }, now);
    spend(&before);
    assert!(matches!(admit(&limits, &before, true, now).await, Err(Denied::BudgetExhausted { .. })));
    assert_eq!(admit(&limits, &after, true, now).await.unwrap().tokens.unwrap().remaining, 150);
    // What was asked before and is answered after counts for now.
    spend(&before);
    assert!(matches!(admit(&limits, &after, true, now).await, Err(Denied::BudgetExhausted { .. })));
}

#[tokio::test]
async fn a_key_that_the_control_plane_calls_exhausted_is_spent() {
    let key = Account::closed(AccountKind::ApiKey, &"k".into());
    let now = at("2026-11-25T10:50:00Z");
    let denied = admit(&limits(), &key, true, now).await.unwrap_err();
    assert!(matches!(denied, Denied::BudgetExhausted { counts: None, .. }), "{denied:?}");
    assert!(admit(&limits(), &key, false, now).await.is_ok());
}

#[tokio::test]
async fn every_account_of_a_request_has_to_have_room() {
    let limits = limits();
    let now = at("2026-11-25T10:50:00Z");
    let account = |kind, id: &str, value| {
        let limit = RateLimit { counts: Counted::Requests, per: RateUnit::Hour, value };
        Account::new(kind, &id.into(), false, vec![limit], vec![]).unwrap()
    };
    // One id for all of them: kinds are counted apart.
    let key = account(AccountKind::ApiKey, "x", 3);
    let (workspace, virtual_key) = (account(AccountKind::Workspace, "x", 9), account(AccountKind::VirtualKey, "x", 2));
    let all = [Arc::clone(&key), workspace, Arc::clone(&virtual_key)];
    for remaining in [1, 0] {
        assert_eq!(limits.admit(&all, 3, true, now).await.unwrap().requests.unwrap().remaining, remaining);
    }
    let denied = limits.admit(&all, 3, true, now).await.unwrap_err();
    assert!(matches!(&denied, Denied::RateLimited { account, .. } if **account == *virtual_key), "{denied:?}");
    // What was refused took nothing from the others.
    assert_eq!(admit(&limits, &key, true, now).await.unwrap().requests.unwrap().remaining, 0);
    // One that is counted later is held to its limit all the same.
    let later = [account(AccountKind::ApiKey, "y", 9), account(AccountKind::VirtualKey, "y", 1)];
    for _ in 0..2 {
        assert!(limits.admit(&later, 1, true, now).await.is_ok());
    }
    limits.settle(&later[1], Amounts { requests: 1, ..Amounts::default() }, now);
    assert!(limits.admit(&later, 1, true, now).await.is_err());
}
