//! `aws_ssm`: the Parameter Store of AWS Systems Manager, by name or ARN, with a version or a label.
//!
//! An account may ask forty times a second, for everything that runs in it. So the fetches of one identity that come close
//! together travel as one call of up to ten names ([`batch`]), and the calls of one account and region stay under half of
//! that quota ([`budget`]). A call that fails for one name fails whole; then each is asked for alone, so that one name that is
//! denied does not deny the others.
//! Requests are signed by hand: the service's SDK is large, and this is one operation of a hundred and fifty.
//! Source: the API reference of Systems Manager.

use std::{
    fmt,
    hash::{BuildHasher, RandomState},
    sync::Arc,
    time::Duration,
};

use async_trait::async_trait;
use aws_credential_types::Credentials;
use futures_util::future::join_all;
use tokio::{sync::oneshot, time::sleep};

use self::{
    answer::Parameter,
    batch::{Batches, Waiting},
    budget::Budget,
    name::{Asked, ParameterName, Wanted},
    wire::{Request, Wire},
};
use super::{
    FailureClass, FetchError, Fetched, SecretManager, Version,
    aws::{Caller, Identities, Region},
    session::Verdict,
};
use crate::model::{AwsAuth, AwsMethod, SecretLocation};

mod answer;
mod batch;
mod budget;
mod name;
mod wire;

/// How long the first of a call waits for company. References of a snapshot are read in one go, which takes less.
const COLLECT: Duration = Duration::from_millis(5);

/// What every identity shares: connections and budgets.
#[derive(Debug)]
pub(super) struct Service {
    identities: Identities,
    wire: Wire,
    budget: Budget,
    /// Tells access keys apart.
    keys: RandomState,
}

/// One identity at the Parameter Store.
#[derive(Debug)]
pub(super) struct ParameterStore {
    inner: Arc<Inner>,
    region: Option<Arc<str>>,
}

struct Inner {
    service: Arc<Service>,
    caller: Caller,
    /// Whose quota the calls count against, as far as it is known.
    account: Arc<str>,
    batches: Batches,
}

// === impl Service ===

impl Service {
    pub(super) fn new(identities: Identities) -> Self {
        let (wire, budget) = (Wire::new(&identities), Budget::new(identities.bounds().fetch_deadline));
        Self { identities, wire, budget, keys: RandomState::new() }
    }

    /// Whether an `aws_ssm` reference of this shape can and may be used.
    ///
    /// # Errors
    /// A reason for people, naming the setting that would change it.
    pub(super) fn admit(&self, auth: &AwsAuth, location: Option<&SecretLocation>) -> Result<(), String> {
        let shape = location.map(ParameterName::parse).transpose().map_err(|error| error.to_string());
        let rest = self.identities.admit(auth, location.map(|location| &*location.path));
        let reasons: Vec<String> = [shape.err(), rest.err()].into_iter().flatten().collect();
        if reasons.is_empty() { Ok(()) } else { Err(reasons.join("; ")) }
    }
}

// === impl ParameterStore ===

impl ParameterStore {
    /// The manager object of one identity. Nothing is sent before the first fetch.
    ///
    /// # Errors
    /// [`FailureClass::Misconfigured`] with a reason.
    pub(super) fn new(auth: &AwsAuth, service: &Arc<Service>) -> Result<Self, FetchError> {
        let (caller, account) = (service.identities.caller(auth)?, account(&auth.method, &service.keys));
        let inner = Inner { service: Arc::clone(service), caller, account, batches: Batches::default() };
        Ok(Self { inner: Arc::new(inner), region: auth.region.clone() })
    }
}

#[async_trait]
impl SecretManager for ParameterStore {
    async fn fetch(&self, location: &SecretLocation, _: Option<&Version>) -> Result<Fetched, FetchError> {
        let misfit =
            |reason: String| FetchError::new(FailureClass::Misconfigured).with_code("path").with_source(reason);
        let (name, wanted) = ParameterName::parse(location).map_err(|error| misfit(error.to_string()))?;
        let identities = &self.inner.service.identities;
        let region = identities.region(self.region.as_deref(), &location.path).map_err(misfit)?;
        let parameter = match wanted {
            Wanted::Current => self.inner.get(name.current(), &region).await?,
            Wanted::Selected(selector) => self.inner.get(name.selected(&selector), &region).await?,
            Wanted::Previous => {
                let current = self.inner.get(name.current(), &region).await?.version;
                let none = || FetchError::new(FailureClass::Gone).with_code("no_previous_version");
                let previous = current.checked_sub(1).filter(|version| *version > 0).ok_or_else(none)?;
                self.inner.get(name.selected(&previous.to_string()), &region).await?
            }
        };
        // To know a version spares nothing: there is no cheaper question, and a parameter that is made anew begins at version 1
        // with another value.
        Ok(Fetched::Document {
            value: parameter.value,
            map: false,
            version: Some(Version(parameter.version.to_string().into())),
            not_after: None,
        })
    }

    fn identity(&self) -> Arc<str> {
        self.inner.caller.description()
    }
}

// === impl Inner ===

