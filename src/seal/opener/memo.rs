//! What was opened, in two generations: a full one becomes the old one, and what nobody asks for in the meantime is gone with
//! it. Between once and twice the bound is remembered, without a list of who was used when.

use std::{
    collections::HashMap,
    mem,
    sync::{Arc, OnceLock},
};

use super::{Digest, Unusable};
use crate::secret::Credential;

/// What came of one ciphertext at one place; empty while it is being opened.
pub(super) type Slot = Arc<OnceLock<Result<Arc<Credential>, Unusable>>>;

/// Slots by place and ciphertext.
pub(super) struct Memo {
    young: HashMap<Digest, Slot>,
    old: HashMap<Digest, Slot>,
    generation: usize,
}

impl Memo {
    /// Remembers at most `bound` slots, of which the last half is certain.
    pub(super) fn new(bound: usize) -> Self {
        Self { young: HashMap::new(), old: HashMap::new(), generation: (bound / 2).max(1) }
    }

    /// The slot of `digest`, a new one if there is none.
    pub(super) fn slot(&mut self, digest: Digest) -> Slot {
        if let Some(slot) = self.young.get(&digest) {
            return Arc::clone(slot);
        }
        if self.young.len() >= self.generation {
            self.old = mem::take(&mut self.young);
        }
        let slot = self.old.remove(&digest).unwrap_or_default();
        self.young.insert(digest, Arc::clone(&slot));
        slot
    }

    /// Forgets everything.
    pub(super) fn clear(&mut self) {
        self.young.clear();
        self.old.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_ones_stay_and_the_whole_is_bounded() {
        let digest = |number: usize| {
            let mut digest = [0; 32];
            digest[..8].copy_from_slice(&number.to_be_bytes());
            digest
        };
        let mut memo = Memo::new(8);
        let favourite = memo.slot(digest(0));
        for number in 1..100 {
            let slot = memo.slot(digest(number));
            assert!(Arc::ptr_eq(&slot, &memo.slot(digest(number))));
            assert!(Arc::ptr_eq(&favourite, &memo.slot(digest(0))), "used all the time, after {number}");
            assert!(memo.young.len() + memo.old.len() <= 8);
        }
        let forgotten = memo.slot(digest(1));
        assert_eq!(Arc::strong_count(&forgotten), 2, "made anew");
        memo.clear();
        assert!(!Arc::ptr_eq(&favourite, &memo.slot(digest(0))));
    }
}
