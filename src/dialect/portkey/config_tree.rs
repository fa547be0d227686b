//! A config as a tree of targets: which nodes route, which are leaves, and which entity each leaf names.
//!
//! Rules of gateway 1.15.2 (`src/middlewares/requestValidator/schema/config.ts`, `src/handlers/handlerUtils.ts`): a node with
//! `targets` routes by its `strategy`; any other node is a leaf. Leaves inherit `override_params`, `custom_host`,
//! `forward_headers` and the like, but no provider and no credential.

pub(super) mod key;
pub(super) mod node;
pub(super) mod render;

use std::borrow::Cow;

use node::Node;

use super::name;
use crate::dialect::PlanError;

/// Nodes of a config, leaves and routers together. Each leaf of ours may cost a fetch.
const MAX_TARGETS: usize = 128;

/// Levels of targets below the root.
const MAX_LEVELS: usize = 16;

/// What a target may ask to be tried again. The gateway plans all waits ahead, each twice as long as the one before, and
/// dies of a billion.
const MAX_ATTEMPTS: f64 = 100.0;

/// The gateway's strategies.
const MODES: [&str; 4] = ["single", "fallback", "loadbalance", "conditional"];

/// A config. No `Debug`: it may hold a client's credentials.
pub(super) struct Tree<'c> {
    /// The config itself.
    pub(super) root: Target<'c>,
    /// How many leaves there are.
    pub(super) leaves: usize,
}

/// One node of a config.
pub(super) struct Target<'c> {
    /// Its keys in the gateway's form, with their values.
    pub(super) members: Vec<(Cow<'c, str>, &'c Node<'c>)>,
    /// What it routes to, or its number among the leaves.
    pub(super) shape: Shape<'c>,
}

/// What a node does.
pub(super) enum Shape<'c> {
    /// Routes.
    Router(Vec<Target<'c>>),
    /// Is a target.
    Leaf(Leaf<'c>),
}

/// What a leaf names.
#[derive(Clone, Copy)]
pub(super) struct Leaf<'c> {
    /// Its number, counted from the root in order of appearance.
    pub(super) index: usize,
    /// The entity it names.
    pub(super) slug: Option<&'c str>,
    /// The model it asks for, without a name: its own, or an inherited one.
    pub(super) model: Option<&'c str>,
}

struct Reader {
    leaves: usize,
    targets: usize,
}

// === impl Tree ===

impl<'c> Tree<'c> {
    /// Reads a config.
    ///
    /// # Errors
    /// [`PlanError::InvalidConfig`] for what is no config, spells a key twice or is too large.
    pub(super) fn read(node: &'c Node<'c>) -> Result<Self, PlanError> {
        if let Some(key) = node.doubled_key() {
            return Err(invalid(format!("`{}` is spelled twice or may not stand there", key::shown(key))));
        }
        let mut reader = Reader { leaves: 0, targets: 0 };
        let root = reader.target(node, 0, None)?;
        Ok(Self { root, leaves: reader.leaves })
    }

    /// Whether the config decides where a request goes, so that names elsewhere do not count.
    pub(super) fn is_authoritative(&self) -> bool {
        match &self.root.shape {
            Shape::Router(_) => true,
            Shape::Leaf(leaf) => leaf.slug.is_some() || self.root.text("provider").is_some(),
        }
    }

    /// Takes out the leaves that cannot be used, for which `status_of` has the status they would be answered with, where another
    /// target stands in for them. Where none is left nothing is taken out.
    pub(super) fn without(&mut self, status_of: &impl Fn(&str) -> Option<u16>) {
        if !self.root.is_lost(status_of) {
            self.root.thin(status_of);
            self.leaves = 0;
            self.root.number(&mut self.leaves);
        }
    }

    /// Every leaf, in order.
    pub(super) fn leaves(&self) -> Vec<(&Target<'c>, Leaf<'c>)> {
        let mut leaves = Vec::with_capacity(self.leaves);
        self.root.visit(&mut |target| {
            if let Shape::Leaf(leaf) = &target.shape {
                leaves.push((target, *leaf));
            }
        });
        leaves
    }
}

// === impl Target ===

impl<'c> Target<'c> {
    /// The value of the field `snake`.
    pub(super) fn get(&self, snake: &str) -> Option<&'c Node<'c>> {
        self.members.iter().find(|(camel, _)| key::is_field(camel, snake)).map(|(_, node)| *node)
    }

