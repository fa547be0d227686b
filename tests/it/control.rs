//! The control plane as its clients meet it: over HTTP, on a database of its own.

mod api_keys;
mod audit_log;
mod canaries;
mod configs;
mod conformance;
mod destinations;
mod feed;
mod feedable;
mod followed;
mod integrations;
mod isolation;
mod mappings;
mod races;
mod secret_references;
mod stage;
mod start;
mod usage;
mod virtual_keys;
mod workspaces;
