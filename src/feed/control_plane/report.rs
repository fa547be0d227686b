//! Tells the control plane what has been used: one report at a time, over a client like that of the feed.

use bytes::Bytes;

use super::client::{Address, Client, FetchError};

/// Largest answer that is read, in bytes.
const MAX_ANSWER: u64 = 64 << 10;

/// The way of reports to the control plane.
#[derive(Debug)]
pub struct Reporter {
    client: Client,
}

/// Why a report was not taken.
#[derive(Debug, thiserror::Error)]
pub enum Untold {
    /// It never will be.
    #[error("the control plane refuses it with status {0}")]
    Refused(u16),
    /// It may be told again; the reason is for people.
    #[error("{0}")]
    Away(String),
}

// === impl Reporter ===

impl Reporter {
    /// To the control plane at `address`. Nothing is connected yet.
    pub fn new(address: Address) -> Self {
        Self { client: Client::new(address, MAX_ANSWER) }
    }

    /// Tells `report`, JSON, once.
    ///
    /// # Errors
    /// [`Untold`]. It may have arrived all the same, so that it has to be the same when it is told again.
    pub async fn tell(&mut self, report: Bytes) -> Result<(), Untold> {
        self.client.report(report).await.map_err(|error| match error {
            FetchError::Status(status @ (400 | 413 | 422), _) => Untold::Refused(status),
            error => Untold::Away(error.to_string()),
        })
    }
}
