//! `/audit-logs`: who, what, when, never a value; found by what is recorded.

use http::Method;
use serde_json::{Value, json};

use super::stage::{Stage, refusal};

const ROOT: &str = "/v1/audit-logs";

#[tokio::test]
async fn every_write_is_listed_and_found() {
    let stage = Stage::start().await;
    let made = stage
        .done(Method::POST, "/v1/configs", json!({"name": "First", "config": {"override_params": {"user": "canary"}}}))
        .await;
    let config = format!("/v1/configs/{}", made["slug"].as_str().unwrap());
    stage.done(Method::PUT, &config, json!({"name": "Other", "status": "archived"})).await;
    let key = json!({"name": "k", "scopes": ["audit_logs.list"]});
    let key = stage.done(Method::POST, "/v1/api-keys/organisation/service", key).await;
    let id = key["id"].as_str().unwrap();
    stage.done(Method::POST, &format!("/v1/api-keys/{id}/rotate"), Value::Null).await;
    stage.done(Method::DELETE, &config, Value::Null).await;
    // A refused call is no write.
    stage.send(Method::POST, "/v1/configs", json!({})).await;

    let list = stage.done(Method::GET, ROOT, Value::Null).await;
    let records = list["records"].as_array().unwrap();
    let seen: Vec<_> = records
        .iter()
        .map(|record| (record["action"].as_str().unwrap(), record["resource_type"].as_str().unwrap()))
        .collect();
    let expected = [
        ("deleted", "config"),
        ("rotated", "api_key"),
        ("created", "api_key"),
        ("updated", "config"),
        ("created", "config"),
        ("created", "api_key"),
    ];
    assert_eq!(seen, expected, "the newest first, from the first start on");
    assert_eq!((&list["object"], &list["total"]), (&json!("list"), &json!(6)));
    let updated = &records[3];
    assert_eq!(updated["fields"], json!(["name", "status"]));
    assert_eq!(
        (&updated["method"], &updated["user_type"], &updated["response_status_code"]),
        (&json!("PUT"), &json!("api_key"), &json!(200))
    );
    assert_eq!((&updated["resource_id"], &updated["resource_slug"]), (&made["id"], &made["slug"]));
    assert!(!list.to_string().contains("canary"), "a value is in the log");
    let owner = updated["user_id"].as_str().unwrap();
    let at = updated["timestamp"].as_str().unwrap();
    // (query, how many)
    let cases = [
        ("page_size=2".to_owned(), 6),
        ("page_size=2&current_page=2".to_owned(), 6),
        ("method=POST".to_owned(), 4),
        ("method=PUT".to_owned(), 1),
        ("method=DELETE".to_owned(), 1),
        ("action=rotated".to_owned(), 1),
        ("action=rotated&method=PUT".to_owned(), 0),
        ("resource_type=config".to_owned(), 3),
        ("resource_type=con%25".to_owned(), 0),
        (format!("user_id={owner}"), 5),
        ("user_id=bootstrap".to_owned(), 1),
        ("user_type=user".to_owned(), 0),
        ("user_type=api_key".to_owned(), 6),
        ("response_status_code=404".to_owned(), 0),
        ("organisation_id=other".to_owned(), 0),
        (format!("start_time={at}&end_time=2999-01-01T00:00:00%2B01:00"), 4),
        ("end_time=2020-01-01T00:00:00Z".to_owned(), 0),
    ];
    for (query, total) in cases {
        let list = stage.done(Method::GET, &format!("{ROOT}?{query}"), Value::Null).await;
        // Two writes of one millisecond are both from then on.
        match query.starts_with("start_time") {
            true => assert!(list["total"].as_i64().unwrap() >= total, "{query}: {list}"),
            false => assert_eq!(list["total"], total, "{query}"),
        }
        assert!(list["records"].as_array().unwrap().len() <= 6, "{query}");
    }
    for query in ["method=GET", "action=x", "start_time=yesterday", "page_size=101", "uri=/v1/configs", "client_ip=::1"]
    {
        assert_eq!(refusal(&stage.send(Method::GET, &format!("{ROOT}?{query}"), Value::Null).await).0, 400, "{query}");
    }
    let reader = stage.call_as(key["key"].as_str().unwrap(), Method::GET, ROOT).send().await;
    assert_eq!(reader.status, 200, "the scope is enough");
}
