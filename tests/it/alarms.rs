//! Alarms and dashboard against the page of metrics, and alarms against the runbook: no name, label or value that nobody counts.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
};

use serde::Deserialize;
use serde_json::Value;

/// A rule file.
#[derive(Deserialize)]
struct Rules {
    groups: Vec<Group>,
}

#[derive(Deserialize)]
struct Group {
    rules: Vec<Rule>,
}

#[derive(Deserialize)]
struct Rule {
    alert: String,
    expr: String,
    labels: BTreeMap<String, String>,
    annotations: BTreeMap<String, String>,
}

/// Labels that Prometheus adds itself.
const OF_SCRAPES: [&str; 3] = ["job", "instance", "le"];

fn page(name: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs").join(name)).unwrap()
}

/// Every metric with its labels, from `docs/metrics.md`, which is held to the code by a test of its own.
fn metrics() -> BTreeMap<String, BTreeSet<String>> {
    let page = page("metrics.md");
    let rows = page.lines().filter(|line| line.starts_with("| `sidekey_"));
    rows.flat_map(|row| {
        let cells: Vec<_> = row.split('|').map(str::trim).collect();
        let name = cells[1].trim_matches('`').to_owned();
        let labels: BTreeSet<_> = cells[3].split(", ").map(|label| label.trim_matches('`').to_owned()).collect();
        match cells[2] {
            "histogram" => ["_bucket", "_sum", "_count"].map(|part| (format!("{name}{part}"), labels.clone())).to_vec(),
            _ => vec![(name, labels)],
        }
    })
    .collect()
}

/// The words of an expression, and the metric whose braces each stands in.
fn faults(expr: &str, metrics: &BTreeMap<String, BTreeSet<String>>) -> Vec<String> {
    let mut faults = Vec::new();
    let word = |text: &str| text.chars().take_while(|c| c.is_ascii_alphanumeric() || *c == '_').collect::<String>();
    let mut found = 0;
    let mut rest = expr;
    let mut grouped = BTreeSet::new();
    for (at, _) in expr.match_indices("by (") {
        let list = expr[at + 4..].split(')').next().unwrap();
        grouped.extend(list.split(',').map(|label| label.trim().to_owned()));
    }
    while let Some(at) = rest.find("sidekey_") {
        let name = word(&rest[at..]);
        rest = &rest[at + name.len()..];
        found += 1;
        let Some(labels) = metrics.get(&name) else {
            faults.push(format!("{name} is not counted: {expr}"));
            continue;
        };
        let selected = rest.strip_prefix('{').and_then(|inside| inside.split('}').next()).unwrap_or_default();
        let selected = selected.split("\",").filter_map(|pair| pair.split(['=', '!']).next()).map(str::trim);
        for label in selected.filter(|label| !label.is_empty()).map(str::to_owned).chain(grouped.iter().cloned()) {
            if !labels.contains(&label) && !OF_SCRAPES.contains(&&*label) {
                faults.push(format!("{name} has no label {label}: {expr}"));
            }
        }
    }
    if found == 0 {
        faults.push(format!("no metric: {expr}"));
    }
    faults
}

fn rules() -> Vec<Rule> {
    let rules: Rules = serde_saphyr::from_str(&page("prometheus-rules.yaml")).unwrap();
    rules.groups.into_iter().flat_map(|group| group.rules).collect()
}

#[test]
fn alarms_are_about_what_is_counted_and_have_their_entry() {
    let (metrics, runbook, words) = (metrics(), page("runbook.md"), page("metrics.md") + &page("errors.md"));
    let entries: BTreeSet<_> = runbook.lines().filter_map(|line| line.strip_prefix("## ")).map(str::to_owned).collect();
    let mut alarms = BTreeSet::new();
    for Rule { alert, expr, labels, annotations } in rules() {
        assert_eq!(faults(&expr, &metrics), [""; 0], "{alert}");
        // Values of labels: fixed words, each named on a page.
        for value in expr.split('"').skip(1).step_by(2).flat_map(|values| values.split('|')) {
            assert!(
                words.contains(&format!("`{value}`")) || words.contains(&format!("\"{value}\"")),
                "{alert}: {value}"
            );
        }
        assert!(matches!(&*labels["severity"], "critical" | "warning"), "{alert}");
        assert!(annotations["summary"].ends_with('.'), "{alert}");
        assert_eq!(annotations["runbook"], format!("docs/runbook.md#{}", alert.to_lowercase()));
        assert!(alarms.insert(alert.clone()), "{alert} stands twice");
    }
    assert_eq!(alarms, entries, "each alarm has an entry in the runbook, and each entry an alarm");
}

#[test]
fn the_dashboard_shows_every_metric() {
    let metrics = metrics();
    let dashboard: Value = serde_json::from_str(&page("grafana-dashboard.json")).unwrap();
    let panels = dashboard["panels"].as_array().unwrap();
    let shown: Vec<_> = panels
        .iter()
        .filter_map(|panel| panel["targets"].as_array())
        .flatten()
        .map(|target| target["expr"].as_str().unwrap())
        .collect();
    for expr in &shown {
        assert_eq!(faults(expr, &metrics), [""; 0]);
    }
    let missing: Vec<_> = metrics
        .keys()
        .filter(|name| !name.ends_with("_sum") && !name.ends_with("_count"))
        .filter(|name| !shown.iter().any(|expr| expr.contains(&format!("{name}{{"))))
        .collect();
    assert_eq!(missing, [""; 0], "not on the dashboard");
    let ids: BTreeSet<_> = panels.iter().map(|panel| panel["id"].as_u64()).collect();
    assert_eq!(ids.len(), panels.len(), "ids stand twice");
}

#[test]
fn faults_are_found() {
    let metrics = metrics();
    for (expr, fault) in [
        ("sum(rate(sidekey_request_total[5m])) > 0", "sidekey_request_total is not counted"),
        ("sum by (manger) (sidekey_breakers_open)", "has no label manger"),
        (r#"sidekey_requests_total{outcome="ok"}"#, "has no label outcome"),
        (r#"sidekey_requests_total{code="ok",class!="x"}"#, "has no label class"),
        ("rate(sidekey_added_seconds[5m])", "sidekey_added_seconds is not counted"),
        ("up == 0", "no metric"),
    ] {
        let found = faults(expr, &metrics);
        assert!(found.len() == 1 && found[0].contains(fault), "{expr}: {found:?}");
    }
}
