//! The composition root: settings → a running sidecar.

mod hardening;

pub use hardening::harden;
