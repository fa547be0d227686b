//! Every key: its type, default and range, section by section.
//!
//! The reason for a bound stands beside it. Bounds keep a mistyped unit from becoming an outage: no legal number makes a
//! process useless at once, and no sum of them overflows a clock.

use std::{path::PathBuf, time::Duration};

use super::{reader::Reader, value};
use crate::{
    admin,
    clients::{self, AlertSettings, Auth, OnFailure, SharedSettings, StoreSettings},
    dialect::portkey,
    egress,
    feed::{
        Source,
        control_plane::{self, Address},
        file,
    },
    manager::{
        self, Budget, Budgets,
        registry::{
            Ambient, AwsSettings, AzureSettings, Environment, FileSettings, GcpSettings, RegistrySettings,
            VaultSettings,
        },
    },
    model::ManagerType,
    proxy::{self, Limits, RecoverySettings, TlsSettings, UpstreamSettings},
    resolve::{
        self,
        prewarm::{self, Choice},
    },
    telemetry,
};

const MINUTE: u64 = 60;
const HOUR: u64 = 60 * MINUTE;
const DAY: u64 = 24 * HOUR;
const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;

/// What later versions bring. Accepted and ignored, such a key would promise a protection that is not there.
pub fn unbuilt(reader: &mut Reader<'_>) {
    reader.later("control_plane", "a sidecar names its control plane by snapshot.control_plane.url");
}

/// `client_auth`, `api_key_hash_file`, `workspace`, `limits.price_file`, `limits.redis.*`, `limits.alerts.*`.
pub fn clients(reader: &mut Reader<'_>) -> clients::Settings {
    let wants_keys = reader.word("client_auth", &[("none", false), ("api_key", true)]);
    let hash_file = reader.optional("api_key_hash_file", value::readable_file);
    let workspace = reader.optional("workspace", value::name);
    match (wants_keys, reader.is_set("api_key_hash_file")) {
        (true, false) => reader.problem("client_auth", "needs api_key_hash_file beside it"),
        (false, true) => reader.problem("api_key_hash_file", "has no effect; set client_auth: api_key, or remove it"),
        (true, true) | (false, false) => {}
    }
    if wants_keys && workspace.is_some() {
        reader.problem("workspace", "has no effect: an API key says which workspace is in force; remove it");
    }
    let auth = match (wants_keys, hash_file) {
        (true, Some(hash_file)) => Auth::ApiKey { hash_file },
        (true, None) | (false, _) => Auth::Open { workspace },
    };
    let price_file = reader.optional("limits.price_file", value::readable_file);
    let (shared, alerts) = (shared(reader), alerts(reader));
    clients::Settings { auth, price_file, shared, alerts, ..clients::Settings::default() }
}

/// `limits.alerts.*`.
fn alerts(reader: &mut Reader<'_>) -> Option<AlertSettings> {
    let webhook_url = reader.optional("limits.alerts.webhook_url", value::endpoint);
    let secret_file = reader.optional("limits.alerts.secret_file", value::readable_file);
    match (reader.is_set("limits.alerts.webhook_url"), reader.is_set("limits.alerts.secret_file")) {
        (true, false) => reader.problem("limits.alerts.webhook_url", "needs limits.alerts.secret_file beside it"),
        (false, true) => reader.problem("limits.alerts.secret_file", "has no effect without limits.alerts.webhook_url"),
        (true, true) | (false, false) => {}
    }
    Some(AlertSettings { webhook_url: webhook_url?, secret_file: secret_file? })
}

/// `limits.redis.*`.
fn shared(reader: &mut Reader<'_>) -> Option<SharedSettings> {
    let url_file = reader.optional("limits.redis.url_file", value::readable_file);
    let ca_file = reader.optional("limits.redis.ca_file", value::readable_file);
    let allow_plaintext = reader.flag("limits.redis.allow_plaintext", false);
    let prefix = reader.text("limits.redis.prefix", "sidekey".to_owned(), value::name);
    // A request waits for it; one that takes longer costs more than it protects.
    let deadline = reader.millis("limits.redis.deadline_ms", 20, 1..=1000);
    let sync = reader.millis("limits.redis.sync_ms", 100, 10..=10_000);
    let on_failure =
        reader.word("limits.redis.on_failure", &[("local", OnFailure::Local), ("reject", OnFailure::Reject)]);
    if ca_file.is_some() && !reader.is_set("limits.redis.url_file") {
        reader.problem("limits.redis.ca_file", "has no effect without limits.redis.url_file; set that, or remove it");
    }
    let store = StoreSettings { url_file: url_file?, ca_file, allow_plaintext, prefix };
    Some(SharedSettings { store, deadline, sync, on_failure })
}

