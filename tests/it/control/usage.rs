//! `POST /v1/usage`: what data planes have counted is counted here once, for accounts of their organisation alone, and shown.

mod retry;

use std::{fs, net::SocketAddr, sync::Arc, time::Duration};

use http::Method;
use serde_json::{Value, json};
use sidekey::{
    clients::{self, Clients},
    control::{api_key::Role, key::token_sha256},
    dialect::usage::{Tokens, Usage},
    feed::control_plane::{Address, Reporter},
    metric::{Metrics, OutcomeLabels},
    model::Snapshot,
};
use time::OffsetDateTime;
use tokio_util::sync::CancellationToken;

use super::stage::Stage;
use crate::harness::{Call, Reply, linked};

const TOKEN: &str = "dp-sidekey-of-the-configuration";

async fn stage() -> Stage {
    let planes = format!("data_planes: [{{name: fleet, token_sha256: {}}}]\n", token_sha256(TOKEN));
    Stage::with(&planes).await
}

/// A key with a budget of a hundred dollars a month.
async fn key(stage: &Stage) -> String {
    let body = json!({"name": "k", "scopes": ["completions.write"],
        "usage_limits": {"type": "cost", "credit_limit": 100, "alert_threshold": 80, "periodic_reset": "monthly"}});
    stage.done(Method::POST, "/v1/api-keys/organisation/service", body).await["id"].as_str().unwrap().to_owned()
}

async fn shown(stage: &Stage, id: &str) -> Value {
    stage.done(Method::GET, &format!("/v1/api-keys/{id}"), Value::Null).await
}

fn today() -> i64 {
    OffsetDateTime::now_utc().unix_timestamp() / 86_400
}

fn row(id: &str, dollars: f64) -> Value {
    let cost = json!((dollars * 1e9) as u64);
    json!({"kind": "api_key", "id": id, "day": today(), "reset_at": 0, "requests": 2, "tokens": 9, "cost_nanodollars": cost})
}

async fn tell(stage: &Stage, token: &str, body: &Value) -> Reply {
    let call = Call::to(stage.control.address(), Method::POST, "/v1/usage");
    call.header("authorization", &format!("Bearer {token}")).json(body).send().await
}

async fn report(stage: &Stage, reporter: &str, sequence: i64, usage: Value) -> bool {
    let reply = tell(stage, TOKEN, &json!({"reporter": reporter, "sequence": sequence, "usage": usage})).await;
    assert_eq!(reply.status, 200, "{}", reply.text());
    reply.json()["counted"].as_bool().unwrap()
}

#[tokio::test]
async fn a_report_is_counted_once_and_shows_how_far_a_key_is() {
    let stage = stage().await;
    let id = key(&stage).await;
    let version = stage.done(Method::GET, "/v1/audit-logs", Value::Null).await["total"].clone();
    let read = shown(&stage, &id).await;
    assert_eq!((&read["status"], &read["usage"][0]["used"]), (&json!("active"), &json!(0.0)), "{read}");
    for (reporter, sequence, counted, used, requests, status) in [
        ("a", 1, true, 40.5, 2, "active"),
        ("a", 1, false, 40.5, 2, "active"),
        ("b", 1, true, 81.0, 4, "active"),
        ("a", 3, true, 121.5, 6, "exhausted"),
        ("a", 2, false, 121.5, 6, "exhausted"),
    ] {
        assert_eq!(report(&stage, reporter, sequence, json!([row(&id, 40.5)])).await, counted, "{reporter} {sequence}");
        let read = shown(&stage, &id).await;
        let usage = &read["usage"][0];
        assert_eq!((&usage["used"], &usage["requests"]), (&json!(used), &json!(requests)), "{read}");
        assert_eq!((&usage["type"], &read["status"]), (&json!("cost"), &json!(status)), "{read}");
        assert!(usage["resets_at"].as_str().unwrap().ends_with("-01T00:00:00.000Z"), "{read}");
    }
    let listed = stage.done(Method::GET, "/v1/api-keys", Value::Null).await;
    let listed = listed["data"].as_array().unwrap().iter().find(|key| key["id"] == *id).unwrap();
    assert_eq!((&listed["status"], &listed["usage"][0]["used"]), (&json!("exhausted"), &json!(121.5)));
    // No write of anything that data planes or auditors see.
    assert_eq!(stage.done(Method::GET, "/v1/audit-logs", Value::Null).await["total"], version);

    stage.done(Method::PUT, &format!("/v1/api-keys/{id}"), json!({"reset_usage": true})).await;
    let read = shown(&stage, &id).await;
    assert_eq!((&read["status"], &read["usage"][0]["used"]), (&json!("active"), &json!(0.0)), "{read}");
    // What a data plane counted that had not heard of the reset is of before.
    assert!(report(&stage, "a", 4, json!([row(&id, 7.0)])).await);
    assert_eq!(shown(&stage, &id).await["usage"][0]["used"], 0.0);
    let reset_at = stage.stored(sidekey::control::store::Kind::ApiKey, &id).await.2["usage_reset_at"].clone();
    let mut now = row(&id, 7.0);
    now["reset_at"] = reset_at;
    assert!(report(&stage, "a", 5, json!([now])).await);
    assert_eq!(shown(&stage, &id).await["usage"][0]["used"], 7.0);
}

