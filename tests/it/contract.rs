//! The contract every secret manager keeps, as one table. A manager plugs in by arranging each row or saying why it has none.
//!
//! Rows judge what the caller sees: class, document, version, time. What stands on the wire is the manager's own test.

#[cfg(feature = "aws")]
mod aws_sm;
#[cfg(feature = "aws")]
mod aws_ssm;
#[cfg(feature = "azure")]
mod azure_kv;
mod fake;
mod file;
#[cfg(feature = "gcp")]
mod gcp_sm;
#[cfg(any(feature = "aws", feature = "gcp", feature = "vault"))]
mod listening;
#[cfg(feature = "vault")]
mod vault;

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use sidekey::{
    egress::Policy,
    manager::{
        Budgets, FailureClass, FetchError, Fetched, SecretManager, Settings,
        registry::{Ambient, AwsSettings, AzureSettings, FileSettings, GcpSettings, RegistrySettings, VaultSettings},
    },
    model::{AuthConfig, Identity, Lifespan, ManagerType, Reference, SecretLocation, VersionSelector, Workspaces},
};
use tokio::time::Instant;

/// What every subject stores, so that a leak is seen wherever it ends up.
pub const CANARY: &str = "sk-canary-5f1d";

/// Bounds short enough for a test to wait for them.
pub const BOUNDS: Settings = Settings {
    attempt_timeout: Duration::from_millis(400),
    fetch_deadline: Duration::from_secs(2),
    login_deadline: Duration::from_secs(5),
    max_in_flight: 8,
    budgets: Budgets::USUAL,
};

/// A row: what the world is like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Case {
    /// The secret is there.
    Found,
    /// It is there and lacks the key somebody will pick: the manager returns the document all the same.
    MissingKey,
    /// It is not there.
    Gone,
    /// The identity may not read it.
    Denied,
    /// The login in use has ended; a new one would work.
    ExpiredLogin,
    /// Too many requests, come back in 30 seconds.
    Throttled,
    /// Nobody answers at the address.
    Down,
    /// The answer takes for ever.
    Slow,
    /// The answer is no answer.
    Malformed,
    /// A certain, older version is wanted.
    PinnedVersion,
    /// Such a version never was.
    AbsentVersion,
    /// A version that this manager cannot have.
    WrongVersion,
}

/// What a row has to come to.
#[derive(Clone, Copy, Debug)]
enum Outcome {
    Document,
    Failure(FailureClass),
}

const TABLE: [(Case, Outcome); 12] = [
    (Case::Found, Outcome::Document),
    (Case::MissingKey, Outcome::Document),
    (Case::Gone, Outcome::Failure(FailureClass::Gone)),
    (Case::Denied, Outcome::Failure(FailureClass::Denied)),
    (Case::ExpiredLogin, Outcome::Document),
    (Case::Throttled, Outcome::Failure(FailureClass::Throttled)),
    (Case::Down, Outcome::Failure(FailureClass::Unavailable)),
    (Case::Slow, Outcome::Failure(FailureClass::Timeout)),
    (Case::Malformed, Outcome::Failure(FailureClass::Malformed)),
    (Case::PinnedVersion, Outcome::Document),
    (Case::AbsentVersion, Outcome::Failure(FailureClass::Gone)),
    (Case::WrongVersion, Outcome::Failure(FailureClass::Misconfigured)),
];

/// A manager under test.
#[async_trait]
pub trait Subject: Send + Sync {
    /// Makes the world of `case`, or says why this manager has no such case.
    async fn arrange(&self, case: Case) -> Result<Arranged, &'static str>;
}

/// A world to fetch in.
pub struct Arranged {
    /// The manager object, not yet used unless the case needs it.
    pub manager: Arc<dyn SecretManager>,
    /// What to fetch.
    pub location: SecretLocation,
    /// The document that is there, where one is.
    pub document: String,
    /// Its version, where the manager has versions.
    pub version: Option<&'static str>,
    /// What must live as long as the fetches.
    pub _world: Box<dyn std::any::Any + Send + Sync>,
}

