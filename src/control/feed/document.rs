//! An update, encoded and signed: the whole snapshot, or what changed since a version.
//!
//! Rows are read a part at a time in one transaction, and encoded where threads may be busy. The signature is Ed25519 over
//! `sidekey-snapshot-v1`, the ETag and the body, each on a line of its own but the last, so that the buffer begins with
//! what is signed and not sent.

use std::{
    collections::{BTreeMap, HashSet},
    mem,
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::Bytes;
use http::HeaderValue;
use serde_json::{Value, json};
use tokio::{
    sync::OwnedSemaphorePermit,
    task::{JoinError, spawn_blocking},
};
use tracing::error;

use super::{
    Source,
    row::{self, LISTS, Surroundings},
};
use crate::{
    control::{
        answer::instant,
        store::{Filter, Head, Kind, Object, Page, StoreError, Tenant, now},
    },
    seal::signature::SigningKey,
};

/// What the signed text begins with.
const SIGNED: &str = "sidekey-snapshot-v1";
/// Most objects of a delta; more are told by the whole.
const MAX_DELTA: usize = 5_000;

/// An encoded update. Shared by all who are sent it.
pub(super) struct Update {
    /// The state after it.
    pub(super) head: Head,
    /// `ETag`.
    pub(super) etag: HeaderValue,
    /// `x-sidekey-signature`.
    pub(super) signature: HeaderValue,
    /// JSON.
    pub(super) body: Bytes,
    /// Of those that may exist at once, if that is bounded.
    _place: Option<OwnedSemaphorePermit>,
}

/// Why an update cannot be made.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failure {
    /// The database.
    #[error("the database failed")]
    Store(#[from] StoreError),
    /// As many snapshots as may be in memory are still being sent.
    #[error("slow readers still have old snapshots")]
    Crowded,
    /// Encoding did not come to its end.
    #[error("encoding it ended early")]
    Encoding(#[from] JoinError),
}

/// A document that is being written.
struct Text {
    buffer: Vec<u8>,
    /// Where the body begins.
    begin: usize,
    head: Head,
    first: bool,
}

/// The whole snapshot of `organisation`, in a buffer of `size` bytes to begin with.
pub(super) async fn whole(
    source: &Source,
    organisation: &str,
    size: usize,
    place: OwnedSemaphorePermit,
) -> Result<Update, Failure> {
    let mut tenant = source.store.tenant(organisation).await?;
    let head = tenant.head().await?;
    let mut text = Text::begin(head, organisation, &json!({ "version": head.version }), size);
    let mut around = Surroundings::default();
    for (kind, list) in LISTS {
        text.open(list, b'[');
        let mut after = String::new();
        loop {
            let part = tenant.part(kind, &after).await?;
            let (Some(first), Some(last)) = (part.first(), part.last()) else { break };
            if row::has_hashes(kind) {
                around.hashes = tenant.hashes_between(kind, &first.id, &last.id).await?;
            }
            after.clone_from(&last.id);
            (text, around) = spawn_blocking(move || text.rows(&part, around)).await?;
        }
        text.close(b']');
    }
    drop(tenant);
    finish(source, text, Some(place)).await
}

/// What changed since the version `since`; `None` when it is more than a delta tells.
pub(super) async fn delta(source: &Source, organisation: &str, since: i64) -> Result<(Head, Option<Update>), Failure> {
    let mut tenant = source.store.tenant(organisation).await?;
    let head = tenant.head().await?;
    let mut changed = tenant.changed(since, MAX_DELTA + 1).await?;
    let removed = tenant.removed(since, MAX_DELTA + 1).await?;
    if changed.len() + removed.len() <= MAX_DELTA {
        add_keys(&mut tenant, &mut changed).await?;
    }
    if changed.len() + removed.len() > MAX_DELTA {
        return Ok((head, None));
    }
    let mut around = surroundings(&mut tenant, &changed).await?;
    drop(tenant);
    let organisation = organisation.to_owned();
    let text = spawn_blocking(move || {
        let mut text = Text::begin(head, &organisation, &json!({ "since": since, "version": head.version }), 0);
        text.open("changed", b'{');
        for (list, objects) in by_list(changed, |object| object.kind) {
            text.open(list, b'[');
            (text, around) = text.rows(&objects, around);
            text.close(b']');
        }
        text.close(b'}');
        text.open("removed", b'{');
        for (list, ids) in by_list(removed, |(kind, _)| *kind) {
            text.open(list, b'[');
            for (_, id) in ids {
                text.separate();
                text.json(&Value::from(id));
            }
            text.close(b']');
        }
        text.close(b'}');
        text
    });
    let update = finish(source, text.await?, None).await?;
    Ok((head, Some(update)))
}

/// The rows of API keys say what their workspace sets, and change with it.
async fn add_keys(tenant: &mut Tenant, changed: &mut Vec<Object>) -> Result<(), StoreError> {
    let of_kind = |kind| move |object: &&Object| object.kind == kind;
    let known: HashSet<String> = changed.iter().filter(of_kind(Kind::ApiKey)).map(|key| key.id.clone()).collect();
    let workspaces: Vec<_> = changed.iter().filter(of_kind(Kind::Workspace)).map(|it| it.id.clone()).collect();
    for workspace_id in workspaces {
        let filter = Filter { workspace_id, own_only: true, ..Filter::default() };
        let page = Page { index: 0, size: MAX_DELTA + 1 };
        let keys = tenant.page(Kind::ApiKey, &filter, page).await?.objects;
        changed.extend(keys.into_iter().filter(|key| !known.contains(&key.id)));
    }
    Ok(())
}

/// What the rows of `changed` say beside themselves.
async fn surroundings(tenant: &mut Tenant, changed: &[Object]) -> Result<Surroundings, StoreError> {
    let mut around = Surroundings::default();
    let mut workspaces = HashSet::new();
    for object in changed.iter().filter(|object| row::has_hashes(object.kind)) {
        let hashes = tenant.hashes_of(object).await?;
        around.hashes.extend(hashes.into_iter().map(|hash| (object.id.clone(), hash)));
        if workspaces.insert(&object.workspace_id)
            && let Some(workspace) = tenant.get(Kind::Workspace, &object.workspace_id).await?
        {
            around.add(&workspace);
        }
    }
    // It does not matter in which order one object's are.
    around.hashes.sort_by(|one, other| one.0.cmp(&other.0));
    Ok(around)
}

/// Those that stand in a list, list by list.
fn by_list<T>(all: Vec<T>, kind: impl Fn(&T) -> Kind) -> BTreeMap<&'static str, Vec<T>> {
    let mut lists = BTreeMap::<_, Vec<T>>::new();
    for one in all {
        if let Some((_, list)) = LISTS.iter().find(|(known, _)| *known == kind(&one)) {
            lists.entry(*list).or_default().push(one);
        }
    }
    lists
}

async fn finish(source: &Source, text: Text, place: Option<OwnedSemaphorePermit>) -> Result<Update, Failure> {
    let signing = source.signing.clone();
    Ok(spawn_blocking(move || text.end(&signing, place)).await?)
}

// === impl Update ===

impl std::fmt::Debug for Update {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Update").field("head", &self.head).field("bytes", &self.body.len()).finish_non_exhaustive()
    }
}

