//! Destination binding: once a credential of ours is injected, the request does not choose where it goes.
//!
//! A value that equals the stored one is accepted, a differing one refused, an absent stored field admits none, except a
//! plain region. It covers headers, path and the whole config tree: a leaf of the client's beside ours could otherwise
//! receive our headers, or the whole rewritten config.

use http::{HeaderName, request::Parts};

use super::{
    config_tree::{Shape, Target, Tree, node::Node},
    endpoint::Endpoint,
    forward, host,
    inputs::Inputs,
    placement::{CUSTOM_HEADERS, Placed, PlacedValue, Placement},
    reach,
    steering::{self, Kind, Steering},
};
use crate::{
    dialect::PlanError,
    model::{Entity, FIELDS, FieldSpec, FieldValue, destination_fault},
};

/// An entity and its place.
pub(super) struct Bound<'b> {
    /// The entity.
    pub(super) entity: &'b Entity,
    /// Its place; an admitted region is noted there.
    pub(super) placement: &'b mut Placement,
}

/// How much of a config's steering counts as ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Trust {
    /// A request's own config, or a stored one that is not trusted: none of it.
    Request,
    /// A stored config under `destination.trust_stored_configs`: like a stored entity.
    Stored,
}

/// Checks the headers that steer against every place. `foreign`: there are leaves that are not ours, whose destination a
/// header would decide as well.
///
/// # Errors
/// [`PlanError::DestinationNotAllowed`].
pub(super) fn headers(inputs: &Inputs<'_>, bounds: &mut [Bound<'_>], foreign: bool) -> Result<(), PlanError> {
    for (steering, value) in &inputs.steering {
        let harmless = steering.kind == Kind::Region && steering::is_plain_region(value);
        let refused = (foreign && !harmless) || !bounds.iter_mut().all(|bound| bound.admits(steering, value));
        if refused {
            return Err(not_allowed(steering.header.unwrap_or(steering.field)));
        }
    }
    Ok(())
}

