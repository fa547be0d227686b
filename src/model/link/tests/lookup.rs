//! Who finds what under which name.

use super::*;
use crate::model::Hidden::{self, *};

fn key(id: &str, slug: &str, workspace: Option<&str>) -> Value {
    json!({"id": id, "slug": slug, "provider": "openai", "key": "k", "workspace_id": workspace})
}

fn found<'a>(snapshot: &'a Snapshot, slug: &str, caller: &Caller) -> Result<&'a str, Hidden> {
    snapshot.entity(slug, caller).map(|entity| &*entity.id)
}

#[test]
fn a_slug_is_looked_up_in_the_workspace_then_in_the_organisation() {
    let document = changed(&[
        ("/virtual_keys/-", key("both-o", "both", None)),
        ("/virtual_keys/-", key("both-a", "both", Some("wa"))),
        ("/virtual_keys/-", key("only-a", "only", Some("ws-a"))),
        ("/virtual_keys/-", key("twin-a", "twin", Some("wa"))),
        ("/virtual_keys/-", key("twin-b", "twin", Some("wb"))),
    ]);
    let snapshot = strict(&document).unwrap();
    #[rustfmt::skip]
    let cases = [
        // slug    caller       found
        ("both",  of("wa"),    Ok("both-a")),
        ("both",  of("wb"),    Ok("both-o")),
        ("both",  nobody(),    Ok("both-o")),
        ("only",  of("wa"),    Ok("only-a")),
        ("only",  of("wb"),    Err(OtherWorkspace)),
        ("only",  nobody(),    Ok("only-a")),
        ("twin",  of("wa"),    Ok("twin-a")),
        ("twin",  of("wb"),    Ok("twin-b")),
        ("twin",  of("other"), Err(OtherWorkspace)),
        ("twin",  nobody(),    Err(Ambiguous)),
        ("none",  of("wa"),    Err(Unknown)),
        ("none",  nobody(),    Err(Unknown)),
        ("v1",    nobody(),    Err(Unknown)),
    ];
    for (slug, caller, expected) in cases {
        assert_eq!(found(&snapshot, slug, &caller), expected, "{slug} for {caller:?}");
    }
}

#[test]
fn an_integration_is_named_only_while_nothing_is_linked_to_it() {
    let integration = |id: &str, slug: &str, workspace: Option<&str>| json!({"id": id, "slug": slug, "ai_provider_id": "openai", "key": "k", "workspace_id": workspace});
    let linked = |id: &str, integration: &str, workspace: Option<&str>, status: &str| json!({"id": id, "slug": id, "integration_id": integration, "workspace_id": workspace, "status": status});
    let document = changed(&[
        ("/integrations/-", integration("free", "free", None)),
        ("/integrations/-", integration("in-b", "in-b", None)),
        ("/integrations/-", integration("mine", "mine", Some("wa"))),
        ("/integrations/-", integration("named", "both-kinds", None)),
        ("/virtual_keys/-", linked("l1", "in-b", Some("wb"), "inactive")),
        ("/virtual_keys/-", key("wins", "both-kinds", Some("wa"))),
    ]);
    let snapshot = strict(&document).unwrap();
    #[rustfmt::skip]
    let cases = [
        // slug         caller     found
        ("free",       of("wa"),  Ok("free")),
        ("free",       nobody(),  Ok("free")),
        ("in-b",       of("wa"),  Ok("in-b")),
        ("in-b",       of("wb"),  Err(Linked)),
        ("in-b",       nobody(),  Err(Linked)),
        ("int-one",    of("wa"),  Err(Linked)),
        ("int-one",    nobody(),  Err(Linked)),
        ("mine",       of("wa"),  Ok("mine")),
        ("mine",       of("wb"),  Err(OtherWorkspace)),
        ("mine",       nobody(),  Ok("mine")),
        ("both-kinds", of("wa"),  Ok("wins")),
        ("both-kinds", of("wb"),  Ok("named")),
    ];
    for (slug, caller, expected) in cases {
        assert_eq!(found(&snapshot, slug, &caller), expected, "{slug} for {caller:?}");
    }
    // A virtual key that is set aside is linked all the same.
    let document = changed(&[
        ("/integrations/-", integration("free", "free", None)),
        ("/virtual_keys/-", json!({"slug": "broken", "integration_id": "free", "expires_at": "never"})),
    ]);
    assert_eq!(found(&lenient(&document), "free", &nobody()), Err(Linked));
}

