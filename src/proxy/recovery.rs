//! What happens when a credential of ours is refused: it is looked after, and the request is sent again with what comes out.
//!
//! Upstream answers 401 or 403, or a fallback went past a target of ours: the mappings behind it are under suspicion, and the
//! resolver inquires into them, bounded. If something else comes out in time, the body was kept, and so far nothing went to the
//! client, the request is sent again, at most [`MAX_REPLAYS`] times (a newer value, then the version before). The original
//! answer waits unread, and is passed on as it is when there is nothing better. Source: CONTRACT 5, Rotation.

mod keep;

use std::{sync::Arc, time::Duration};

use http::{Response, request::Parts};
use tokio::time::Instant;
use tracing::{debug, info};

pub use self::keep::{Keeping, Kept};
use super::{
    Proxy, Refusal,
    access::Access,
    body::RequestBody,
    redact::Redactor,
    tls::Chain,
    upstream::{self, ReplyBody},
};
use crate::{
    dialect::portkey::{Blame, Plan},
    metric::OutcomeLabels,
    resolve::Replacement,
    secret::Credential,
};

/// Times a request is sent again. Two: the newer value, and with an overlap the version before it.
const MAX_REPLAYS: usize = 2;
/// Longest wait for managers, from the refusal on. What they tell later serves the next request.
const PATIENCE: Duration = Duration::from_secs(5);

/// What it takes to send a request again. Holds nothing of ours: credentials are put on it anew.
#[derive(Debug)]
pub struct Spare {
    /// The client's head, as it was planned.
    head: Parts,
    /// Its body. `None`: a WebSocket, which is not sent again.
    body: Option<Kept>,
}

/// A reply of the gateway, and what is to be searched for in it.
#[derive(Debug)]
pub struct Reply {
    /// As it came, unread.
    pub response: Response<ReplyBody>,
    /// `None` when nothing of ours was injected.
    pub redactor: Option<Redactor>,
}

/// What a recovery came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Recovered {
    /// The provider took a newer value.
    Newer,
    /// The provider took the version before.
    Earlier,
    /// Sent again and refused again.
    Refused,
    /// The manager had nothing else, or was not to be asked again yet.
    Unchanged,
    /// The secret is looked after, but the request cannot be sent again.
    NotReplayable,
    /// A fallback went past a target; its secret is looked after.
    Skipped,
    /// The gateway did not answer when it was sent again.
    Failed,
}

// === impl Recovered ===

impl Recovered {
    /// The spelling of logs and metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Newer => "newer",
            Self::Earlier => "earlier",
            Self::Refused => "refused",
            Self::Unchanged => "unchanged",
            Self::NotReplayable => "not_replayable",
            Self::Skipped => "skipped",
            Self::Failed => "failed",
        }
    }
}

// === impl Spare ===

impl Spare {
    /// Of a request that is about to be sent.
    pub fn of(head: &Parts, body: &mut RequestBody, keeping: &Keeping, websocket: bool) -> Self {
        let kept = (!websocket).then(|| body.keep(keeping));
        Self { head: upstream::copy(head), body: kept }
    }
}

// === impl Proxy ===

impl Proxy {
    /// The reply to pass on: `first`, or that to the request sent again.
    pub(super) async fn recover(
        &self,
        plan: &Plan,
        sent: Vec<Arc<Credential>>,
        spare: Spare,
        first: Reply,
        access: &mut Access,
    ) -> Reply {
        let blame = self.dialect.blame(plan, first.response.status(), first.response.headers());
        if blame.is_none() {
            if let Some(body) = &spare.body {
                body.let_go();
            }
            return first;
        }
        let (reply, recovered) = self.look_after(plan, &blame, sent, spare, first, access).await;
        self.metrics.recoveries.get_or_create(&OutcomeLabels { outcome: recovered.as_str() }).inc();
        access.recovered(recovered);
        reply
    }

    async fn look_after(
        &self,
        plan: &Plan,
        blame: &Blame,
        mut credentials: Vec<Arc<Credential>>,
        spare: Spare,
        first: Reply,
        access: &mut Access,
    ) -> (Reply, Recovered) {
        let request_id = access.request_id;
        let suspects: Vec<usize> = blame.refused.iter().chain(&blame.skipped).copied().collect();
        let sent: Vec<_> = suspects
            .iter()
            .filter_map(|&index| Some((Arc::clone(plan.mappings.get(index)?), Arc::clone(credentials.get(index)?))))
            .collect();
        let refused = self.dialect.refuses(first.response.status());
        let body = spare.body.as_ref().filter(|body| refused && body.body().is_some());
        let Some(body) = body else {
            for (mapping, credential) in &sent {
                self.resolver.report(mapping, credential);
            }
            return (first, if refused { Recovered::NotReplayable } else { Recovered::Skipped });
        };
        let (began, mut reply) = (Instant::now(), first);
        let mut quest = self.resolver.quest(sent.into_iter());
        let mut recovered = Recovered::Unchanged;
        for _ in 0..MAX_REPLAYS {
            let Some(found) = quest.next(began + PATIENCE).await else { break };
            for Replacement { suspect, resolved, .. } in &found {
                if let Some(place) = suspects.get(*suspect).and_then(|index| credentials.get_mut(*index)) {
                    *place = Arc::clone(&resolved.credential);
                }
                if let Some(index) = suspects.get(*suspect) {
                    access.replaced(*index, resolved);
                }
            }
            let earlier = found.iter().any(|found| found.earlier);
            let again = match self.send_again(plan, &credentials, &spare.head, body, access).await {
                Ok(again) => again,
                Err(refusal) => {
                    debug!(%request_id, error = %Chain(&refusal), "A request could not be sent again.");
                    return (reply, Recovered::Failed);
                }
            };
            let status = again.response.status();
            if !self.dialect.refuses(status) {
                if !status.is_server_error() {
                    quest.accepted(&found);
                }
                let outcome = if earlier { Recovered::Earlier } else { Recovered::Newer };
                info!(
                    %request_id,
                    status = status.as_u16(),
                    outcome = outcome.as_str(),
                    elapsed_ms = began.elapsed().as_millis() as u64,
                    "A refused request was sent again with another version of its secret."
                );
                return (again, outcome);
            }
            quest.refused(found);
            recovered = Recovered::Refused;
            // The last word about the secret is what its current version was answered.
            if !earlier {
                reply = again;
            }
        }
        (reply, recovered)
    }

    async fn send_again(
        &self,
        plan: &Plan,
        credentials: &[Arc<Credential>],
        head: &Parts,
        body: &Kept,
        access: &Access,
    ) -> Result<Reply, Refusal> {
        let mut head = upstream::copy(head);
        let redactor = self.inject(plan, credentials, &mut head)?;
        access.used(plan, &head);
        let response = self.upstream.send(head, body.body().unwrap_or_else(RequestBody::empty)).await?;
        Ok(Reply { response, redactor })
    }
}
