//! Workspaces: who they are, and which of them an object is open to.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use super::{
    findings::{Findings, Ids, Quoted, Report},
    limits,
};
use crate::model::{
    Account, AccountKind, Snapshot, Workspaces,
    raw::{self, Given, Rows, Text},
};

/// Ids and slugs of workspaces → their ids; ids → what they may use.
#[derive(Default)]
pub(super) struct WorkspaceIndex {
    ids: HashMap<Arc<str>, Arc<str>>,
    accounts: HashMap<Arc<str>, Arc<Account>>,
}

/// One allocation for each name that many objects repeat.
#[derive(Default)]
pub(super) struct Interner(HashSet<Arc<str>>);

// === impl WorkspaceIndex ===

impl WorkspaceIndex {
    pub(super) fn link(given: Rows<'_>, findings: &mut Findings) -> Self {
        const LIST: &str = "workspaces";
        let mut ids = Ids::default();
        let mut slugs = HashSet::new();
        let mut linked = Vec::new();
        let mut accounts = HashMap::new();
        for (index, row) in findings.rows(LIST, given).into_iter().enumerate() {
            let Some(row) = findings.row::<raw::Workspace<'_>>(LIST, index, row) else { continue };
            let mut report = findings.report(LIST, index);
            let Some(named) = report.named(row.id, row.slug) else { continue };
            let naming = report.identified(named, None, &mut ids);
            if !slugs.insert(Arc::clone(&naming.slug)) {
                report.refuse("slug", "is the slug of an earlier workspace, too");
            }
            let exhausted = matches!(&row.status, Given::Value(status) if status.eq_ignore_ascii_case("exhausted"));
            let owner = (AccountKind::Workspace, &naming.id);
            let account =
                limits::account(owner, exhausted, row.rate_limits, (row.usage_limits, row.usage_reset_at), &mut report);
            // A fault is one of the snapshot: without a limit it was given, no workspace goes on.
            let account = match report.into_fault() {
                Some(_) => Some(Account::closed(AccountKind::Workspace, &naming.id)),
                None => account,
            };
            accounts.extend(account.map(|account| (Arc::clone(&naming.id), account)));
            linked.push(naming);
        }
        let mut ids = HashMap::with_capacity(linked.len() * 2);
        // A slug may look like another workspace's id; ids win, because nobody can choose them.
        ids.extend(linked.iter().map(|naming| (Arc::clone(&naming.slug), Arc::clone(&naming.id))));
        ids.extend(linked.iter().map(|naming| (Arc::clone(&naming.id), Arc::clone(&naming.id))));
        Self { ids, accounts }
    }

    /// Leaves ids by id and slug, and accounts by id, to `snapshot`.
    pub(super) fn fill(self, snapshot: &mut Snapshot) {
        snapshot.workspace_ids = self.ids;
        snapshot.workspace_accounts = self.accounts;
    }

    /// The id behind an id or slug.
    pub(super) fn id(&self, id_or_slug: &str) -> Option<&Arc<str>> {
        self.ids.get(id_or_slug)
    }

    /// `workspace_id` of an object. A dangling one stays as written: the object must not become organisation-wide.
    pub(super) fn owner(&self, given: Given<Text<'_>>, report: &mut Report<'_>) -> Option<Arc<str>> {
        if matches!(given, Given::Unusable) {
            report.fault("workspace_id", "must be text or null");
            return Some("".into());
        }
        let written = report.text("workspace_id", given)?;
        match self.id(&written) {
            Some(id) => Some(Arc::clone(id)),
            None => {
                report.fault("workspace_id", format_args!("{} is no workspace of this snapshot", Quoted(&written)));
                Some(written.into())
            }
        }
    }

    /// `allow_all_workspaces` and `allowed_workspaces` of an object.
    pub(super) fn sharing(
        &self,
        allow_all: Given<bool>,
        allowed: Given<Vec<String>>,
        report: &mut Report<'_>,
    ) -> Workspaces {
        let closed = matches!(allow_all, Given::Unusable) || matches!(allowed, Given::Unusable);
        let allow_all = report.value("allow_all_workspaces", allow_all, "true or false");
        let allowed = report.value("allowed_workspaces", allowed, "a list of ids or slugs").unwrap_or_default();
        if closed {
            return Workspaces::Only([].into());
        }
        match (allow_all, allowed.is_empty()) {
            (None | Some(true), true) => return Workspaces::All,
            (Some(true), false) => report.fault(
                "allowed_workspaces",
                "lists workspaces while allow_all_workspaces is true; set that to false or empty the list",
            ),
            (None | Some(false), _) => {}
        }
        let mut ids = Vec::with_capacity(allowed.len());
        for (index, written) in allowed.iter().enumerate() {
            match self.id(written) {
                Some(id) => ids.push(Arc::clone(id)),
                None => report.remark(
                    format_args!("allowed_workspaces[{index}]"),
                    format_args!("{} is no workspace of this snapshot; remove it", Quoted(written)),
                ),
            }
        }
        ids.sort_unstable();
        ids.dedup();
        Workspaces::Only(ids.into())
    }
}

// === impl Interner ===

impl Interner {
    pub(super) fn intern(&mut self, name: &str) -> Arc<str> {
        match self.0.get(name) {
            Some(known) => Arc::clone(known),
            None => {
                let name = Arc::<str>::from(name);
                self.0.insert(Arc::clone(&name));
                name
            }
        }
    }
}
