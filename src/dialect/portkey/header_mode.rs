//! Header mode: one target, whose provider, key and options travel as request headers.

use std::sync::Arc;

use http::{HeaderName, HeaderValue, header::AUTHORIZATION, request::Parts};

use super::{
    binding::{self, Bound},
    custom_headers,
    endpoint::Endpoint,
    forward,
    inputs::Inputs,
    placement::{CUSTOM_HEADERS, Placed, PlacedValue, Placement},
    provider::{self, Key},
};
use crate::{
    dialect::PlanError,
    model::{Entity, FieldSpec, FieldValue, Mapping},
};

/// Whether the entity can travel in headers to this endpoint.
pub(super) fn fits(placement: &Placement, entity: &Entity, endpoint: Endpoint) -> bool {
    let raw_key_fits = match provider::key(&entity.provider) {
        Key::Bearer | Key::Optional => true,
        // A proxy route would pass our raw `Authorization` on, beside the header that the gateway writes.
        Key::Other | Key::Query { .. } => endpoint != Endpoint::Proxy,
    };
    let custom = entity.field(CUSTOM_HEADERS).map(|field| &field.value);
    let custom_fits = match custom {
        None => true,
        // A custom `Authorization` would be taken for the key.
        Some(FieldValue::Stored(stored)) => stored.credential().is_ok_and(|credential| {
            custom_headers::names(credential.expose()).is_ok_and(|names| !names.contains(&AUTHORIZATION))
        }),
        Some(FieldValue::Plain(_) | FieldValue::Mapped(_)) => false,
    };
    raw_key_fits && custom_fits && placement.fits_headers(entity)
}

/// Checks what the request says against the entity, and lists what to resolve.
///
/// # Errors
/// [`PlanError`].
pub(super) fn bind(
    head: &Parts,
    inputs: &Inputs<'_>,
    endpoint: Endpoint,
    entity: &Entity,
    placement: &mut Placement,
) -> Result<Vec<Arc<Mapping>>, PlanError> {
    if !inputs.steering.is_empty() {
        binding::headers(inputs, &mut [Bound { entity, placement }], false)?;
    }
    binding::path(head, placement, entity)?;
    binding::references(placement, entity, endpoint)?;
    if let Some(names) = inputs.forward_headers {
        let names: Vec<&str> = forward::in_header(names).collect();
        binding::forwarded(&names, &[], "x-portkey-forward-headers")?;
    }
    Ok(placement
        .fields(entity)
        .filter_map(|Placed { value, .. }| match value {
            PlacedValue::Mapped(mapping) => Some(Arc::clone(mapping)),
            PlacedValue::Plain(_) | PlacedValue::Stored { .. } => None,
        })
        .collect())
}

/// Where a field travels.
pub(super) fn header_of(spec: &'static FieldSpec) -> Option<HeaderName> {
    if spec.name == FieldSpec::key().name { Some(AUTHORIZATION) } else { spec.header.map(HeaderName::from_static) }
}

/// The provider as a header value.
pub(super) fn provider_value(id: &str) -> Option<HeaderValue> {
    match provider::named(id) {
        Some(provider) => Some(HeaderValue::from_static(provider.id)),
        None => HeaderValue::from_str(id).ok(),
    }
}