/// `listen`, `tls.*`, `upstream.*`, `limits.*`; `keys`: whether clients have to show an API key.
pub fn proxy(reader: &mut Reader<'_>, keys: bool) -> proxy::Settings {
    let upstream = upstream(reader);
    let default = proxy::Settings::new(upstream.url.clone());
    let listen = reader.one_or_more("listen", default.listen[0].clone(), value::listen_place);
    let open = reader.flag("allow_unauthenticated", false);
    let tls = tls(reader);
    let fixed = |address: &proxy::Address| address.tcp().is_none_or(|address| address.port() != 0);
    if listen.iter().enumerate().any(|(at, address)| fixed(address) && listen[..at].contains(address)) {
        reader.problem("listen", "names one address twice; remove one");
    }
    let authenticated = keys || reader.is_set("tls.client_ca_file");
    if let Some(address) = listen.iter().filter_map(proxy::Address::tcp).find(|address| !address.ip().is_loopback())
        && !authenticated
        && !open
    {
        reader.problem("listen", &format!(
            "{address} is open to the network and whoever reaches it uses your credentials; listen on 127.0.0.1, set \
             client_auth: api_key or tls.client_ca_file, or set allow_unauthenticated: true if something in front of it authenticates clients"
        ));
    }
    let provenance = reader.flag("provenance_header", false);
    let (limits, recovery) = (limits(reader), recovery(reader));
    proxy::Settings { listen, tls, upstream, control_plane: None, provenance, limits, recovery }
}

fn upstream(reader: &mut Reader<'_>) -> UpstreamSettings {
    let default = UpstreamSettings::new(value::default_upstream());
    let url = reader.text("upstream.url", default.url.clone(), value::upstream_url);
    let ca_file = reader.optional("upstream.ca_file", value::readable_file);
    let plaintext = reader.flag("upstream.allow_plaintext", false);
    if url.scheme() == "http" {
        if !plaintext && !value::is_loopback(&url) {
            reader.problem(
                "upstream.url",
                "is plain http to another host, which shows credentials to the network; use https, or set \
                 upstream.allow_plaintext: true",
            );
        }
        if ca_file.is_some() {
            reader.problem("upstream.ca_file", "has no effect on an http address; use https, or remove it");
        }
    }
    UpstreamSettings {
        url,
        ca_file,
        connect_timeout: reader.secs("upstream.connect_timeout_secs", default.connect_timeout.as_secs(), 1..=MINUTE),
        // Long-thinking models answer after many minutes when they do not stream.
        response_head_timeout: reader.secs(
            "upstream.response_head_timeout_secs",
            default.response_head_timeout.as_secs(),
            1..=2 * HOUR,
        ),
        // Node's own limit, 16 KiB unless it is started with another one.
        max_head_bytes: reader.size("upstream.max_head_bytes", default.max_head_bytes as u64, 4 * KIB..=MIB),
    }
}

pub fn tls(reader: &mut Reader<'_>) -> Option<TlsSettings> {
    let cert_file = reader.optional("tls.cert_file", value::readable_file);
    let key_file = reader.optional("tls.key_file", value::readable_file);
    let client_ca_file = reader.optional("tls.client_ca_file", value::readable_file);
    // Whether a key stands there, not whether its file can be read: one fault is not to be reported as two.
    match (reader.is_set("tls.cert_file"), reader.is_set("tls.key_file")) {
        (true, false) => reader.problem("tls.cert_file", "needs tls.key_file beside it"),
        (false, true) => reader.problem("tls.key_file", "needs tls.cert_file beside it"),
        (false, false) if reader.is_set("tls.client_ca_file") => {
            reader.problem("tls.client_ca_file", "needs tls.cert_file and tls.key_file beside it");
        }
        (false, false) | (true, true) => {}
    }
    Some(TlsSettings { cert_file: cert_file?, key_file: key_file?, client_ca_file })
}

