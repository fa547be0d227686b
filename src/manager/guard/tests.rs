//! Guarded managers on a paused clock: what is sent, what is answered at once, and with which class.

use tokio::time::advance;

use super::*;
use crate::{
    manager::fake::{Answer, Fake},
    model::VersionSelector,
};

const BOUNDS: Settings = Settings {
    attempt_timeout: Duration::from_secs(3),
    fetch_deadline: Duration::from_secs(8),
    login_deadline: Duration::from_secs(90),
    max_in_flight: 32,
    budgets: Budgets::USUAL,
};

/// A guarded fake, what it counts, and the fake itself.
struct Stage {
    guarded: Guarded,
    metrics: Arc<Metrics>,
    fake: Fake,
}

impl Stage {
    fn of(manager: ManagerType, answers: impl IntoIterator<Item = Answer>) -> Self {
        Self::within(&BOUNDS, manager, answers)
    }

    fn within(bounds: &Settings, manager: ManagerType, answers: impl IntoIterator<Item = Answer>) -> Self {
        let (fake, metrics) = (Fake::new(), Arc::new(Metrics::new()));
        fake.script("a", answers);
        let inner = Arc::new(fake.clone());
        let guarded = Guarded::new(inner, manager, bounds, &Arc::default(), Arc::clone(&metrics));
        Self { guarded, metrics, fake }
    }

    /// `ok`, or class and code.
    async fn fetch(&self) -> String {
        match self.guarded.fetch(&location("a"), None).await {
            Ok(_) => "ok".to_owned(),
            Err(error) => format!("{} {}", error.class.as_str(), error.code.as_deref().unwrap_or_default()),
        }
    }

    fn counted(&self, line: &str) -> bool {
        self.metrics.encode().lines().any(|counted| counted == line)
    }
}

fn location(path: &str) -> SecretLocation {
    SecretLocation { path: path.into(), version: VersionSelector::Current }
}

