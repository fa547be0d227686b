//! `GET /snapshot`: what a data plane is answered.

use std::{
    convert::Infallible,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use axum::{
    body::Body,
    extract::State,
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use http::{
    HeaderMap, HeaderName, HeaderValue, StatusCode,
    header::{CONTENT_TYPE, ETAG, IF_NONE_MATCH},
};
use http_body::{Frame, SizeHint};
use tokio::{
    sync::{OwnedSemaphorePermit, watch},
    time::Instant,
};

use super::{
    Feed,
    channel::Channel,
    document::{Update, etag},
};
use crate::control::{
    Control, Refusal,
    access::bearer,
    data_plane::admit,
    query::Query,
    store::{Head, KEPT_VERSIONS, StoreError},
};

/// Longest `?wait=`, in seconds.
const MAX_WAIT_SECS: u64 = 60;
/// How much of an update is handed to a connection at once, so that what it buffers is bounded.
const FRAME: usize = 64 * 1024;
/// Of the update.
const SIGNATURE: HeaderName = HeaderName::from_static("x-sidekey-signature");

/// What a data plane says.
struct Asked {
    wait: Duration,
    /// Every state that it has: `If-None-Match` and `?since=`.
    holds: Vec<Head>,
    /// `?since=`: a delta from there on is welcome.
    since: Option<Head>,
}

/// An update on its way. The data plane keeps its place until it is written.
struct Sending {
    left: Bytes,
    _update: Arc<Update>,
    _place: OwnedSemaphorePermit,
}

/// `GET /snapshot`.
///
/// # Errors
/// 401 for an unknown token, 400 for a query that cannot be read, 429 with more connections than a data plane may have, 503
/// while the snapshot cannot be built.
pub async fn snapshot(
    State(control): State<Arc<Control>>,
    headers: HeaderMap,
    query: Query,
) -> Result<Response, Refusal> {
    let token = bearer(&headers).ok_or_else(Refusal::unauthorised)?;
    let grant = admit(&control, token).await?.ok_or_else(Refusal::unauthorised)?;
    let place = grant.take_place()?;
    let asked = Asked::read(&headers, &query)?;
    let feed = control.feed();
    let channel = feed.channel(grant.organisation()).await?;
    for held in &asked.holds {
        feed.check_held(&channel, *held).await?;
    }
    if asked.wait.is_zero() || !asked.has(channel.head()) {
        catch_up(feed, &channel).await?;
    }
    let head = feed.wait(&mut channel.watch(), &asked).await;
    // Of the time of waiting: the token may have been revoked, or its time may be over.
    if !control.feed().grants().still_holds(&grant) && admit(&control, token).await?.is_none() {
        return Err(Refusal::unauthorised());
    }
    let Some(head) = head else {
        return Ok((StatusCode::NOT_MODIFIED, [(ETAG, value(&etag(channel.head())))]).into_response());
    };
    let update = match asked.since.filter(|since| may_be_told_from(*since, head)) {
        Some(since) => channel.delta(&feed.source, since.version).await?,
        None => None,
    };
    let update = match update {
        Some(delta) => delta,
        None => channel.whole(&feed.source).await?,
    };
    Ok(Sending::response(update, place))
}

/// An organisation that was looked at before is served as it was known while the database does not answer.
async fn catch_up(feed: &Feed, channel: &Channel) -> Result<(), StoreError> {
    match feed.catch_up().await {
        Err(error) if channel.head() == Head::default() => Err(error),
        // It is logged where it is looked after.
        _ => Ok(()),
    }
}

fn may_be_told_from(since: Head, head: Head) -> bool {
    since.epoch == head.epoch && (0..=KEPT_VERSIONS).contains(&(head.version - since.version))
}

// === impl Feed ===

impl Feed {
    /// Where `channel` stands, as soon as the data plane has not got it; `None` when its time is over before that.
    async fn wait(&self, channel: &mut watch::Receiver<Head>, asked: &Asked) -> Option<Head> {
        let deadline = Instant::now() + asked.wait;
        loop {
            let head = *channel.borrow_and_update();
            if !asked.has(head) {
                return Some(head);
            }
            tokio::select! {
                changed = channel.changed() => changed.ok()?,
                () = tokio::time::sleep_until(deadline) => return None,
                () = self.end.cancelled() => return None,
            }
        }
    }
}

// === impl Asked ===

impl Asked {
    fn read(headers: &HeaderMap, query: &Query) -> Result<Self, Refusal> {
        let wait = match query.get("wait").map(str::parse) {
            None => 0,
            Some(Ok(secs)) if secs <= MAX_WAIT_SECS => secs,
            Some(_) => return Err(Refusal::invalid(format!("wait: must be 0 to {MAX_WAIT_SECS} seconds"))),
        };
        let since = match query.get("since") {
            None => None,
            Some(text) => Some(head(text).ok_or_else(|| Refusal::invalid("since: must be <epoch>-<version>"))?),
        };
        let matches = headers.get_all(IF_NONE_MATCH).iter().filter_map(|value| value.to_str().ok());
        // What is no ETag of ours matches none.
        let holds = matches.flat_map(|list| list.split(',')).filter_map(|tag| {
            let tag = tag.trim();
            head(tag.strip_prefix("W/").unwrap_or(tag).strip_prefix('"')?.strip_suffix('"')?)
        });
        Ok(Self { wait: Duration::from_secs(wait), holds: holds.chain(since).collect(), since })
    }

    fn has(&self, head: Head) -> bool {
        self.holds.contains(&head)
    }
}

/// Reads `<epoch>-<version>`.
fn head(text: &str) -> Option<Head> {
    let (epoch, version) = text.split_once('-')?;
    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    if !digits(epoch) || !digits(version) {
        return None;
    }
    Some(Head { epoch: epoch.parse().ok()?, version: version.parse().ok()? })
}

fn value(etag: &str) -> HeaderValue {
    HeaderValue::from_str(etag).unwrap_or_else(|_| HeaderValue::from_static(""))
}

// === impl Sending ===

impl Sending {
    fn response(update: Arc<Update>, place: OwnedSemaphorePermit) -> Response {
        let headers = [
            (CONTENT_TYPE, HeaderValue::from_static("application/json")),
            (ETAG, update.etag.clone()),
            (SIGNATURE, update.signature.clone()),
        ];
        let body = Self { left: update.body.clone(), _update: update, _place: place };
        (headers, Body::new(body)).into_response()
    }
}

impl http_body::Body for Sending {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if self.left.is_empty() {
            return Poll::Ready(None);
        }
        let next = FRAME.min(self.left.len());
        Poll::Ready(Some(Ok(Frame::data(self.left.split_to(next)))))
    }

    fn is_end_stream(&self) -> bool {
        self.left.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left.len() as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_data_plane_holds_is_read() {
        let head = |epoch, version| Head { epoch, version };
        let cases: [(&str, &[&str], &[Head]); 8] = [
            ("", &[], &[]),
            ("since=7-3", &[], &[head(7, 3)]),
            ("wait=60", &["\"7-3\""], &[head(7, 3)]),
            ("since=7-2", &["\"7-3\", W/\"6-1\"", "\"x\""], &[head(7, 3), head(6, 1), head(7, 2)]),
            ("", &["7-3"], &[]),
            ("", &["*"], &[]),
            ("", &["\"7-+3\""], &[]),
            ("", &["\"7-99999999999999999999\""], &[]),
        ];
        for (query, matches, expected) in cases {
            let mut headers = HeaderMap::new();
            for value in matches {
                headers.append(IF_NONE_MATCH, value.parse().unwrap());
            }
            let asked = Asked::read(&headers, &Query::parse(query)).unwrap();
            assert_eq!(asked.holds, expected, "{query} {matches:?}");
        }
        for query in ["wait=61", "wait=-1", "wait=1.5", "since=7", "since=a-1", "since=7-", "since=-1-1"] {
            assert!(Asked::read(&HeaderMap::new(), &Query::parse(query)).is_err(), "{query}");
        }
    }
}