fn limits(reader: &mut Reader<'_>) -> Limits {
    let default = Limits::default();
    let session_secs = default.session_max.map_or(0, |session| session.as_secs());
    Limits {
        max_connections: reader.size("limits.max_connections", default.max_connections as u64, 1..=1_000_000),
        max_in_flight: reader.size("limits.max_in_flight", default.max_in_flight as u64, 1..=1_000_000),
        // The HTTP codec does not work with less than 8 KiB.
        max_head_bytes: reader.size("limits.max_head_bytes", default.max_head_bytes as u64, 8 * KIB..=MIB),
        model_peek_bytes: reader.size("limits.model_peek_bytes", default.model_peek_bytes as u64, KIB..=64 * MIB),
        head_timeout: reader.secs("limits.head_timeout_secs", default.head_timeout.as_secs(), 1..=5 * MINUTE),
        stall_timeout: reader.secs("limits.stall_timeout_secs", default.stall_timeout.as_secs(), 1..=HOUR),
        drain_delay: reader.secs("limits.drain_delay_secs", default.drain_delay.as_secs(), 0..=5 * MINUTE),
        drain: reader.secs("limits.drain_secs", default.drain.as_secs(), 0..=HOUR),
        session_max: some(reader.secs("limits.session_max_secs", session_secs, 0..=7 * DAY)),
    }
}

/// `tracing.*`.
pub fn tracing(reader: &mut Reader<'_>) -> Option<telemetry::TracingSettings> {
    let url = reader.optional("tracing.otlp_url", value::endpoint);
    let ca_file = reader.optional("tracing.ca_file", value::readable_file);
    let sample_ratio = reader.ratio("tracing.sample_ratio", 1.0, 0.0..=1.0);
    if ca_file.is_some() && !reader.is_set("tracing.otlp_url") {
        reader.problem("tracing.ca_file", "has no effect without tracing.otlp_url; set that, or remove it");
    }
    Some(telemetry::TracingSettings { url: url?, ca_file, sample_ratio })
}

/// `recovery.*`, as far as it is about requests.
fn recovery(reader: &mut Reader<'_>) -> Option<RecoverySettings> {
    let default = RecoverySettings::default();
    let enabled = reader.flag("recovery.enabled", true);
    let settings = RecoverySettings {
        max_body_bytes: reader.size("recovery.max_body_bytes", default.max_body_bytes as u64, 0..=64 * MIB),
        max_kept_bytes: reader.size("recovery.max_kept_bytes", default.max_kept_bytes as u64, 0..=16 * GIB),
    };
    enabled.then_some(settings)
}

/// `recovery.*`, as far as it is about secrets.
fn suspicion(reader: &mut Reader<'_>) -> resolve::Suspicion {
    let default = resolve::Suspicion::DEFAULT;
    resolve::Suspicion {
        // Without a rest, whoever provokes refusals would have the manager read for each of them.
        cooldown: reader.secs("recovery.cooldown_secs", default.cooldown.as_secs(), 1..=HOUR),
        // Requests wait for it.
        second_look: reader.millis("recovery.second_look_ms", default.second_look.as_millis() as u64, 0..=3000),
        overlap: reader.secs("recovery.overlap_secs", default.overlap.as_secs(), 0..=DAY),
    }
}

/// `admin_listen`, `admin_token_file`; `taken` is `listen`.
pub fn admin(reader: &mut Reader<'_>, taken: &[proxy::Address]) -> admin::Settings {
    let default = admin::Settings::default();
    let listen = reader.text("admin_listen", default.listen, value::listen_address);
    if listen.port() != 0 && taken.contains(&listen.into()) {
        reader.problem("admin_listen", "is also in listen; give it an address of its own");
    }
    let token_file = reader.optional("admin_token_file", value::readable_file);
    admin::Settings { listen, token_file, ..default }
}

/// `snapshot.*`.
pub fn snapshot(reader: &mut Reader<'_>) -> Option<Source> {
    let file = reader.optional("snapshot.file", value::path);
    let address = control_plane(reader);
    let fed = reader.is_set("snapshot.control_plane.url");
    // A file comes from a build that can refuse it; a feed must not stand still for one object.
    let strict = reader.flag("snapshot.strict", !fed);
    let last_good = reader.optional("snapshot.last_good_file", value::path);
    let max_age = some(reader.secs("snapshot.max_age_secs", 0, 0..=30 * DAY));
    if file.is_some() && file == last_good {
        reader.problem("snapshot.last_good_file", "is snapshot.file itself; name another file");
    }
    if file.is_some() && fed {
        reader.problem("snapshot.file", "stands beside snapshot.control_plane; a snapshot has one source, remove one");
    }
    match (file, address) {
        (Some(path), _) => {
            Some(Source::File(file::Settings { strict, last_good, max_age, ..file::Settings::new(path) }))
        }
        (None, Some(address)) => Some(Source::ControlPlane(control_plane::Settings {
            strict,
            last_good,
            max_age,
            ..control_plane::Settings::new(address)
        })),
        (None, None) => None,
    }
}

