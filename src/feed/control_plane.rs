//! The feed of a control plane: long-polled, verified, ordered, merged, published; outlived when it is gone.
//!
//! ```text
//! client     asks once and waits for a change → an update with its signature
//!   → answer     verified over ETag and body                              (public_key_file)
//!   → order      newer within the epoch, or a younger epoch; nothing older
//!   → document   a delta is merged into the text that is held; whatever does not fit is asked for whole
//!   → publisher  linked away from the workers, swapped in between two requests
//!   → kept       written to snapshot.last_good_file with its signature, and verified again when it is loaded
//! ```
//!
//! What is refused changes nothing and is told by log, metric and `/readyz`. A control plane that cannot be reached is asked
//! again with growing, jittered pauses of at most [`MAX_PAUSE`]; requests are served meanwhile, however long it takes.

mod answer;
mod client;
mod document;
mod held;
mod kept;
mod order;
mod report;

pub use client::Address;
pub use report::{Reporter, Untold};

use std::{
    fmt, mem,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use tokio::{
    sync::Notify,
    time::{Instant, sleep},
};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};
use zeroize::Zeroizing;

use self::{
    answer::{Answer, Distrust},
    client::{Ask, Client, FetchError, Fetched},
    held::{Accepted, Held, Rejected, Taken},
    kept::Keeper,
};
use super::{
    Feed, Origin,
    aside::{aside, drop_aside, give_way_for},
    file::{DEFAULT_MAX_BYTES, Reload},
    publisher::{Linker, Publisher, log_problems},
};
use crate::{metric::Metrics, model::Problem, seal::signature::VerifyingKey};

/// How long a change is waited for in one request; the control plane allows 60 s. Middleboxes that drop idle connections
/// do so after a minute.
const WAIT: Duration = Duration::from_secs(30);
/// The first pause after a failure, and the longest.
const PAUSE: Duration = Duration::from_millis(200);
/// The longest pause between two attempts.
const MAX_PAUSE: Duration = Duration::from_secs(5);
/// An answer without news that comes sooner was no wait, and is followed by a pause.
const AT_ONCE: Duration = Duration::from_millis(500);
/// Where problems of the feed are.
const AT: &str = "snapshot.control_plane";

/// `snapshot.*`, as far as the feed needs it.
#[derive(Clone, Debug)]
pub struct Settings {
    /// `snapshot.control_plane.*`.
    pub address: Address,
    /// `snapshot.strict`.
    pub strict: bool,
    /// `snapshot.last_good_file`: written 0600 after every swap, read at start when the control plane cannot be reached.
    pub last_good: Option<PathBuf>,
    /// `snapshot.max_age_secs`: since the control plane was last in touch; `None` = no alarm.
    pub max_age: Option<Duration>,
    /// Largest update that is taken, in bytes.
    pub max_bytes: u64,
}

/// Follows the feed into a [`Feed`] for as long as it runs.
pub struct ControlPlaneSource {
    settings: Settings,
    client: Client,
    linker: Linker,
    publisher: Publisher,
    demand: Arc<Notify>,
    held: Option<Arc<Held>>,
    /// `ETag` of an update whose content was refused: it is not asked for again.
    refused: Option<String>,
    /// Whether a delta did not fit, so that the whole is asked for.
    whole: bool,
    failures: Failures,
    keeper: Keeper,
}

/// Failures in a row.
#[derive(Default)]
struct Failures {
    count: u32,
    /// What was said of the last one; it is said once.
    said: String,
}

/// When to ask again.
enum Next {
    Now,
    After(Duration),
}

// === impl ControlPlaneSource ===

impl ControlPlaneSource {
    /// A source that has asked nothing yet.
    pub fn new(settings: Settings, linker: Linker, metrics: Arc<Metrics>) -> Self {
        Self {
            client: Client::new(settings.address.clone(), settings.max_bytes),
            publisher: Publisher::new(metrics, settings.max_age),
            settings,
            linker,
            demand: Arc::default(),
            held: None,
            refused: None,
            whole: false,
            failures: Failures::default(),
            keeper: Keeper::default(),
        }
    }

    /// A handle to ask for the whole at once.
    pub fn reload(&self) -> Reload {
        Reload::of(&self.demand)
    }

    /// Follows the feed until `cancel`. Never fails: what cannot be taken is logged, counted and noted in the feed, and the
    /// last good snapshot stays.
    pub async fn run(mut self, feed: Arc<Feed>, cancel: CancellationToken) {
        if self.settings.address.public_key_file.is_none() {
            warn!("The feed is not verified: whoever answers for the control plane is believed (public_key_file).");
        }
        let url = &self.settings.address.url;
        if url.scheme() == "http" {
            info!(url = %url, "The feed is read in plain text: its token and its snapshots can be seen on the way.");
        }
        let demand = Arc::clone(&self.demand);
        loop {
            let next = tokio::select! {
                next = self.step(&feed) => next,
                () = demand.notified() => {
                    self.whole = true;
                    Next::Now
                }
                () = cancel.cancelled() => break,
            };
            self.publisher.check_age(&feed);
            self.publisher.drop_retired();
            if let Next::After(pause) = next {
                tokio::select! {
                    () = sleep(pause) => {}
                    () = demand.notified() => self.whole = true,
                    () = cancel.cancelled() => break,
                }
            }
        }
        self.keeper.settle().await;
    }

