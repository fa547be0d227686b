//! `/integrations`: shapes, credentials, who is let in, models.

use http::Method;
use serde_json::{Value, json};
use sidekey::{control::store::Kind, seal::Place};

use super::stage::{Stage, refusal};

const ROOT: &str = "/v1/integrations";

/// A configuration of a provider, and which of its fields are sealed.
struct Shape {
    provider: &'static str,
    key: Option<&'static str>,
    configurations: Value,
    sealed: &'static [&'static str],
}

/// The shapes of Portkey's API, then those that its page does not have.
fn shapes() -> Vec<Shape> {
    let shape = |provider, key, configurations, sealed| Shape { provider, key, configurations, sealed };
    vec![
        shape(
            "openai",
            Some("sk-canary-openai-01"),
            json!({"openai_organization": "org", "openai_project": "proj"}),
            &[],
        ),
        shape(
            "azure-openai",
            Some("canary-azure-key-02"),
            json!({"azure_auth_mode": "default", "azure_resource_name": "res", "azure_deployment_config": [
                {"azure_deployment_name": "d1", "azure_api_version": "2024-10-21", "azure_model_slug": "gpt-4o",
                 "alias": "a", "is_default": true}]}),
            &[],
        ),
        shape(
            "azure-openai",
            None,
            json!({"azure_auth_mode": "entra", "azure_resource_name": "res", "azure_entra_tenant_id": "t",
                "azure_entra_client_id": "c", "azure_entra_client_secret": "canary~secret~03",
                "azure_deployment_config": [{"azure_deployment_name": "d", "azure_api_version": "v1"}]}),
            &["azure_entra_client_secret"],
        ),
        shape(
            "bedrock",
            None,
            json!({"aws_auth_type": "accessKey", "aws_region": "eu-west-1", "aws_access_key_id": "AKIACANARY0123456789",
                "aws_secret_access_key": "canary/secret/access/04"}),
            &["aws_access_key_id", "aws_secret_access_key"],
        ),
        shape(
            "bedrock",
            None,
            json!({"aws_auth_type": "assumedRole", "aws_region": "eu-west-1", "aws_external_id": "canary-external-05",
                "aws_role_arn": "arn:aws:iam::123456789012:role/r"}),
            &["aws_external_id"],
        ),
        shape(
            "vertex-ai",
            None,
            json!({"vertex_auth_type": "serviceAccount", "vertex_region": "us-central1",
                "vertex_service_account_json": {"type": "service_account", "private_key": "canary\n06"}}),
            &["vertex_service_account_json"],
        ),
        shape(
            "azure-ai",
            Some("canary-azure-ai-07"),
            json!({"azure_auth_mode": "default", "azure_foundry_url": "https://f.example", "azure_api_version": "v"}),
            &[],
        ),
        shape("workers-ai", Some("canary-workers-08"), json!({"workers_ai_account_id": "acc"}), &[]),
        shape(
            "sagemaker",
            None,
            json!({"aws_auth_type": "accessKey", "aws_region": "eu-west-1", "aws_access_key_id": "AKIACANARY0123456780",
                "aws_secret_access_key": "canary/secret/access/09", "amzn_sagemaker_model_name": "m"}),
            &["aws_access_key_id", "aws_secret_access_key"],
        ),
        shape("huggingface", Some("canary-hf-key-10"), json!({"huggingface_base_url": "https://h.example"}), &[]),
        shape("cortex", Some("canary-cortex-11"), json!({"snowflake_account": "acc"}), &[]),
        shape(
            "openai",
            Some("canary-custom-12"),
            json!({"custom_host": "https://llm.example/v1", "custom_headers": {"x-team": "canary-header-13"}}),
            &["custom_headers"],
        ),
        shape(
            "oracle",
            None,
            json!({"oracle_region": "us-chicago-1", "oracle_tenancy": "t", "oracle_private_key": "canary-pem-14\nx"}),
            &["oracle_private_key"],
        ),
        shape("ollama", None, json!({"custom_host": "http://ollama.example"}), &[]),
    ]
}

