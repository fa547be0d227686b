//! Config mode: `x-portkey-config` is rebuilt, every leaf of ours from an allow-list.
//!
//! The gateway ignores provider headers and `Authorization` once a config decides, never inherits a credential, and lets an
//! unknown key pass. So a leaf of ours holds what is listed here and nothing else, in the spelling the validator knows,
//! `api_key` always written. What is not ours keeps its provider options, checked.

use std::{borrow::Cow, sync::Arc};

use http::{HeaderName, request::Parts};

use super::{
    access::Access,
    binding::{self, Bound, Trust},
    config_tree::{
        Shape, Target, Tree,
        node::Node,
        render::{self, Form, Hole, Object, Sink, Source, Template},
    },
    custom_headers,
    endpoint::Endpoint,
    forward,
    inputs::Inputs,
    name,
    per_request::CARRIED,
    placement::{CUSTOM_HEADERS, PlacedValue, Placement},
    provider,
};
use crate::{
    dialect::PlanError,
    model::{Entity, FIELDS, FieldSpec, FieldValue, Mapping},
    secret::{Credential, SecretValue},
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

/// A rebuilt config, and what is needed to finish it.
#[derive(Debug)]
pub(super) struct Rebuilt {
    /// The config with holes for credentials.
    pub(super) template: Template,
    /// What to resolve.
    pub(super) mappings: Vec<Arc<Mapping>>,
    /// Custom headers to set: the entity, and where their structure comes from.
    pub(super) custom: Vec<Source>,
    /// Credentials that a stored config holds itself, to be redacted from replies.
    pub(super) literals: Vec<Arc<Credential>>,
    /// A request header that carries the plain key where the gateway does not send it.
    pub(super) key_header: Option<(&'static str, Source)>,
}

/// What is known about the leaves before the config is written.
pub(super) struct Leaves<'p> {
    /// The plan's entities.
    pub(super) entities: &'p [Arc<Entity>],
    /// The places of ours.
    pub(super) placements: &'p mut [Placement],
    /// For each leaf, its index among the places.
    pub(super) places: &'p [Option<usize>],
    /// Credentials found in leaves that name no entity.
    pub(super) literals: Vec<Arc<Credential>>,
    /// Whether what the config says about destinations counts as stored.
    pub(super) trust: Trust,
}

/// What one leaf receives.
struct Filling<'p> {
    /// Gateway names and values, if the leaf is ours.
    ours: Option<(&'p str, Vec<(&'static str, Value<'p>)>)>,
    /// Options that the request carries in headers.
    carried: Vec<(&'static str, &'p str)>,
    /// Names to forward.
    forward: Vec<Cow<'p, str>>,
    /// More names, known only when the request is sent.
    more: Option<Hole>,
}

enum Value<'p> {
    Plain(Cow<'p, str>),
    Hole(Hole),
    Empty,
}

/// The custom headers of one entity.
struct Custom {
    entity: usize,
    source: Source,
    /// `None`: not known before the structure is resolved.
    names: Option<Vec<HeaderName>>,
}

/// Checks the config against the entities and rebuilds it.
///
/// # Errors
/// [`PlanError`].
pub(super) fn rebuild(
    head: &Parts,
    inputs: &Inputs<'_>,
    endpoint: Endpoint,
    tree: &Tree<'_>,
    mut leaves: Leaves<'_>,
) -> Result<Rebuilt, PlanError> {
    if endpoint == Endpoint::Realtime && matches!(tree.root.shape, Shape::Router(_)) {
        return Err(invalid("realtime takes one target"));
    }
    let foreign = leaves.places.contains(&None);
    bind(head, inputs, endpoint, tree, &mut leaves, foreign)?;
    let mut mappings = Vec::new();
    let custom = custom(&leaves, endpoint, foreign, &mut mappings)?;
    let fillings = fillings(head, inputs, tree, &leaves, &custom, &mut mappings)?;
    let key_header = key_header(endpoint, &leaves, &fillings);
    let template = Template::render(|sink| target(&tree.root, &fillings, sink));
    let custom = custom.into_iter().map(|custom| custom.source).collect();
    Ok(Rebuilt { template, mappings, custom, literals: leaves.literals, key_header })
}

/// The credentials that a leaf holds itself, for one that comes from the snapshot.
pub(super) fn literals(target: &Target<'_>) -> Vec<Arc<Credential>> {
    fn texts(node: &Node<'_>, found: &mut Vec<Arc<Credential>>) {
        match node {
            Node::Text(text) if !text.is_empty() => {
                found.push(Arc::new(Credential::text(SecretValue::new(text.as_bytes().to_vec()))));
            }
            Node::Null | Node::Bool(_) | Node::Number(_) | Node::Text(_) => {}
            Node::List(items) => items.iter().for_each(|item| texts(item, found)),
            Node::Map(members) => members.iter().for_each(|(_, item)| texts(item, found)),
        }
    }
    let mut found = Vec::new();
    for spec in FIELDS.iter().chain([FieldSpec::key()]).filter(|spec| spec.sensitive) {
        if let Some(node) = target.get(spec.name) {
            texts(node, &mut found);
        }
    }
    found
}

fn bind(
    head: &Parts,
    inputs: &Inputs<'_>,
    endpoint: Endpoint,
    tree: &Tree<'_>,
    leaves: &mut Leaves<'_>,
    foreign: bool,
) -> Result<(), PlanError> {
    let mut bounds: Vec<Bound<'_>> = Vec::with_capacity(leaves.placements.len());
    for placement in leaves.placements.iter_mut() {
        let Some(entity) = leaves.entities.get(placement.entity) else { continue };
        bounds.push(Bound { entity, placement });
    }
    binding::config(tree, leaves.places, &mut bounds, leaves.trust)?;
    binding::headers(inputs, &mut bounds, foreign)?;
    for bound in &bounds {
        binding::path(head, bound.placement, bound.entity)?;
        binding::references(bound.placement, bound.entity, endpoint)?;
    }
    Ok(())
}

/// Finds the custom headers, and refuses configs in which another target would receive them.
fn custom(
    leaves: &Leaves<'_>,
    endpoint: Endpoint,
    foreign: bool,
    mappings: &mut Vec<Arc<Mapping>>,
) -> Result<Vec<Custom>, PlanError> {
    let mut found: Vec<Custom> = Vec::new();
    let alone = !foreign && leaves.placements.iter().all(|placement| placement.entity == 0);
    for (index, entity) in leaves.entities.iter().enumerate() {
        let Some((at, field)) = entity.fields.iter().enumerate().find(|(_, field)| field.spec.name == CUSTOM_HEADERS)
        else {
            continue;
        };
        let (source, names) = match &field.value {
            FieldValue::Stored(credential) => {
                let names = custom_headers::names(credential.expose()).map_err(|_| unusable(entity))?;
                (Source::Stored { entity: index, field: at }, Some(names))
            }
            FieldValue::Mapped(mapping) => (Source::Mapped(position(mappings, mapping)), None),
            FieldValue::Plain(_) => return Err(unusable(entity)),
        };
        // A proxy route hands every header to every target, and without names nobody can tell whom they belong to.
        if !alone && (endpoint == Endpoint::Proxy || names.is_none()) {
            return Err(PlanError::DestinationNotAllowed { input: "custom_headers beside another target".to_owned() });
        }
        let clash =
            |other: &Custom| names.iter().flatten().any(|name| other.names.iter().flatten().any(|taken| taken == name));
        if found.iter().any(clash) {
            return Err(invalid("two targets set the same custom header"));
        }
        found.push(Custom { entity: index, source, names });
    }
    Ok(found)
}

fn fillings<'p>(
    head: &'p Parts,
    inputs: &Inputs<'p>,
    tree: &'p Tree<'_>,
    leaves: &'p Leaves<'_>,
    custom: &[Custom],
    mappings: &mut Vec<Arc<Mapping>>,
) -> Result<Vec<Filling<'p>>, PlanError> {
    let mut fillings = Vec::with_capacity(tree.leaves);
    let mut written = Vec::with_capacity(tree.leaves);
    forward_lists(&tree.root, None, &mut written)?;
    for ((target, leaf), own) in tree.leaves().into_iter().zip(written) {
        let placement = leaves.places.get(leaf.index).copied().flatten().and_then(|place| leaves.placements.get(place));
        let entity = placement.and_then(|placement| leaves.entities.get(placement.entity));
        let belongs = |custom: &&Custom| placement.is_some_and(|placement| placement.entity == custom.entity);
        let (names, input) = match inputs.forward_headers {
            Some(header) => (forward::in_header(header).collect(), "x-portkey-forward-headers"),
            None => (own, "forward_headers in x-portkey-config"),
        };
        let others: Vec<HeaderName> = custom
            .iter()
            .filter(|custom| !belongs(custom))
            .flat_map(|custom| custom.names.clone().unwrap_or_default())
            .collect();
        binding::forwarded(&names, &others, input)?;
        let mut forward: Vec<Cow<'p, str>> = names.into_iter().map(Cow::Borrowed).collect();
        let mut more = None;
        for custom in custom.iter().filter(belongs) {
            match &custom.names {
                Some(names) => forward.extend(names.iter().map(|name| Cow::Owned(name.as_str().to_owned()))),
                None => more = Some(Hole { source: custom.source, form: Form::Names }),
            }
        }
        let provider = entity.map(|entity| &*entity.provider).or_else(|| target.text("provider")).unwrap_or_default();
        let carried = CARRIED
            .iter()
            .filter(|carried| carried.providers.contains(&provider))
            .filter(|carried| target.get(carried.field).is_none())
            .filter(|carried| entity.is_none_or(|entity| entity.field(carried.field).is_none()))
            .filter_map(|carried| Some((carried.field, carried.value(&head.headers)?)))
            .collect();
        let ours = match (placement, entity) {
            (Some(placement), Some(entity)) => Some((provider, values(placement, entity, mappings))),
            (Some(_), None) | (None, _) => None,
        };
        fillings.push(Filling { ours, carried, forward, more });
    }
    Ok(fillings)
}

