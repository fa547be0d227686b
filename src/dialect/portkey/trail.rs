//! Who is to blame for a reply: the mappings whose values a provider refused, or that a fallback went past.
//!
//! The gateway names the target it used last in `x-portkey-last-used-option-index`: `config`, then `.targets[n]` for each
//! level. In front of it a fallback tried others in order and was not content with them. Which status it was it does not say;
//! where `on_status_codes` names neither 401 nor 403, it was no refusal, and nobody is to blame (gateway 1.15.2,
//! `src/handlers/handlerUtils.ts`).

use std::sync::Arc;

use http::{HeaderMap, StatusCode};

use super::{
    config_tree::{Shape, Target, Tree, key, node::Node},
    placement::{CUSTOM_HEADERS, PlacedValue, Placement},
    plan::{Action, Plan},
};
use crate::model::{Entity, FieldValue, Mapping};

/// Names the target that was used last.
const LAST_USED: &str = "x-portkey-last-used-option-index";

/// Mappings under suspicion, as indices into [`Plan::mappings`]; none stands in both lists or twice.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Blame {
    /// The reply is a refusal (401, 403), and these were behind it.
    pub refused: Vec<usize>,
    /// A fallback went past the targets that use these.
    pub skipped: Vec<usize>,
}

/// The shape of a rebuilt config, as the gateway walks it.
#[derive(Debug)]
pub(super) enum Trail {
    /// Routes.
    Router {
        /// What it takes to come to the next one.
        passes: Passes,
        /// In order.
        targets: Vec<Trail>,
    },
    /// Is a target: an index among the placements, `None` when it is not ours.
    Leaf(Option<usize>),
}

/// When a router goes from one target to the next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Passes {
    /// Never: it picks one.
    Never,
    /// Past a target that failed in ways of which a refused credential is none.
    OtherFailures,
    /// Past a target that failed, a refused credential included.
    Refusals,
}

/// Collects mappings, each once.
struct Suspects<'p> {
    mappings: &'p [Arc<Mapping>],
    entities: &'p [Arc<Entity>],
    placements: &'p [Placement],
}

// === impl Blame ===

impl Blame {
    /// Whether nobody is to blame.
    pub fn is_none(&self) -> bool {
        self.refused.is_empty() && self.skipped.is_empty()
    }
}

// === impl Trail ===

impl Trail {
    /// The trail of `tree`, whose leaves stand at `places`.
    pub(super) fn of(tree: &Tree<'_>, places: &[Option<usize>]) -> Self {
        Self::of_target(&tree.root, places)
    }

    fn of_target(target: &Target<'_>, places: &[Option<usize>]) -> Self {
        match &target.shape {
            Shape::Leaf(leaf) => Self::Leaf(places.get(leaf.index).copied().flatten()),
            Shape::Router(targets) => {
                let targets = targets.iter().map(|target| Self::of_target(target, places)).collect();
                Self::Router { passes: Passes::of(target.get("strategy")), targets }
            }
        }
    }