#[tokio::test]
async fn every_shape_round_trips_and_its_credentials_are_sealed() {
    let stage = Stage::start().await;
    for shape in shapes() {
        let mut posted = json!({"name": "An integration", "ai_provider_id": shape.provider, "description": "d",
            "configurations": shape.configurations});
        if let Some(key) = shape.key {
            posted["key"] = json!(key);
        }
        let created = stage.done(Method::POST, ROOT, posted).await;
        let slug = created["slug"].as_str().unwrap();
        let target = format!("{ROOT}/{slug}");
        let shown = stage.done(Method::GET, &target, Value::Null).await;
        assert_eq!((&shown["id"], &shown["object"]), (&created["id"], &json!("integration")));
        assert_eq!(
            stage.done(Method::GET, &format!("/integrations/{}", created["id"].as_str().unwrap()), Value::Null).await,
            shown
        );
        let (organisation, object_id, body) = stage.stored(Kind::Integration, slug).await;
        match shape.key {
            Some(key) => {
                assert_eq!(
                    stage.open(
                        Place { organisation: &organisation, object_id: &object_id, field: "key" },
                        &body["fields"]["key"]
                    ),
                    key
                );
                assert!(shown["masked_key"].as_str().unwrap().contains("*****"), "{shown}");
            }
            None => assert!(shown.get("masked_key").is_none(), "{shown}"),
        }
        assert!(shown.get("key").is_none(), "{shown}");
        for (name, value) in shape.configurations.as_object().unwrap() {
            if shape.sealed.contains(&name.as_str()) {
                let mask = &shown["configurations"][format!("masked_{name}")];
                assert!(
                    mask.as_str().unwrap().contains("*****") && shown["configurations"].get(name).is_none(),
                    "{shown}"
                );
                let field = format!("configurations.{name}");
                let place = Place { organisation: &organisation, object_id: &object_id, field: &field };
                let opened = stage.open(place, &body["fields"]["members"][name]);
                let expected = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
                assert_eq!(opened, expected, "{name}");
            } else {
                assert_eq!(shown["configurations"][name], *value, "{name}");
            }
        }
        assert_eq!(shown["configurations"].as_object().unwrap().len(), shape.configurations.as_object().unwrap().len());
        assert!(!shown.to_string().contains("canary"), "{shown}");

        // What was read may be sent back as it is.
        let (_, _, before) = stage.stored(Kind::Integration, slug).await;
        stage.done(Method::PUT, &target, shown).await;
        assert_eq!(stage.stored(Kind::Integration, slug).await.2, before, "{}", shape.provider);
    }
    assert!(!stage.log.text().contains("canary"));
}

#[tokio::test]
async fn what_cannot_be_is_refused_with_every_reason_and_no_value() {
    let stage = Stage::start().await;
    let openai = |more: Value| {
        let mut body = json!({"name": "n", "ai_provider_id": "openai", "key": "sk-canary-key-01"});
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        body
    };
    let of = |provider: &str, configurations: Value| json!({"name": "n", "ai_provider_id": provider, "key": "sk-canary-key-01", "configurations": configurations});
    // (body, parts of the message)
    let cases: Vec<(Value, &[&str])> = vec![
        (json!({}), &["name: is missing", "ai_provider_id: is missing"]),
        (json!({"name": "n", "ai_provider_id": "openai"}), &["key: is missing; give it, or map a secret reference"]),
        (openai(json!({"name": "x".repeat(256)})), &["name: must be text of 1 to 255"]),
        (openai(json!({"ai_provider_id": "open ai"})), &["ai_provider_id: must be letters"]),
        (openai(json!({"slug": "a b"})), &["slug: must be letters"]),
        (openai(json!({"key": 7})), &["key: must be text"]),
        (openai(json!({"key": {"$sealed": "canary"}})), &["key: must be text"]),
        (openai(json!({"workspace_id": "canary"})), &["workspace_id: names a workspace that does not exist"]),
        (openai(json!({"configurations": []})), &["configurations: must be an object"]),
        (openai(json!({"configurations": {"canary_field": "x"}})), &["configurations.canary_field: is no field"]),
        (openai(json!({"configurations": {"aws_region": "x"}})), &["configurations.aws_region: is no field of this"]),
        (
            openai(json!({"configurations": {"openai_project": ["canary"]}})),
            &["openai_project: must be text, a number"],
        ),
        (
            openai(json!({"configurations": {"openai_project": {"$sealed": "canary", "mask": ""}}})),
            &["must be text, a"],
        ),
        (
            openai(json!({"configurations": {"openai_project": "canary\n"}})),
            &["configurations.openai_project: must be ASCII"],
        ),
        (openai(json!({"configurations": {"openai_project": "x".repeat(4097)}})), &["of at most 4096 characters"]),
        (openai(json!({"configurations": {"openaiProject": "a", "openai_project": "b"}})), &["given a second time"]),
        (openai(json!({"configurations": {"custom_headers": "canary"}})), &["must be an object whose values are text"]),
        (openai(json!({"configurations": {"custom_headers": {"x": 1}}})), &["must be an object whose values are text"]),
        (openai(json!({"pricing_adjustments": {"multiplier": {"default": -1}}})), &["pricing_adjustments: must be"]),
        (openai(json!({"pricing_adjustments": {"multiplier": {"canary": 1}}})), &["pricing_adjustments: must be"]),
        (
            of("bedrock", json!({"aws_access_key_id": "AKIACANARY0123456789"})),
            &["aws_secret_access_key: is missing; give aws_access_key_id, aws_secret_access_key together"],
        ),
        (of("azure-openai", json!({"azure_auth_mode": "entra"})), &["azure_entra_tenant_id: is missing"]),
        (
            of("azure-openai", json!({"azure_deployment_config": [{"azure_api_version": "v"}]})),
            &["configurations.azure_deployment_config[0]: names no deployment"],
        ),
        (of("azure-openai", json!({"azure_deployment_config": ["canary"]})), &["must be a list of objects"]),
        (
            of("azure-openai", json!({"azure_deployment_config": [{"alias": {"canary": 1}}]})),
            &["must be a list of objects"],
        ),
    ];
    for (body, parts) in cases {
        let (status, code, message) = refusal(&stage.send(Method::POST, ROOT, body.clone()).await);
        assert_eq!((status, code.as_str()), (400, "AB01"), "{body}: {message}");
        for part in parts {
            assert!(message.contains(part), "{body}: {message:?} has no {part:?}");
        }
        let quoted = message.replace("canary_field", "");
        assert!(!quoted.contains("canary"), "{message}");
    }
    assert_eq!(stage.done(Method::GET, ROOT, Value::Null).await["total"], 0);
}

