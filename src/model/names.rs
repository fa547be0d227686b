//! Names in scopes: a slug in the caller's workspace, then organisation-wide. Every look-up is a constant number of probes.

use std::{collections::HashMap, sync::Arc};

use super::Hidden;

/// Objects of one kind by slug and scope.
#[derive(Debug)]
pub(super) struct Names<T> {
    organisation: HashMap<Arc<str>, Arc<T>>,
    workspaces: HashMap<Arc<str>, HashMap<Arc<str>, Arc<T>>>,
    /// Slugs of all workspaces together; `None` = several workspaces have it.
    anywhere: HashMap<Arc<str>, Option<Arc<T>>>,
}

// === impl Names ===

impl<T> Names<T> {
    /// Adds an object. Its scope must be [free](Self::is_free) of the slug, or the document is refused anyway.
    pub(super) fn insert(&mut self, workspace: Option<&Arc<str>>, slug: &Arc<str>, object: Arc<T>) {
        let Some(workspace) = workspace else {
            self.organisation.insert(Arc::clone(slug), object);
            return;
        };
        let scope = self.workspaces.entry(Arc::clone(workspace)).or_default();
        scope.insert(Arc::clone(slug), Arc::clone(&object));
        self.anywhere.entry(Arc::clone(slug)).and_modify(|unique| *unique = None).or_insert(Some(object));
    }

    /// Whether nothing has `slug` in exactly this scope.
    pub(super) fn is_free(&self, workspace: Option<&str>, slug: &str) -> bool {
        let scope = match workspace {
            Some(workspace) => self.workspaces.get(workspace),
            None => Some(&self.organisation),
        };
        scope.is_none_or(|scope| !scope.contains_key(slug))
    }

    /// The object that `slug` names in `workspace` (an id; `None` = none in force).
    pub(super) fn find(&self, slug: &str, workspace: Option<&str>) -> Result<&Arc<T>, Hidden> {
        if let Some(found) = workspace.and_then(|id| self.workspaces.get(id)).and_then(|scope| scope.get(slug)) {
            return Ok(found);
        }
        if let Some(found) = self.organisation.get(slug) {
            return Ok(found);
        }
        match (self.anywhere.get(slug), workspace) {
            (None, _) => Err(Hidden::Unknown),
            (Some(_), Some(_)) => Err(Hidden::OtherWorkspace),
            (Some(Some(unique)), None) => Ok(unique),
            (Some(None), None) => Err(Hidden::Ambiguous),
        }
    }

    /// Every object, in no order.
    pub(super) fn iter(&self) -> impl Iterator<Item = &Arc<T>> {
        self.organisation.values().chain(self.workspaces.values().flat_map(HashMap::values))
    }
}

impl<T> Default for Names<T> {
    fn default() -> Self {
        Self { organisation: HashMap::new(), workspaces: HashMap::new(), anywhere: HashMap::new() }
    }
}
