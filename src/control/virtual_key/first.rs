//! The virtual key that comes with an integration, and what becomes of virtual keys when their integration changes.
//!
//! A workspace that gets an integration gets a virtual key for it, so that requests can name it; Portkey calls it the default
//! provider. It goes with the integration as long as nobody has changed it.

use super::{Body, EntityKind, Parent};
use crate::control::{
    Refusal,
    fields::Fields,
    integration,
    provider_fields::ProviderFields,
    slug,
    store::{Kind, Object, Write},
};

/// Users named in a refusal.
const MAX_USERS_NAMED: i64 = 10;

/// Gives `workspace_id` a virtual key for `integration`, unless it has one. Its slug is the integration's if that is free
/// and none was chosen.
///
/// # Errors
/// 400 when the chosen slug is taken.
pub(in crate::control) async fn make(
    write: &mut Write,
    integration: &Object,
    parent: &integration::Body,
    workspace_id: &str,
    chosen: Option<&str>,
) -> Result<(), Refusal> {
    let heirs = write.used_by(Kind::Integration, &integration.id, Kind::VirtualKey).await?;
    if heirs.iter().any(|heir| heir.workspace_id == workspace_id) {
        return Ok(());
    }
    let wanted = chosen.unwrap_or(&integration.slug);
    let taken = write.named(Kind::VirtualKey, wanted).await?;
    let slug = match taken.iter().any(|taken| taken.workspace_id == workspace_id && taken.slug == wanted) {
        false => wanted.to_owned(),
        true if chosen.is_some() => return Err(Refusal::invalid("default_provider_slug: is taken; choose another")),
        true => slug::make("", &integration.name),
    };
    let mut object = Object::new(Kind::VirtualKey, Object::new_id(), slug, integration.name.clone());
    workspace_id.clone_into(&mut object.workspace_id);
    let body = Body {
        provider: parent.ai_provider_id.clone(),
        integration_id: Some(integration.id.clone()),
        is_default: true,
        ..Body::default()
    };
    object.write(&body)?;
    write.insert(&mut object).await?;
    write.set_uses(&object, &body.uses(&object)).await?;
    Ok(())
}

/// Removes the virtual keys that came with `integration` and that nobody has changed since.
///
/// # Errors
/// 400 when something else needs one.
pub(in crate::control) async fn remove(write: &mut Write, integration: &Object) -> Result<(), Refusal> {
    for heir in write.used_by(Kind::Integration, &integration.id, Kind::VirtualKey).await? {
        if !heir.read::<Body>()?.is_default {
            continue;
        }
        let users = write.users(heir.kind, &heir.id, MAX_USERS_NAMED).await?;
        if !users.is_empty() {
            return Err(Refusal::in_use(heir.kind.noun(), &users));
        }
        write.remove(&heir).await?;
    }
    Ok(())
}

/// Says which virtual keys a data plane would set aside if `integration` became what `body` says: a virtual key that inherits
/// a credential may not choose where it goes, for instance.
///
/// # Errors
/// 500.
pub(in crate::control) async fn judge_heirs(
    fields: &mut Fields<'_>,
    write: &mut Write,
    integration: &Object,
    body: &integration::Body,
) -> Result<(), Refusal> {
    let changes = ["key", EntityKind::Integration.prefix(), "secret_mappings"].iter().any(|key| fields.has(key));
    if !changes || !fields.is_clean() {
        return Ok(());
    }
    let parent = Parent { object: integration.clone(), body: body.clone() };
    for heir in write.used_by(Kind::Integration, &integration.id, Kind::VirtualKey).await? {
        let body: Body = heir.read()?;
        if body.fields == ProviderFields::default() {
            continue;
        }
        body.judge(fields, &heir, Some(&parent));
        if !fields.is_clean() {
            fields
                .fault(EntityKind::Integration.prefix(), format_args!("does not fit to the virtual key {}", heir.slug));
            break;
        }
    }
    Ok(())
}