#[tokio::test]
async fn an_update_merges() {
    let stage = Stage::start().await;
    let body = json!({"name": "Bedrock", "slug": "bedrock", "ai_provider_id": "bedrock", "configurations": {
        "aws_auth_type": "accessKey", "aws_region": "eu-west-1", "aws_access_key_id": "AKIACANARY0123456789",
        "aws_secret_access_key": "canary/secret/access/04"}});
    stage.done(Method::POST, ROOT, body).await;
    let target = format!("{ROOT}/bedrock");
    let get = async || stage.done(Method::GET, &target, Value::Null).await;
    let before = get().await;
    stage.done(Method::PUT, &target, json!({"configurations": {"awsRegion": "us-east-1"}, "description": "d"})).await;
    let after = get().await;
    assert_eq!((&after["configurations"]["aws_region"], &after["description"]), (&json!("us-east-1"), &json!("d")));
    let mask = "masked_aws_secret_access_key";
    assert_eq!(after["configurations"][mask], before["configurations"][mask]);
    // A region is where the credential goes.
    let store = stage.control.control().store();
    let organisation = store.organisations().await.unwrap().remove(0);
    let records = store.tenant(&organisation).await.unwrap().audit(1).await.unwrap();
    assert_eq!((records[0].action.as_str(), records[0].kind.as_str()), ("address_changed", "integration"));
    assert_eq!(records[0].fields, ["configurations", "description"]);

    // What is not said any more is gone; half a credential is none.
    let half = stage.send(Method::PUT, &target, json!({"configurations": {"aws_secret_access_key": null}})).await;
    assert!(refusal(&half).2.contains("aws_secret_access_key: is missing"));
    let role = json!({"configurations": {"aws_secret_access_key": null, "aws_access_key_id": "", "aws_auth_type":
        "assumedRole", "aws_role_arn": "arn:aws:iam::123456789012:role/r"}});
    stage.done(Method::PUT, &target, role).await;
    assert_eq!(
        get().await["configurations"],
        json!({"aws_auth_type": "assumedRole", "aws_region": "us-east-1",
        "aws_role_arn": "arn:aws:iam::123456789012:role/r"})
    );
    for nothing in [json!({}), json!({"slug": "x"}), json!({"ai_provider_id": "openai"}), json!({"unknown": 1})] {
        let (status, _, message) = refusal(&stage.send(Method::PUT, &target, nothing).await);
        assert_eq!((status, message.as_str()), (400, "no field to update was given"));
    }
    let key =
        stage.send(Method::PUT, &target, json!({"configurations": {"aws_auth_type": null, "aws_role_arn": null}}));
    assert!(refusal(&key.await).2.contains("key: is missing"));
    stage.done(Method::DELETE, &target, json!({})).await;
    assert_eq!(refusal(&stage.send(Method::GET, &target, Value::Null).await).1, "AB08");
}

