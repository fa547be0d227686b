//! Whether an object may be used at a given moment.

use time::OffsetDateTime;

/// Status and expiry of an entity or reference, as one question: usable now?
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lifespan {
    /// Only the status `active` (compared without case) is usable.
    pub active: bool,
    /// Wall-clock end of use; `None` = never ends.
    pub expires_at: Option<OffsetDateTime>,
}

// === impl Lifespan ===

impl Lifespan {
    /// Active without end.
    pub const UNLIMITED: Self = Self { active: true, expires_at: None };

    /// Usable only while both are.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        let expires_at = match (self.expires_at, other.expires_at) {
            (Some(one), Some(another)) => Some(one.min(another)),
            (one, another) => one.or(another),
        };
        Self { active: self.active && other.active, expires_at }
    }

    /// Usable at `now`: active, and not past its expiry.
    pub fn usable_at(&self, now: OffsetDateTime) -> bool {
        self.active && self.expires_at.is_none_or(|end| now < end)
    }
}
