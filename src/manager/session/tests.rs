//! Logins and renewals on a paused clock, against an authority that does what the test says.

use std::{collections::VecDeque, future::pending};

use tokio::sync::Notify;

use super::*;

const MINUTE: Duration = Duration::from_secs(60);

/// Records what it is asked and when, and answers from lists.
#[derive(Debug)]
struct Scripted {
    started: Instant,
    calls: Mutex<Vec<(&'static str, u64)>>,
    logins: Mutex<VecDeque<Step>>,
    renewals: Mutex<VecDeque<Result<u64, FailureClass>>>,
    gate: Notify,
    fixed: bool,
}

#[derive(Clone, Copy, Debug)]
enum Step {
    /// A token with a lease of so many seconds, renewable.
    Grant(u64),
    /// The same, not renewable.
    Once(u64),
    /// The manager says no.
    Refuse,
    /// Anything else goes wrong.
    Fail(FailureClass),
    /// Waits until the test opens the gate, then grants.
    Gated(u64),
    /// Never answers.
    Hang,
}

impl Scripted {
    fn new(logins: &[Step], renewals: &[Result<u64, FailureClass>]) -> Arc<Self> {
        Arc::new(Self {
            started: Instant::now(),
            calls: Mutex::default(),
            logins: Mutex::new(logins.iter().copied().collect()),
            renewals: Mutex::new(renewals.iter().copied().collect()),
            gate: Notify::new(),
            fixed: false,
        })
    }

    fn session(self: &Arc<Self>) -> Session {
        Session::new(Arc::clone(self) as _, "test".into(), MINUTE * 3 / 2, Box::new(|_| {}))
    }

    fn note(&self, call: &'static str) {
        self.calls.lock().unwrap().push((call, self.started.elapsed().as_secs()));
    }

    fn calls(&self) -> Vec<(&'static str, u64)> {
        self.calls.lock().unwrap().clone()
    }
}

#[async_trait]
impl Authority for Scripted {
    async fn log_in(&self) -> Result<Grant, LoginError> {
        self.note("login");
        let step = self.logins.lock().unwrap().pop_front().expect("a login nobody expects");
        let number = self.calls().len();
        let grant = |lease| Ok(Grant { token: format!("token-{number}\n").into(), lease });
        match step {
            Step::Grant(secs) => grant(if self.fixed { Lease::Unknown } else { Lease::of_seconds(secs, true) }),
            Step::Once(secs) => grant(Lease::of_seconds(secs, false)),
            Step::Refuse => Err(LoginError::refusal(FetchError::new(FailureClass::Unauthenticated).with_code("403"))),
            Step::Fail(class) => Err(LoginError::accident(FetchError::new(class))),
            Step::Gated(secs) => {
                self.gate.notified().await;
                grant(Lease::of_seconds(secs, true))
            }
            Step::Hang => pending().await,
        }
    }

    async fn renew(&self, _: &Token) -> Result<Lease, FetchError> {
        self.note("renew");
        let step = self.renewals.lock().unwrap().pop_front().expect("a renewal nobody expects");
        step.map(|secs| Lease::of_seconds(secs, true)).map_err(FetchError::new)
    }

    async fn look_up(&self, _: &Token) -> Result<Lease, FetchError> {
        self.note("look_up");
        Ok(Lease::of_seconds(60, true))
    }

    fn renews_identity(&self) -> bool {
        !self.fixed
    }