/// `snapshot.control_plane.*`.
fn control_plane(reader: &mut Reader<'_>) -> Option<Address> {
    const URL: &str = "snapshot.control_plane.url";
    let url = reader.optional(URL, value::base_url);
    let token_file = reader.optional("snapshot.control_plane.token_file", value::readable_file);
    let ca_file = reader.optional("snapshot.control_plane.ca_file", value::readable_file);
    let public_key_file = reader.optional("snapshot.control_plane.public_key_file", value::readable_file);
    let rest = ["token_file", "ca_file", "public_key_file"];
    let rest = rest.map(|key| (key, reader.is_set(&format!("snapshot.control_plane.{key}"))));
    match (reader.is_set(URL), rest) {
        (true, [(_, false), ..]) => reader.problem(URL, "needs snapshot.control_plane.token_file beside it"),
        (false, rest) if rest.iter().any(|(_, set)| *set) => {
            reader.problem(URL, "is not set, without which the rest of snapshot.control_plane has no effect");
        }
        (true | false, _) => {}
    }
    if ca_file.is_some() && url.as_ref().is_some_and(|url| url.scheme() == "http") {
        reader.problem("snapshot.control_plane.ca_file", "has no effect on an http address; use https, or remove it");
    }
    Some(Address { url: url?, token_file: token_file?, ca_file, public_key_file })
}

/// Where admin paths go: to the control plane that the snapshot comes from.
pub fn admin_api(snapshot: Option<&Source>) -> Option<UpstreamSettings> {
    match snapshot? {
        Source::File(_) => None,
        Source::ControlPlane(control_plane::Settings { address: Address { url, ca_file, .. }, .. }) => {
            Some(UpstreamSettings { ca_file: ca_file.clone(), ..UpstreamSettings::new(url.clone()) })
        }
    }
}

/// `dialect`, `unmatched`, `destination.*`, `passthrough.*`.
pub fn dialect(reader: &mut Reader<'_>) -> portkey::Settings {
    let default = portkey::Settings::default();
    reader.word("dialect", &[("portkey", ())]);
    portkey::Settings {
        reject_unmatched: reader.word("unmatched", &[("pass", false), ("reject", true)]),
        allowed_checks: reader.list("destination.allowed_checks", default.allowed_checks, value::check_id),
        trust_stored_configs: reader.flag("destination.trust_stored_configs", default.trust_stored_configs),
        passthrough_hosts: reader.list("passthrough.allow_hosts", default.passthrough_hosts, value::host_pattern),
    }
}

/// `cache.*`; `deadline` is `managers.deadline_secs`.
pub fn cache(reader: &mut Reader<'_>, deadline: Duration) -> resolve::Settings {
    resolve::Settings {
        // 300 s is what the gateway's hosted version documents.
        ttl: reader.secs("cache.ttl_secs", 300, 0..=DAY),
        // Beyond a half the lifetime written in the file would be a fiction.
        jitter_ratio: reader.ratio("cache.jitter_ratio", 0.1, 0.0..=0.5),
        // A refresh that starts in the last twentieth comes too late to be ahead.
        refresh_ahead_ratio: reader.ratio("cache.refresh_ahead_ratio", 0.8, 0.0..=0.95),
        stale: reader.secs("cache.stale_secs", HOUR, 0..=7 * DAY),
        // Without a memory of failures a broken reference would be fetched by every request.
        negative_ttl: reader.secs("cache.negative_ttl_secs", 5, 1..=5 * MINUTE),
        max_entries: reader.whole("cache.max_entries", 10_000, 1..=1_000_000),
        max_bytes: reader.whole("cache.max_bytes", 64 * MIB, MIB..=16 * GIB),
        suspicion: suspicion(reader),
        deadline,
    }
}

