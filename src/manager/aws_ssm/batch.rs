//! Who waits for which parameter, and who travels together: at most ten names in a call, none twice.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use tokio::{sync::oneshot, time::Instant};

use super::{answer::Parameter, name::Asked};
use crate::manager::{FetchError, aws::Region};

/// Names in one `GetParameters` (API).
const MAX_NAMES: usize = 10;

/// How long an identity that may read parameters one by one only is not asked for several.
const REFUSED_FOR: Duration = Duration::from_secs(600);

/// One fetch that waits.
#[derive(Debug)]
pub(super) struct Waiting {
    /// What for.
    pub(super) asked: Asked,
    /// Where the answer goes.
    pub(super) reply: oneshot::Sender<Result<Parameter, FetchError>>,
}

/// The fetches of one identity that wait for a call to leave, by region.
#[derive(Debug, Default)]
pub(super) struct Batches {
    waiting: Mutex<HashMap<String, Vec<Waiting>>>,
    refused_at: Mutex<Option<Instant>>,
}

// === impl Waiting ===

impl Waiting {
    /// Who has left meanwhile is not missed.
    pub(super) fn tell(self, outcome: Result<Parameter, FetchError>) {
        drop(self.reply.send(outcome));
    }
}

// === impl Batches ===

impl Batches {
    /// Lets `waiting` travel with the next calls to `region`; whether it is the first, who sees to it that they leave.
    pub(super) fn join(&self, region: &Region, waiting: Waiting) -> bool {
        let mut regions = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        let queue = regions.entry(region.as_str().to_owned()).or_default();
        queue.push(waiting);
        queue.len() == 1
    }

    /// All who wait for `region` and have not left, in as few calls as can be.
    pub(super) fn take(&self, region: &Region) -> Vec<Vec<Waiting>> {
        let mut regions = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        let queue = regions.remove(region.as_str()).unwrap_or_default();
        let mut batches: Vec<Vec<Waiting>> = Vec::new();
        for waiting in queue.into_iter().filter(|waiting| !waiting.reply.is_closed()) {
            let fits = |batch: &&mut Vec<Waiting>| {
                batch.len() < MAX_NAMES && batch.iter().all(|other| other.asked != waiting.asked)
            };
            match batches.iter_mut().find(fits) {
                Some(batch) => batch.push(waiting),
                None => batches.push(vec![waiting]),
            }
        }
        batches
    }

    /// Whether this identity may not ask for several.
    pub(super) fn are_refused(&self) -> bool {
        let refused_at = self.refused_at.lock().unwrap_or_else(PoisonError::into_inner);
        refused_at.is_some_and(|at| at.elapsed() < REFUSED_FOR)
    }

    /// A call for several was refused although each alone is granted.
    pub(super) fn were_refused(&self) {
        *self.refused_at.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    type Answer = oneshot::Receiver<Result<Parameter, FetchError>>;

    fn waiting(name: &str) -> (Waiting, Answer) {
        let (reply, answer) = oneshot::channel();
        (Waiting { asked: Asked { name: name.to_owned(), selector: None }, reply }, answer)
    }

    fn names(batches: Vec<Vec<Waiting>>) -> Vec<String> {
        let joined = |batch: Vec<Waiting>| {
            let names: Vec<_> = batch.iter().map(|waiting| waiting.asked.to_string()).collect();
            names.join(" ")
        };
        batches.into_iter().map(joined).collect()
    }

    #[test]
    fn ten_travel_together_and_nobody_twice() {
        let region = |name| Region::new(name).unwrap();
        let batches = Batches::default();
        let join = |region: &Region, name: &str| {
            let (waiting, answer) = waiting(name);
            (batches.join(region, waiting), answer)
        };
        let here = region("us-east-1");
        let answers: Vec<_> = ["a", "b", "a", "c", "d", "e", "f", "g", "h", "i", "j", "k", "a"]
            .iter()
            .enumerate()
            .map(|(index, name)| {
                let (is_first, answer) = join(&here, name);
                assert_eq!(is_first, index == 0, "{name}");
                answer
            })
            .collect();
        let (is_first, elsewhere) = join(&region("us-west-2"), "a");
        assert!(is_first, "another region is another call");
        assert_eq!(names(batches.take(&here)), ["a b c d e f g h i j", "a k", "a"]);
        assert_eq!(names(batches.take(&here)), [""; 0]);
        drop((answers, elsewhere));
        assert_eq!(names(batches.take(&region("us-west-2"))), [""; 0], "who has left does not travel");
        assert!(join(&here, "a").0, "the next one is the first again");
    }

    #[tokio::test(start_paused = true)]
    async fn a_refusal_is_remembered_for_a_while() {
        let batches = Batches::default();
        assert!(!batches.are_refused());
        batches.were_refused();
        assert!(batches.are_refused());
        tokio::time::advance(REFUSED_FOR).await;
        assert!(!batches.are_refused());
    }
}
