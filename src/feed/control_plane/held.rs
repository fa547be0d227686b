//! The document in force, and whether an update may follow it.

use std::fmt;

use zeroize::Zeroizing;

use super::{
    super::publisher::Linker,
    answer::{Answer, Distrust},
    document::{Head, merge},
    order::{Order, State},
};
use crate::{
    model::{Problem, Snapshot},
    seal::signature::VerifyingKey,
};

/// A document, and where it stands.
pub(super) struct Held {
    state: State,
    /// `ETag`, with its quotes.
    pub(super) etag: String,
    text: Text,
}

/// Where the text of a document comes from.
enum Text {
    /// It came whole.
    Told(Answer),
    /// A delta was merged into what was held.
    Merged(Zeroizing<Vec<u8>>),
}

/// An update that may follow, not linked yet.
pub(super) struct Accepted {
    held: Held,
    delta: Option<Answer>,
    new_epoch: bool,
}

/// One that was linked.
pub(super) struct Taken {
    /// What is in force with it.
    pub(super) held: Held,
    /// The same, linked.
    pub(super) snapshot: Snapshot,
    /// What was merged; `None` = it came whole.
    pub(super) delta: Option<Answer>,
    /// Whether versions begin anew with it.
    pub(super) new_epoch: bool,
}

/// Why an update is not taken.
#[derive(Debug)]
pub(super) enum Rejected {
    /// Not signed, or not by the control plane.
    Distrusted(Distrust),
    /// Older than what is held.
    Overtaken,
    /// A delta that does not fit what is held.
    Misfit,
    /// No snapshot of a feed; what is wrong with it.
    Malformed(&'static str),
    /// A snapshot with faults, and its `ETag`.
    Faulty(String, Vec<Problem>),
    /// It is what is held.
    Same,
}

// === impl Held ===

impl Held {
    /// The whole text.
    pub(super) fn document(&self) -> &[u8] {
        match &self.text {
            Text::Told(answer) => answer.body(),
            Text::Merged(text) => text,
        }
    }

    /// As it came, if it came whole.
    pub(super) fn told(&self) -> Option<&Answer> {
        match &self.text {
            Text::Told(answer) => Some(answer),
            Text::Merged(_) => None,
        }
    }

    /// Whose versions it is ordered by.
    pub(super) fn epoch(&self) -> &str {
        &self.state.epoch
    }

    /// From where a delta is welcome.
    pub(super) fn tag(&self) -> String {
        self.state.tag()
    }
}

impl fmt::Debug for Held {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Held").field("state", &self.state).finish_non_exhaustive()
    }
}

// === impl Accepted ===

impl Accepted {
    /// Whether `answer` is signed by one of `keys` and may follow what is `held`, and what is held then. Blocks for large ones.
    ///
    /// # Errors
    /// [`Rejected`].
    pub(super) fn judge(answer: Answer, keys: Option<&[VerifyingKey]>, held: Option<&Held>) -> Result<Self, Rejected> {
        if let Some(keys) = keys {
            answer.verify(keys).map_err(Rejected::Distrusted)?;
        }
        let head = Head::read(answer.body()).ok_or(Rejected::Malformed("is no snapshot with epoch and version"))?;
        let (state, since) = (head.state(), head.since);
        if answer.tag() != state.tag() {
            return Err(Rejected::Malformed("does not have the version that its ETag says"));
        }
        let order = state.order(held.map(|held| &held.state));
        match order {
            Order::Older | Order::OlderEpoch => return Err(Rejected::Overtaken),
            Order::Same if held.is_some_and(|held| held.document() == answer.body()) => return Err(Rejected::Same),
            Order::Same | Order::Newer | Order::NewEpoch => {}
        }
        let etag = answer.etag.clone();
        let Some(since) = since else {
            let held = Held { state, etag, text: Text::Told(answer) };
            return Ok(Self { held, delta: None, new_epoch: order == Order::NewEpoch });
        };
        let base = held.filter(|held| held.state.epoch == state.epoch && held.state.version == since);
        let base = base.ok_or(Rejected::Misfit)?;
        let text = merge(base.document(), answer.body()).map_err(|_| Rejected::Misfit)?;
        Ok(Self { held: Held { state, etag, text: Text::Merged(text) }, delta: Some(answer), new_epoch: false })
    }

    /// What would be in force.
    pub(super) fn held(&self) -> &Held {
        &self.held
    }

    /// Its whole text.
    pub(super) fn document(&self) -> &[u8] {
        self.held.document()
    }

    /// Links it. Blocks for large ones.
    ///
    /// # Errors
    /// [`Rejected::Faulty`].
    pub(super) fn link(self, linker: &Linker, strict: bool) -> Result<Taken, Rejected> {
        let Self { held, delta, new_epoch } = self;
        match linker.link(held.document(), strict) {
            Ok(snapshot) => Ok(Taken { held, snapshot, delta, new_epoch }),
            Err(problems) => Err(Rejected::Faulty(held.etag, problems)),
        }
    }
}

// === impl Rejected ===

impl Rejected {
    /// For people.
    pub(super) fn reason(&self) -> &'static str {
        match self {
            Self::Distrusted(Distrust::Unsigned) => "is not signed, and public_key_file is set",
            Self::Distrusted(Distrust::Forged) => "is not signed by a key of public_key_file, or was changed since",
            Self::Overtaken => "is older than what is in force: an answer of before, or one that somebody kept",
            Self::Misfit => "does not fit what was before it",
            Self::Malformed(what) => what,
            Self::Faulty(..) => "is faulty",
            Self::Same => "is what is in force",
        }
    }
}
