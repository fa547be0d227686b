//! Whole plans, planned and applied: what arrives at the gateway.

mod binding;
mod blame;
mod config_mode;
mod describing;
mod header_mode;
mod naming;
mod properties;
mod traps;
