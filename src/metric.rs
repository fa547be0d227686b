//! Every metric of the process: name, labels, meaning. The only place that knows a metric name.
//!
//! Prometheus text format, prefix `sidekey_`, base units, counters end in `_total`. Labels hold fixed words and slugs only:
//! never a client's text, never a secret.

use std::fmt;
use std::sync::atomic::{AtomicI64, AtomicU64};

use prometheus_client::{
    encoding::{EncodeLabelSet, text::encode},
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram},
    registry::{Registry, Unit},
};

mod exposition;

pub use self::exposition::Exposition;

/// Upper bounds of the histograms of our own work, in seconds.
const ADDED_SECONDS: [f64; 10] = [0.000_025, 0.000_05, 0.000_1, 0.000_25, 0.000_5, 0.001, 0.005, 0.025, 0.1, 1.0];
/// Upper bounds of the histogram of the shared store's work, in seconds.
const EXCHANGE_SECONDS: [f64; 8] = [0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.02, 0.1];
/// Upper bounds of the histograms of a manager's work, in seconds.
const FETCH_SECONDS: [f64; 10] = [0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 1.0, 3.0, 8.0];

/// All metrics, registered once. Share it as `Arc<Metrics>`.
pub struct Metrics {
    registry: Registry,
    /// Requests by outcome code (`ok` or an error code) and mode.
    pub requests: Family<RequestLabels, Counter>,
    /// Requests under way.
    pub requests_in_flight: Gauge,
    /// Tasks of the runtime, when it was last asked for.
    pub tasks: Gauge,
    /// Client connections open.
    pub connections: Gauge,
    /// Seconds a request spent in Sidekey before it was sent on, waiting for managers included.
    pub added_seconds: Histogram,
    /// Mappings resolved, by manager and outcome (`hit`, `miss`, `stale`, `refresh`, `error`).
    pub resolutions: Family<ResolutionLabels, Counter>,
    /// Reads at a manager, by manager and class (`ok` or a failure class).
    pub fetches: Family<FetchLabels, Counter>,
    /// Reads that were not sent to a manager, by manager and reason (`budget_empty`, `cool_down`, `breaker_open`).
    pub fetches_withheld: Family<WithheldLabels, Counter>,
    /// Identities whose manager is left alone because it fails, by manager.
    pub breakers_open: Family<ManagerLabels, Gauge>,
    /// Seconds of a read at a manager.
    pub fetch_seconds: Family<ManagerLabels, Histogram>,
    /// Logins at a manager, by manager and class.
    pub logins: Family<FetchLabels, Counter>,
    /// Requests whose credential was refused upstream, by what came of it.
    pub recoveries: Family<OutcomeLabels, Counter>,
    /// Documents in memory.
    pub cache_entries: Gauge,
    /// Age in seconds of the oldest document served in the last scrape interval.
    pub oldest_served_seconds: Gauge<f64, AtomicU64>,
    /// Version of the current snapshot.
    pub snapshot_version: Gauge<i64, AtomicI64>,
    /// Unix time when the current snapshot was loaded.
    pub snapshot_loaded_timestamp_seconds: Gauge<f64, AtomicU64>,
    /// Age in seconds of the current snapshot when it was last asked for.
    pub snapshot_age_seconds: Gauge<f64, AtomicU64>,
    /// Snapshots loaded, by outcome (`swapped`, `unchanged`, `refused`; of a feed also `unsigned`, `forged`, `replayed`,
    /// `unreachable`).
    pub snapshot_loads: Family<OutcomeLabels, Counter>,
    /// Objects of the current snapshot that are set aside.
    pub snapshot_set_aside: Gauge,
    /// Sealed values of current snapshots that were needed and cannot be used, when it was last asked for.
    pub sealed_values_unopened: Gauge,
    /// Injected values found in a reply and replaced.
    pub redactions: Counter,
    /// Lines of the use audit, by outcome (`written`, `dropped`).
    pub audit_lines: Family<OutcomeLabels, Counter>,
    /// Spans of traces, by outcome (`exported`, `failed`, `dropped`).
    pub spans: Family<OutcomeLabels, Counter>,
    /// Answers whose tokens were charged, by outcome (`counted`, `estimated`).
    pub usage_answers: Family<OutcomeLabels, Counter>,
    /// Answers of models that the price list does not know.
    pub usage_unpriced: Counter,
    /// Budgets that reached their alert threshold, by what they count.
    pub usage_alerts: Family<CountedLabels, Counter>,
    /// Alerts for the webhook, by outcome (`delivered`, `failed`, `dropped`).
    pub usage_notifications: Family<OutcomeLabels, Counter>,
    /// Reports of what is used, by outcome (`delivered`, `failed`: told again, `refused`: lost).
    pub usage_reports: Family<OutcomeLabels, Counter>,
    /// 1 while counters of limits are shared with other replicas.
    pub limits_shared: Gauge,
    /// Exchanges with the store of shared counters, by outcome (`ok`, `error`, `timeout`).
    pub limits_exchanges: Family<OutcomeLabels, Counter>,
    /// Seconds of an exchange with the store of shared counters.
    pub limits_exchange_seconds: Histogram,
    /// Requests to the operator API, by operation and outcome code.
    pub operator_requests: Family<OperatorLabels, Counter>,
    /// Webhook deliveries, by source and outcome.
    pub webhooks: Family<WebhookLabels, Counter>,
    /// Documents that a webhook's signal reached, by manager and what came of it.
    pub signals: Family<SignalLabels, Counter>,
}

