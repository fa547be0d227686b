//! Tests against real components: OpenBao, the Portkey gateway, kube-apiserver, unmodified SDKs, and the `sidekey` binary.
//!
//! `tests/run real` installs what they need and runs them. Each test is an `async fn` in a module below, named in the list of
//! `main`; it runs on a machine of its own ([`harness`], [`namespace`]), where [`provider`] plays every host of the internet.
//!
//! ```ignore
//! pub async fn chat_by_slug() {
//!     let world = World::start().await;                          // OpenBao, gateway, sidekey, a snapshot with entities
//!     world.send(Call::chat("gpt-4o-mini", "ping").header("x-portkey-provider", "@openai-prod")).await.expect(200);
//!     let seen = world.provider.take_one();                      // what api.openai.com received
//!     assert_eq!(seen.header("authorization"), format!("Bearer {}", world.secrets.openai));
//! }
//! ```

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    reason = "a test panics when something is wrong"
)]
#![allow(clippy::disallowed_methods, reason = "no product code here")]

mod authority;
#[allow(dead_code, reason = "offers what tests may need")]
mod client;
#[allow(dead_code, reason = "offers what tests may need")]
mod components;
mod harness;
mod namespace;
#[allow(dead_code, reason = "offers what tests may need")]
mod process;
#[allow(dead_code, reason = "offers what tests may need")]
mod provider;
mod stage;
mod vault;

use std::process::ExitCode;

fn main() -> ExitCode {
    harness::main(tests![
        stage::gateway_reaches_every_host,
        stage::gateway_streams_chunk_by_chunk,
        stage::gateway_opens_realtime_sessions,
        stage::openbao_counts_reads,
        stage::openbao_logs_in_service_accounts,
        vault::reads_every_path_form,
        vault::reads_versions_as_asked,
        vault::tells_denials_from_dead_tokens,
        vault::keeps_a_fixed_token_alive,
        vault::logs_in_with_approle_and_stays_in,
        vault::stops_asking_when_refused,
        vault::stays_in_its_namespace,
        vault::waits_out_quotas_seals_and_outages,
        vault::trusts_only_named_authorities,
        vault::logs_in_as_a_service_account,
    ])
}