/// The forwarded names of each leaf, its own or the nearest router's.
fn forward_lists<'c>(
    target: &Target<'c>,
    inherited: Option<&'c Node<'c>>,
    lists: &mut Vec<Vec<&'c str>>,
) -> Result<(), PlanError> {
    let own = target.get("forward_headers").or(inherited);
    match &target.shape {
        Shape::Router(targets) => targets.iter().try_for_each(|target| forward_lists(target, own, lists)),
        Shape::Leaf(_) => {
            lists.push(own.map(binding::forward_list).transpose()?.unwrap_or_default());
            Ok(())
        }
    }
}

fn values<'p>(
    placement: &'p Placement,
    entity: &'p Entity,
    mappings: &mut Vec<Arc<Mapping>>,
) -> Vec<(&'static str, Value<'p>)> {
    let mut values = Vec::with_capacity(entity.fields.len() + 1);
    if placement.access == Access::Fields {
        // The validator wants the field of most providers, and accepts it empty.
        values.push((FieldSpec::key().name, Value::Empty));
    }
    for placed in placement.fields(entity) {
        let form = if placed.spec.name == FieldSpec::key().name {
            Form::Key
        } else if placed.spec.structured {
            Form::Object
        } else if placed.spec.multiline {
            Form::Lines
        } else {
            Form::Line
        };
        let value = match placed.value {
            PlacedValue::Plain(text) => Value::Plain(text),
            PlacedValue::Stored { field, .. } => {
                Value::Hole(Hole { source: Source::Stored { entity: placement.entity, field }, form })
            }
            PlacedValue::Mapped(mapping) => {
                Value::Hole(Hole { source: Source::Mapped(position(mappings, mapping)), form })
            }
        };
        values.push((placed.spec.name, value));
    }
    values
}