#[tokio::test]
async fn lists_are_paged_and_told_apart_by_type_and_workspace() {
    let stage = Stage::start().await;
    let (a, b) = (stage.workspace("ws-a").await, stage.workspace("ws-b").await);
    for (slug, workspace) in [("org-1", ""), ("org-2", ""), ("in-a", &*a), ("in-b", &*b)] {
        let body =
            json!({"name": slug, "slug": slug, "ai_provider_id": "openai", "key": "sk", "workspace_id": workspace});
        stage.done(Method::POST, ROOT, body).await;
    }
    let let_in = json!({"workspaces": [{"id": "ws-a", "enabled": true}]});
    stage.done(Method::PUT, &format!("{ROOT}/org-1/workspaces"), let_in).await;
    let cases: [(&str, &[&str]); 9] = [
        ("", &["in-b", "in-a", "org-2", "org-1"]),
        ("?current_page=0&page_size=100", &["in-b", "in-a", "org-2", "org-1"]),
        ("?page_size=1&current_page=1", &["in-a"]),
        ("?type=organisation", &["org-2", "org-1"]),
        ("?type=workspace", &["in-b", "in-a"]),
        ("?type=all&workspace_id=ws-a", &["in-a", "org-1"]),
        ("?workspace_id=ws-b", &["in-b"]),
        ("?workspace_id=ws-a&type=organisation", &["org-1"]),
        ("?", &["in-b", "in-a", "org-2", "org-1"]),
    ];
    for (query, slugs) in cases {
        let list = stage.done(Method::GET, &format!("{ROOT}{query}"), Value::Null).await;
        let found: Vec<_> = list["data"].as_array().unwrap().iter().map(|row| row["slug"].as_str().unwrap()).collect();
        assert_eq!(found, slugs, "{query}");
        assert_eq!(list["object"], "list");
    }
    for query in ["?type=x", "?page_size=0", "?workspace_id=none"] {
        assert_eq!(stage.send(Method::GET, &format!("{ROOT}{query}"), Value::Null).await.status, 400, "{query}");
    }
}

/// Who is let in after a call, and by which slugs providers came with it.
struct Let {
    body: Value,
    open_to: &'static [&'static str],
    providers: &'static [&'static str],
}

