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

mod api_keys;
mod attacks;
mod authority;
mod aws;
mod azure;
mod budget;
mod canary;
#[allow(dead_code, reason = "offers what tests may need")]
mod client;
mod clouds;
mod coalescing;
mod command;
#[allow(dead_code, reason = "offers what tests may need")]
mod components;
mod control_plane;
mod control_sdk;
mod drain;
mod errors;
mod gcp;
mod harness;
mod identities;
mod limits;
mod login;
mod namespace;
mod outage;
mod overload;
#[allow(dead_code, reason = "offers what tests may need")]
mod process;
#[allow(dead_code, reason = "offers what tests may need")]
mod provider;
mod rotation;
mod sdk;
mod ssm;
mod stage;
mod steering;
mod swap;
mod vault;
#[allow(dead_code, reason = "offers what tests may need")]
mod world;

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
        sdk::portkey_python,
        sdk::portkey_node,
        sdk::openai_python,
        sdk::openai_node,
        sdk::anthropic_python,
        control_sdk::python,
        control_sdk::node,
        control_sdk::curl,
        api_keys::of_the_document_work_with_every_sdk,
        api_keys::ends_the_old_secret,
        api_keys::costs_no_client_a_request,
        api_keys::is_spent_and_reset,
        login::by_token,
        login::by_approle,
        login::by_service_account,
        login::refused,
        gcp::by_service_account_key,
        gcp::by_metadata_server,
        gcp::by_federation,
        identities::are_bounded_in_memory,
        aws::by_access_key,
        aws::by_assumed_role,
        aws::by_service_role,
        aws::by_the_machine,
        aws::running::sessions_end_and_no_request_fails,
        aws::running::throttling_is_bridged_or_told,
        aws::running::denials_and_deletions_end_a_value,
        aws::running::no_credentials_is_no_outage,
        aws::running::a_rotated_key_works_at_once,
        azure::by_client_secret,
        azure::by_the_machine,
        azure::by_the_environment,
        clouds::a_foreign_challenge_gets_no_token,
        clouds::each_refusal_has_its_code,
        clouds::an_untrusted_vault_is_refused_in_time,
        clouds::a_vault_that_moves_inside_is_left,
        clouds::three_managers_in_one_config,
        steering::no_address_of_a_tenant_is_loaded,
        steering::no_name_leads_inside_later,
        steering::no_answer_leads_elsewhere,
        steering::the_allow_list_opens_what_it_says,
        steering::the_own_token_goes_to_no_foreign_address,
        ssm::reads_what_the_policy_opens,
        ssm::refuses_wrong_keys,
        coalescing::a_thousand_cold_requests_cost_one_read,
        coalescing::the_client_that_caused_a_read_may_leave,
        coalescing::keys_of_one_document_cost_one_read,
        limits::are_shared_by_replicas,
        limits::are_shared_over_tls,
        limits::survive_their_store,
        limits::survive_what_is_claimed,
        swap::loses_no_request_under_load,
        swap::refuses_a_broken_file_with_all_its_faults,
        swap::sets_one_bad_row_aside,
        rotation::costs_no_client_a_request,
        rotation::of_many_keys_each_in_its_time_costs_no_client_a_request,
        rotation::of_a_fallback_is_mended_behind_the_answer,
        rotation::beyond_its_reach_heals_for_the_next,
        rotation::provoked_refusals_are_bounded,
        outage::is_bridged_within_the_bound_and_over_without_a_restart,
        outage::costs_a_request_no_more_than_a_hit,
        outage::slow::makes_nobody_wait,
        outage::rotated::is_used_within_its_lifetime,
        outage::rotated::is_used_by_the_request_that_was_refused,
        outage::rotated::costs_one_handshake_of_a_websocket,
        budget::is_kept_by_many_starts,
        outage::withdrawn::stops_within_the_bound,
        outage::withdrawn::a_wrong_policy_does_not_empty_the_cache,
        overload::is_bounded_attack_by_attack,
        attacks::nothing_leaves_for_another_place,
        attacks::unmatched_requests_reach_nothing_inside,
        attacks::unresolved_is_never_sent,
        canary::is_said_nowhere,
        canary::commands_keep_quiet,
        canary::the_process_is_closed,
        drain::a_running_stream_finishes,
        drain::an_endless_stream_is_cut,
        errors::each_cause_is_answered_and_logged_as_promised,
        errors::outage::a_changed_secret_arrives_after_its_lifetime,
        errors::outage::an_outage_is_bridged_up_to_the_hard_bound,
        command::dev_once,
        command::check_resolves_every_reference,
        command::check_names_what_fails,
        control_plane::canaries::are_nowhere_on_sqlite,
        control_plane::canaries::are_nowhere_on_postgres,
        control_plane::durability::survives_kills,
        control_plane::durability::survives_a_full_disk,
        control_plane::durability::a_backup_begins_an_epoch,
        control_plane::measure::a_write_reaches_fifty_and_so_does_a_restart,
        control_plane::measure::thousands_wait,
        control_plane::measure::many_entities,
        control_plane::replicas::are_one_control_plane,
        control_plane::replicas::leave_a_newer_schema_alone,
        control_plane::replicas::notice_without_being_told,
        control_plane::sidecar::requests_do_not_wait_for_changes,
        control_plane::sidecar::serves_through_an_outage,
        control_plane::tools::portkey_python_drives_it,
        control_plane::tools::portkey_node_drives_it,
        control_plane::tools::curl_examples_work,
        control_plane::schema::is_kept_on_sqlite,
        control_plane::schema::is_kept_on_postgres,
        control_plane::schema::of_portkey_is_kept_on_sqlite,
        control_plane::schema::of_portkey_is_kept_on_postgres,
    ])
}