/// On proxy routes the gateway sends no key for a provider that wants it in the query; the provider's header takes it.
fn key_header(endpoint: Endpoint, leaves: &Leaves<'_>, fillings: &[Filling<'_>]) -> Option<(&'static str, Source)> {
    let [Filling { ours: Some((provider, values)), .. }] = fillings else { return None };
    match provider::key(provider) {
        provider::Key::Query { header } if endpoint == Endpoint::Proxy && leaves.placements.len() == 1 => {
            values.iter().find_map(|(_, value)| match value {
                Value::Hole(Hole { source, form: Form::Key }) => Some((header, *source)),
                Value::Hole(_) | Value::Plain(_) | Value::Empty => None,
            })
        }
        provider::Key::Query { .. } | provider::Key::Bearer | provider::Key::Other | provider::Key::Optional => None,
    }
}

/// The options of a config that decides nothing, alone.
pub(super) fn general(tree: &Tree<'_>, sink: &mut dyn Sink) {
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

fn target(node: &Target<'_>, fillings: &[Filling<'_>], sink: &mut dyn Sink) {
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

/// The mapping's index in the plan, which has each once.
fn position(mappings: &mut Vec<Arc<Mapping>>, mapping: &Arc<Mapping>) -> usize {
    mappings.iter().position(|other| Arc::ptr_eq(other, mapping)).unwrap_or_else(|| {
        mappings.push(Arc::clone(mapping));
        mappings.len() - 1
    })
}

fn unusable(entity: &Entity) -> PlanError {
    let reason = "custom_headers are no set of usable headers".into();
    PlanError::Misconfigured { slug: Arc::clone(&entity.slug), reason }
}

fn invalid(reason: &str) -> PlanError {
    PlanError::InvalidConfig { reason: reason.to_owned() }
}

/// Whether the gateway takes a config without a provider as it stands, beside headers: only known keys, in the spelling its
/// validator knows, and at least one of those that make a config valid. Anything else becomes a config with one leaf.
pub(super) fn may_stand(config: &Node<'_>) -> bool {
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
