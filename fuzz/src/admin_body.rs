//! Any body of the admin API: read without a panic, in time that grows with its length, and no fault quotes a value.

use sidekey::control::fields::{Body, Length};

/// `input` is the body.
pub fn check(input: &[u8]) {
    let body = Body::from(input.to_vec());
    let Ok(mut fields) = body.fields() else { return };
    let _ = fields.text("name", Length(1, 64));
    let _ = fields.flag("allow_all_workspaces");
    let _ = fields.texts("allowed_workspaces");
    let _ = fields.typed::<u32>("expires_at", "a number");
    if let Some(mut below) = fields.object("auth_config").value() {
        let _ = below.text("vault_token", Length(0, 4096));
        fields.absorb(below);
    }
    for mut mapping in fields.objects("secret_mappings").value().into_iter().flatten() {
        let _ = mapping.text("target_field", Length(1, 256));
        fields.absorb(mapping);
    }
    let _ = fields.finish();
}
