//! Which states may follow which: within an epoch versions only rise; another epoch has to be younger and, where signatures
//! are checked, signed. A control plane whose database was put back to an earlier state begins a new epoch.

use time::OffsetDateTime;

/// Where a document stands, as it says itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct State {
    /// Opaque.
    pub(super) epoch: String,
    /// Rises within an epoch.
    pub(super) version: u64,
    /// When it was made.
    pub(super) generated_at: Option<OffsetDateTime>,
}

/// What a document is to the one that is held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Order {
    /// It follows.
    Newer,
    /// It is the same state.
    Same,
    /// It follows, and begins a new epoch.
    NewEpoch,
    /// It was overtaken: an answer of before, or one that somebody kept.
    Older,
    /// Of another epoch, and made before what is held.
    OlderEpoch,
}

// === impl State ===

impl State {
    /// `<epoch>-<version>`, an `ETag` without its quotes.
    pub(super) fn tag(&self) -> String {
        format!("{}-{}", self.epoch, self.version)
    }

    /// What `self` is to `held`.
    pub(super) fn order(&self, held: Option<&Self>) -> Order {
        let Some(held) = held else { return Order::Newer };
        if self.epoch == held.epoch {
            return match self.version.cmp(&held.version) {
                std::cmp::Ordering::Less => Order::Older,
                std::cmp::Ordering::Equal => Order::Same,
                std::cmp::Ordering::Greater => Order::Newer,
            };
        }
        // One that does not say when it was made cannot show that it is younger.
        match (self.generated_at, held.generated_at) {
            (Some(made), Some(before)) if made < before => Order::OlderEpoch,
            (None, Some(_)) => Order::OlderEpoch,
            (Some(_) | None, None) | (Some(_), Some(_)) => Order::NewEpoch,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_rise_and_epochs_get_younger() {
        let state = |epoch: &str, version, made: Option<i64>| State {
            epoch: epoch.to_owned(),
            version,
            generated_at: made.map(|secs| OffsetDateTime::from_unix_timestamp(secs).unwrap()),
        };
        let held = state("7", 10, Some(1000));
        #[rustfmt::skip]
        let cases = [
            // next                        order
            (state("7", 11, Some(1001)),   Order::Newer),
            (state("7", 11, Some(1)),      Order::Newer),
            (state("7", 10, Some(1001)),   Order::Same),
            (state("7", 9, Some(2000)),    Order::Older),
            (state("8", 1, Some(1000)),    Order::NewEpoch),
            (state("6", 99, Some(1001)),   Order::NewEpoch),
            (state("8", 99, Some(999)),    Order::OlderEpoch),
            (state("8", 99, None),         Order::OlderEpoch),
        ];
        for (next, order) in cases {
            assert_eq!(next.order(Some(&held)), order, "{next:?}");
            assert_eq!(next.order(None), Order::Newer);
        }
        assert_eq!(held.tag(), "7-10");
    }
}