#[tokio::test]
async fn periods_are_told_apart_and_days_of_long_ago_are_put_together() {
    let stage = stage().await;
    let id = key(&stage).await;
    let forever =
        json!({"name": "k", "scopes": ["completions.write"], "usage_limits": {"type": "tokens", "credit_limit": 100}});
    let forever = stage.done(Method::POST, "/v1/api-keys/organisation/service", forever).await;
    let forever = forever["id"].as_str().unwrap();
    for (sequence, days) in (1..).zip([900, 500, 450, 32, 0]) {
        let at = |id: &str| {
            let mut row = row(id, 1.0);
            row["day"] = (today() - days).into();
            row
        };
        assert!(report(&stage, "a", sequence, json!([at(&id), at(forever)])).await);
    }
    assert_eq!(shown(&stage, &id).await["usage"][0]["used"], 1.0, "of this month");
    let read = shown(&stage, forever).await;
    assert_eq!(read["usage"][0], json!({"type": "tokens", "used": 45, "requests": 10, "resets_at": null}), "{read}");
    let organisation = read["organisation_id"].as_str().unwrap();
    let mut tenant = stage.control.control().store().tenant(organisation).await.unwrap();
    let object = tenant.get(sidekey::control::store::Kind::ApiKey, forever).await.unwrap().unwrap();
    let days: Vec<_> = tenant.usage(&object).await.unwrap().into_iter().map(|(day, used)| (day, used.tokens)).collect();
    assert_eq!(days, [(0, 27), (today() - 32, 9), (today(), 9)]);
}

#[tokio::test]
async fn nobody_reports_for_another_organisation_or_what_cannot_be() {
    let stage = stage().await;
    let id = key(&stage).await;
    let other = stage.another_organisation().await;
    let stranger = stage.key(&other, "", Role::Owner, &[]).await;
    let call = stage.call_as(&stranger, Method::POST, "/v1/data-planes").json(&json!({"name": "a"}));
    let foreign = call.send().await.json()["token"].as_str().unwrap().to_owned();
    let body = |usage: Value| json!({"reporter": "a", "sequence": 1, "usage": usage});
    // It is passed over, like what does not exist.
    let reply = tell(&stage, &foreign, &body(json!([row(&id, 500.0), row("nowhere", 1.0)]))).await;
    assert_eq!(reply.status, 200, "{}", reply.text());
    assert_eq!(shown(&stage, &id).await["usage"][0]["used"], 0.0);
    for token in ["dp-sidekey-unknown", stage.owner.trim()] {
        assert_eq!(tell(&stage, token, &body(json!([row(&id, 1.0)]))).await.status, 401);
    }
    let with = |member: &str, value: Value| {
        let mut row = row(&id, 1.0);
        row[member] = value;
        body(json!([row]))
    };
    for bad in [
        json!({}),
        json!({"reporter": "a", "sequence": 1}),
        json!({"reporter": "", "sequence": 1, "usage": []}),
        json!({"reporter": "a", "sequence": "1", "usage": []}),
        with("kind", json!("secret_reference")),
        with("tokens", json!(-1)),
        with("cost_nanodollars", json!(2e18 as i64)),
        with("requests", json!(1.5)),
        with("day", json!(0)),
        with("day", json!(today() + 2)),
        body(vec![row(&id, 1.0); 1001].into()),
    ] {
        let reply = tell(&stage, TOKEN, &bad).await;
        assert_eq!(reply.status, 400, "{bad}: {}", reply.text());
    }
    assert!(
        report(&stage, "a", 1, json!([row(&id, 1.0)])).await,
        "nothing of that was counted, nor its number used up"
    );
    assert_eq!(shown(&stage, &id).await["usage"][0]["used"], 1.0);
}