    /// Asks once, and does with the answer what is to be done.
    async fn step(&mut self, feed: &Feed) -> Next {
        let asked_at = Instant::now();
        let ask = self.ask();
        let fetched = self.client.fetch(&ask).await;
        let rejected = match fetched {
            Ok(Fetched::Unchanged) => {
                self.publisher.count("unchanged");
                self.in_touch(feed, false);
                return match asked_at.elapsed() < AT_ONCE {
                    true => Next::After(self.failures.pause()),
                    false => {
                        self.failures.clear();
                        Next::Now
                    }
                };
            }
            Ok(Fetched::Update(answer, keys)) => match self.take(answer, keys).await {
                Ok(taken) => {
                    self.publish(feed, taken);
                    self.failures.clear();
                    return Next::Now;
                }
                Err(rejected) => rejected,
            },
            Err(error) => {
                self.fall_back(feed).await;
                return self.unreachable(feed, &error);
            }
        };
        if !matches!(rejected, Rejected::Same | Rejected::Misfit) {
            self.fall_back(feed).await;
        }
        self.reject(feed, rejected)
    }

    fn ask(&mut self) -> Ask {
        let whole = mem::take(&mut self.whole) || self.keeper.wants_whole(self.held.as_deref());
        match &self.held {
            Some(held) if !whole => Ask {
                known: [Some(held.etag.clone()), self.refused.clone()].into_iter().flatten().collect(),
                since: Some(held.tag()),
                wait: WAIT,
            },
            Some(_) | None => Ask::default(),
        }
    }

    /// Verifies, merges and links away from the workers.
    async fn take(&self, answer: Answer, keys: Option<Vec<VerifyingKey>>) -> Result<Taken, Rejected> {
        let (held, linker, strict) = (self.held.clone(), self.linker.clone(), self.settings.strict);
        let work = move || {
            give_way_for(answer.body().len() + held.as_ref().map_or(0, |held| held.document().len()));
            let accepted = Accepted::judge(answer, keys.as_deref(), held.as_deref())?;
            accepted.link(&linker, strict)
        };
        aside(work).await.unwrap_or(Err(Rejected::Malformed("could not be read to its end")))
    }

    fn publish(&mut self, feed: &Feed, taken: Taken) {
        let Taken { held, snapshot, delta, new_epoch } = taken;
        if new_epoch {
            let epoch = held.epoch();
            match self.settings.address.public_key_file {
                Some(_) => info!(epoch, "The control plane begins a new epoch."),
                None => warn!(epoch, "The control plane begins a new epoch, and is believed without a signature."),
            }
        }
        let held = Arc::new(held);
        let replaced = self.held.replace(Arc::clone(&held));
        self.publisher.publish(feed, Arc::new(snapshot), Origin::Source);
        self.in_touch(feed, true);
        // Its text is wiped.
        drop_aside(replaced);
        if let Some(path) = &self.settings.last_good {
            self.keeper.keep(path, held, delta);
        }
    }

    fn in_touch(&mut self, feed: &Feed, taken: bool) {
        if taken {
            self.refused = None;
        }
        // While an update is refused, what is held is not what the control plane has.
        if self.refused.is_none() {
            feed.confirm_now();
        }
    }

    /// Without any snapshot: what was good last.
    async fn fall_back(&mut self, feed: &Feed) {
        let Some(path) = self.settings.last_good.clone().filter(|_| feed.current().is_none()) else { return };
        if matches!(tokio::fs::try_exists(&path).await, Ok(false)) {
            // A first start; that there is no snapshot is said already.
            return;
        }
        let (settings, linker) = (self.settings.clone(), self.linker.clone());
        let work = move || restore(&path, &settings, &linker);
        match aside(work).await {
            Some(Ok((Taken { held, snapshot, .. }, keeper))) => {
                self.held = Some(Arc::new(held));
                self.keeper = keeper;
                self.publisher.publish(feed, Arc::new(snapshot), Origin::LastGood);
            }
            Some(Err(problems)) => log_problems("The last good snapshot cannot be loaded.", &problems),
            None => {}
        }
    }

    fn unreachable(&mut self, feed: &Feed, failure: &FetchError) -> Next {
        let said = failure.to_string();
        self.publisher.count("unreachable");
        if self.failures.said != said {
            warn!(error = %said, "The control plane gives no snapshot; it is asked again, and the last good one stays.");
            let problem = Problem { at: AT.to_owned(), message: said.clone() };
            feed.refuse([problem].into());
        }
        self.failures.said = said;
        let pause = self.failures.pause();
        match failure {
            FetchError::Status(_, Some(asked)) => Next::After(pause.max(*asked)),
            _ => Next::After(pause),
        }
    }

