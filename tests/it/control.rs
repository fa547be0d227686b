//! The control plane as its clients meet it: over HTTP, on a database of its own.

mod canaries;
mod feed;
mod secret_references;
mod stage;
mod start;
mod workspaces;
