//! `/admin/workspaces`: made, found, changed, left by their members, and removed with what is in them.

use http::Method;
use serde_json::{Value, json};

use super::stage::{Stage, refusal};

const ROOT: &str = "/v1/admin/workspaces";

#[tokio::test]
async fn a_workspace_lives_and_ends() {
    let stage = Stage::start().await;
    let made = stage.done(Method::POST, ROOT, json!({"name": "Team A", "description": "first"})).await;
    let (id, slug) = (made["id"].as_str().unwrap(), made["slug"].as_str().unwrap());
    assert!(slug.starts_with("ws-team-a"), "{slug}");
    assert_eq!((&made["object"], &made["status"]), (&json!("workspace"), &json!("active")));
    stage.done(Method::POST, ROOT, json!({"name": "Team B", "slug": "ws-b"})).await;

    let listed = stage.done(Method::GET, &format!("{ROOT}?page_size=1&current_page=1"), Value::Null).await;
    assert_eq!((&listed["total"], &listed["data"][0]["slug"]), (&json!(2), &json!(slug)), "newest first");
    for name in [id, slug] {
        let read = stage.done(Method::GET, &format!("{ROOT}/{name}"), Value::Null).await;
        assert_eq!((&read["name"], &read["users"]), (&json!("Team A"), &json!([])));
    }
    // With and without the prefix, as Portkey serves both.
    stage.done(Method::GET, &format!("/admin/workspaces/{slug}"), Value::Null).await;

    stage.done(Method::PUT, &format!("{ROOT}/{slug}"), json!({"description": "second"})).await;
    let read = stage.done(Method::GET, &format!("{ROOT}/{slug}"), Value::Null).await;
    assert_eq!((&read["name"], &read["description"]), (&json!("Team A"), &json!("second")));
    let nothing = stage.send(Method::PUT, &format!("{ROOT}/{slug}"), json!({})).await;
    assert_eq!(refusal(&nothing).0, 400);

    let wrong = stage.send(Method::DELETE, &format!("{ROOT}/{slug}"), json!({"name": "Team B"})).await;
    assert_eq!(refusal(&wrong).0, 400, "a name that is given has to be the right one");
    stage.done(Method::DELETE, &format!("{ROOT}/{slug}"), json!({"name": "Team A"})).await;
    let gone = stage.send(Method::GET, &format!("{ROOT}/{slug}"), Value::Null).await;
    assert_eq!((refusal(&gone).0, refusal(&gone).1.as_str()), (404, "AB08"));
}

#[tokio::test]
async fn a_config_that_a_workspace_names_is_there_and_stays() {
    let stage = Stage::start().await;
    stage.done(Method::POST, ROOT, json!({"name": "Team", "slug": "ws-team"})).await;
    stage.done(Method::POST, ROOT, json!({"name": "Other", "slug": "ws-other"})).await;
    let config = async |workspace: &str| {
        let body = json!({"name": "c", "workspace_id": workspace, "config": {"retry": {"attempts": 2}}});
        let made = stage.done(Method::POST, "/v1/configs", body).await;
        (made["id"].as_str().unwrap().to_owned(), made["slug"].as_str().unwrap().to_owned())
    };
    let ((own_id, own), (_, foreign), (_, shared)) =
        (config("ws-team").await, config("ws-other").await, config("").await);
    let target = format!("{ROOT}/ws-team");
    let naming = |name: &str| json!({"defaults": {"user_api_key_config": name}});
    for name in ["pc-none", &foreign] {
        let (status, _, message) = refusal(&stage.send(Method::PUT, &target, naming(name)).await);
        let expected = "defaults.user_api_key_config: names no config that keys of this workspace may use";
        assert_eq!((status, message.as_str()), (400, expected), "{name}");
    }
    assert_eq!(
        refusal(
            &stage
                .send(Method::POST, ROOT, {
                    let mut new = naming(&own);
                    new["name"] = json!("New");
                    new
                })
                .await
        )
        .0,
        400,
        "another workspace's"
    );
    for (name, kept) in [(&shared, &shared), (&own, &own), (&own_id, &own)] {
        stage.done(Method::PUT, &target, naming(name)).await;
        let read = stage.done(Method::GET, &target, Value::Null).await;
        assert_eq!(read["defaults"]["user_api_key_config"], **kept, "by its slug");
    }
    stage.done(Method::PUT, &target, json!({"description": "x"})).await;
    let (status, _, message) = refusal(&stage.send(Method::DELETE, &format!("/v1/configs/{own}"), Value::Null).await);
    assert_eq!(status, 400);
    assert!(message.contains("in use by workspace ws-team"), "{message}");
    stage.done(Method::DELETE, &format!("/v1/configs/{shared}"), Value::Null).await;
    // It goes with its workspace, and no sooner than nobody names it.
    stage.done(Method::PUT, &target, json!({"defaults": null})).await;
    stage.done(Method::PUT, &target, naming(&own)).await;
    stage.done(Method::DELETE, &target, Value::Null).await;
    assert_eq!(refusal(&stage.send(Method::GET, &format!("/v1/configs/{own}"), Value::Null).await).0, 404);
}

#[tokio::test]
async fn members_come_change_and_go() {
    let stage = Stage::start().await;
    stage.done(Method::POST, ROOT, json!({"name": "Team", "slug": "ws-team"})).await;
    let users = format!("{ROOT}/ws-team/users");
    let added = json!({"users": [{"id": "user-1", "role": "admin"}, {"id": "user-2", "role": "member"}]});
    stage.done(Method::POST, &users, added).await;
    let listed = stage.done(Method::GET, &users, Value::Null).await;
    assert_eq!(listed["total"], 2, "{listed}");
    stage.done(Method::PUT, &format!("{users}/user-2"), json!({"role": "manager"})).await;
    let read = stage.done(Method::GET, &format!("{users}/user-2"), Value::Null).await;
    assert_eq!(read["role"], "manager", "{read}");
    stage.done(Method::DELETE, &format!("{users}/user-1"), Value::Null).await;
    assert_eq!(refusal(&stage.send(Method::GET, &format!("{users}/user-1"), Value::Null).await).0, 404);
    let king = stage.send(Method::PUT, &format!("{users}/user-2"), json!({"role": "king"})).await;
    assert_eq!(refusal(&king).0, 400);
}

#[tokio::test]
async fn a_reference_closes_when_its_workspace_goes() {
    let stage = Stage::start().await;
    let made = stage.done(Method::POST, ROOT, json!({"name": "Team", "slug": "ws-team"})).await;
    let reference = json!({"name": "Key", "slug": "key", "manager_type": "aws_sm", "secret_path": "app",
        "auth_config": {"aws_auth_type": "serviceRole"}, "allowed_workspaces": [made["id"]]});
    stage.done(Method::POST, "/v1/secret-references", reference).await;
    stage.done(Method::DELETE, &format!("{ROOT}/ws-team"), Value::Null).await;
    let read = stage.done(Method::GET, "/v1/secret-references/key", Value::Null).await;
    assert_eq!(read["allow_all_workspaces"], false, "closed to everyone, not opened: {read}");
}
