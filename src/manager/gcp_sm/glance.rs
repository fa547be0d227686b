//! When a look at a version's metadata may stand for a read of its payload.
//!
//! Seeing metadata and reading payloads are permissions of their own. A role that reads often cannot look, so that a refusal is
//! remembered for a while; and a role that may look says nothing about reading, so that a withdrawn permission to read is
//! noticed by a real read now and then.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

/// At the latest after this a secret is read, however often a look said that nothing has changed.
const READ_EVERY: Duration = Duration::from_secs(15 * 60);

/// How long nobody looks after a look was refused.
const REFUSED_FOR: Duration = Duration::from_secs(10 * 60);

/// Secrets whose last read is remembered; others are always read.
const MAX_REMEMBERED: usize = 1024;

/// What is remembered of reads and looks.
#[derive(Debug, Default)]
pub(super) struct Glances(Mutex<Memory>);

#[derive(Debug, Default)]
struct Memory {
    /// Last read of the payload, by version resource.
    read_at: HashMap<String, Instant>,
    refused_at: Option<Instant>,
}

// === impl Glances ===

impl Glances {
    /// Whether looking at `resource` will do.
    pub(super) fn may_glance(&self, resource: &str) -> bool {
        let memory = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let is_refused = memory.refused_at.is_some_and(|at| at.elapsed() < REFUSED_FOR);
        !is_refused && memory.read_at.get(resource).is_some_and(|at| at.elapsed() < READ_EVERY)
    }

    /// The payload of `resource` has been read.
    pub(super) fn was_read(&self, resource: String) {
        let mut memory = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if memory.read_at.len() >= MAX_REMEMBERED {
            memory.read_at.retain(|_, at| at.elapsed() < READ_EVERY);
        }
        if memory.read_at.len() < MAX_REMEMBERED || memory.read_at.contains_key(&resource) {
            memory.read_at.insert(resource, Instant::now());
        }
    }

    /// A look was refused.
    pub(super) fn were_refused(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).refused_at = Some(Instant::now());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_look_stands_for_a_read_only_for_a_while() {
        let glances = Glances::default();
        assert!(!glances.may_glance("a"), "it was never read");
        glances.was_read("a".to_owned());
        assert!(glances.may_glance("a") && !glances.may_glance("b"));
        tokio::time::advance(READ_EVERY).await;
        assert!(!glances.may_glance("a"));
        glances.was_read("a".to_owned());
        glances.were_refused();
        assert!(!glances.may_glance("a"));
        tokio::time::advance(REFUSED_FOR).await;
        assert!(glances.may_glance("a"));
    }

    #[tokio::test(start_paused = true)]
    async fn memory_is_bounded() {
        let glances = Glances::default();
        for number in 0..2 * MAX_REMEMBERED {
            glances.was_read(number.to_string());
        }
        assert_eq!(glances.0.lock().unwrap().read_at.len(), MAX_REMEMBERED);
        assert!(!glances.may_glance(&MAX_REMEMBERED.to_string()));
        tokio::time::advance(READ_EVERY).await;
        glances.was_read("new".to_owned());
        assert!(glances.may_glance("new"), "what is out of date makes room");
    }
}
