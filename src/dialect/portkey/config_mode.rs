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
        render::{Form, Hole, Source, Template},
    },
    custom_headers,
    endpoint::Endpoint,
    forward,
    inputs::Inputs,
    per_request::CARRIED,
    placement::{CUSTOM_HEADERS, PlacedValue, Placement},
    provider,
    trail::Trail,
};
use crate::{
    dialect::PlanError,
    model::{Entity, FIELDS, FieldSpec, FieldValue, Mapping},
    secret::{Credential, SecretValue},
};

mod write;

use write::{Filling, Value};

pub(super) use write::{general, may_stand};

/// A rebuilt config, and what is needed to finish it.
#[derive(Debug)]
pub(super) struct Rebuilt {
    /// The config with holes for credentials.
    pub(super) template: Template,
    /// What to resolve.
    pub(super) mappings: Vec<Arc<Mapping>>,
    /// Custom headers to set: where their structures come from.
    pub(super) custom: Vec<Source>,
    /// Credentials that a stored config holds itself, to be redacted from replies.
    pub(super) literals: Vec<Arc<Credential>>,
    /// A request header that carries the plain key where the gateway does not send it.
    pub(super) key_header: Option<(&'static str, Source)>,
    /// Which leaves are ours, for whoever has to find out which was refused.
    pub(super) trail: Trail,
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
    let template = Template::render(|sink| write::target(&tree.root, &fillings, sink));
    let custom = custom.into_iter().map(|custom| custom.source).collect();
    let trail = Trail::of(tree, leaves.places);
    Ok(Rebuilt { template, mappings, custom, literals: leaves.literals, key_header, trail })
}

/// The credentials that leaves without an entity hold themselves, for a config that comes from the snapshot.
pub(super) fn literals(tree: &Tree<'_>) -> Vec<Arc<Credential>> {
    let mut found = Vec::new();
    for (target, _) in tree.leaves().iter().filter(|(_, leaf)| leaf.slug.is_none()) {
        for spec in FIELDS.iter().chain([FieldSpec::key()]).filter(|spec| spec.sensitive) {
            let node = target.get(spec.name);
            found.extend(node.and_then(|node| node.text().or_else(|| private_key(node))).and_then(literal));
        }
    }
    found
}

/// What is secret in a service account's JSON.
pub(super) fn private_key<'n>(account: &'n Node<'_>) -> Option<&'n str> {
    account.member("private_key").and_then(Node::text)
}

/// A credential found inside of something, for redaction.
pub(super) fn literal(text: &str) -> Option<Arc<Credential>> {
    (!text.is_empty()).then(|| Arc::new(Credential::text(SecretValue::new(text.as_bytes().to_vec()))))
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
            FieldValue::Stored(stored) => {
                let credential = stored.credential().map_err(|_| unusable(entity))?;
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
            PlacedValue::Stored { field } => {
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