/// Labels of `sidekey_requests_total`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct RequestLabels {
    /// `ok`, the error code that was answered, or `client_gone` when the client left before the answer.
    pub code: &'static str,
    /// `unmatched`, `header`, `config`, `admin` or `none`.
    pub mode: &'static str,
}

/// Labels of `sidekey_resolutions_total`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct ResolutionLabels {
    /// Manager type.
    pub manager: &'static str,
    /// `hit`, `miss`, `stale`, `refresh`, `error`.
    pub outcome: &'static str,
}

/// Labels of `sidekey_fetches_total` and `sidekey_logins_total`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct FetchLabels {
    /// Manager type.
    pub manager: &'static str,
    /// `ok` or a failure class.
    pub class: &'static str,
}

/// Labels of `sidekey_fetches_withheld_total`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct WithheldLabels {
    /// Manager type.
    pub manager: &'static str,
    /// `budget_empty`, `cool_down` or `breaker_open`.
    pub reason: &'static str,
}

/// Labels by manager alone.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct ManagerLabels {
    /// Manager type.
    pub manager: &'static str,
}

/// Labels of `sidekey_operator_requests_total`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct OperatorLabels {
    /// `list`, `refresh`, `test`.
    pub operation: &'static str,
    /// `ok`, or the error code that was answered.
    pub code: &'static str,
}

/// Labels of `sidekey_webhooks_total`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct WebhookLabels {
    /// `eventbridge`, `event_grid`, `pubsub`, `doppler`, `infisical`, `hmac`, or `none` for a path that is not served.
    pub source: &'static str,
    /// `signalled`, `idle`, `validated`, `repeated`, `refused`, `unverifiable`, `malformed`, `too_large`.
    pub outcome: &'static str,
}

/// Labels of `sidekey_signals_total`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct SignalLabels {
    /// Manager type.
    pub manager: &'static str,
    /// `changed`, `unchanged`, `failed`, `joined`, `dropped`.
    pub outcome: &'static str,
}

/// Labels by what is counted.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct CountedLabels {
    /// `cost` or `tokens`.
    pub counts: &'static str,
}

/// Labels by outcome alone.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct OutcomeLabels {
    /// A fixed word.
    pub outcome: &'static str,
}

// === impl Metrics ===

impl Metrics {
    /// Registers everything.
    pub fn new() -> Self {
        let fetch_histogram: fn() -> Histogram = || Histogram::new(FETCH_SECONDS);
        let mut metrics = Self {
            registry: Registry::with_prefix("sidekey"),
            requests: Family::default(),
            requests_in_flight: Gauge::default(),
            tasks: Gauge::default(),
            connections: Gauge::default(),
            added_seconds: Histogram::new(ADDED_SECONDS),
            resolutions: Family::default(),
            fetches: Family::default(),
            fetches_withheld: Family::default(),
            breakers_open: Family::default(),
            fetch_seconds: Family::new_with_constructor(fetch_histogram),
            logins: Family::default(),
            recoveries: Family::default(),
            cache_entries: Gauge::default(),
            oldest_served_seconds: Gauge::default(),
            snapshot_version: Gauge::default(),
            snapshot_loaded_timestamp_seconds: Gauge::default(),
            snapshot_age_seconds: Gauge::default(),
            snapshot_loads: Family::default(),
            snapshot_set_aside: Gauge::default(),
            sealed_values_unopened: Gauge::default(),
            redactions: Counter::default(),
            audit_lines: Family::default(),
            spans: Family::default(),
            usage_answers: Family::default(),
            usage_unpriced: Counter::default(),
            usage_alerts: Family::default(),
            usage_notifications: Family::default(),
            usage_reports: Family::default(),
            limits_shared: Gauge::default(),
            limits_exchanges: Family::default(),
            limits_exchange_seconds: Histogram::new(EXCHANGE_SECONDS),
            operator_requests: Family::default(),
            webhooks: Family::default(),
            signals: Family::default(),
        };
        metrics.register();
        metrics
    }

