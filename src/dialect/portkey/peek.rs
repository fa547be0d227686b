//! How much of a body planning has to see, and the scanner that sees it.
//!
//! What counts is what the gateway will parse, not what the headers promise: it parses JSON on its JSON routes whatever
//! `content-type` says (also without one, and under `audio/*`), it ignores `content-encoding` on requests, and it reads no
//! body but that of a POST. So a body under a multipart type is watched for JSON too; no body can be both, as a form starts
//! with dashes. Media types the gateway refuses are not looked into.
//!
//! Source: gateway 1.15.2 `src/middlewares/requestValidator/index.ts`, `src/handlers/*.ts`; undici 6 `extractMimeType`.

use http::{Method, header::CONTENT_TYPE, request::Parts};

use super::{BodyPeek, PeekKind, json_scan::JsonScan, multipart_scan::MultipartScan};
use crate::dialect::PlanError;

mod media_type;
#[cfg(test)]
mod tests;

use media_type::MediaType;

/// Whether a scanner wants more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// What follows may change what was found.
    More,
    /// Nothing more has to be seen.
    Done,
}

/// Looks for the model of a body while its bytes pass by. Spans count from the first byte fed.
#[derive(Debug)]
pub struct BodyScan(Scan);

#[derive(Debug)]
enum Scan {
    Nothing,
    Json(JsonScan),
    Form(MultipartScan),
    /// A form, unless its first byte says that it is JSON.
    FormOrJson(Box<(MultipartScan, JsonScan)>),
}

// === impl BodyScan ===

impl BodyScan {
    /// A scanner that looks as far as `kind` says.
    pub fn new(kind: &PeekKind) -> Self {
        Self(match kind {
            PeekKind::None => Scan::Nothing,
            PeekKind::Json => Scan::Json(JsonScan::default()),
            PeekKind::Multipart(boundary) => {
                Scan::FormOrJson(Box::new((MultipartScan::new(boundary), JsonScan::default())))
            }
        })
    }

    /// Takes the next bytes of the body, at any border. After [`Progress::Done`] more of them change nothing.
    pub fn feed(&mut self, chunk: &[u8]) -> Progress {
        match &mut self.0 {
            Scan::Nothing => Progress::Done,
            Scan::Json(scan) => scan.feed(chunk),
            Scan::Form(scan) => scan.feed(chunk),
            Scan::FormOrJson(scans) => {
                let (form, json) = &mut **scans;
                let (as_form, as_json) = (form.feed(chunk), json.feed(chunk));
                match json.is_object() {
                    None => as_form,
                    Some(true) => {
                        self.0 = Scan::Json(std::mem::take(json));
                        as_json
                    }
                    Some(false) => {
                        self.0 = Scan::Form(std::mem::take(form));
                        as_form
                    }
                }
            }
        }
    }

    /// What was found. `complete` when the body ended here, `false` when the caller does not want to keep more of it.
    pub fn finish(self, complete: bool) -> BodyPeek {
        match self.0 {
            Scan::Nothing => BodyPeek::default(),
            Scan::Json(scan) => scan.finish(complete),
            Scan::Form(scan) => scan.finish(complete),
            Scan::FormOrJson(scans) => scans.0.finish(complete),
        }
    }
}

// === free functions ===

/// How much of the body of this request planning wants to see.
pub(super) fn kind(head: &Parts) -> PeekKind {
    if head.method != Method::POST {
        return PeekKind::None;
    }
    match content_type(head) {
        None => PeekKind::Json,
        Some(media) if media.is("application/json") || media.is_audio() => PeekKind::Json,
        Some(media) if media.is("multipart/form-data") => media.boundary.map_or(PeekKind::Json, PeekKind::Multipart),
        Some(_) => PeekKind::None,
    }
}

/// Refuses a `content-type` that names several types: the gateway takes the first of them to route and the last to parse.
///
/// # Errors
/// [`PlanError::InvalidBody`].
pub(super) fn check(head: &Parts) -> Result<(), PlanError> {
    let mut values = head.headers.get_all(CONTENT_TYPE).iter();
    let first = values.next();
    if values.next().is_some() || first.is_some_and(|value| media_type::names_several(value.as_bytes())) {
        return Err(PlanError::InvalidBody { reason: "content-type names more than one type".to_owned() });
    }
    Ok(())
}

fn content_type(head: &Parts) -> Option<MediaType> {
    head.headers
        .get(CONTENT_TYPE)
        .map(|value| MediaType::parse(value.as_bytes()))
        .filter(|media| !media.essence.is_empty())
}
