//! `GET /v1/snapshot`: what data planes need to know, and every change of it within a second.
//!
//! ```text
//! answer     who asks, what it holds, how long it waits → 304, a delta, or the whole
//!   → channel   one organisation: where it stands; the encoded updates, each built once and shared by all who wait for it
//!     → document   rows out of the store, encoded and signed, off the threads that serve
//!       → row         what of an object data planes see
//! ```
//!
//! [`Feed::run`] looks where the database stands whenever this process or another replica says that it committed, and every
//! [`POLL`] in any case, so that a lost notification costs half a second and no more. A burst of writes is one step for those
//! who wait: between two looks [`PAUSE`] passes.
//!
//! Order is by epoch and version. A database that was put back to an earlier state begins a new epoch: an operator says so
//! (`sidekey control-plane --new-epoch`), or it shows, because a data plane holds a version that was never written.

mod answer;
mod channel;
mod document;
mod row;

pub use answer::snapshot;

use std::{
    collections::HashMap,
    fmt,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::{sync::Mutex as Turn, time::Instant};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use self::channel::Channel;
use super::{
    Refusal,
    data_plane::Grants,
    store::{Head, Kind, Store, StoreError},
};
use crate::seal::signature::SigningKey;

/// How often the database is asked when nobody says that it changed.
const POLL: Duration = Duration::from_millis(500);
/// Between two looks: what is committed meanwhile is one step for those who wait.
const PAUSE: Duration = Duration::from_millis(50);
/// Least time between two epochs that begin because of what a data plane holds.
const EPOCH_PAUSE: Duration = Duration::from_secs(60);

/// The feed of every organisation.
pub struct Feed {
    source: Source,
    grants: Grants,
    channels: Mutex<HashMap<String, Arc<Channel>>>,
    /// How many commits were known at the last look; whoever has it looks alone.
    looked: Turn<Looked>,
    end: CancellationToken,
}

/// What updates are made of. Cheap to clone.
#[derive(Clone)]
struct Source {
    store: Store,
    signing: Arc<SigningKey>,
}

/// The last look at the database.
#[derive(Debug, Default)]
struct Looked {
    /// Of [`Store::changes`].
    changes: Option<u64>,
    epoch_begun: Option<Instant>,
}

// === impl Feed ===

impl Feed {
    /// The feed out of `store`, signed with `signing`, for those whom `grants` admits.
    pub fn new(store: Store, signing: SigningKey, grants: Grants) -> Self {
        Self {
            source: Source { store, signing: Arc::new(signing) },
            grants,
            channels: Mutex::default(),
            looked: Turn::default(),
            end: CancellationToken::new(),
        }
    }

    /// Whom it admits.
    pub fn grants(&self) -> &Grants {
        &self.grants
    }

    /// Looks after changes until `stop`; those who wait are answered then.
    pub async fn run(&self, stop: CancellationToken) {
        let mut changes = self.source.store.changes();
        let mut failing = false;
        loop {
            tokio::select! {
                () = stop.cancelled() => break,
                _ = changes.changed() => {}
                () = tokio::time::sleep(POLL) => {}
            }
            match self.look().await {
                Ok(()) if failing => info!("The database answers the feed again."),
                Ok(()) => {}
                Err(error) if !failing => {
                    let error = super::routes::chain(&error);
                    warn!(error, "The feed cannot be looked after; data planes keep what they have.");
                }
                Err(_) => {}
            }
            failing = self.looked.lock().await.changes.is_none();
            if stop.run_until_cancelled(tokio::time::sleep(PAUSE)).await.is_none() {
                break;
            }
        }
        self.end.cancel();
    }

    /// The channel of `organisation`.
    async fn channel(&self, organisation: &str) -> Result<Arc<Channel>, StoreError> {
        if let Some(channel) = self.channels().get(organisation) {
            return Ok(Arc::clone(channel));
        }
        // Nobody looks meanwhile, so that the channel does not begin behind what was looked at.
        let _looked = self.looked.lock().await;
        let head = self.source.store.tenant(organisation).await?.head().await?;
        let new = || Arc::new(Channel::new(organisation, head));
        Ok(Arc::clone(self.channels().entry(organisation.to_owned()).or_insert_with(new)))
    }

    /// Looks, if this process committed something since the last look, or heard that another did.
    async fn catch_up(&self) -> Result<(), StoreError> {
        let changes = Some(*self.source.store.changes().borrow());
        let mut looked = self.looked.lock().await;
        if looked.changes == changes { Ok(()) } else { self.look_now(&mut looked).await }
    }

    async fn look(&self) -> Result<(), StoreError> {
        let mut looked = self.looked.lock().await;
        self.look_now(&mut looked).await
    }

    /// Brings every channel to where the database is.
    async fn look_now(&self, looked: &mut Looked) -> Result<(), StoreError> {
        looked.changes = None;
        let store = &self.source.store;
        let changes = *store.changes().borrow();
        let mut heads = store.heads().await?;
        let channels: Vec<_> = self.channels().values().cloned().collect();
        let behind = |heads: &HashMap<String, Head>| {
            let behind = |channel: &Arc<Channel>| {
                let (known, head) = (channel.head(), heads.get(channel.organisation())?);
                (head.epoch == known.epoch && head.version < known.version).then_some(known.epoch)
            };
            channels.iter().find_map(behind)
        };
        if let Some(epoch) = behind(&heads) {
            warn!("The database was put back to an earlier state: a new epoch of the feed begins.");
            store.begin_epoch(epoch).await?;
            heads = store.heads().await?;
        }
        for channel in channels {
            let (known, head) = (channel.head(), heads.get(channel.organisation()).copied().unwrap_or_default());
            if known == head {
                continue;
            }
            let mut tenant = store.tenant(channel.organisation()).await?;
            if known.epoch != head.epoch || tenant.has_changed(Kind::DataPlane, known.version).await? {
                self.grants.forget();
            }
            // Whoever is woken by it has to find that out.
            channel.advance(head);
        }
        looked.changes = Some(changes);
        Ok(())
    }

    /// Begins a new epoch, if `held`, which a data plane has, is of this epoch and was never written.
    async fn check_held(&self, channel: &Channel, held: Head) -> Result<(), StoreError> {
        let ahead = |head: Head| head.epoch == held.epoch && head.version < held.version;
        if !ahead(channel.head()) {
            return Ok(());
        }
        let mut looked = self.looked.lock().await;
        self.look_now(&mut looked).await?;
        let recent = looked.epoch_begun.is_some_and(|begun| begun.elapsed() < EPOCH_PAUSE);
        if !ahead(channel.head()) || recent {
            return Ok(());
        }
        warn!(
            held = held.version,
            version = channel.head().version,
            "A data plane holds what the database never had, which was put back to an earlier state: a new epoch begins."
        );
        looked.epoch_begun = Some(Instant::now());
        self.source.store.begin_epoch(held.epoch).await?;
        self.look_now(&mut looked).await
    }

    fn channels(&self) -> std::sync::MutexGuard<'_, HashMap<String, Arc<Channel>>> {
        self.channels.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Feed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Feed").field("channels", &self.channels().len()).finish_non_exhaustive()
    }
}

/// Why there is no update now.
#[derive(Debug)]
enum Unavailable {
    /// The database.
    Store(StoreError),
    /// Too many readers are slow, or building failed for another who wanted the same.
    Busy,
}

impl From<StoreError> for Unavailable {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

impl From<Unavailable> for Refusal {
    fn from(unavailable: Unavailable) -> Self {
        match unavailable {
            Unavailable::Store(error) => error.into(),
            Unavailable::Busy => Self::busy("the snapshot cannot be had now; ask again"),
        }
    }
}