/// Runs the whole table against `subject`; `absent` are the cases it says it has not.
#[allow(clippy::print_stdout, reason = "a case that does not apply is said aloud")]
async fn keeps_the_contract(subject: &dyn Subject, absent: &[Case]) {
    for (case, expected) in TABLE {
        let arranged = match subject.arrange(case).await {
            Ok(arranged) => arranged,
            Err(reason) => {
                assert!(absent.contains(&case), "{case:?} is missing: {reason}");
                println!("{case:?} does not apply: {reason}");
                continue;
            }
        };
        assert!(!absent.contains(&case), "{case:?} applies after all");

        let before = Instant::now();
        let outcome = arranged.manager.fetch(&arranged.location, None).await;
        let elapsed = before.elapsed();
        judge(case, expected, outcome, &arranged);
        let slack = Duration::from_secs(1);
        assert!(elapsed < BOUNDS.fetch_deadline + slack, "{case:?} took {elapsed:?}");

        // Who leaves in the middle leaves the object as it was.
        let left = tokio::time::timeout(Duration::ZERO, arranged.manager.fetch(&arranged.location, None)).await;
        drop(left);
        judge(case, expected, arranged.manager.fetch(&arranged.location, None).await, &arranged);
    }
}

fn judge(case: Case, expected: Outcome, outcome: Result<Fetched, FetchError>, arranged: &Arranged) {
    match (expected, outcome) {
        (Outcome::Document, Ok(Fetched::Document { value, version, .. })) => {
            assert_eq!(value.expose_str(), Some(arranged.document.as_str()), "{case:?}");
            if let Some(expected) = arranged.version {
                assert_eq!(version.map(|version| version.0.to_string()).as_deref(), Some(expected), "{case:?}");
            }
        }
        (Outcome::Failure(class), Err(error)) => {
            assert_eq!(error.class, class, "{case:?}: {error:?}");
            let told = format!("{error} {error:?}");
            assert!(!told.contains(CANARY), "{case:?} tells what the manager said: {told}");
            if class == FailureClass::Throttled {
                // What the manager said, or what is left of the cool-down, which is spread by a quarter.
                let wait = error.retry_after.unwrap_or_default();
                let told = Duration::from_secs(29)..=Duration::from_millis(37_500);
                assert!(told.contains(&wait), "{case:?}: {wait:?}");
            }
        }
        (expected, outcome) => panic!("{case:?} should have been {expected:?} and was {outcome:?}"),
    }
}

/// A reference as linking would make it.
pub fn reference(slug: &str, manager_type: ManagerType, auth: AuthConfig, location: SecretLocation) -> Reference {
    let mut identity = [0; 32];
    for (byte, into) in slug.bytes().zip(&mut identity) {
        *into = byte;
    }
    Reference {
        id: slug.into(),
        slug: slug.into(),
        manager_type,
        auth: auth.into(),
        identity: Identity(identity),
        location,
        secret_key: None,
        ttl: None,
        lifespan: Lifespan { active: true, expires_at: None },
        workspaces: Workspaces::All,
        allowed_providers: Box::new([]),
        allowed_hosts: Box::new([]),
    }
}

/// The current version at `path`.
pub fn at(path: &str) -> SecretLocation {
    SecretLocation { path: path.into(), version: VersionSelector::Current }
}

/// Settings with which nothing but `policy` is opened and no file is read.
pub fn settings(policy: Policy) -> RegistrySettings {
    RegistrySettings {
        bounds: BOUNDS,
        aws: AwsSettings::default(),
        azure: AzureSettings::default(),
        gcp: GcpSettings::default(),
        vault: VaultSettings {
            ca_file: None,
            kubernetes_jwt_file: "/nowhere".into(),
            approle_mount: "approle".to_owned(),
            kubernetes_mount: "kubernetes".to_owned(),
            kubernetes_allow_addrs: Vec::new(),
            ambient: Ambient::default(),
        },
        file: FileSettings::default(),
        policy,
        extra_ca_files: Vec::new(),
    }
}