#[test]
fn what_is_not_shared_is_not_found() {
    let only_a = json!(["ws-a"]);
    let in_workspace =
        |workspace: &str| json!({"id": "vx", "slug": "vk-x", "integration_id": "i1", "workspace_id": workspace});
    #[rustfmt::skip]
    let cases = [
        // changes                                                                 slug       caller     found
        (vec![("/integrations/0/allowed_workspaces", only_a.clone())],             "vk-one",  of("wa"),  Ok("v1")),
        (vec![("/integrations/0/allowed_workspaces", only_a.clone())],             "vk-one",  of("wb"),  Err(NotShared)),
        (vec![("/integrations/0/allowed_workspaces", only_a.clone())],             "vk-one",  nobody(),  Ok("v1")),
        (vec![("/integrations/0/allow_all_workspaces", json!(false))],             "vk-one",  of("wa"),  Err(NotShared)),
        (vec![("/integrations/0/allowed_workspaces", only_a.clone()), ("/virtual_keys/-", in_workspace("wb"))], "vk-x", of("wb"), Err(NotShared)),
        (vec![("/integrations/0/allowed_workspaces", only_a.clone()), ("/virtual_keys/-", in_workspace("wb"))], "vk-x", nobody(), Err(NotShared)),
        (vec![("/integrations/0/allowed_workspaces", only_a.clone()), ("/virtual_keys/-", in_workspace("wa"))], "vk-x", of("wa"), Ok("vx")),
        // A workspace's own integration is no other's.
        (vec![("/integrations/0/workspace_id", json!("wa"))],                      "vk-one",  of("wa"),  Ok("v1")),
        (vec![("/integrations/0/workspace_id", json!("wa"))],                      "vk-one",  of("wb"),  Err(NotShared)),
        (vec![("/integrations/0/workspace_id", json!("wa")), ("/virtual_keys/-", in_workspace("wb"))], "vk-x", of("wb"), Err(NotShared)),
        // References, closed to the caller or to the entity.
        (vec![("/secret_references/0/allowed_workspaces", only_a.clone())],        "vk-one",  of("wa"),  Ok("v1")),
        (vec![("/secret_references/0/allowed_workspaces", only_a.clone())],        "vk-one",  of("wb"),  Err(ReferenceClosed)),
        (vec![("/secret_references/0/allowed_workspaces", only_a.clone())],        "vk-one",  nobody(),  Ok("v1")),
        (vec![("/secret_references/0/allowed_workspaces", only_a.clone())],        "vk-two",  of("wb"),  Ok("v2")),
        (vec![("/secret_references/0/allowed_workspaces", only_a.clone()), ("/virtual_keys/-", in_workspace("wb"))], "vk-x", nobody(), Err(ReferenceClosed)),
        (vec![("/secret_references/0/allow_all_workspaces", json!(false))],        "vk-one",  of("wa"),  Err(ReferenceClosed)),
    ];
    for (changes, slug, caller, expected) in cases {
        let snapshot = strict(&changed(&changes)).unwrap_or_else(|problems| panic!("{changes:?} {problems:#?}"));
        assert_eq!(found(&snapshot, slug, &caller), expected, "{changes:?} {slug} for {caller:?}");
    }
}