/// Checks every node of a config. `places` holds, for each leaf, its index in `bounds` if it is ours.
///
/// # Errors
/// [`PlanError::DestinationNotAllowed`].
pub(super) fn config(
    tree: &Tree<'_>,
    places: &[Option<usize>],
    bounds: &mut [Bound<'_>],
    trust: Trust,
) -> Result<(), PlanError> {
    let foreign = places.contains(&None);
    let mut result = Ok(());
    tree.root.visit(&mut |target| {
        if result.is_ok() {
            result = node(target, places, bounds, foreign, trust);
        }
    });
    if result.is_ok() && trust == Trust::Stored {
        inherit_custom_host(&tree.root, None, places, bounds);
    }
    result
}

fn node(
    target: &Target<'_>,
    places: &[Option<usize>],
    bounds: &mut [Bound<'_>],
    foreign: bool,
    trust: Trust,
) -> Result<(), PlanError> {
    let place = match &target.shape {
        Shape::Router(_) => None,
        Shape::Leaf(leaf) => Some(places.get(leaf.index).copied().flatten()),
    };
    for (camel, value) in &target.members {
        let Some(steering) = steering::of_key(camel) else { continue };
        let Some(text) = value.text() else { return Err(in_config(steering)) };
        let harmless = steering.kind == Kind::Region && steering::is_plain_region(text);
        let trusted = trust == Trust::Stored && steering.kind != Kind::Method && !leads_astray(steering, text);
        let accepted = match place {
            _ if text.is_empty() => true,
            Some(Some(index)) if trusted => bounds.get_mut(index).is_some_and(|bound| {
                bound.override_with(steering, text);
                true
            }),
            Some(Some(index)) => bounds.get_mut(index).is_some_and(|bound| bound.admits(steering, text)),
            // A leaf of the client's, with its own credentials.
            Some(None) => trusted || harmless || steering.kind == Kind::Method,
            // A router hands some of its fields down.
            None => trusted || harmless || (!foreign && bounds.iter_mut().all(|bound| bound.admits(steering, text))),
        };
        if !accepted {
            return Err(in_config(steering));
        }
    }
    Ok(())
}

/// Whether no entity may be stored with this destination, and so no config may choose it either.
fn leads_astray(steering: &Steering, text: &str) -> bool {
    FIELDS
        .iter()
        .find(|spec| spec.name == steering.stored_as())
        .is_some_and(|spec| destination_fault(spec, text).is_some())
}

/// What the gateway hands down from a router to leaves that have none, neither written nor stored.
fn inherit_custom_host(
    target: &Target<'_>,
    inherited: Option<&str>,
    places: &[Option<usize>],
    bounds: &mut [Bound<'_>],
) {
    let own = target.text("custom_host").or(inherited);
    match &target.shape {
        Shape::Router(targets) => {
            for target in targets {
                inherit_custom_host(target, own, places, bounds);
            }
        }
        Shape::Leaf(leaf) => {
            let bound = places.get(leaf.index).copied().flatten().and_then(|index| bounds.get_mut(index));
            if let (Some(bound), Some(own), Some(steering)) = (bound, own, steering::of_key("customHost"))
                && bound.placement.effective(bound.entity, steering.field).is_none()
            {
                bound.override_with(steering, own);
            }
        }
    }
}

/// Checks a host inside the path, and that the gateway heeds the entity's custom host on this path.
///
/// # Errors
/// [`PlanError::DestinationNotAllowed`].
pub(super) fn path(head: &Parts, placement: &Placement, entity: &Entity) -> Result<(), PlanError> {
    if placement.effective(entity, "custom_host").is_some() && reach::ignores_custom_host(&entity.provider, head) {
        return Err(not_allowed("path"));
    }
    let Some(bucket) = reach::file_id_bucket(&entity.provider, head) else { return Ok(()) };
    let field = if &*entity.provider == "bedrock" { "aws_s3_bucket" } else { "vertex_storage_bucket_name" };
    match placement.effective(entity, field) {
        Some(Ok(stored)) if stored == bucket => Ok(()),
        Some(_) | None => Err(not_allowed("path")),
    }
}

/// Checks the names a request or a config wants forwarded.
///
/// # Errors
/// [`PlanError::DestinationNotAllowed`] for a credential header, a header for the gateway, or a custom header of another
/// entity (`others`).
pub(super) fn forwarded(names: &[&str], others: &[HeaderName], input: &str) -> Result<(), PlanError> {
    let refused = |name: &&str| {
        !forward::is_allowed(name) || others.iter().any(|other| other.as_str().eq_ignore_ascii_case(name))
    };
    if names.iter().any(refused) { Err(not_allowed(input)) } else { Ok(()) }
}

/// The names in a `forward_headers` field.
///
/// # Errors
/// [`PlanError::InvalidConfig`] for what is no list of texts.
pub(super) fn forward_list<'c>(node: &'c Node<'c>) -> Result<Vec<&'c str>, PlanError> {
    let items = node.items().and_then(|items| items.iter().map(Node::text).collect::<Option<Vec<_>>>());
    items.ok_or_else(|| PlanError::InvalidConfig { reason: "`forward_headers` is a list of names".to_owned() })
}

/// Checks `allowed_providers` and `allowed_hosts` of every reference that is used.
///
/// # Errors
/// [`PlanError::DestinationNotAllowed`], also when a host is restricted and cannot be told.
pub(super) fn references(placement: &Placement, entity: &Entity, endpoint: Endpoint) -> Result<(), PlanError> {
    let mut hosts = None;
    let custom = entity.field(CUSTOM_HEADERS).map(|field| &field.value);
    let custom = custom.and_then(|value| match value {
        FieldValue::Mapped(mapping) => Some(mapping),
        FieldValue::Plain(_) | FieldValue::Stored(_) => None,
    });
    let placed = placement.fields(entity).filter_map(|Placed { value, .. }| match value {
        PlacedValue::Mapped(mapping) => Some(mapping),
        PlacedValue::Plain(_) | PlacedValue::Stored { .. } => None,
    });
    for mapping in placed.chain(custom) {
        let reference = &mapping.reference;
        let providers = &reference.allowed_providers;
        if !providers.is_empty() && !providers.iter().any(|provider| **provider == *entity.provider) {
            return Err(not_allowed("allowed_providers"));
        }
        if reference.allowed_hosts.is_empty() {
            continue;
        }
        let reached = hosts.get_or_insert_with(|| reach::hosts(placement, entity, endpoint));
        let listed = reached.as_ref().is_some_and(|reached| {
            !reached.is_empty() && reached.iter().all(|reached| host::is_listed(reached, &reference.allowed_hosts))
        });
        if !listed {
            return Err(not_allowed("allowed_hosts"));
        }
    }
    Ok(())
}

// === impl Bound ===

impl Bound<'_> {
    /// Whether the request may say this: what is stored anyway, or a plain region where none is stored.
    fn admits(&mut self, steering: &'static Steering, value: &str) -> bool {
        match self.placement.effective(self.entity, steering.stored_as()) {
            Some(Ok(stored)) => stored == value,
            Some(Err(_)) => false,
            None if steering.kind == Kind::Region && steering::is_plain_region(value) => {
                self.override_with(steering, value);
                true
            }
            None => false,
        }
    }

    fn override_with(&mut self, steering: &Steering, value: &str) {
        let Some(spec) = FieldSpec::named(&self.entity.provider, steering.stored_as()) else { return };
        self.placement.overrides.retain(|(other, _)| other.name != spec.name);
        self.placement.overrides.push((spec, value.into()));
    }
}

fn in_config(steering: &Steering) -> PlanError {
    not_allowed(&format!("{} in x-portkey-config", steering.field))
}

fn not_allowed(input: &str) -> PlanError {
    PlanError::DestinationNotAllowed { input: input.to_owned() }
}