    /// The text of the field `snake`; an empty one counts as absent.
    pub(super) fn text(&self, snake: &str) -> Option<&'c str> {
        self.get(snake).and_then(Node::text).filter(|text| !text.is_empty())
    }

    /// Whether nothing that can be used is below this node, or it may not be taken out of where it stands.
    fn is_lost(&self, status_of: &impl Fn(&str) -> Option<u16>) -> bool {
        match &self.shape {
            Shape::Leaf(leaf) => leaf.slug.and_then(status_of).is_some(),
            Shape::Router(targets) => targets.iter().all(|target| target.is_lost(status_of)),
        }
    }

    /// Takes out of each router what is lost and for which another target stands in.
    fn thin(&mut self, status_of: &impl Fn(&str) -> Option<u16>) {
        let strategy = self.get("strategy");
        let Shape::Router(targets) = &mut self.shape else { return };
        if !targets.iter().all(|target| target.is_lost(status_of)) {
            targets.retain(|target| !(target.is_lost(status_of) && stands_in(strategy, target.status(status_of))));
        }
        targets.iter_mut().for_each(|target| target.thin(status_of));
    }

    /// What this node would be answered with, if it is lost: the status of its last leaf, which is the last that is tried.
    fn status(&self, status_of: &impl Fn(&str) -> Option<u16>) -> Option<u16> {
        match &self.shape {
            Shape::Leaf(leaf) => leaf.slug.and_then(status_of),
            Shape::Router(targets) => targets.last().and_then(|target| target.status(status_of)),
        }
    }

    /// Numbers the leaves anew, from `next` on.
    fn number(&mut self, next: &mut usize) {
        match &mut self.shape {
            Shape::Leaf(leaf) => {
                leaf.index = *next;
                *next += 1;
            }
            Shape::Router(targets) => targets.iter_mut().for_each(|target| target.number(next)),
        }
    }

    /// Calls `visit` for this node and every node below it, in order.
    pub(super) fn visit<'t>(&'t self, visit: &mut impl FnMut(&'t Self)) {
        visit(self);
        if let Shape::Router(targets) = &self.shape {
            for target in targets {
                target.visit(visit);
            }
        }
    }
}

// === impl Reader ===

impl Reader {
    fn target<'c>(
        &mut self,
        node: &'c Node<'c>,
        level: usize,
        inherited: Option<&'c str>,
    ) -> Result<Target<'c>, PlanError> {
        self.targets += 1;
        if self.targets > MAX_TARGETS || level > MAX_LEVELS {
            return Err(invalid(format!("more than {MAX_TARGETS} targets or {MAX_LEVELS} levels of them")));
        }
        let members =
            node.members().ok_or_else(|| invalid("a config and each of its targets are objects".to_owned()))?;
        let members = members.iter().map(|(name, node)| (key::camel(name), node)).collect();
        let target = Target { members, shape: Shape::Router(Vec::new()) };
        for name in ["provider", "virtual_key"] {
            if target.get(name).is_some_and(|node| node.text().is_none()) {
                return Err(invalid(format!("`{name}` is text")));
            }
        }
        if target.get("provider").and_then(Node::text) == Some("") {
            return Err(invalid("`provider` is empty".to_owned()));
        }
        let attempts = target.get("retry").and_then(Node::members).into_iter().flatten();
        if attempts.filter(|(name, _)| key::camel(name) == "attempts").any(|(_, node)| !is_bounded(node)) {
            return Err(invalid(format!("`retry.attempts` is a number up to {MAX_ATTEMPTS}")));
        }
        let own = target.get("override_params").and_then(|params| params.member("model"));
        let own = match own.map(Node::text) {
            Some(None) => return Err(invalid("`override_params.model` is text".to_owned())),
            Some(text) => text,
            None => None,
        };
        let model = own.or(inherited);
        let shape = match target.get("targets") {
            Some(targets) => {
                let targets = targets.items().filter(|items| !items.is_empty());
                let targets = targets.ok_or_else(|| invalid("`targets` is a list that is not empty".to_owned()))?;
                let mode = target.get("strategy").and_then(|strategy| strategy.member("mode")).and_then(Node::text);
                if !mode.is_some_and(|mode| MODES.contains(&mode)) {
                    return Err(invalid(format!("`targets` need `strategy.mode`: one of {}", MODES.join(", "))));
                }
                let targets = targets.iter().map(|node| self.target(node, level + 1, model));
                Shape::Router(targets.collect::<Result<_, _>>()?)
            }
            None => {
                let index = self.leaves;
                self.leaves += 1;
                let slug = target
                    .text("provider")
                    .and_then(|provider| provider.strip_prefix('@'))
                    .or_else(|| target.text("virtual_key").and_then(name::in_virtual_key))
                    .or_else(|| model.and_then(name::in_model).map(|named| named.slug));
                Shape::Leaf(Leaf { index, slug, model: model.and_then(name::model_for_provider) })
            }
        };
        Ok(Target { shape, ..target })
    }
}