    /// Calls `skipped` for the subtrees a fallback went past on the way to `path`, and returns where it ends; `None` for a
    /// path that leads nowhere.
    fn follow<'t>(&'t self, path: &str, skipped: &mut impl FnMut(&'t Self)) -> Option<&'t Self> {
        let mut here = self;
        let mut rest = path.strip_prefix("config")?;
        while !rest.is_empty() {
            let (index, after) = rest.strip_prefix(".targets[")?.split_once(']')?;
            let index: usize = index.parse().ok()?;
            let Self::Router { passes, targets } = here else { return None };
            here = targets.get(index)?;
            for target in &targets[..index] {
                match (passes, target) {
                    (Passes::Never, _) | (Passes::OtherFailures, Self::Leaf(_)) => {}
                    // What it was inside of a router, before that failed otherwise, is not known.
                    (Passes::Refusals, _) | (Passes::OtherFailures, Self::Router { .. }) => skipped(target),
                }
            }
            rest = after;
        }
        Some(here)
    }

    /// Calls `visit` for the placement of each leaf of ours.
    fn leaves(&self, visit: &mut impl FnMut(usize)) {
        match self {
            Self::Leaf(place) => place.iter().for_each(|place| visit(*place)),
            Self::Router { targets, .. } => targets.iter().for_each(|target| target.leaves(visit)),
        }
    }
}

// === impl Passes ===

impl Passes {
    fn of(strategy: Option<&Node<'_>>) -> Self {
        if strategy.and_then(|strategy| strategy.member("mode")).and_then(Node::text) != Some("fallback") {
            return Self::Never;
        }
        let mut members = strategy.and_then(Node::members).into_iter().flatten();
        let codes = members
            .find(|(name, _)| key::is_field(&key::camel(name), "on_status_codes"))
            .and_then(|(_, codes)| codes.items());
        let refusal =
            |code: &Node<'_>| matches!(code, Node::Number(code) if [401.0, 403.0].map(Some).contains(&code.as_f64()));
        // Without a list, any status but a success.
        if codes.is_none_or(|codes| codes.iter().any(refusal)) { Self::Refusals } else { Self::OtherFailures }
    }
}

// === impl Suspects ===

impl Suspects<'_> {
    /// Adds to `out` what the leaves of `trail` use, unless it is in `out` or `elsewhere` already.
    fn add(&self, trail: &Trail, out: &mut Vec<usize>, elsewhere: &[usize]) {
        trail.leaves(&mut |place| {
            let Some(placement) = self.placements.get(place) else { return };
            let Some(entity) = self.entities.get(placement.entity) else { return };
            let placed = placement.fields(entity).filter_map(|placed| match placed.value {
                PlacedValue::Mapped(mapping) => Some(mapping),
                PlacedValue::Plain(_) | PlacedValue::Stored { .. } => None,
            });
            let custom = entity.field(CUSTOM_HEADERS).and_then(|field| match &field.value {
                FieldValue::Mapped(mapping) => Some(mapping),
                FieldValue::Plain(_) | FieldValue::Stored(_) => None,
            });
            for mapping in placed.chain(custom) {
                let index = self.mappings.iter().position(|other| Arc::ptr_eq(other, mapping));
                out.extend(index.filter(|index| !out.contains(index) && !elsewhere.contains(index)));
            }
        });
    }
}

/// Whether a provider (or the gateway on its behalf) answers so to a credential it does not take.
pub(super) fn refuses(status: StatusCode) -> bool {
    matches!(status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN)
}

/// Who is to blame for a reply to what `plan` made.
pub(super) fn blame(plan: &Plan, status: StatusCode, headers: &HeaderMap) -> Blame {
    let refused = refuses(status);
    let everything = || Blame { refused: (0..plan.mappings.len()).collect(), skipped: Vec::new() };
    match &plan.action {
        Action::Headers { .. } if refused => everything(),
        Action::Config { placements, rebuilt } if !plan.mappings.is_empty() => {
            let suspects = Suspects { mappings: &plan.mappings, entities: &plan.entities, placements };
            let path = headers.get(LAST_USED).and_then(|path| path.to_str().ok());
            let mut past = Vec::new();
            let used = path.and_then(|path| rebuilt.trail.follow(path, &mut |skipped| past.push(skipped)));
            let mut blame = Blame::default();
            match used {
                Some(used) if refused => suspects.add(used, &mut blame.refused, &[]),
                None if refused => return everything(),
                Some(_) | None => {}
            }
            if used.is_some() {
                for skipped in past {
                    suspects.add(skipped, &mut blame.skipped, &blame.refused);
                }
            }
            blame
        }
        Action::Pass { .. } | Action::Headers { .. } | Action::Config { .. } => Blame::default(),
    }
}

/// The entities behind the target that was used last.
pub(super) fn used(plan: &Plan, headers: &HeaderMap) -> Option<Vec<Arc<Entity>>> {
    let Action::Config { placements, rebuilt } = &plan.action else { return None };
    let path = headers.get(LAST_USED)?.to_str().ok()?;
    let mut used = Vec::new();
    rebuilt.trail.follow(path, &mut |_| {})?.leaves(&mut |place| {
        let entity = placements.get(place).and_then(|placement| plan.entities.get(placement.entity));
        used.extend(entity.map(Arc::clone));
    });
    Some(used)
}