/// `managers.*`, `egress.*`.
pub fn managers(reader: &mut Reader<'_>) -> RegistrySettings {
    RegistrySettings {
        bounds: bounds(reader),
        aws: AwsSettings {
            endpoint_url: reader.optional("managers.aws.endpoint_url", value::base_url),
            sts_endpoint_url: reader.optional("managers.aws.sts_endpoint_url", value::base_url),
            region: reader.optional("managers.aws.region", value::region),
            external_id: reader.optional("managers.aws.external_id", value::external_id),
            use_fips: reader.flag("managers.aws.use_fips", false),
            use_dual_stack: reader.flag("managers.aws.use_dual_stack", false),
            ambient_sm: ambient(reader, ManagerType::AwsSm),
            ambient_ssm: ambient(reader, ManagerType::AwsSsm),
            environment: Environment::Process,
        },
        azure: AzureSettings {
            authority_host: reader.optional("managers.azure.authority_host", value::base_url),
            ca_file: reader.optional("managers.azure.ca_file", value::readable_file),
            ambient: ambient(reader, ManagerType::AzureKv),
        },
        gcp: GcpSettings {
            endpoint_url: reader.optional("managers.gcp.endpoint_url", value::base_url),
            token_url: reader.optional("managers.gcp.token_url", value::endpoint),
            ambient: ambient(reader, ManagerType::GcpSm),
            environment: Environment::Process,
        },
        vault: VaultSettings {
            ca_file: reader.optional("managers.vault.ca_file", value::readable_file),
            kubernetes_jwt_file: reader.text(
                "managers.vault.kubernetes_jwt_file",
                PathBuf::from("/var/run/secrets/kubernetes.io/serviceaccount/token"),
                value::path,
            ),
            approle_mount: reader.text("managers.vault.approle_mount", "approle".to_owned(), value::mount),
            kubernetes_mount: reader.text("managers.vault.kubernetes_mount", "kubernetes".to_owned(), value::mount),
            kubernetes_allow_addrs: reader.list("managers.vault.kubernetes_allow_addrs", Vec::new(), |text| {
                value::base_url(text).map(|url| url.as_str().trim_end_matches('/').to_owned())
            }),
            ambient: ambient(reader, ManagerType::HashicorpVault),
        },
        file: FileSettings {
            root: reader.optional("managers.file.root", value::directory),
            ambient: ambient(reader, ManagerType::File),
        },
        policy: policy(reader),
        extra_ca_files: reader.list("egress.extra_ca_files", Vec::new(), value::readable_file),
    }
}

/// `egress.*`, as far as it decides which addresses are open.
pub fn policy(reader: &mut Reader<'_>) -> egress::Policy {
    egress::Policy::new(egress::Settings {
        allow_hosts: reader.list("egress.allow_hosts", Vec::new(), value::host_pattern),
        allow_cidrs: reader.list("egress.allow_cidrs", Vec::new(), value::network),
        proxy_url: reader.optional("egress.proxy_url", value::proxy_url),
    })
}

fn bounds(reader: &mut Reader<'_>) -> manager::Settings {
    let attempt_timeout = reader.secs("managers.timeout_secs", 3, 1..=MINUTE);
    let fetch_deadline = reader.secs("managers.deadline_secs", 8, 1..=5 * MINUTE);
    // Cloud identities can take a minute and a half to answer after a node has started.
    let login_deadline = reader.secs("managers.login_deadline_secs", 90, 1..=10 * MINUTE);
    for (key, deadline) in
        [("managers.deadline_secs", fetch_deadline), ("managers.login_deadline_secs", login_deadline)]
    {
        if deadline < attempt_timeout {
            reader.problem(
                key,
                &format!(
                    "{} is shorter than one attempt, managers.timeout_secs {}; raise it, or lower that",
                    deadline.as_secs(),
                    attempt_timeout.as_secs(),
                ),
            );
        }
    }
    let max_in_flight = reader.size("managers.max_in_flight", 32, 1..=1024);
    let usual = Budgets::USUAL;
    let budgets = Budgets {
        aws_sm: budget(reader, "managers.aws_sm.budget_per_sec", "managers.aws_sm.budget_burst", usual.aws_sm),
        aws_ssm: budget(reader, "managers.aws_ssm.budget_per_sec", "managers.aws_ssm.budget_burst", usual.aws_ssm),
        azure_kv: budget(reader, "managers.azure_kv.budget_per_sec", "managers.azure_kv.budget_burst", usual.azure_kv),
        gcp_sm: budget(reader, "managers.gcp_sm.budget_per_sec", "managers.gcp_sm.budget_burst", usual.gcp_sm),
        hashicorp_vault: budget(
            reader,
            "managers.hashicorp_vault.budget_per_sec",
            "managers.hashicorp_vault.budget_burst",
            usual.hashicorp_vault,
        ),
    };
    manager::Settings { attempt_timeout, fetch_deadline, login_deadline, max_in_flight, budgets }
}