impl Inner {
    /// One parameter, in whatever call it travels. Who leaves does not stop the call for the others.
    async fn get(self: &Arc<Self>, asked: Asked, region: &Region) -> Result<Parameter, FetchError> {
        let (reply, answer) = oneshot::channel();
        if self.batches.join(region, Waiting { asked, reply }) {
            let (this, region) = (Arc::clone(self), region.clone());
            tokio::spawn(async move {
                sleep(COLLECT).await;
                join_all(this.batches.take(&region).into_iter().map(|batch| this.answer(batch, &region))).await;
            });
        }
        answer.await.unwrap_or_else(|_| Err(FetchError::new(FailureClass::Unavailable).with_code("batch_lost")))
    }

    /// Asks for what a batch waits for, and tells each what came of it.
    async fn answer(&self, batch: Vec<Waiting>, region: &Region) {
        if batch.len() < 2 || self.batches.are_refused() {
            self.answer_each(batch, region).await;
            return;
        }
        let asked = batch.iter().map(|waiting| &waiting.asked);
        match self.call(region, &Request::many(asked), answer::many).await {
            Ok(mut found) => {
                let mut unclear = Vec::new();
                for waiting in batch {
                    match found.take(&waiting.asked) {
                        Some(outcome) => waiting.tell(outcome),
                        None => unclear.push(waiting),
                    }
                }
                self.answer_each(unclear, region).await;
            }
            Err(error) if may_be_about_one(error.class) => {
                let were_all_found = self.answer_each(batch, region).await;
                if error.class == FailureClass::Denied && were_all_found {
                    // The names are granted and the call is not.
                    self.batches.were_refused();
                }
            }
            Err(error) => {
                let verdict = Verdict::from(error);
                batch.into_iter().for_each(|waiting| waiting.tell(Err(verdict.clone().into())));
            }
        }
    }

    /// Asks for each alone; whether all were found.
    async fn answer_each(&self, batch: Vec<Waiting>, region: &Region) -> bool {
        let each = batch.into_iter().map(async |waiting| {
            let outcome = self.ask_alone(&waiting.asked, region).await;
            let is_found = outcome.is_ok();
            waiting.tell(outcome);
            is_found
        });
        join_all(each).await.into_iter().all(|is_found| is_found)
    }

    async fn ask_alone(&self, asked: &Asked, region: &Region) -> Result<Parameter, FetchError> {
        match self.call(region, &Request::one(asked), answer::one).await {
            // `GetParameter` and `GetParameters` are two permissions, and either will do.
            Err(denied) if denied.class == FailureClass::Denied => {
                let found = self.call(region, &Request::many([asked]), answer::many).await;
                let outcome = found.ok().and_then(|mut found| found.take(asked));
                outcome.unwrap_or(Err(denied))
            }
            outcome => outcome,
        }
    }

    /// One call within the budget, repeated as the identity's [`Caller`] sees fit.
    async fn call<T: Send>(
        &self,
        region: &Region,
        request: &Request,
        parse: fn(&[u8]) -> Result<T, FetchError>,
    ) -> Result<T, FetchError> {
        let attempt = |credentials: Credentials| async move {
            self.service.budget.turn(&self.account, region).await?;
            parse(&self.service.wire.send(region, request, credentials).await?.body)
        };
        self.caller.call(attempt).await
    }
}

impl fmt::Debug for Inner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Inner").field("caller", &self.caller).field("account", &self.account).finish_non_exhaustive()
    }
}

/// Whether a failed call may have failed because of one of its names.
const fn may_be_about_one(class: FailureClass) -> bool {
    match class {
        FailureClass::Gone
        | FailureClass::Denied
        | FailureClass::Disabled
        | FailureClass::Malformed
        | FailureClass::Misconfigured => true,
        FailureClass::Unauthenticated | FailureClass::Throttled | FailureClass::Unavailable | FailureClass::Timeout => {
            false
        }
    }
}

/// What stands for the account of an identity: its number where it is known, else the identity itself. An access key counts
/// with its secret, as one nobody can guess: whoever has only heard of an id must not use up its owner's turns.
fn account(method: &AwsMethod, keys: &RandomState) -> Arc<str> {
    match method {
        AwsMethod::AccessKey { access_key_id, secret_access_key } => {
            let key = (access_key_id.expose(), secret_access_key.expose());
            format!("{} {:016x}", access_key_id.expose_str().unwrap_or_default(), keys.hash_one(key)).into()
        }
        AwsMethod::AssumedRole { role_arn, .. } => role_arn.split(':').nth(4).unwrap_or_default().into(),
        AwsMethod::ServiceRole => "own".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_access_key_shares_its_turns_with_nobody_who_has_only_its_id() {
        let keys = RandomState::new();
        let key = |id: &str, secret: &str| {
            let (access_key_id, secret_access_key) = (id.to_owned().into(), secret.to_owned().into());
            account(&AwsMethod::AccessKey { access_key_id, secret_access_key }, &keys)
        };
        let own = key("AKIAIOSFODNN7EXAMPLE", "the secret");
        assert_eq!(key("AKIAIOSFODNN7EXAMPLE", "the secret"), own);
        assert_ne!(key("AKIAIOSFODNN7EXAMPLE", "a guess"), own);
        assert_ne!(key("AKIAIOSFODNN7EXAMPLF", "the secret"), own);
        assert!(!own.contains("secret"), "{own}");
    }
}
