//! Collecting faults: bounded, in document order, each with its place. Quotes names, never values.

use std::{collections::HashSet, fmt, mem, sync::Arc};

use serde::Deserialize;
use serde_json::value::RawValue;
use time::OffsetDateTime;

use super::{Problem, parse_instant};
use crate::model::{
    Lifespan,
    raw::{self, Given, Rows, Text},
};

/// Faults kept in words; further ones are counted.
const MAX_PROBLEMS: usize = 10_000;
/// Longest slug or id, in bytes; the limit of Portkey's API.
const MAX_NAME_BYTES: usize = 255;
/// Longest name that a message quotes, in characters.
const MAX_QUOTED_CHARS: usize = 64;

/// The key of a fault that lies in no single one.
pub(super) const WHOLE: &str = "";

/// Everything found wrong so far.
#[derive(Default)]
pub(super) struct Findings {
    problems: Vec<Problem>,
    omitted: usize,
    ignored: Vec<Problem>,
    set_aside: usize,
    refused: bool,
}

/// Faults of one object.
pub(super) struct Report<'f> {
    findings: &'f mut Findings,
    list: &'static str,
    index: usize,
    slug: Option<Arc<str>>,
    first: Option<Arc<str>>,
}

/// What an object is called, before its scope is known.
pub(super) struct Named {
    id: Option<Arc<str>>,
    slug: Arc<str>,
}

/// Id and slug of one object; either may be left out and is then the other.
#[derive(Clone)]
pub(super) struct Naming {
    pub(super) id: Arc<str>,
    pub(super) slug: Arc<str>,
}

/// Ids seen in one list.
#[derive(Default)]
pub(super) struct Ids(HashSet<Arc<str>>);

/// A name as a message shows it: escaped and cut.
pub(super) struct Quoted<'a>(pub(super) &'a str);

// === impl Findings ===

impl Findings {
    /// A fault that belongs to no object.
    pub(super) fn fault(&mut self, at: impl Into<String>, message: impl Into<String>) {
        if self.problems.len() < MAX_PROBLEMS {
            self.problems.push(Problem { at: at.into(), message: message.into() });
        } else {
            self.omitted += 1;
        }
    }

    /// A fault that refuses the whole document.
    pub(super) fn refuse(&mut self, at: impl Into<String>, message: impl Into<String>) {
        self.refused = true;
        self.fault(at, message);
    }

    /// A value of the document itself.
    pub(super) fn value<T>(&mut self, at: &str, given: Given<T>, expected: &str) -> Option<T> {
        match given {
            Given::Value(value) => Some(value),
            Given::Absent => None,
            Given::Unusable => {
                self.fault(at, format!("must be {expected}"));
                None
            }
        }
    }

    /// A point in time of the document itself.
    pub(super) fn instant(&mut self, at: &str, text: &str) -> Option<OffsetDateTime> {
        let instant = parse_instant(text);
        if instant.is_none() {
            self.fault(at, "must be a time like 2026-11-21T03:00:00Z");
        }
        instant
    }

    /// The rows of a list. A list of another shape refuses the document: ignoring it would take every key away.
    pub(super) fn rows<'a>(&mut self, list: &'static str, Rows(given): Rows<'a>) -> Vec<&'a RawValue> {
        match given {
            Given::Value(rows) => rows,
            Given::Absent => Vec::new(),
            Given::Unusable => {
                self.refuse(list, "must be a list");
                Vec::new()
            }
        }
    }

    /// Row `index` of `list`, read as a `T`.
    pub(super) fn row<'a, T: Deserialize<'a>>(&mut self, list: &str, index: usize, raw: &'a RawValue) -> Option<T> {
        self.known(list, index, raw::row(raw))
    }

    /// Row `index` of `list`, if it could be read.
    pub(super) fn known<T>(&mut self, list: &str, index: usize, row: Option<T>) -> Option<T> {
        if row.is_none() {
            self.set_aside += 1;
            self.fault(format!("{list}[{index}]"), "must be an object that names each of its fields once");
        }
        row
    }

    /// Starts the report of one object.
    pub(super) fn report(&mut self, list: &'static str, index: usize) -> Report<'_> {
        Report { findings: self, list, index, slug: None, first: None }
    }

    /// What is no fault, and yet has no effect. Further ones are not kept.
    pub(super) fn take_ignored(&mut self) -> Vec<Problem> {
        mem::take(&mut self.ignored)
    }

    /// How many objects have a fault.
    pub(super) fn set_aside(&self) -> usize {
        self.set_aside
    }

    /// Every fault, and whether the document is refused whole.
    pub(super) fn into_problems(mut self) -> (Vec<Problem>, bool) {
        if self.omitted > 0 {
            let message = format!("{} more problem(s) are not listed; mend these first", self.omitted);
            self.problems.push(Problem { at: "snapshot".to_owned(), message });
        }
        (self.problems, self.refused)
    }
}

// === impl Report ===

impl Report<'_> {
    /// A fault of the object at `key`: it is set aside.
    pub(super) fn fault(&mut self, key: impl fmt::Display, message: impl fmt::Display) {
        let at = self.place(&key);
        if self.first.is_none() {
            self.findings.set_aside += 1;
            self.first = Some(format!("{at}: {message}").into());
        }
        self.findings.fault(at, message.to_string());
    }

    /// Something that is no fault and has no effect.
    pub(super) fn ignored(&mut self, key: impl fmt::Display, message: impl fmt::Display) {
        if self.findings.ignored.len() < MAX_PROBLEMS {
            let at = self.place(&key);
            self.findings.ignored.push(Problem { at, message: message.to_string() });
        }
    }

