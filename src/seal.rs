//! What the control plane keeps for data planes and cannot read itself, and how its feed is signed.
//!
//! A sealed value is an age v1 file (C2SP `age.md`) to X25519 recipients, in base64, whose plaintext says where the value
//! belongs: `{"organisation", "object_id", "field", "value"}`. The `age` tool opens and makes them, too. The room has two
//! halves: [`recipient`] closes, [`identity`] and [`opener`] open; the control plane may name the first only
//! (`tests/it/layers.rs`).
//! All cryptography is aws-lc's, the library that TLS brings.

mod format;
pub mod identity;
pub mod opener;
pub mod recipient;
pub mod signature;

/// Largest value that can be sealed, in bytes: with its place it stays below one chunk of the format.
pub const MAX_VALUE_BYTES: usize = 32 * 1024;

/// Where a sealed value belongs. One that is found elsewhere is not opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place<'a> {
    /// Id of the organisation.
    pub organisation: &'a str,
    /// Id of the object that holds it.
    pub object_id: &'a str,
    /// Path of the field inside the object, like `auth_config.vault_token`.
    pub field: &'a str,
}
