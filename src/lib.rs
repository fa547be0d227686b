//! Sidekey stands in front of an AI gateway and puts provider credentials on the requests that pass.
//!
//! A request names an *entity* (virtual key, integration, stored config). Sidekey finds it in a *snapshot* of the control
//! plane, resolves its *secret mappings* through *secret managers* with a bounded cache, places the credentials where the
//! gateway reads them, and forwards the stream. The control plane keeps references only.
//!
//! # One request, one line
//!
//! ```text
//! main → cli → app ─────────────── once: configuration, telemetry, bind, spawn feed + proxy/server + admin
//! proxy/server.rs   accept, TLS, limits, hyper connection, drain
//! proxy.rs          handle():  1  snapshot    = feed.current()                one pointer load, held for the request
//!                              2  client      = clients.authenticate(head)    API key → workspace, scopes, defaults; limits
//!                              3  plan        = dialect.plan(head, peek)      which entities, where each credential goes; sync
//!                              4  credentials = resolver.resolve(mappings)    in parallel; a hit takes no lock across an await
//!                                                 └ (miss) cache → freshness → manager → pick secret_key
//!                              5  dialect.apply(plan, credentials, head)      strip, then set
//!                              6  response    = upstream.send(request)        streams both ways, injected values redacted
//!                              7  recovery                                    refused: read again, send again, or pass on
//!                              ✗  any error → reject.rs                       the only table of status, code, header
//! ```
//!
//! # One secret, one life
//!
//! ```text
//! reference in the snapshot → manager object for its identity → fetch (bounded, classed) → slot {document, version, fetched_at}
//!    → fresh | stale until the hard bound | refused | evicted        resolve/freshness.rs: a pure function, the only judge
//!    → pick secret_key → Credential (prepared header value, sensitive) → injected → wiped when the last holder lets go
//! ```
//!
//! Whoever keeps the secret may say that it has changed (`push`): it is read again, and served on until then.
//!
//! # Rooms
//!
//! Imports go down only; `tests/it/layers.rs` fails on one that climbs.
//!
//! | row | rooms |
//! |---|---|
//! | 0 | [`secret`], [`metric`], [`trace`], [`seal`] (may use `secret`) |
//! | 1 | [`model`] |
//! | 2 | [`egress`], [`feed`], [`dialect`], [`manager`] (may use `egress`; otherwise never each other) |
//! | 3 | [`resolve`], [`clients`] |
//! | 4 | [`proxy`]; [`control`] (rows 0 and 1 only, and of `seal` the closing half: it cannot reach a secret) |
//! | 5 | [`config`], [`admin`], [`push`] (of `resolve` what expires: it cannot reach a secret), [`telemetry`], [`app`], [`cli`] |

pub mod admin;
pub mod app;
pub mod cli;
pub mod clients;
pub mod config;
pub mod control;
pub mod dialect;
pub mod egress;
pub mod feed;
pub mod manager;
pub mod metric;
pub mod model;
pub mod proxy;
pub mod push;
pub mod resolve;
pub mod seal;
pub mod secret;
pub mod telemetry;
pub mod trace;