#[tokio::test(start_paused = true)]
async fn a_manager_that_fails_is_left_alone_and_asked_again_by_one() {
    let stage = Stage::of(ManagerType::HashicorpVault, [Answer::fail(FailureClass::Unavailable)]);
    for _ in 0..5 {
        assert_eq!(stage.fetch().await, "unavailable scripted");
    }
    for _ in 0..100 {
        assert_eq!(stage.fetch().await, "unavailable breaker_open");
    }
    assert_eq!(stage.fake.calls("a"), 5);
    assert!(stage.counted(r#"sidekey_breakers_open{manager="hashicorp_vault"} 1"#), "{}", stage.metrics.encode());
    let withheld = r#"sidekey_fetches_withheld_total{manager="hashicorp_vault",reason="breaker_open"} 100"#;
    assert!(stage.counted(withheld), "{}", stage.metrics.encode());

    // A hundred come at once when it may be asked again: one goes.
    stage.fake.script("a", [Answer::text("sk").after(Duration::from_millis(100))]);
    advance(Duration::from_millis(500)).await;
    let answers = futures_util::future::join_all((0..100).map(|_| stage.fetch())).await;
    assert_eq!(answers.iter().filter(|answer| *answer == "ok").count(), 1, "{answers:?}");
    assert_eq!(stage.fake.calls("a"), 6);
    assert_eq!(stage.fetch().await, "ok");
    assert!(stage.counted(r#"sidekey_breakers_open{manager="hashicorp_vault"} 0"#), "{}", stage.metrics.encode());
}

#[tokio::test(start_paused = true)]
async fn a_no_is_a_sign_of_life() {
    for class in [FailureClass::Gone, FailureClass::Denied, FailureClass::Malformed, FailureClass::Unauthenticated] {
        let stage = Stage::of(ManagerType::HashicorpVault, [Answer::fail(class)]);
        for _ in 0..20 {
            stage.fetch().await;
        }
        assert_eq!(stage.fake.calls("a"), 20, "{class:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_probe_that_is_given_up_leaves_the_way_free() {
    let stage = Stage::of(ManagerType::HashicorpVault, [Answer::fail(FailureClass::Timeout)]);
    for _ in 0..5 {
        stage.fetch().await;
    }
    advance(Duration::from_millis(500)).await;
    stage.fake.script("a", [Answer::hang(), Answer::text("sk")]);
    let probe = tokio::time::timeout(Duration::from_millis(10), stage.fetch()).await;
    assert!(probe.is_err(), "it hangs");
    assert_eq!(stage.fetch().await, "ok");
}

#[tokio::test(start_paused = true)]
async fn a_manager_that_asks_for_a_pause_has_it() {
    let throttled = Answer::fail(FailureClass::Throttled).retry_after(Duration::from_secs(20));
    let stage = Stage::of(ManagerType::AwsSm, [throttled, Answer::text("sk")]);
    assert_eq!(stage.fetch().await, "throttled scripted");
    advance(Duration::from_secs(19)).await;
    let error = stage.guarded.fetch(&location("another"), None).await.unwrap_err();
    assert_eq!((error.class, error.code.as_deref()), (FailureClass::Throttled, Some("cool_down")));
    assert!(error.retry_after.is_some_and(|wait| (1..=6).contains(&wait.as_secs())), "{error:?}");
    advance(Duration::from_secs(6)).await;
    assert_eq!(stage.fetch().await, "ok");
}

/// A manager that is slow and asked for much at once is not taken for one that is down.
#[tokio::test(start_paused = true)]
async fn a_long_queue_is_no_sign_of_death() {
    let slow = Answer::text("sk").after(Duration::from_secs(6));
    let bounds = Settings { max_in_flight: 1, ..BOUNDS };
    let stage = Stage::within(&bounds, ManagerType::HashicorpVault, [slow]);
    let answers = futures_util::future::join_all((0..20).map(|_| stage.fetch())).await;
    assert_eq!(answers.iter().filter(|answer| *answer == "ok").count(), 1, "{answers:?}");
    assert_eq!(answers.iter().filter(|answer| *answer == "timeout deadline").count(), 19, "{answers:?}");
    assert_eq!(stage.fetch().await, "ok", "the breaker is closed");
}

#[tokio::test(start_paused = true)]
async fn an_empty_budget_is_told_at_once_and_fills_up() {
    let stage = Stage::of(ManagerType::AzureKv, [Answer::text("sk")]);
    let mut read = 0;
    while stage.fetch().await == "ok" {
        read += 1;
    }
    assert_eq!(read, 400, "the burst");
    assert_eq!(stage.fetch().await, "throttled budget_empty");
    advance(Duration::from_secs(1)).await;
    let mut again = 0;
    while stage.fetch().await == "ok" {
        again += 1;
    }
    assert_eq!(again, 50, "fifty a second");
    let budgets = Budgets { azure_kv: Budget { per_second: 2.0, burst: 7.0 }, ..Budgets::USUAL };
    let smaller = Stage::within(&Settings { budgets, ..BOUNDS }, ManagerType::AzureKv, [Answer::text("sk")]);
    for (seconds, want) in [(0, 7), (1, 2), (60, 7)] {
        advance(Duration::from_secs(seconds)).await;
        for _ in 0..want {
            assert_eq!(smaller.fetch().await, "ok");
        }
        assert_eq!(smaller.fetch().await, "throttled budget_empty", "as configured");
    }
    let files = Stage::of(ManagerType::File, [Answer::text("sk")]);
    for _ in 0..5000 {
        assert_eq!(files.fetch().await, "ok", "files have no quota");
    }
}

/// Two identities of one account.
#[derive(Debug)]
struct OfAccount(Fake, &'static str);

#[async_trait]
impl SecretManager for OfAccount {
    async fn fetch(&self, location: &SecretLocation, known: Option<&Version>) -> Result<Fetched, FetchError> {
        self.0.fetch(location, known).await
    }

    fn identity(&self) -> Arc<str> {
        self.0.identity()
    }

    fn budget(&self) -> Option<BudgetKey> {
        Some(BudgetKey(self.1.into()))
    }
}

#[tokio::test(start_paused = true)]
async fn identities_of_one_account_share_its_budget() {
    let (fake, purses) = (Fake::new(), Arc::default());
    fake.script("a", [Answer::text("sk")]);
    let identity = |account| {
        let inner = Arc::new(OfAccount(fake.clone(), account));
        Guarded::new(inner, ManagerType::AzureKv, &BOUNDS, &purses, Arc::new(Metrics::new()))
    };
    let (one, two, other) = (identity("1/eu"), identity("1/eu"), identity("2/eu"));
    let read = async |guarded: &Guarded| guarded.fetch(&location("a"), None).await.is_ok();
    for _ in 0..200 {
        assert!(read(&one).await && read(&two).await);
    }
    assert!(!read(&one).await && !read(&two).await);
    assert!(read(&other).await, "another account");
}