#[tokio::test]
async fn workspaces_are_let_in_and_shut_out() {
    let stage = Stage::start().await;
    for slug in ["ws-a", "ws-b", "ws-c"] {
        stage.workspace(slug).await;
    }
    let body = json!({"name": "Main", "slug": "main", "ai_provider_id": "openai", "key": "sk-canary-key-01"});
    stage.done(Method::POST, ROOT, body).await;
    let target = format!("{ROOT}/main/workspaces");
    let steps = [
        Let {
            body: json!({"workspaces": [{"id": "ws-a", "enabled": true, "create_default_provider": false}]}),
            open_to: &["ws-a"],
            providers: &[],
        },
        Let {
            body: json!({"workspaces": [{"id": "ws-b", "enabled": true, "usage_limits": [{"credit_limit": 10}],
                "rate_limits": [{"type": "requests", "unit": "rpm", "value": 5}]}]}),
            open_to: &["ws-a", "ws-b"],
            providers: &["main"],
        },
        Let {
            body: json!({"workspaces": [{"id": "ws-b", "enabled": false}]}),
            open_to: &["ws-a"],
            providers: &["main"],
        },
        // Without overriding, what is said for all is for new workspaces.
        Let { body: json!({"global_workspace_access": {"enabled": true}}), open_to: &["ws-a"], providers: &["main"] },
        Let {
            body: json!({"global_workspace_access": {"enabled": true}, "override_existing_workspaces_access": true,
                "default_provider_slug": "given"}),
            open_to: &["ws-a", "ws-b", "ws-c"],
            // ws-a was in already, and ws-b had one.
            providers: &["given", "main"],
        },
        Let {
            body: json!({"workspaces": [{"id": "ws-c", "enabled": true}], "override_existing_workspace_access": true}),
            open_to: &["ws-c"],
            providers: &["given", "main"],
        },
    ];
    for Let { body, open_to, providers } in steps {
        stage.done(Method::PUT, &target, body.clone()).await;
        let listed = stage.done(Method::GET, &target, Value::Null).await;
        let rows = listed["workspaces"].as_array().unwrap();
        let mut open: Vec<_> =
            rows.iter().filter(|row| row["enabled"] == true).map(|row| row["slug"].as_str().unwrap()).collect();
        open.sort_unstable();
        assert_eq!(open, open_to, "{body}");
        assert_eq!(listed["total"], rows.len());
        let found = stage.done(Method::GET, "/v1/providers", Value::Null).await;
        let mut slugs: Vec<_> =
            found["data"].as_array().unwrap().iter().map(|row| row["slug"].as_str().unwrap()).collect();
        slugs.sort_unstable();
        assert_eq!(slugs, providers, "{body}");
        let read = stage.done(Method::GET, &format!("{ROOT}/main"), Value::Null).await;
        assert_eq!(read["workspace_count"], open_to.len(), "{body}");
    }
    // A new workspace starts with what is said for all.
    stage.workspace("ws-d").await;
    let listed = stage.done(Method::GET, &target, Value::Null).await;
    assert!(listed["workspaces"].as_array().unwrap().iter().any(|row| row["slug"] == "ws-d" && row["enabled"] == true));
    let first = stage.done(Method::GET, "/v1/providers/main?workspace_id=ws-d", Value::Null).await;
    assert_eq!((&first["integration_id"], &first["workspace_name"]), (&json!("main"), &json!("ws-d")));

    let refused = [
        json!({"workspaces": [{"id": "ws-a"}]}),
        json!({"workspaces": [{"enabled": true}]}),
        json!({"workspaces": [{"id": "none", "enabled": true}]}),
        json!({"workspaces": {"id": "ws-a"}}),
        json!({"global_workspace_access": {}}),
        json!({"workspaces": [{"id": "ws-a", "enabled": true, "rate_limits": [{"unit": "rpx", "value": 1}]}]}),
        json!({}),
    ];
    for body in refused {
        assert_eq!(refusal(&stage.send(Method::PUT, &target, body.clone()).await).0, 400, "{body}");
    }
    // A slug that was chosen and is taken is not another one.
    let own = json!({"name": "own", "slug": "taken", "provider": "openai", "key": "sk", "workspace_id": "ws-a"});
    stage.done(Method::POST, "/v1/virtual-keys", own).await;
    let other = json!({"name": "Other", "slug": "other", "ai_provider_id": "openai", "key": "sk"});
    stage.done(Method::POST, ROOT, other).await;
    let body = json!({"workspaces": [{"id": "ws-a", "enabled": true, "default_provider_slug": "taken"}]});
    let (status, _, message) = refusal(&stage.send(Method::PUT, &format!("{ROOT}/other/workspaces"), body).await);
    assert!(status == 400 && message.contains("default_provider_slug: is taken"), "{message}");
}

#[tokio::test]
async fn an_integration_of_a_workspace_comes_with_a_provider_and_goes_with_it() {
    let stage = Stage::start().await;
    stage.workspace("ws-a").await;
    let make = async |more: Value| {
        let mut body = json!({"name": "Own", "ai_provider_id": "openai", "key": "sk", "workspace_id": "ws-a"});
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        stage.done(Method::POST, ROOT, body).await["slug"].as_str().unwrap().to_owned()
    };
    let providers = async || stage.done(Method::GET, "/v1/providers", Value::Null).await["data"].clone();
    make(json!({"slug": "quiet", "create_default_provider": false})).await;
    assert_eq!(providers().await, json!([]));
    make(json!({"slug": "own"})).await;
    make(json!({"slug": "named", "default_provider_slug": "chosen"})).await;
    let shown = providers().await;
    let slugs: Vec<_> = shown.as_array().unwrap().iter().map(|row| (&row["slug"], &row["integration_id"])).collect();
    assert_eq!(slugs, [(&json!("chosen"), &json!("named")), (&json!("own"), &json!("own"))]);
    // Nobody changed the first one; the second is somebody's.
    stage.done(Method::PUT, "/v1/providers/chosen", json!({"note": "mine"})).await;
    stage.done(Method::DELETE, &format!("{ROOT}/own"), Value::Null).await;
    let (status, _, message) = refusal(&stage.send(Method::DELETE, &format!("{ROOT}/named"), Value::Null).await);
    assert!(status == 400 && message.contains("virtual key chosen"), "{message}");
    stage.done(Method::DELETE, "/v1/providers/chosen", Value::Null).await;
    stage.done(Method::DELETE, &format!("{ROOT}/named"), Value::Null).await;
    assert_eq!(providers().await, json!([]));
    let other = json!({"workspaces": [{"id": "ws-a", "enabled": true}]});
    let closed = stage.send(Method::PUT, &format!("{ROOT}/quiet/workspaces"), other).await;
    assert!(refusal(&closed).2.contains("belongs to a workspace"));
    let listed = stage.done(Method::GET, &format!("{ROOT}/quiet/workspaces"), Value::Null).await;
    assert_eq!((&listed["total"], &listed["workspaces"][0]["slug"]), (&json!(1), &json!("ws-a")));
}