    /// A fault that sets nothing aside.
    pub(super) fn remark(&mut self, key: impl fmt::Display, message: impl fmt::Display) {
        let at = self.place(&key);
        self.findings.fault(at, message.to_string());
    }

    /// A fault that refuses the whole document.
    pub(super) fn refuse(&mut self, key: impl fmt::Display, message: impl fmt::Display) {
        let at = self.place(&key);
        self.findings.refuse(at, message.to_string());
    }

    /// A value of the object.
    pub(super) fn value<T>(&mut self, key: impl fmt::Display, given: Given<T>, expected: &str) -> Option<T> {
        match given {
            Given::Value(value) => Some(value),
            Given::Absent => None,
            Given::Unusable => {
                self.fault(key, format_args!("must be {expected}"));
                None
            }
        }
    }

    /// A text of the object; an empty one counts as absent.
    pub(super) fn text<'t>(&mut self, key: impl fmt::Display, given: Given<Text<'t>>) -> Option<Text<'t>> {
        self.value(key, given, "text").filter(|text| !text.is_empty())
    }

    /// A text of the object that must be there.
    pub(super) fn required_text<'t>(&mut self, key: impl fmt::Display, given: Given<Text<'t>>) -> Option<Text<'t>> {
        match given {
            Given::Value(text) if !text.is_empty() => Some(text),
            Given::Value(_) | Given::Absent => {
                self.fault(key, "is missing");
                None
            }
            Given::Unusable => {
                self.fault(key, "must be text");
                None
            }
        }
    }

    /// The slug, and the id as far as it is written. From here on places show the slug. `None`: the object has neither and
    /// cannot be named.
    pub(super) fn named(&mut self, id: Given<Text<'_>>, slug: Given<Text<'_>>) -> Option<Named> {
        let slug = self.text("slug", slug).map(Arc::<str>::from);
        let id = self.text("id", id).map(Arc::<str>::from);
        let Some(slug) = slug.or_else(|| id.clone()) else {
            self.fault("slug", "is missing");
            return None;
        };
        self.slug = Some(Arc::clone(&slug));
        if !is_name(&slug) {
            self.fault(
                "slug",
                format_args!("must be 1 to {MAX_NAME_BYTES} bytes without `@`, `/`, spaces and control characters"),
            );
        }
        Some(Named { id, slug })
    }

    /// Id and slug of an object of `workspace`. Where no id is written the slug stands in, which is unique in its scope only.
    pub(super) fn identified(&mut self, named: Named, workspace: Option<&str>, ids: &mut Ids) -> Naming {
        let Named { id, slug } = named;
        let id = id.unwrap_or_else(|| match workspace {
            Some(workspace) => format!("{workspace}/{slug}").into(),
            None => Arc::clone(&slug),
        });
        if !ids.0.insert(Arc::clone(&id)) {
            self.refuse("id", format_args!("{} is the id of an earlier object of this list, too", Quoted(&id)));
        }
        Naming { id, slug }
    }

    /// Status and expiry. An unreadable one counts as over.
    pub(super) fn lifespan(&mut self, status: Given<Text<'_>>, expires_at: Given<Text<'_>>) -> Lifespan {
        let active = match &status {
            Given::Absent => true,
            Given::Value(status) => status.eq_ignore_ascii_case("active"),
            Given::Unusable => false,
        };
        self.value("status", status, "text");
        let expires_at = self.text("expires_at", expires_at).and_then(|text| {
            let instant = parse_instant(&text);
            if instant.is_none() {
                self.fault("expires_at", "must be a time like 2026-11-21T03:00:00Z, or null");
            }
            instant
        });
        Lifespan { active, expires_at }
    }

    /// Whether nothing was wrong so far.
    pub(super) fn is_clean(&self) -> bool {
        self.first.is_none()
    }

    /// Why the object is set aside, if it is.
    pub(super) fn into_fault(self) -> Option<Arc<str>> {
        self.first
    }

    fn place(&self, key: &dyn fmt::Display) -> String {
        let key = key.to_string();
        let dot = if key == WHOLE { "" } else { "." };
        let place = format!("{}[{}]{dot}{key}", self.list, self.index);
        match &self.slug {
            Some(slug) => format!("{place} ({})", Cut(slug)),
            None => place,
        }
    }
}

// === impl Ids ===

impl Ids {
    /// None yet, with room for those of `rows` objects.
    pub(super) fn of(rows: usize) -> Self {
        Self(HashSet::with_capacity(rows))
    }
}

// === impl Quoted ===

impl fmt::Display for Quoted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}`", Cut(self.0))
    }
}

/// Escaped and cut, without marks around it.
struct Cut<'a>(&'a str);

impl fmt::Display for Cut<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut chars = self.0.chars();
        for char in chars.by_ref().take(MAX_QUOTED_CHARS) {
            match char {
                '`' => f.write_str("\\`")?,
                char if char.is_control() => write!(f, "{}", char.escape_default())?,
                char => write!(f, "{char}")?,
            }
        }
        if chars.next().is_some() { f.write_str("…") } else { Ok(()) }
    }
}

fn is_name(name: &str) -> bool {
    (1..=MAX_NAME_BYTES).contains(&name.len())
        && !name.chars().any(|char| matches!(char, '@' | '/') || char.is_whitespace() || char.is_control())
}