    /// The text of `exposition`. What counts from scrape to scrape starts anew with it.
    pub fn expose(&self, exposition: Exposition) -> String {
        let text = self.encode();
        match exposition {
            Exposition::Prometheus => exposition::prometheus(&text),
            Exposition::OpenMetrics => text,
        }
    }

    /// The text as the registry writes it, OpenMetrics. What counts from scrape to scrape starts anew with it.
    pub fn encode(&self) -> String {
        let mut text = String::with_capacity(8 * 1024);
        // Writing into a String cannot fail.
        let _ = encode(&mut text, &self.registry);
        self.oldest_served_seconds.set(0.0);
        text
    }

    fn register(&mut self) {
        let r = &mut self.registry;
        r.register("requests", "Requests by outcome code and mode", self.requests.clone());
        r.register("requests_in_flight", "Requests under way", self.requests_in_flight.clone());
        r.register("tasks", "Tasks of the runtime", self.tasks.clone());
        r.register("connections", "Client connections open", self.connections.clone());
        r.register_with_unit(
            "added",
            "Time a request spent in Sidekey before it was sent on, waiting for managers included",
            Unit::Seconds,
            self.added_seconds.clone(),
        );
        r.register("resolutions", "Mappings resolved by manager and outcome", self.resolutions.clone());
        r.register("fetches", "Reads at a manager by class", self.fetches.clone());
        r.register("fetches_withheld", "Reads not sent to a manager by reason", self.fetches_withheld.clone());
        r.register(
            "breakers_open",
            "Identities whose manager is left alone because it fails",
            self.breakers_open.clone(),
        );
        r.register_with_unit("fetch", "Time of a read at a manager", Unit::Seconds, self.fetch_seconds.clone());
        r.register("logins", "Logins at a manager by class", self.logins.clone());
        r.register("recoveries", "Requests with a refused credential by outcome", self.recoveries.clone());
        r.register("cache_entries", "Documents in memory", self.cache_entries.clone());
        r.register_with_unit(
            "oldest_served",
            "Age of the oldest value served since the last scrape",
            Unit::Seconds,
            self.oldest_served_seconds.clone(),
        );
        r.register("snapshot_version", "Version of the current snapshot", self.snapshot_version.clone());
        r.register_with_unit(
            "snapshot_loaded_timestamp",
            "Unix time when the current snapshot was loaded",
            Unit::Seconds,
            self.snapshot_loaded_timestamp_seconds.clone(),
        );
        r.register_with_unit(
            "snapshot_age",
            "Time since the current snapshot was made or, where it does not say, was loaded",
            Unit::Seconds,
            self.snapshot_age_seconds.clone(),
        );
        r.register("snapshot_loads", "Snapshots read by outcome", self.snapshot_loads.clone());
        r.register("snapshot_set_aside", "Objects of the current snapshot set aside", self.snapshot_set_aside.clone());
        r.register(
            "sealed_values_unopened",
            "Sealed values of the current snapshot that were needed and cannot be used",
            self.sealed_values_unopened.clone(),
        );
        r.register("redactions", "Injected values found in a reply and replaced", self.redactions.clone());
        r.register("audit_lines", "Lines of the use audit by outcome", self.audit_lines.clone());
        r.register("spans", "Spans of traces by outcome", self.spans.clone());
        r.register("usage_answers", "Answers whose tokens were charged by outcome", self.usage_answers.clone());
        r.register(
            "usage_unpriced",
            "Answers of models that the price list does not know",
            self.usage_unpriced.clone(),
        );
        r.register("usage_alerts", "Budgets that reached their alert threshold", self.usage_alerts.clone());
        r.register(
            "usage_notifications",
            "Alerts of budgets for the webhook by outcome",
            self.usage_notifications.clone(),
        );
        r.register(
            "usage_reports",
            "Reports of what is used to the control plane by outcome",
            self.usage_reports.clone(),
        );
        r.register(
            "limits_shared",
            "Whether counters of limits are shared with other replicas, 1 or 0",
            self.limits_shared.clone(),
        );
        r.register(
            "limits_exchanges",
            "Exchanges with the store of shared counters by outcome",
            self.limits_exchanges.clone(),
        );
        r.register_with_unit(
            "limits_exchange",
            "Time of an exchange with the store of shared counters",
            Unit::Seconds,
            self.limits_exchange_seconds.clone(),
        );
        r.register(
            "operator_requests",
            "Requests to the operator API by operation and outcome code",
            self.operator_requests.clone(),
        );
        r.register("webhooks", "Webhook deliveries by source and outcome", self.webhooks.clone());
        r.register("signals", "Documents reached by a webhook by manager and outcome", self.signals.clone());
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Metrics").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_carry_prefix_and_unit() {
        let metrics = Metrics::new();
        metrics.requests.get_or_create(&RequestLabels { code: "ok", mode: "header" }).inc();
        metrics.fetch_seconds.get_or_create(&ManagerLabels { manager: "file" }).observe(0.01);
        let text = metrics.encode();
        assert!(text.contains("sidekey_requests_total{code=\"ok\",mode=\"header\"} 1"), "{text}");
        assert!(text.contains("sidekey_fetch_seconds_bucket"), "{text}");
    }

