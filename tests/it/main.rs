//! What Sidekey does as a whole, in one test binary.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

mod admin;
mod alarms;
mod attacks;
mod audit;
mod canary;
mod cli;
mod clients;
mod coalesce;
mod config;
mod contract;
mod control;
mod dev;
mod egress;
mod errors;
mod examples;
mod expiry;
mod freshness;
mod fuzz;
mod harness;
mod layers;
mod operator;
mod prewarm;
mod proxy_body;
mod proxy_bounds;
mod proxy_errors;
mod proxy_redact;
mod proxy_request;
mod proxy_server;
mod proxy_websocket;
mod push;
mod recovery;
mod resolver;
mod sealed;
mod sidecar;
mod suspicion;
mod swap;
mod tracing;
mod usage;