    fn reject(&mut self, feed: &Feed, rejected: Rejected) -> Next {
        let said = |message: &str| vec![Problem { at: AT.to_owned(), message: message.to_owned() }];
        let (outcome, problems) = match rejected {
            Rejected::Same => {
                self.publisher.count("unchanged");
                self.in_touch(feed, false);
                return Next::After(self.failures.pause());
            }
            Rejected::Misfit => {
                info!("A delta does not fit the snapshot that is held, the whole is asked for.");
                self.whole = true;
                return Next::After(self.failures.pause());
            }
            Rejected::Distrusted(Distrust::Unsigned) => ("unsigned", said(rejected.reason())),
            Rejected::Distrusted(Distrust::Forged) => ("forged", said(rejected.reason())),
            Rejected::Overtaken => ("replayed", said(rejected.reason())),
            Rejected::Malformed(what) => ("refused", said(what)),
            Rejected::Faulty(etag, problems) => {
                self.refused = Some(etag);
                ("refused", problems)
            }
        };
        let again = format!("{outcome} {problems:?}");
        if self.failures.said == again {
            self.publisher.count(outcome);
        } else {
            self.publisher.refuse(feed, outcome, problems);
            self.failures.said = again;
        }
        Next::After(self.failures.pause())
    }
}

impl fmt::Debug for ControlPlaneSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ControlPlaneSource").field("settings", &self.settings).finish_non_exhaustive()
    }
}

// === impl Settings ===

impl Settings {
    /// The feed at `address`, lenient, nothing else.
    pub fn new(address: Address) -> Self {
        Self { address, strict: false, last_good: None, max_age: None, max_bytes: DEFAULT_MAX_BYTES }
    }

    /// The snapshot as the control plane has it now, verified, for whoever only looks at it.
    ///
    /// # Errors
    /// What is wrong, for people.
    pub async fn fetch(&self) -> Result<Zeroizing<Vec<u8>>, Problem> {
        let problem = |message: &str| Problem { at: AT.to_owned(), message: message.to_owned() };
        let mut client = Client::new(self.address.clone(), self.max_bytes);
        let (answer, keys) = match client.fetch(&Ask::default()).await {
            Ok(Fetched::Update(answer, keys)) => (answer, keys),
            Ok(Fetched::Unchanged) => return Err(problem("answers nothing")),
            Err(error) => return Err(problem(&error.to_string())),
        };
        let judged = Accepted::judge(answer, keys.as_deref(), None);
        judged
            .map(|accepted| Zeroizing::new(accepted.document().to_vec()))
            .map_err(|rejected| problem(rejected.reason()))
    }
}

// === impl Failures ===

impl Failures {
    /// How long to wait after one more.
    fn pause(&mut self) -> Duration {
        let longest = PAUSE.saturating_mul(1 << self.count.min(10)).min(MAX_PAUSE);
        self.count += 1;
        // Many sidecars lose their control plane at once, and must not find it again at once.
        let part = getrandom::u32().map_or(0.5, |random| f64::from(random) / f64::from(u32::MAX));
        longest.mul_f64(0.5 + part / 2.0)
    }

    fn clear(&mut self) {
        if !self.said.is_empty() {
            info!("The control plane is in touch again.");
        }
        *self = Self::default();
    }
}

/// What was good last, by the file at `path`: verified and merged as it was when it came. Blocks.
fn restore(path: &Path, settings: &Settings, linker: &Linker) -> Result<(Taken, Keeper), Vec<Problem>> {
    let problem = |message: &str| vec![Problem { at: path.display().to_string(), message: message.to_owned() }];
    let keys = settings.address.public_key_file.as_deref().map(client::public_keys).transpose();
    let keys = keys.map_err(|error| problem(&error.to_string()))?;
    let file = kept::load(path, settings.max_bytes).map_err(|error| vec![error.problem(path)])?;
    let mut last: Option<Accepted> = None;
    let mut keeper = Keeper::after(&file);
    for answer in file.answers {
        match Accepted::judge(answer, keys.as_deref(), last.as_ref().map(Accepted::held)) {
            Ok(accepted) => last = Some(accepted),
            Err(rejected) if last.is_none() => return Err(problem(rejected.reason())),
            Err(rejected) => {
                log_problems("The last good snapshot is loaded without its last changes.", &problem(rejected.reason()));
                keeper = Keeper::broken();
                break;
            }
        }
    }
    let last = last.ok_or_else(|| problem("holds no snapshot of a feed"))?;
    match last.link(linker, settings.strict) {
        Ok(taken) => Ok((taken, keeper)),
        Err(Rejected::Faulty(_, problems)) => Err(problems),
        Err(rejected) => Err(problem(rejected.reason())),
    }
}

#[cfg(test)]
mod tests;