    /// The table of `docs/metrics.md` as the process describes itself: name, type, labels, meaning.
    #[test]
    fn the_page_lists_every_metric_as_it_is_told() {
        let metrics = Metrics::new();
        metrics.requests.get_or_create(&RequestLabels { code: "", mode: "" }).inc();
        metrics.resolutions.get_or_create(&ResolutionLabels { manager: "", outcome: "" }).inc();
        metrics.fetches.get_or_create(&FetchLabels { manager: "", class: "" }).inc();
        metrics.fetches_withheld.get_or_create(&WithheldLabels { manager: "", reason: "" }).inc();
        metrics.breakers_open.get_or_create(&ManagerLabels { manager: "" }).inc();
        metrics.fetch_seconds.get_or_create(&ManagerLabels { manager: "" }).observe(0.0);
        metrics.logins.get_or_create(&FetchLabels { manager: "", class: "" }).inc();
        metrics.recoveries.get_or_create(&OutcomeLabels { outcome: "" }).inc();
        metrics.snapshot_loads.get_or_create(&OutcomeLabels { outcome: "" }).inc();
        metrics.audit_lines.get_or_create(&OutcomeLabels { outcome: "" }).inc();
        metrics.spans.get_or_create(&OutcomeLabels { outcome: "" }).inc();
        metrics.usage_answers.get_or_create(&OutcomeLabels { outcome: "" }).inc();
        metrics.usage_alerts.get_or_create(&CountedLabels { counts: "" }).inc();
        metrics.usage_notifications.get_or_create(&OutcomeLabels { outcome: "" }).inc();
        metrics.usage_reports.get_or_create(&OutcomeLabels { outcome: "" }).inc();
        metrics.limits_exchanges.get_or_create(&OutcomeLabels { outcome: "" }).inc();
        metrics.operator_requests.get_or_create(&OperatorLabels { operation: "", code: "" }).inc();
        metrics.webhooks.get_or_create(&WebhookLabels { source: "", outcome: "" }).inc();
        metrics.signals.get_or_create(&SignalLabels { manager: "", outcome: "" }).inc();
        let text = metrics.expose(Exposition::Prometheus);
        let mut rows: Vec<String> = Vec::new();
        for (help, kind) in text.lines().zip(text.lines().skip(1)) {
            let Some((name, help)) = help.strip_prefix("# HELP ").and_then(|help| help.split_once(' ')) else {
                continue;
            };
            let kind = kind.rsplit_once(' ').unwrap().1;
            let sample = text.lines().find(|line| !line.starts_with('#') && line.starts_with(name)).unwrap();
            let labels = sample.split_once('{').map_or("", |(_, rest)| rest.split_once('}').unwrap().0);
            let labels: Vec<_> = labels.split(',').filter_map(|label| label.split_once('=')).collect();
            let labels: Vec<_> = labels.into_iter().map(|(label, _)| format!("`{label}`")).collect();
            let labels = if labels.is_empty() { "–".to_owned() } else { labels.join(", ") };
            rows.push(format!("| `{name}` | {kind} | {labels} | {help} |"));
        }
        let page = include_str!("../docs/metrics.md");
        let listed: Vec<_> = page.lines().filter(|line| line.starts_with("| `sidekey_")).collect();
        assert_eq!(listed, rows, "\n{}\n", rows.join("\n"));
    }
}