// === impl Text ===

impl Text {
    /// Begins with what is signed only, and the members that every document has; `more` stands among them.
    fn begin(head: Head, organisation: &str, more: &Value, size: usize) -> Self {
        let mut buffer = Vec::with_capacity(size);
        buffer.extend(format!("{SIGNED}\n{}\n", etag(head)).bytes());
        let mut text = Self { begin: buffer.len(), buffer, head, first: true };
        text.buffer.push(b'{');
        let always = json!({
            "schema_version": 1,
            "epoch": head.epoch.to_string(),
            "generated_at": instant(now()),
            "organisation_id": organisation,
        });
        for (name, value) in [more, &always].into_iter().filter_map(Value::as_object).flatten() {
            text.name(name);
            text.json(value);
        }
        text
    }

    fn open(&mut self, name: &str, bracket: u8) {
        self.name(name);
        self.buffer.push(bracket);
        self.first = true;
    }

    fn close(&mut self, bracket: u8) {
        self.buffer.push(bracket);
        self.first = false;
    }

    /// The rows of `objects`. Workspaces become surroundings of what follows.
    fn rows(mut self, objects: &[Object], mut around: Surroundings) -> (Self, Surroundings) {
        for object in objects {
            let (length, first) = (self.buffer.len(), self.first);
            self.separate();
            let written = row::write(object, &around, &mut self.buffer);
            if object.kind == Kind::Workspace {
                around.add(object);
            }
            match written {
                Ok(Some(())) => continue,
                Ok(None) => {}
                // One row that cannot be read takes no other away.
                Err(cause) => error!(error = %cause, "An object is left out of the feed."),
            }
            self.buffer.truncate(length);
            self.first = first;
        }
        (self, around)
    }

    fn name(&mut self, name: &str) {
        self.separate();
        self.json(&Value::from(name));
        self.buffer.push(b':');
    }

    fn separate(&mut self) {
        if !mem::replace(&mut self.first, false) {
            self.buffer.push(b',');
        }
    }

    fn json(&mut self, value: &Value) {
        // Neither a value nor a buffer in memory can fail.
        let _ = serde_json::to_writer(&mut self.buffer, value);
    }

    fn end(mut self, signing: &SigningKey, place: Option<OwnedSemaphorePermit>) -> Update {
        self.buffer.push(b'}');
        self.buffer.shrink_to_fit();
        let signature = format!("ed25519={}", STANDARD.encode(signing.sign(&self.buffer)));
        Update {
            head: self.head,
            etag: header(&etag(self.head)),
            signature: header(&signature),
            body: Bytes::from(self.buffer).slice(self.begin..),
            _place: place,
        }
    }
}

/// `"<epoch>-<version>"`, with its quotes.
pub(super) fn etag(head: Head) -> String {
    format!("\"{}-{}\"", head.epoch, head.version)
}

/// Digits and base64 are legal in a header.
fn header(text: &str) -> HeaderValue {
    HeaderValue::from_str(text).unwrap_or_else(|_| HeaderValue::from_static(""))
}
