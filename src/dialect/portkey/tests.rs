//! Whole plans, planned and applied: what arrives at the gateway.

mod header_mode;
mod naming;