/// Whether a router with this strategy uses another target instead of one that answers with `status`.
fn stands_in(strategy: Option<&Node<'_>>, status: Option<u16>) -> bool {
    let mode = strategy.and_then(|strategy| strategy.member("mode")).and_then(Node::text);
    match mode {
        Some("loadbalance") => true,
        Some("fallback") => {
            let members = strategy.and_then(Node::members).into_iter().flatten();
            let mut named = members.filter(|(name, _)| key::is_field(&key::camel(name), "on_status_codes"));
            let codes = named.next().and_then(|(_, codes)| codes.items());
            let is_status =
                |code: &Node<'_>| matches!(code, Node::Number(code) if code.as_f64() == status.map(f64::from));
            // Without a list, any status but a success.
            codes.is_none_or(|codes| codes.iter().any(is_status))
        }
        Some(_) | None => false,
    }
}

fn is_bounded(attempts: &Node<'_>) -> bool {
    match attempts {
        Node::Null => true,
        Node::Number(number) => number.as_f64().is_some_and(|number| number <= MAX_ATTEMPTS),
        Node::Bool(_) | Node::Text(_) | Node::List(_) | Node::Map(_) => false,
    }
}

fn invalid(reason: String) -> PlanError {
    PlanError::InvalidConfig { reason }
}

#[cfg(test)]
mod tests {
    use super::*;

    type Named = (Option<String>, Option<String>);

    fn names(config: &str) -> Result<Vec<Named>, PlanError> {
        let node = Node::parse(config).unwrap();
        let tree = Tree::read(&node)?;
        let leaves = tree.leaves().into_iter();
        Ok(leaves.map(|(_, leaf)| (leaf.slug.map(str::to_owned), leaf.model.map(str::to_owned))).collect())
    }