/// Integrations that repeat a slug are told apart by the workspace of the virtual key, or by id.
#[test]
fn objects_refer_to_each_other_by_id_or_slug() {
    let integration = |id: &str, workspace: Option<&str>| json!({"id": id, "slug": "shared-name", "ai_provider_id": "openai", "key": id, "workspace_id": workspace});
    let linked = |slug: &str, integration: &str, workspace: Option<&str>| json!({"slug": slug, "integration_id": integration, "workspace_id": workspace});
    let mut document = changed(&[
        ("/integrations/-", integration("of-a", Some("wa"))),
        ("/integrations/-", integration("of-b", Some("ws-b"))),
        ("/virtual_keys/-", linked("in-a", "shared-name", Some("wa"))),
        ("/virtual_keys/-", linked("in-b", "shared-name", Some("wb"))),
        ("/virtual_keys/-", linked("by-id", "of-b", Some("wb"))),
    ]);
    let snapshot = strict(&document).unwrap();
    for (slug, workspace, expected) in
        [("in-a", "wa", "api_key=of-a"), ("in-b", "wb", "api_key=of-b"), ("by-id", "wb", "api_key=of-b")]
    {
        assert_eq!(effective(snapshot.entity(slug, &of(workspace)).unwrap()), [expected]);
    }
    set(&mut document, "/virtual_keys/-", linked("nowhere", "shared-name", None));
    let problems = strict(&document).unwrap_err();
    assert!(problems[0].contains("several integrations"), "{problems:#?}");
}

/// A slug that looks like another object's id does not stand in for it.
#[test]
fn an_id_wins_over_a_slug() {
    let document = changed(&[
        ("/secret_references/-", json!({"id": "r9", "slug": "r1", "manager_type": "file", "secret_path": "evil"})),
        ("/integrations/0/secret_mappings/0/secret_reference_id", json!("r1")),
        ("/workspaces/-", json!({"id": "wc", "slug": "wa"})),
        ("/virtual_keys/1/workspace_id", json!("wa")),
    ]);
    let snapshot = strict(&document).unwrap();
    assert_eq!(effective(snapshot.entity("vk-one", &nobody()).unwrap()), ["api_key<ref-one"]);
    assert_eq!(snapshot.workspace_id("wa").map(|id| &**id), Some("wa"));
    assert_eq!(found(&snapshot, "vk-two", &of("wc")), Err(OtherWorkspace));
}

#[test]
fn stored_configs_are_found_like_entities() {
    let config = |id: &str, workspace: Option<&str>, config: Value| json!({"id": id, "slug": "pc-x", "workspace_id": workspace, "config": config});
    let document = changed(&[(
        "/configs",
        json!([
            config("c1", None, json!({"retry": {"attempts": 2}})),
            config("c2", Some("wa"), json!("{\"cache\": {\"mode\": \"simple\"}}")),
            config("c3", Some("wb"), json!("no json")),
        ]),
    )]);
    let snapshot = lenient(&document);
    let found = |caller| snapshot.config("pc-x", &caller).unwrap();
    assert_eq!((&*found(nobody()).id, found(nobody()).config["retry"]["attempts"].as_u64()), ("c1", Some(2)));
    assert_eq!(found(of("wa")).config["cache"]["mode"], "simple", "JSON text is an object, too");
    assert!(found(of("wa")).fault.is_none() && found(of("wa")).lifespan.active);
    assert!(found(of("wb")).fault.is_some());
    assert_eq!(snapshot.config("pc-y", &nobody()).unwrap_err(), Unknown);
    assert!(!format!("{:?}", found(of("wa"))).contains("simple"), "a config may hold credentials");
}

/// An object of a workspace that does not exist must not become everybody's.
#[test]
fn a_dangling_workspace_is_a_workspace_of_its_own() {
    let snapshot = lenient(&changed(&[("/virtual_keys/1/workspace_id", json!("ws-gone"))]));
    assert_eq!(found(&snapshot, "vk-two", &of("wa")), Err(OtherWorkspace));
    assert!(snapshot.entity("vk-two", &nobody()).unwrap().fault.is_some());
}

#[test]
fn id_and_slug_stand_in_for_each_other() {
    let document = changed(&[
        ("/virtual_keys/-", json!({"slug": "no-id", "provider": "openai"})),
        ("/virtual_keys/-", json!({"slug": "no-id", "provider": "openai", "workspace_id": "wa"})),
        ("/virtual_keys/-", json!({"id": "no-slug", "provider": "openai"})),
    ]);
    let snapshot = strict(&document).unwrap();
    assert_eq!(found(&snapshot, "no-id", &nobody()), Ok("no-id"));
    assert_eq!(found(&snapshot, "no-id", &of("wa")), Ok("wa/no-id"));
    assert_eq!(found(&snapshot, "no-slug", &nobody()), Ok("no-slug"));
}