/// What a sidecar has settled reaches the control plane, at its end at the latest.
#[tokio::test]
async fn a_sidecar_tells_what_it_has_counted() {
    let stage = stage().await;
    let sidecar = Sidecar::of(&stage, Duration::from_secs(10)).await;
    for _ in 0..3 {
        sidecar.spend(1_000_000).await;
    }
    let end = CancellationToken::new();
    end.cancel();
    sidecar.clients.report(sidecar.reporter(&stage, stage.control.address()), end).await;
    let read = sidecar.shown(&stage).await;
    assert_eq!((&read["status"], &read["usage"][0]["used"]), (&json!("exhausted"), &json!(30.0)), "{read}");
    assert_eq!(read["usage"][0]["requests"], 3, "{read}");
    assert_eq!(sidecar.reports("delivered"), 1);
}

/// The part of a sidecar that counts, with a virtual key that has a budget of thirty dollars.
struct Sidecar {
    clients: Arc<Clients>,
    snapshot: Arc<Snapshot>,
    slug: String,
    metrics: Arc<Metrics>,
    every: Duration,
}

impl Sidecar {
    async fn of(stage: &Stage, every: Duration) -> Self {
        let limits = json!({"credit_limit": 30});
        let body = json!({"name": "v", "provider": "openai", "key": "sk-canary-1", "usage_limits": limits});
        let made = stage.done(Method::POST, "/v1/virtual-keys", body).await;
        let slug = made["slug"].as_str().unwrap().to_owned();
        let read = stage.done(Method::GET, &format!("/v1/virtual-keys/{slug}"), Value::Null).await;
        let row = json!({"id": read["id"], "slug": "v", "provider": "openai", "key": "sk-1", "usage_limits": limits});
        let snapshot =
            linked(&json!({"schema_version": 1, "version": 1, "organisation_id": "o", "virtual_keys": [row]}));
        Self::over(Arc::new(snapshot), slug, every)
    }

    /// Another process in its place, which knows nothing of it.
    fn restarted(&self) -> Self {
        Self::over(Arc::clone(&self.snapshot), self.slug.clone(), self.every)
    }

    fn over(snapshot: Arc<Snapshot>, slug: String, every: Duration) -> Self {
        let settings = clients::Settings { reports: Some(every), ..Default::default() };
        let metrics = Arc::new(Metrics::new());
        let clients = Arc::new(Clients::new(settings, Arc::clone(&metrics)).unwrap());
        Self { clients, snapshot, slug, metrics, every }
    }

    /// One request whose answer has this many tokens, a hundred-thousandth of a dollar each.
    async fn spend(&self, tokens: u64) {
        let entities: Vec<_> = self.snapshot.entities().cloned().collect();
        let mut head = http::Request::post("/v1/chat/completions").body(()).unwrap().into_parts().0;
        let client = self.clients.authenticate(&mut head, &self.snapshot).unwrap();
        let admission = self.clients.admit(&client, &entities, &self.snapshot, false).await.unwrap();
        let tokens = Tokens { input: 0, output: tokens, ..Tokens::default() };
        self.clients.settle(&admission, &Usage { tokens, estimated: false, model: Some("gpt-4o".into()) }, None);
    }

    /// The way of its reports, to whoever listens at `address`.
    fn reporter(&self, stage: &Stage, address: SocketAddr) -> Reporter {
        let token_file = stage.folder.path().join("token");
        fs::write(&token_file, TOKEN).unwrap();
        let url = format!("http://{address}").parse().unwrap();
        Reporter::new(Address { url, token_file, ca_file: None, public_key_file: None })
    }

    /// Its virtual key, as the control plane shows it.
    async fn shown(&self, stage: &Stage) -> Value {
        stage.done(Method::GET, &format!("/v1/virtual-keys/{}", self.slug), Value::Null).await
    }

    fn reports(&self, outcome: &'static str) -> u64 {
        self.metrics.usage_reports.get_or_create(&OutcomeLabels { outcome }).get()
    }
}