#[tokio::test]
async fn models_are_listed_changed_and_removed() {
    let stage = Stage::start().await;
    let body = json!({"name": "Main", "slug": "main", "ai_provider_id": "openai", "key": "sk"});
    stage.done(Method::POST, ROOT, body).await;
    let target = format!("{ROOT}/main/models");
    let get = async || stage.done(Method::GET, &target, Value::Null).await;
    let empty = get().await;
    assert_eq!((&empty["total"], &empty["models"], &empty["allow_all_models"]), (&json!(0), &json!([]), &json!(true)));
    let mine = json!({"slug": "my-model", "enabled": true, "is_custom": true, "is_finetune": true, "base_model_slug": "gpt-4o",
        "configurations": {"custom_host": "https://m.example"}, "pricing_config": {"type": "static",
        "pay_as_you_go": {"request_token": {"price": 0.001}, "response_token": {"price": 0.002}}}});
    let models = json!({"allow_all_models": false, "models": [{"slug": "gpt-4o", "enabled": true}, mine]});
    stage.done(Method::PUT, &target, models).await;
    let listed = get().await;
    assert_eq!((&listed["total"], &listed["allow_all_models"]), (&json!(2), &json!(false)));
    let mut expected = mine.clone();
    expected["name"] = json!("my-model");
    assert_eq!(listed["models"][1], expected);
    let only = json!({"models": [{"slug": "gpt-4o", "enabled": false}]});
    stage.done(Method::PUT, &target, only).await;
    assert_eq!((&get().await["models"][0]["enabled"], &get().await["total"]), (&json!(false), &json!(2)));
    for query in ["?slugs=gpt-4o", "?slugs=none", "", "?slugs="] {
        assert_eq!(
            refusal(&stage.send(Method::DELETE, &format!("{target}{query}"), Value::Null).await).0,
            400,
            "{query}"
        );
    }
    stage.done(Method::DELETE, &format!("{target}?slugs=my-model"), Value::Null).await;
    stage.done(Method::PUT, &target, json!({"models": [mine]})).await;
    // As the Terraform provider does it.
    stage.done(Method::DELETE, &target, json!({"models": ["my-model"]})).await;
    assert_eq!(get().await["total"], 1);
    for body in [
        json!({"models": [{"slug": "x"}]}),
        json!({"models": [{"enabled": true}]}),
        json!({"models": [{"slug": "x", "enabled": true, "pricing_config": {"type": "dynamic"}}]}),
        json!({"models": [{"slug": "x", "enabled": true, "pricing_config": {"type": "static",
            "pay_as_you_go": {"request_token": {"price": -1}}}}]}),
    ] {
        assert_eq!(refusal(&stage.send(Method::PUT, &target, body.clone()).await).0, 400, "{body}");
    }
}

#[tokio::test]
async fn mcp_integrations_are_refused_with_the_reason() {
    let stage = Stage::start().await;
    let mapped = json!({"name": "m", "url": "https://mcp.example", "auth_type": "headers", "transport": "http",
        "secret_mappings": [{"target_field": "configurations.headers", "secret_reference_id": "r"}]});
    for (method, path) in [(Method::POST, "/v1/mcp-integrations"), (Method::PUT, "/v1/mcp-integrations/x")] {
        let (status, code, message) = refusal(&stage.send(method, path, mapped.clone()).await);
        assert_eq!((status, code.as_str()), (400, "AB01"));
        assert!(message.contains("secret_mappings: are not possible on MCP integrations"), "{message}");
    }
    let (status, code, message) = refusal(&stage.send(Method::GET, "/v1/mcp-integrations", Value::Null).await);
    assert_eq!((status, code.as_str()), (404, "AB02"));
    assert!(message.contains("MCP integrations are not served"), "{message}");
    assert_eq!(stage.send_as("", Method::GET, "/v1/mcp-integrations", Value::Null).await.status, 401);
}
