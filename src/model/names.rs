//! Names in scopes: a slug in the caller's workspace, then organisation-wide. Every look-up is a constant number of probes.
//!
//! A set finds an object by the slug that stands in it: of a million objects, every pointer that is kept beside them counts.

use std::{
    borrow::Borrow,
    collections::{HashMap, HashSet},
    hash::{Hash, Hasher},
    sync::Arc,
};

use super::Hidden;

/// What is found by its slug.
pub(super) trait Named {
    fn slug(&self) -> &Arc<str>;
}

/// Objects of one kind by slug and scope.
#[derive(Debug)]
pub(super) struct Names<T> {
    organisation: HashSet<BySlug<T>>,
    workspaces: HashMap<Arc<str>, HashSet<BySlug<T>>>,
    /// Of each slug of any workspace, the first object that has it.
    anywhere: HashSet<BySlug<T>>,
    /// Slugs that several workspaces have.
    ambiguous: HashSet<Arc<str>>,
}

/// An object that is equal to its slug.
#[derive(Debug)]
struct BySlug<T>(Arc<T>);

// === impl Names ===

impl<T: Named> Names<T> {
    /// Makes room for `more` objects of workspaces: growing asks each object anew where it belongs.
    pub(super) fn reserve(&mut self, more: usize) {
        self.anywhere.reserve(more);
    }

    /// Adds an object. Its scope must be [free](Self::is_free) of its slug, or the document is refused anyway.
    pub(super) fn insert(&mut self, workspace: Option<&Arc<str>>, object: Arc<T>) {
        let Some(workspace) = workspace else {
            self.organisation.replace(BySlug(object));
            return;
        };
        if let Some(first) = self.anywhere.get(&**object.slug()) {
            self.ambiguous.insert(Arc::clone(first.0.slug()));
        } else {
            self.anywhere.insert(BySlug(Arc::clone(&object)));
        }
        self.workspaces.entry(Arc::clone(workspace)).or_default().replace(BySlug(object));
    }

    /// Whether nothing has `slug` in exactly this scope.
    pub(super) fn is_free(&self, workspace: Option<&str>, slug: &str) -> bool {
        let scope = match workspace {
            Some(workspace) => self.workspaces.get(workspace),
            None => Some(&self.organisation),
        };
        scope.is_none_or(|scope| !scope.contains(slug))
    }

    /// The object that `slug` names in `workspace` (an id; `None` = none in force).
    pub(super) fn find(&self, slug: &str, workspace: Option<&str>) -> Result<&Arc<T>, Hidden> {
        if let Some(found) = workspace.and_then(|id| self.workspaces.get(id)).and_then(|scope| scope.get(slug)) {
            return Ok(&found.0);
        }
        if let Some(found) = self.organisation.get(slug) {
            return Ok(&found.0);
        }
        match (self.anywhere.get(slug), workspace) {
            (None, _) => Err(Hidden::Unknown),
            (Some(_), Some(_)) => Err(Hidden::OtherWorkspace),
            (Some(_), None) if self.ambiguous.contains(slug) => Err(Hidden::Ambiguous),
            (Some(unique), None) => Ok(&unique.0),
        }
    }

    /// Every object, in no order.
    pub(super) fn iter(&self) -> impl Iterator<Item = &Arc<T>> {
        self.organisation.iter().chain(self.workspaces.values().flatten()).map(|found| &found.0)
    }
}

impl<T> Default for Names<T> {
    fn default() -> Self {
        Self {
            organisation: HashSet::new(),
            workspaces: HashMap::new(),
            anywhere: HashSet::new(),
            ambiguous: HashSet::new(),
        }
    }
}

// === impl BySlug ===

impl<T: Named> Borrow<str> for BySlug<T> {
    fn borrow(&self) -> &str {
        self.0.slug()
    }
}

impl<T: Named> PartialEq for BySlug<T> {
    fn eq(&self, other: &Self) -> bool {
        self.0.slug() == other.0.slug()
    }
}

impl<T: Named> Eq for BySlug<T> {}

impl<T: Named> Hash for BySlug<T> {
    /// As its slug is hashed, which [`Borrow`] asks for.
    fn hash<H: Hasher>(&self, state: &mut H) {
        str::hash(self.0.slug(), state);
    }
}
