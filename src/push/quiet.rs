//! A warning that an outsider can provoke, bounded in how often it is written.

use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

/// Least time between two lines.
const EVERY: Duration = Duration::from_secs(10);

/// Says when to write a line, and how many were left out since the last one.
#[derive(Debug, Default)]
pub struct Quiet(Mutex<(Option<Instant>, u64)>);

// === impl Quiet ===

impl Quiet {
    /// `None`: write nothing; else the number of lines that were left out.
    pub fn turn(&self, now: Instant) -> Option<u64> {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (written, left_out) = &mut *state;
        if written.is_some_and(|written| now.saturating_duration_since(written) < EVERY) {
            *left_out += 1;
            return None;
        }
        *written = Some(now);
        Some(std::mem::take(left_out))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_is_a_line_in_ten_seconds() {
        let (quiet, start) = (Quiet::default(), Instant::now());
        let lines: Vec<_> = (0..2500).filter_map(|n| quiet.turn(start + Duration::from_millis(10 * n))).collect();
        assert_eq!(lines, [0, 999, 999]);
    }
}