    fn patience(&self, strikes: u32) -> Duration {
        MINUTE * strikes
    }
}

async fn at(second: u64, authority: &Scripted) {
    tokio::time::sleep_until(authority.started + Duration::from_secs(second)).await;
}

#[tokio::test(start_paused = true)]
async fn everyone_waits_for_one_login_and_it_survives_them() {
    let authority = Scripted::new(&[Step::Gated(3600)], &[]);
    let session = Arc::new(authority.session());
    let wait = || {
        let session = Arc::clone(&session);
        tokio::spawn(async move { session.token().await.unwrap() })
    };
    let (first, second, third) = (wait(), wait(), wait());
    tokio::task::yield_now().await;
    first.abort();
    assert!(first.await.unwrap_err().is_cancelled());
    authority.gate.notify_one();
    let (second, third) = (second.await.unwrap(), third.await.unwrap());
    assert!(Arc::ptr_eq(&second, &third));
    assert_eq!(second.header(), "token-1");
    assert!(second.header().is_sensitive());
    assert_eq!(authority.calls(), [("login", 0)]);
}

#[tokio::test(start_paused = true)]
async fn a_lease_is_renewed_at_two_thirds_and_ends_at_its_maximum() {
    // 60 s leases; the third renewal is cut short, which announces the maximum: log in while the token still lives.
    let authority = Scripted::new(&[Step::Grant(60), Step::Grant(60)], &[Ok(60), Ok(60), Ok(20), Ok(60)]);
    let session = authority.session();
    let first = session.token().await.unwrap();
    at(119, &authority).await;
    assert!(Arc::ptr_eq(&first, &session.token().await.unwrap()), "a renewed token is the same token");
    at(165, &authority).await;
    assert_eq!(
        authority.calls(),
        [("login", 0), ("renew", 40), ("renew", 80), ("renew", 120), ("login", 120), ("renew", 160)]
    );
    assert!(!Arc::ptr_eq(&first, &session.token().await.unwrap()));
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_renewed_is_replaced_before_it_ends() {
    type Row<'a> = (Step, &'a [Result<u64, FailureClass>], &'a [(&'a str, u64)]);
    let rows: [Row<'_>; 3] = [
        // not renewable
        (Step::Once(90), &[], &[("login", 0), ("login", 60)]),
        // revoked meanwhile
        (Step::Grant(90), &[Err(FailureClass::Denied)], &[("login", 0), ("renew", 60), ("login", 60)]),
        // the server is away for a moment: the token in hand is good, the renewal is tried again
        (Step::Grant(90), &[Err(FailureClass::Unavailable), Ok(90)], &[("login", 0), ("renew", 60), ("renew", 67)]),
    ];
    for (step, renewals, calls) in rows {
        let authority = Scripted::new(&[step, Step::Grant(100_000)], renewals);
        let session = authority.session();
        session.token().await.unwrap();
        at(89, &authority).await;
        session.token().await.unwrap();
        let seen = authority.calls();
        assert_eq!(seen.len(), calls.len(), "{seen:?}");
        for ((call, at), (expected, second)) in seen.iter().zip(calls) {
            assert!(call == expected && at.abs_diff(*second) <= 1, "{seen:?} is not {calls:?}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_lease_that_ended_costs_a_login() {
    let outage = [Step::Fail(FailureClass::Unavailable); 12];
    let steps: Vec<_> = [Step::Once(30)].into_iter().chain(outage).chain([Step::Grant(3600)]).collect();
    let authority = Scripted::new(&steps, &[]);
    let session = authority.session();
    let first = session.token().await.unwrap();
    at(29, &authority).await;
    assert!(Arc::ptr_eq(&first, &session.token().await.unwrap()), "a failed login changes nothing before the end");
    at(300, &authority).await;
    let mut attempts = 0;
    let second = loop {
        attempts += 1;
        match session.token().await {
            Ok(token) => break token,
            Err(error) => assert_eq!(error.class, FailureClass::Unavailable),
        }
    };
    assert!(!Arc::ptr_eq(&first, &second));
    assert!(attempts <= 5);
}

#[tokio::test(start_paused = true)]
async fn a_refused_login_rests_longer_each_time() {
    let authority = Scripted::new(&[Step::Refuse, Step::Refuse, Step::Grant(3600), Step::Refuse], &[]);
    let session = authority.session();
    #[rustfmt::skip]
    let rows = [
        // at second, outcome, retry-after, logins so far
        (0, Err(FailureClass::Unauthenticated), Some(60), 1),
        (1, Err(FailureClass::Unauthenticated), Some(59), 1),
        (59, Err(FailureClass::Unauthenticated), Some(1), 1),
        (60, Err(FailureClass::Unauthenticated), Some(120), 2),
        (179, Err(FailureClass::Unauthenticated), Some(1), 2),
        (180, Ok(()), None, 3),
    ];
    for (second, expected, retry_after, logins) in rows {
        at(second, &authority).await;
        let outcome = session.token().await;
        let wait = outcome.as_ref().err().and_then(|error| error.retry_after).map(|wait| wait.as_secs());
        assert_eq!(outcome.map(drop).map_err(|error| error.class), expected, "at {second}");
        assert_eq!((wait, authority.calls().len()), (retry_after, logins), "at {second}");
    }
    let token = session.token().await.unwrap();
    let error = session.token_instead_of(&token).await.unwrap_err();
    assert_eq!(error.retry_after, Some(MINUTE), "a good login clears the count");
}

#[tokio::test(start_paused = true)]
async fn accidents_are_retried_shortly_and_not_held_against_the_identity() {
    let outage = Step::Fail(FailureClass::Unavailable);
    let authority =
        Scripted::new(&[outage, outage, Step::Grant(600), outage, outage, outage, outage, Step::Grant(600)], &[]);
    let session = authority.session();
    let token = session.token().await.unwrap();
    assert_eq!(authority.calls().len(), 3);
    // Three attempts, then an answer for who waits; the next one who asks tries at once.
    let error = session.token_instead_of(&token).await.unwrap_err();
    assert_eq!((error.class, authority.calls().len()), (FailureClass::Unavailable, 6));
    session.token_instead_of(&token).await.unwrap();
    assert_eq!(authority.calls().len(), 8);
}

#[tokio::test(start_paused = true)]
async fn a_login_has_a_deadline_of_its_own() {
    let authority = Scripted::new(&[Step::Hang, Step::Grant(60)], &[]);
    let session = authority.session();
    let fetch = tokio::time::timeout(Duration::from_secs(8), session.token()).await;
    assert!(fetch.is_err(), "who waits leaves at its own deadline");
    assert_eq!(session.token().await.unwrap_err().class, FailureClass::Timeout);
    assert_eq!(authority.started.elapsed(), MINUTE * 3 / 2);
    session.token().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn many_denied_fetches_share_one_new_login() {
    let authority = Scripted::new(&[Step::Grant(600), Step::Grant(600)], &[]);
    let session = authority.session();
    let dead = session.token().await.unwrap();
    let waits = (0..50).map(|_| session.token_instead_of(&dead));
    let tokens = futures_util::future::join_all(waits).await;
    assert!(tokens.iter().all(|token| !Arc::ptr_eq(token.as_ref().unwrap(), &dead)));
    assert_eq!(authority.calls().len(), 2);
    // Who noticed later gets the token that is there by now.
    assert!(Arc::ptr_eq(&session.token_instead_of(&dead).await.unwrap(), tokens[0].as_ref().unwrap()));
    assert_eq!(authority.calls().len(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_fixed_token_is_renewed_by_what_a_look_up_tells() {
    let authority = Scripted::new(&[Step::Grant(0)], &[Ok(60), Ok(60)]);
    let authority = Arc::new(Scripted { fixed: true, ..Arc::try_unwrap(authority).unwrap() });
    let session = authority.session();
    let token = session.token().await.unwrap();
    at(90, &authority).await;
    assert_eq!(authority.calls(), [("login", 0), ("look_up", 0), ("renew", 40), ("renew", 80)]);
    assert!(Arc::ptr_eq(&token, &session.token().await.unwrap()));
}

#[tokio::test(start_paused = true)]
async fn a_dropped_session_renews_nothing() {
    let authority = Scripted::new(&[Step::Grant(60)], &[]);
    let session = authority.session();
    session.token().await.unwrap();
    drop(session);
    at(600, &authority).await;
    assert_eq!(authority.calls(), [("login", 0)]);
    assert_eq!(Arc::strong_count(&authority), 1, "nothing holds on to it");
}

#[tokio::test(start_paused = true)]
async fn a_token_no_header_can_carry_is_malformed() {
    for token in ["", " \n", "a\nb", "a\u{7f}"] {
        assert!(Token::new(&token.to_owned().into()).is_none(), "{token:?}");
    }
}