fn budget(reader: &mut Reader<'_>, per_sec: &'static str, burst: &'static str, usual: Budget) -> Budget {
    let mut reads = |key, usual: f64, most| reader.whole(key, usual as u64, 1..=most) as f64;
    Budget { per_second: reads(per_sec, usual.per_second, 10_000), burst: reads(burst, usual.burst, 100_000) }
}

fn ambient(reader: &mut Reader<'_>, manager: ManagerType) -> Ambient {
    let (allowed, paths) = match manager {
        ManagerType::AwsSm => ("managers.aws_sm.ambient", "managers.aws_sm.ambient_paths"),
        ManagerType::AwsSsm => ("managers.aws_ssm.ambient", "managers.aws_ssm.ambient_paths"),
        ManagerType::AzureKv => ("managers.azure_kv.ambient", "managers.azure_kv.ambient_paths"),
        ManagerType::GcpSm => ("managers.gcp_sm.ambient", "managers.gcp_sm.ambient_paths"),
        ManagerType::HashicorpVault => ("managers.hashicorp_vault.ambient", "managers.hashicorp_vault.ambient_paths"),
        ManagerType::File => ("managers.file.ambient", "managers.file.ambient_paths"),
    };
    Ambient { allowed: reader.flag(allowed, true), paths: reader.list(paths, Vec::new(), value::path_prefix) }
}

/// `log.*`.
pub fn log(reader: &mut Reader<'_>) -> telemetry::Settings {
    use telemetry::{Format, Level};
    telemetry::Settings {
        level: reader.word(
            "log.level",
            &[
                ("info", Level::INFO),
                ("error", Level::ERROR),
                ("warn", Level::WARN),
                ("debug", Level::DEBUG),
                ("trace", Level::TRACE),
            ],
        ),
        format: reader.optional_word("log.format", &[("json", Format::Json), ("text", Format::Text)]),
    }
}

/// `prewarm`, `prewarm_list`, `prewarm_file`, `prewarm_max_secs`.
pub fn prewarm(reader: &mut Reader<'_>) -> prewarm::Settings {
    #[derive(Clone, Copy, PartialEq, Eq)]
    enum Word {
        None,
        All,
        Used,
        List,
    }
    let words = [("none", Word::None), ("all", Word::All), ("used", Word::Used), ("list", Word::List)];
    let word = reader.word("prewarm", &words);
    let list = reader.list("prewarm_list", Vec::new(), value::name);
    let file = reader.optional("prewarm_file", value::path);
    // A start that waits longer than an orchestrator's patience would never end.
    let limit = reader.secs("prewarm_max_secs", 30, 1..=10 * MINUTE);
    match (word, file.is_some(), list.is_empty()) {
        (Word::Used, false, _) => reader.problem("prewarm", "`used` needs prewarm_file, where names are remembered"),
        (Word::List, _, true) => reader.problem("prewarm", "`list` needs prewarm_list, the references to read"),
        (Word::None | Word::All | Word::List, true, _) => {
            reader.problem("prewarm_file", "has no effect without prewarm: used; remove it, or set that");
        }
        (Word::None | Word::All | Word::Used, _, false) => {
            reader.problem("prewarm_list", "has no effect without prewarm: list; remove it, or set that");
        }
        (Word::None | Word::All, false, true) | (Word::Used, true, true) | (Word::List, false, false) => {}
    }
    let choice = match word {
        Word::None => Choice::None,
        Word::All => Choice::All,
        Word::Used => Choice::Used,
        Word::List => Choice::List(list),
    };
    prewarm::Settings { choice, file, limit }
}

/// `audit.*`.
pub fn audit(reader: &mut Reader<'_>) -> telemetry::AuditFile {
    use telemetry::AuditFile;
    reader.text("audit.file", AuditFile::default(), |text| match text {
        "stderr" => Ok(AuditFile::Stderr),
        "none" => Ok(AuditFile::None),
        path => value::path(path).map(AuditFile::Path),
    })
}

/// Where zero means without a limit.
fn some(time: Duration) -> Option<Duration> {
    (!time.is_zero()).then_some(time)
}
