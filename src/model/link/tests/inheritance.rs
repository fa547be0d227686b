//! Effective fields: who wins, what moves together, what a virtual key may not change.

use super::*;

/// Links one integration and one virtual key of `provider` and returns the key's effective fields.
fn inherit(provider: &str, integration: Value, virtual_key: Value) -> Result<Vec<String>, Vec<String>> {
    let merge = |mut object: Value, more: Value| {
        object.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        object
    };
    let integration = merge(json!({"id": "ix", "slug": "int-x", "ai_provider_id": provider}), integration);
    let virtual_key = merge(json!({"id": "vx", "slug": "vk-x", "integration_id": "int-x"}), virtual_key);
    let document = changed(&[("/integrations/-", integration), ("/virtual_keys/-", virtual_key)]);
    strict(&document).map(|snapshot| effective(snapshot.entity("vk-x", &nobody()).unwrap()))
}

#[test]
fn fields_are_taken_over_and_overridden_by_gateway_name() {
    let keys = |id: &str, secret: &str| json!([map(id, "ref-one"), map(secret, "ref-one")]);
    let aws = keys("configurations.aws_access_key_id", "configurations.aws_secret_access_key");
    #[rustfmt::skip]
    let cases = [
        // what is shown
        ("everything is inherited", "openai",
            json!({"key": "sk-i", "configurations": {"openai_project": "p"}}), json!({}),
            vec!["api_key=sk-i", "openai_project=\"p\""]),
        ("a mapping beats a literal of the same object", "openai",
            json!({"key": "sk-i", "secret_mappings": [map("key", "ref-one")]}), json!({}),
            vec!["api_key<ref-one"]),
        ("the virtual key's literal beats the integration's mapping", "openai",
            json!({"secret_mappings": [map("key", "ref-one")]}), json!({"key": "sk-v"}),
            vec!["api_key=sk-v"]),
        ("the virtual key's mapping beats the integration's literal", "openai",
            json!({"key": "sk-i"}), json!({"secret_mappings": [map("key", "ref-two")]}),
            vec!["api_key<ref-two"]),
        ("an empty key is no key", "openai",
            json!({"key": "sk-i"}), json!({"key": "", "model_config": {"openaiProject": "", "openaiOrganization": null}}),
            vec!["api_key=sk-i"]),
        ("spellings differ, the field is one", "azure-ai",
            json!({"key": "k", "configurations": {"azure_api_version": "1", "azure_deployment_name": "d"}}),
            json!({"model_config": {"azureApiVersion": "2"}}),
            vec!["api_key=k", "azure_api_version=\"2\"", "azure_deployment_name=\"d\""]),
        ("an integration may use the other casing", "oracle",
            json!({"configurations": {"oracleVersion": "20160918", "oracle_key_passphrase": "x"}}), json!({}),
            vec!["oracle_api_version=\"20160918\"", "oracle_key_passphrase=x"]),
        ("fields of another provider and unknown ones are ignored", "openai",
            json!({"key": "k", "configurations": {"aws_region": "eu", "new_thing": 1}}), json!({"model_config": {"x": {}}}),
            vec!["api_key=k"]),
        ("numbers and booleans stay what they are", "vertex-ai",
            json!({"configurations": {"vertex_skip_ptu_cost_attribution": true, "vertex_project_id": 5}}), json!({}),
            vec!["vertex_project_id=5", "vertex_skip_ptu_cost_attribution=true"]),
        ("AWS keys move as a set: the inherited token does not meet new keys", "bedrock",
            json!({"configurations": {"aws_session_token": "t", "aws_region": "eu-west-1"}, "secret_mappings": aws}),
            json!({"secret_mappings": keys("model_config.awsAccessKeyId", "model_config.awsSecretAccessKey").as_array().unwrap().iter()
                .map(|mapping| map(mapping["target_field"].as_str().unwrap(), "ref-two")).collect::<Vec<_>>()}),
            vec!["aws_access_key_id<ref-two", "aws_region=\"eu-west-1\"", "aws_secret_access_key<ref-two"]),
        ("one trailing newline is an editor's", "openai",
            json!({"key": "sk-i\n"}), json!({}), vec!["api_key=sk-i"]),
        ("a service account is kept as compact ASCII JSON, as an object or as text", "vertex-ai",
            json!({"configurations": {"vertex_service_account_json": {"private_key": "a\nb", "name": "clé"}}}), json!({}),
            vec![r#"vertex_service_account_json={"name":"cl\u00e9","private_key":"a\nb"}"#]),
        ("… as text", "vertex-ai",
            json!({"configurations": {"vertex_service_account_json": "{ \"a\": \"b\" }"}}), json!({}),
            vec![r#"vertex_service_account_json={"a":"b"}"#]),
        ("with a key of its own, a virtual key chooses its host", "openai",
            json!({"key": "sk-i", "configurations": {"custom_host": "https://i"}}),
            json!({"key": "sk-v", "model_config": {"customHost": "https://v"}}),
            vec!["api_key=sk-v", "custom_host=\"https://v\""]),
        ("repeating what the integration says changes nothing", "bedrock",
            json!({"key": "k", "configurations": {"aws_auth_type": "apiKey", "aws_region": "eu-west-1"}}),
            json!({"model_config": {"awsRegion": "eu-west-1"}}),
            vec!["api_key=k", "aws_auth_type=\"apiKey\"", "aws_region=\"eu-west-1\""]),
    ];
    for (shown, provider, integration, virtual_key, expected) in cases {
        let fields =
            inherit(provider, integration, virtual_key).unwrap_or_else(|problems| panic!("{shown}: {problems:#?}"));
        assert_eq!(fields, expected, "{shown}");
    }
}

/// Whoever inherits a credential chooses neither where it goes nor how it is used.
#[test]
fn an_inherited_credential_is_not_steered() {
    let mapped = || json!({"secret_mappings": [map("key", "ref-one")]});
    let entra = || json!({"configurations": {"azure_entra_tenant_id": "t", "azure_entra_client_id": "c", "azure_entra_client_secret": "s"}});
    #[rustfmt::skip]
    let cases = [
        // provider       integration                       virtual key's model_config                     said at
        ("openai",        mapped(),                         json!({"customHost": "https://evil"}),         "model_config.customHost"),
        ("openai",        json!({"key": "sk"}),             json!({"custom_host": "https://evil"}),        "model_config.customHost"),
        ("openai",        mapped(),                         json!({"customHeaders": {"x": "y"}}),          "model_config.customHeaders"),
        ("openai",        json!({"configurations": {"custom_headers": {"x-key": "s"}}}), json!({"customHost": "https://evil"}), "model_config.customHost"),
        ("bedrock",       mapped(),                         json!({"awsRegion": "evil"}),                  "model_config.awsRegion"),
        ("bedrock",       mapped(),                         json!({"awsAuthType": "apiKey"}),              "model_config.awsAuthType"),
        ("bedrock",       mapped(),                         json!({"awsRoleArn": "arn"}),                  "model_config.awsRoleArn"),
        ("bedrock",       mapped(),                         json!({"awsS3Bucket": "b"}),                   "model_config.awsS3Bucket"),
        ("azure-openai",  entra(),                          json!({"resourceName": "evil"}),               "model_config.resourceName"),
        ("azure-openai",  entra(),                          json!({"azureAuthMode": "managed"}),           "model_config.azureAuthMode"),
        ("azure-ai",      mapped(),                         json!({"azureFoundryUrl": "https://evil"}),    "model_config.azureFoundryUrl"),
        ("workers-ai",    mapped(),                         json!({"workersAiAccountId": "x"}),            "model_config.workersAiAccountId"),
        ("vertex-ai",     mapped(),                         json!({"vertexRegion": "us-evil1"}),            "model_config.vertexRegion"),
    ];
    for (provider, integration, model_config, at) in cases {
        let problems = inherit(provider, integration, json!({"model_config": model_config.clone()}))
            .expect_err(&format!("{provider} {model_config}"));
        assert_eq!(problems.len(), 1, "{problems:#?}");
        assert!(problems[0].starts_with(&format!("virtual_keys[2].{at} (vk-x)")), "{problems:#?}");
    }
}

#[test]
fn half_a_set_over_another_half_is_refused() {
    let both = json!([map("aws_access_key_id", "ref-one"), map("aws_secret_access_key", "ref-one")]);
    let own = json!({"model_config": {"awsSecretAccessKey": "mine"}});
    let problems = inherit("bedrock", json!({"secret_mappings": both}), own).unwrap_err();
    assert!(problems[0].contains("aws_access_key_id"), "{problems:#?}");
}

#[test]
fn deployments_are_read_under_every_name_and_replace_as_a_whole() {
    let azure = |configurations: Value, model_config: Value| -> Vec<String> {
        let document = changed(&[
            (
                "/integrations/-",
                json!({"slug": "int-x", "ai_provider_id": "azure-openai", "configurations": configurations}),
            ),
            ("/virtual_keys/-", json!({"slug": "vk-x", "integration_id": "int-x", "model_config": model_config})),
        ]);
        let snapshot = strict(&document).unwrap_or_else(|problems| panic!("{problems:#?}"));
        let entity = snapshot.entity("vk-x", &nobody()).unwrap();
        assert!(entity.fields.iter().all(|field| field.spec.role != crate::model::FieldRole::Deployment));
        let text = |part: &Option<std::sync::Arc<str>>| part.as_deref().unwrap_or("-").to_owned();
        let show = |d: &crate::model::Deployment| {
            let default = if d.is_default { " default" } else { "" };
            format!("{} {} {} {}{default}", d.deployment_id, text(&d.api_version), text(&d.model_name), text(&d.alias))
        };
        entity.deployments.iter().map(show).collect()
    };
    let stored = json!({"azure_deployment_config": [
        {"azure_deployment_name": "d1", "azure_api_version": "v1", "azure_model_slug": "m1", "alias": "a1", "is_default": true},
        {"azure_deployment_name": "d2", "azure_api_version": "v2", "azure_model_slug": "m2"},
    ]});
    let camel =
        json!([{"deploymentName": "d", "apiVersion": "v", "aiModelName": "m", "alias": "a", "is_default": false}]);
    #[rustfmt::skip]
    let cases = [
        (stored.clone(), json!({}),                                      vec!["d1 v1 m1 a1 default", "d2 v2 m2 -"]),
        (stored.clone(), json!({"deployments": camel}),                  vec!["d v m a"]),
        (stored.clone(), json!({"deploymentConfig": camel}),             vec!["d v m a"]),
        (stored.clone(), json!({"deployments": []}),                     vec!["d1 v1 m1 a1 default", "d2 v2 m2 -"]),
        (stored.clone(), json!({"deploymentName": "f", "apiVersion": "v"}), vec!["f v - - default"]),
        (json!({"azure_deployment_name": "f"}), json!({}),               vec!["f - - - default"]),
        (json!({"azure_deployment_config": {"azure_deployment_name": "one"}}), json!({}), vec!["one - - -"]),
        (json!({}), json!({}),                                           vec![]),
    ];
    for (configurations, model_config, expected) in cases {
        assert_eq!(azure(configurations.clone(), model_config.clone()), expected, "{configurations} {model_config}");
    }
    for broken in [
        json!("x"),
        json!([5]),
        json!([{"alias": "a"}]),
        json!([{"deploymentName": 5}]),
        json!([{"deploymentName": "d", "is_default": "yes"}]),
    ] {
        let document = changed(&[(
            "/virtual_keys/-",
            json!({"slug": "x", "provider": "azure-openai", "model_config": {"deployments": broken.clone()}}),
        )]);
        assert!(strict(&document).is_err(), "{broken}");
    }
}

#[test]
fn a_mapping_has_its_own_key_or_that_of_the_reference() {
    let document = changed(&[
        ("/secret_references/0/secret_key", json!("of-reference")),
        (
            "/virtual_keys/1/secret_mappings/0",
            json!({"target_field": "key", "secret_reference_id": "ref-one", "secret_key": "of-mapping", "value_format": "json"}),
        ),
    ]);
    let snapshot = strict(&document).unwrap();
    let mapping = |slug| match &snapshot.entity(slug, &nobody()).unwrap().field("api_key").unwrap().value {
        FieldValue::Mapped(mapping) => mapping.clone(),
        value => panic!("{value:?}"),
    };
    assert_eq!(mapping("vk-one").secret_key.as_deref(), Some("of-reference"));
    assert_eq!(mapping("vk-one").format, crate::model::ValueFormat::String);
    assert_eq!(mapping("vk-two").secret_key.as_deref(), Some("of-mapping"));
    assert_eq!(mapping("vk-two").format, crate::model::ValueFormat::Json);
}

#[test]
fn a_lifespan_is_that_of_everything_it_hangs_on() {
    let (early, late) = ("2026-01-01T00:00:00Z", "2027-06-01T12:00:00+02:00");
    #[rustfmt::skip]
    let cases = [
        // changes                                                                             active  expires
        (vec![],                                                                               true,   None),
        (vec![("/virtual_keys/0/status", json!("ACTIVE"))],                                    true,   None),
        (vec![("/virtual_keys/0/status", json!("exhausted"))],                                 false,  None),
        (vec![("/integrations/0/status", json!("inactive"))],                                  false,  None),
        (vec![("/secret_references/0/status", json!("Inactive"))],                             false,  None),
        (vec![("/secret_references/1/status", json!("inactive"))],                             true,   None),
        (vec![("/virtual_keys/0/expires_at", json!(late)), ("/integrations/0/expires_at", json!(early))], true, Some(early)),
        (vec![("/virtual_keys/0/expires_at", json!(early))],                                   true,   Some(early)),
        // The reference that counts is the one that is mapped in the end.
        (vec![("/secret_references/0/status", json!("inactive")), ("/virtual_keys/0/secret_mappings", json!([map("key", "ref-two")]))], true, None),
    ];
    for (changes, active, expires) in cases {
        let snapshot = strict(&changed(&changes)).unwrap();
        let lifespan = snapshot.entity("vk-one", &nobody()).unwrap().lifespan;
        let expires = expires.map(|text| super::parse_instant(text).unwrap());
        assert_eq!((lifespan.active, lifespan.expires_at), (active, expires), "{changes:?}");
    }
    // An integration that is named itself hangs on its references, too.
    let snapshot = strict(&changed(&[
        ("/secret_references/0/status", json!("inactive")),
        ("/virtual_keys/0", json!({"slug": "other", "provider": "x"})),
    ]));
    assert!(!snapshot.unwrap().entity("int-one", &nobody()).unwrap().lifespan.active);
}

#[test]
fn what_adds_nothing_shares_its_fields() {
    let snapshot = strict(&base()).unwrap();
    let key = snapshot.entity("vk-one", &nobody()).unwrap();
    assert!(std::sync::Arc::ptr_eq(&key.fields, &key.integration.as_ref().unwrap().fields));
}
