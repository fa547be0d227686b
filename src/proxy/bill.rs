//! What a request is charged for: its answer is read along with, and settled once, before its last byte is passed on.
//!
//! An answer that says nothing is estimated where a model works for it, also when the client leaves before it has come: what
//! was asked for is paid for. An error of the gateway costs nothing, nor does a request that never reached it.

use std::sync::Arc;

use http::{HeaderMap, StatusCode};

use super::body::Progress;
use crate::{
    clients::{Admission, Clients},
    dialect::usage::{Tokens, Usage, UsageScan},
    model::Entity,
};

/// Tokens of a question are not estimated from anything else: pictures and sound are not text.
const UNREAD: u64 = 0;

/// The bill of one request.
#[derive(Debug)]
pub struct Bill {
    clients: Arc<Clients>,
    admission: Admission,
    /// The model that was asked for.
    model: Option<Box<str>>,
    /// How much of the request was sent; `None` when it is no text.
    sent: Option<Arc<Progress>>,
    scan: Option<UsageScan>,
    estimates: bool,
    settled: bool,
}

// === impl Bill ===

impl Bill {
    /// For a request that is about to be sent; `None` when nothing of it is counted.
    pub fn open(
        clients: &Arc<Clients>,
        admission: Admission,
        model: Option<&str>,
        sent: Option<Arc<Progress>>,
    ) -> Option<Self> {
        admission.is_open().then(|| Self {
            clients: Arc::clone(clients),
            estimates: admission.generates,
            admission,
            // `@slug/model` without the slug.
            model: model
                .map(|model| model.strip_prefix('@').and_then(|named| named.split_once('/')).map_or(model, |it| it.1))
                .map(Into::into),
            sent,
            scan: None,
            settled: false,
        })
    }

    /// The head of the answer is there; `used` are the entities it was made with, where it says so.
    pub fn answered(&mut self, status: StatusCode, headers: &HeaderMap, used: Option<&[Arc<Entity>]>) {
        if let Some(used) = used {
            self.admission.used(used);
        }
        self.estimates &= status.is_success() || status == StatusCode::SWITCHING_PROTOCOLS;
        self.scan = self.admission.charged.then(|| UsageScan::new(headers));
    }

    /// The next bytes of the answer.
    pub fn feed(&mut self, bytes: &[u8]) {
        if let Some(scan) = &mut self.scan {
            scan.feed(bytes);
        }
    }

    /// The answer is over: `ended` by itself, or it broke off.
    pub fn settle(&mut self, ended: bool) {
        if std::mem::replace(&mut self.settled, true) {
            return;
        }
        let asked = self.sent.as_ref().map_or(UNREAD, |sent| sent.bytes());
        let scan = self.scan.take().unwrap_or_else(|| UsageScan::new(&HeaderMap::new()));
        let mut usage = scan.finish(ended, asked);
        if usage.estimated && !self.estimates {
            // Where no model works, or none did, nothing is used.
            usage = Usage { tokens: Tokens::default(), estimated: false, model: usage.model };
        }
        self.clients.settle(&self.admission, &usage, self.model.as_deref());
    }

    /// The request never reached anybody.
    pub fn void(mut self) {
        self.settled = true;
    }
}

impl Drop for Bill {
    fn drop(&mut self) {
        self.settle(false);
    }
}
