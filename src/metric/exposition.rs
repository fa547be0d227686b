//! The two texts in which metrics are told.
//!
//! The registry writes OpenMetrics 1.0. A scraper that does not ask for it gets the older Prometheus text 0.0.4, in which
//! a counter carries its `_total` in the family's name and nothing stands for unit and end. Sources:
//! <https://prometheus.io/docs/instrumenting/exposition_formats/>, <https://prometheus.io/docs/specs/om/open_metrics_spec/>.

use std::collections::HashSet;

const OPEN_METRICS: &str = "application/openmetrics-text";

/// A text format.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exposition {
    /// Prometheus text 0.0.4.
    Prometheus,
    /// OpenMetrics 1.0.
    OpenMetrics,
}

// === impl Exposition ===

impl Exposition {
    /// What a scraper with this `Accept` header reads; the older one unless it names the newer.
    pub fn accepted(accept: Option<&str>) -> Self {
        let names_it = |item: &str| item.split(';').next().is_some_and(|media| media.trim() == OPEN_METRICS);
        if accept.is_some_and(|accept| accept.split(',').any(names_it)) { Self::OpenMetrics } else { Self::Prometheus }
    }

    /// The `Content-Type` of the text.
    pub fn content_type(self) -> &'static str {
        match self {
            Self::Prometheus => "text/plain; version=0.0.4; charset=utf-8",
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }
}

/// Rewrites OpenMetrics, as the registry writes it, to Prometheus text.
pub(super) fn prometheus(open_metrics: &str) -> String {
    let described =
        |line: &str| line.strip_prefix("# TYPE ").and_then(|rest| rest.strip_suffix(" counter")).map(str::to_owned);
    let counters: HashSet<String> = open_metrics.lines().filter_map(described).collect();
    let mut text = String::with_capacity(open_metrics.len());
    for line in open_metrics.lines() {
        if line.starts_with("# UNIT ") || line == "# EOF" {
            continue;
        }
        let family = ["# HELP ", "# TYPE "].iter().find_map(|kind| {
            let (name, rest) = line.strip_prefix(kind)?.split_once(' ')?;
            counters.contains(name).then_some((kind, name, rest))
        });
        match family {
            Some((kind, name, rest)) => text.extend([kind, name, "_total ", rest]),
            None => text.push_str(line),
        }
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newer_format_is_for_who_asks_for_it() {
        use Exposition::*;
        let prometheus3 = "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,text/plain;version=0.0.4;q=0.5,*/*;q=0.1";
        for (accept, expected) in [
            (None, Prometheus),
            (Some("*/*"), Prometheus),
            (Some("text/plain;version=0.0.4"), Prometheus),
            (Some("application/openmetrics-textual"), Prometheus),
            (Some("text/plain, application/openmetrics-text"), OpenMetrics),
            (Some(prometheus3), OpenMetrics),
        ] {
            assert_eq!(Exposition::accepted(accept), expected, "{accept:?}");
        }
    }

    #[test]
    fn counters_are_named_whole_and_the_rest_stays() {
        let open_metrics = "# HELP a_b Of a_b.\n# TYPE a_b counter\na_b_total{x=\"# UNIT y\"} 1\n\
                            # HELP c_seconds Time.\n# TYPE c_seconds histogram\n# UNIT c_seconds seconds\nc_seconds_sum 0.5\n# EOF\n";
        let expected = "# HELP a_b_total Of a_b.\n# TYPE a_b_total counter\na_b_total{x=\"# UNIT y\"} 1\n\
                        # HELP c_seconds Time.\n# TYPE c_seconds histogram\nc_seconds_sum 0.5\n";
        assert_eq!(prometheus(open_metrics), expected);
    }
}