    #[test]
    fn attempts_are_bounded_at_any_level() {
        for (retry, fits) in [
            (r#"{"attempts":5}"#, true),
            (r#"{"attempts":100}"#, true),
            (r#"{"attempts":null}"#, true),
            (r#"{"on_status_codes":[500]}"#, true),
            (r#"{"attempts":101}"#, false),
            (r#"{"attempts":1e9}"#, false),
            (r#"{"attempts":"1000000000"}"#, false),
        ] {
            let leaf = format!(r#"{{"provider":"@a","retry":{retry}}}"#);
            let below = format!(r#"{{"strategy":{{"mode":"fallback"}},"targets":[{leaf}]}}"#);
            let above =
                format!(r#"{{"strategy":{{"mode":"fallback"}},"retry":{retry},"targets":[{{"provider":"@a"}}]}}"#);
            for config in [leaf, below, above] {
                assert_eq!(names(&config).is_ok(), fits, "{config}");
            }
        }
    }

    #[test]
    fn leaves_name_entities_in_order() {
        for (config, expected) in [
            (r#"{"retry":{"attempts":3}}"#, vec![(None, None)]),
            (r#"{"provider":"openai"}"#, vec![(None, None)]),
            (r#"{"provider":"@a"}"#, vec![(Some("a"), None)]),
            (r#"{"provider":"@a/b"}"#, vec![(Some("a/b"), None)]),
            (r#"{"provider":"@a","virtual_key":"b"}"#, vec![(Some("a"), None)]),
            (r#"{"provider":"openai","virtualKey":"b"}"#, vec![(Some("b"), None)]),
            (r#"{"virtual_key":"@b"}"#, vec![(Some("b"), None)]),
            (r#"{"override_params":{"model":"@c/m"}}"#, vec![(Some("c"), Some("m"))]),
            (r#"{"override_params":{"model":"@c"}}"#, vec![(Some("c"), None)]),
            (r#"{"override_params":{"model":"@cf/m"}}"#, vec![(None, Some("@cf/m"))]),
            (
                r#"{"strategy":{"mode":"fallback"},"targets":[{"provider":"@a"},
                    {"strategy":{"mode":"loadbalance"},"override_params":{"model":"@d/m"},"targets":[
                        {"virtual_key":"b","override_params":{"model":"n"}},{"weight":1}]}]}"#,
                vec![(Some("a"), None), (Some("b"), Some("n")), (Some("d"), Some("m"))],
            ),
        ] {
            let expected =
                expected.into_iter().map(|(slug, model)| (slug.map(str::to_owned), model.map(str::to_owned)));
            assert_eq!(names(config), Ok(expected.collect()), "{config}");
        }
    }

    #[test]
    fn what_cannot_be_used_is_taken_out_where_another_stands_in() {
        let fallback = |codes: &str, targets: &str| {
            format!(r#"{{"strategy":{{"mode":"fallback"{codes}}},"targets":[{targets}]}}"#)
        };
        let balance = |targets: &str| format!(r#"{{"strategy":{{"mode":"loadbalance"}},"targets":[{targets}]}}"#);
        let single = |targets: &str| format!(r#"{{"strategy":{{"mode":"single"}},"targets":[{targets}]}}"#);
        let (a, b, x) = (r#"{"provider":"@a"}"#, r#"{"virtual_key":"b"}"#, r#"{"provider":"@x"}"#);
        let abx = format!("{a},{b},{x}");
        for (config, left) in [
            (fallback("", &abx), "bx"),
            (fallback(r#","on_status_codes":[500,412]"#, &abx), "bx"),
            (fallback(r#","onStatusCodes":[500]"#, &abx), "abx"),
            (balance(&abx), "bx"),
            (single(&abx), "abx"),
            (fallback("", &format!("{a},{a}")), "aa"),
            (a.to_owned(), "a"),
            (fallback("", &format!("{},{x}", balance(&format!("{a},{b}")))), "bx"),
            (fallback("", &format!("{},{x}", balance(&format!("{a},{a}")))), "x"),
            (fallback("", &format!("{},{x}", single(a))), "x"),
            (single(&fallback("", &abx)), "bx"),
        ] {
            let node = Node::parse(&config).unwrap();
            let mut tree = Tree::read(&node).unwrap();
            tree.without(&|slug| (slug == "a").then_some(412));
            let leaves = tree.leaves();
            let slugs: String = leaves.iter().filter_map(|(_, leaf)| leaf.slug).collect();
            assert_eq!(slugs, left, "{config}");
            assert!(leaves.iter().enumerate().all(|(at, (_, leaf))| leaf.index == at), "{config}");
            assert_eq!(tree.leaves, left.len(), "{config}");
        }
    }

    #[test]
    fn what_is_no_config_is_refused() {
        let many = format!(r#"{{"strategy":{{"mode":"single"}},"targets":[{}]}}"#, vec!["{}"; 200].join(","));
        let mut deep = "{}".to_owned();
        for _ in 0..20 {
            deep = format!(r#"{{"strategy":{{"mode":"single"}},"targets":[{deep}]}}"#);
        }
        for config in [
            "[]",
            "null",
            r#"{"provider":1}"#,
            r#"{"provider":""}"#,
            r#"{"virtual_key":["a"]}"#,
            r#"{"provider":"@a","override_params":{"model":["../x"]}}"#,
            r#"{"targets":[{"provider":"@a"}]}"#,
            r#"{"targets":[],"strategy":{"mode":"single"}}"#,
            r#"{"targets":{},"strategy":{"mode":"single"}}"#,
            r#"{"targets":["x"],"strategy":{"mode":"single"}}"#,
            r#"{"targets":[{}],"strategy":{"mode":"scientist"}}"#,
            r#"{"provider":"@a","Provider":"x","_provider":"y"}"#,
            r#"{"api_key":"x","apiKey":"y"}"#,
            many.as_str(),
            deep.as_str(),
        ] {
            assert!(matches!(names(config), Err(PlanError::InvalidConfig { .. })), "{config}");
        }
    }

    #[test]
    fn a_config_decides_when_it_routes_or_names() {
        for (config, expected) in [
            ("{}", false),
            (r#"{"retry":{"attempts":3},"cache":{"mode":"simple"}}"#, false),
            (r#"{"override_params":{"model":"gpt-4o"}}"#, false),
            (r#"{"override_params":{"model":"@a/gpt-4o"}}"#, true),
            (r#"{"provider":"openai"}"#, true),
            (r#"{"virtual_key":"a"}"#, true),
            (r#"{"virtual_key":""}"#, false),
            (r#"{"strategy":{"mode":"single"},"targets":[{}]}"#, true),
        ] {
            let node = Node::parse(config).unwrap();
            assert_eq!(Tree::read(&node).unwrap().is_authoritative(), expected, "{config}");
        }
    }
}
