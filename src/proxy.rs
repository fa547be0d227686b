//! The proxy: from an accepted connection to a reply.

mod settings;

pub use settings::{Limits, Settings, TlsSettings, UpstreamSettings};
