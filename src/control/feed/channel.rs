//! One organisation: where it stands, and its encoded updates.
//!
//! Each update is built once, by the first who wants it, in a task of its own that goes on when that one leaves; the others
//! wait for it. When building fails, all who waited for it learn that, instead of trying one after the other.

use std::{collections::VecDeque, future::Future, sync::Arc, time::Duration};

use tokio::{
    sync::{Mutex, OwnedMutexGuard, Semaphore, watch},
    time::{Instant, timeout},
};
use tracing::error;

use super::{
    Source, Unavailable,
    document::{self, Failure, Update},
};
use crate::control::{routes::chain, store::Head};

/// How many whole snapshots may be in memory: the newest, and those of before that slow readers are still sent.
const MAX_WHOLE: usize = 6;
/// How many deltas are kept: those who wait hold the last few versions.
const MAX_DELTAS: usize = 16;
/// How long a new snapshot may wait for slow readers to finish with an old one.
const PATIENCE: Duration = Duration::from_secs(10);

/// The feed of one organisation.
pub(super) struct Channel {
    organisation: String,
    head: watch::Sender<Head>,
    whole: Arc<Mutex<Slot<Option<Arc<Update>>>>>,
    deltas: Arc<Mutex<Slot<VecDeque<Delta>>>>,
    places: Arc<Semaphore>,
}

/// What was built last.
#[derive(Default)]
struct Slot<T> {
    built: T,
    /// When building failed, if it did the last time.
    failed: Option<Instant>,
}

/// What changed since a version.
#[derive(Clone)]
struct Delta {
    since: i64,
    /// The state after it.
    head: Head,
    /// `None` = more than a delta tells.
    update: Option<Arc<Update>>,
}

// === impl Channel ===

impl Channel {
    pub(super) fn new(organisation: &str, head: Head) -> Self {
        Self {
            organisation: organisation.to_owned(),
            head: watch::Sender::new(head),
            whole: Arc::default(),
            deltas: Arc::default(),
            places: Arc::new(Semaphore::new(MAX_WHOLE)),
        }
    }

    pub(super) fn organisation(&self) -> &str {
        &self.organisation
    }

    /// Where it stands, as far as this process knows.
    pub(super) fn head(&self) -> Head {
        *self.head.borrow()
    }

    /// Changes with [`Channel::head`].
    pub(super) fn watch(&self) -> watch::Receiver<Head> {
        self.head.subscribe()
    }

    pub(super) fn advance(&self, head: Head) {
        self.head.send_replace(head);
    }

    /// The whole snapshot, not older than [`Channel::head`] is now.
    pub(super) async fn whole(&self, source: &Source) -> Result<Arc<Update>, Unavailable> {
        let (wanted, arrived) = (self.head(), Instant::now());
        let mut slot = Arc::clone(&self.whole).lock_owned().await;
        if let Some(update) = slot.built.as_ref().filter(|update| reaches(update.head, wanted)) {
            return Ok(Arc::clone(update));
        }
        if slot.failed.is_some_and(|failed| failed >= arrived) {
            return Err(Unavailable::Busy);
        }
        let size = slot.built.take().map_or(0, |old| old.body.len() + old.body.len() / 16);
        let (source, organisation, places) = (source.clone(), self.organisation.clone(), Arc::clone(&self.places));
        let building = async move {
            let place = timeout(PATIENCE, places.acquire_owned()).await;
            let place = place.ok().and_then(Result::ok).ok_or(Failure::Crowded)?;
            document::whole(&source, &organisation, size, place).await.map(Arc::new)
        };
        build(slot, building, |built, update| *built = Some(Arc::clone(update))).await
    }

    /// What changed between the version `since` and [`Channel::head`]; `None` when it is more than a delta tells.
    pub(super) async fn delta(&self, source: &Source, since: i64) -> Result<Option<Arc<Update>>, Unavailable> {
        let (wanted, arrived) = (self.head(), Instant::now());
        let mut slot = Arc::clone(&self.deltas).lock_owned().await;
        slot.built.retain(|delta| reaches(delta.head, wanted));
        if let Some(delta) = slot.built.iter().find(|delta| delta.since == since) {
            return Ok(delta.update.clone());
        }
        if slot.failed.is_some_and(|failed| failed >= arrived) {
            return Err(Unavailable::Busy);
        }
        let (source, organisation) = (source.clone(), self.organisation.clone());
        let building = async move {
            let (head, update) = document::delta(&source, &organisation, since).await?;
            Ok(Delta { since, head, update: update.map(Arc::new) })
        };
        let keep = |built: &mut VecDeque<Delta>, delta: &Delta| {
            built.truncate(MAX_DELTAS - 1);
            built.push_front(delta.clone());
        };
        Ok(build(slot, building, keep).await?.update)
    }
}

/// Builds in a task of its own, which has the slot until its end.
async fn build<T: Send + 'static, R: Send + 'static>(
    mut slot: OwnedMutexGuard<Slot<T>>,
    building: impl Future<Output = Result<R, Failure>> + Send + 'static,
    keep: impl FnOnce(&mut T, &R) + Send + 'static,
) -> Result<R, Unavailable> {
    let building = tokio::spawn(async move {
        let built = building.await;
        slot.failed = built.is_err().then(Instant::now);
        if let Ok(built) = &built {
            keep(&mut slot.built, built);
        }
        built
    });
    match building.await {
        Ok(Ok(built)) => Ok(built),
        Ok(Err(Failure::Store(error))) => Err(Unavailable::Store(error)),
        Ok(Err(Failure::Crowded)) => Err(Unavailable::Busy),
        Ok(Err(Failure::Encoding(cause))) | Err(cause) => {
            error!(error = chain(&cause), "An update of the feed could not be built.");
            Err(Unavailable::Busy)
        }
    }
}

/// Whether `head` is `wanted` or later.
fn reaches(head: Head, wanted: Head) -> bool {
    head.epoch == wanted.epoch && head.version >= wanted.version
}
