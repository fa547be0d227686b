//! Writing a config: the allow-list, node by node.

use std::borrow::Cow;

use crate::{
    dialect::portkey::{
        config_tree::{
            Shape, Target, Tree,
            node::Node,
            render::{self, Hole, Object, Sink},
        },
        name,
        per_request::CARRIED,
    },
    model::{FIELDS, FieldSpec},
};

/// What every node may hold, snake_case. The gateway hands most of it down.
const GENERAL: [&str; 14] = [
    "name",
    "weight",
    "override_params",
    "retry",
    "cache",
    "request_timeout",
    "strict_open_ai_compliance",
    "on_status_codes",
    "input_guardrails",
    "output_guardrails",
    "before_request_hooks",
    "after_request_hooks",
    "input_mutators",
    "output_mutators",
];

/// What one leaf receives.
pub(super) struct Filling<'p> {
    /// Gateway names and values, if the leaf is ours.
    pub(super) ours: Option<(&'p str, Vec<(&'static str, Value<'p>)>)>,
    /// Options that the request carries in headers.
    pub(super) carried: Vec<(&'static str, &'p str)>,
    /// Names to forward.
    pub(super) forward: Vec<Cow<'p, str>>,
    /// More names, known only when the request is sent.
    pub(super) more: Option<Hole>,
}

/// The value of a field of ours.
pub(super) enum Value<'p> {
    /// Known now.
    Plain(Cow<'p, str>),
    /// A credential.
    Hole(Hole),
    /// Written, and empty: the validator wants the field.
    Empty,
}

/// Whether the gateway takes a config without a provider as it stands, beside headers: only known keys, in the spelling its
/// validator knows, and at least one of those that make a config valid. Anything else becomes a config with one leaf.
pub(in crate::dialect::portkey) fn may_stand(config: &Node<'_>) -> bool {
    /// A config with only `override_params` is answered 400.
    const VALID: [&str; 7] = [
        "retry",
        "cache",
        "request_timeout",
        "input_guardrails",
        "output_guardrails",
        "before_request_hooks",
        "after_request_hooks",
    ];
    let members = config.members().unwrap_or_default();
    members.iter().all(|(key, _)| GENERAL.contains(&&**key)) && members.iter().any(|(key, _)| VALID.contains(&&**key))
}

/// The options of a config that decides nothing, alone.
pub(in crate::dialect::portkey) fn general(tree: &Tree<'_>, sink: &mut dyn Sink) {
    let mut object = Object::open(sink);
    general_members(&tree.root, &mut object);
    object.close();
}

fn general_members(node: &Target<'_>, object: &mut Object<'_>) {
    for field in GENERAL {
        match node.get(field) {
            Some(Node::Map(members)) if field == "override_params" => {
                object.member(field, |sink| override_params(members, sink));
            }
            Some(value) => object.member(field, |sink| render::node(value, sink)),
            None => {}
        }
    }
}

/// Writes a node and everything below it.
pub(super) fn target(node: &Target<'_>, fillings: &[Filling<'_>], sink: &mut dyn Sink) {
    let mut object = Object::open(sink);
    general_members(node, &mut object);
    match &node.shape {
        Shape::Router(targets) => {
            if let Some(strategy) = node.get("strategy") {
                object.member("strategy", |sink| render::node(strategy, sink));
            }
            object.member("targets", |sink| {
                sink.text("[");
                for (at, node) in targets.iter().enumerate() {
                    sink.text(if at == 0 { "" } else { "," });
                    target(node, fillings, sink);
                }
                sink.text("]");
            });
        }
        Shape::Leaf(leaf) => {
            if let Some(filling) = fillings.get(leaf.index) {
                fill(node, filling, &mut object);
            }
        }
    }
    object.close();
}

/// The parameters without the name of an entity in `model`.
fn override_params(members: &[(Cow<'_, str>, Node<'_>)], sink: &mut dyn Sink) {
    let mut object = Object::open(sink);
    for (key, value) in members {
        match value.text().filter(|_| key == "model").and_then(name::in_model) {
            None => object.member(key, |sink| render::node(value, sink)),
            Some(named) => {
                if let Some(rest) = named.rest {
                    object.member(key, |sink| render::quoted(rest, &mut |text| sink.text(text)));
                }
            }
        }
    }
    object.close();
}

fn fill(node: &Target<'_>, filling: &Filling<'_>, object: &mut Object<'_>) {
    match &filling.ours {
        Some((provider, values)) => {
            object.member("provider", |sink| render::quoted(provider, &mut |text| sink.text(text)));
            for (field, value) in values {
                object.member(field, |sink| match value {
                    Value::Plain(text) => render::quoted(text, &mut |text| sink.text(text)),
                    Value::Hole(hole) => sink.hole(*hole),
                    Value::Empty => sink.text("\"\""),
                });
            }
            for carried in CARRIED.iter().filter(|carried| carried.providers.contains(provider)) {
                if let Some(value) =
                    node.get(carried.field).filter(|_| !values.iter().any(|(field, _)| *field == carried.field))
                {
                    object.member(carried.field, |sink| render::node(value, sink));
                }
            }
        }
        None => {
            let options = FIELDS.iter().map(|spec| spec.name).chain(CARRIED.iter().map(|carried| carried.field));
            let mut written: Vec<&str> = Vec::new();
            for field in ["provider", FieldSpec::key().name].into_iter().chain(options) {
                if let Some(value) = node.get(field).filter(|_| !written.contains(&field)) {
                    written.push(field);
                    object.member(field, |sink| render::node(value, sink));
                }
            }
        }
    }
    for (field, value) in &filling.carried {
        object.member(field, |sink| render::quoted(value, &mut |text| sink.text(text)));
    }
    if !filling.forward.is_empty() || filling.more.is_some() {
        object.member("forward_headers", |sink| {
            sink.text("[");
            for (at, name) in filling.forward.iter().enumerate() {
                sink.text(if at == 0 { "" } else { "," });
                render::quoted(name, &mut |text| sink.text(text));
            }
            if let Some(hole) = filling.more {
                sink.text(if filling.forward.is_empty() { "" } else { "," });
                sink.hole(hole);
            }
            sink.text("]");
        });
    }
}
