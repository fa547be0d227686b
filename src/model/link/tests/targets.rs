//! Which fields a secret mapping may fill, and which fields need each other.

use super::*;

#[test]
fn targets_are_checked_against_the_field_table() {
    let document = |list: &str, provider: &str, target_field: &str| {
        let (kind, name) = if list == "integrations" { (list, "ai_provider_id") } else { (list, "provider") };
        let complete = |fields: &[&str]| fields.iter().map(|field| map(field, "r2")).collect::<Vec<_>>();
        // Sets are complete, so that only the target is judged.
        let prefix = if list == "integrations" { "configurations" } else { "model_config" };
        let mut mappings = vec![map(target_field, "r2")];
        if target_field.ends_with("aws_secret_access_key") || target_field.ends_with("awsSecretAccessKey") {
            mappings.extend(complete(&[&format!("{prefix}.aws_access_key_id")]));
        }
        changed(&[(&format!("/{kind}/-"), json!({"slug": "new", name: provider, "secret_mappings": mappings}))])
    };
    #[rustfmt::skip]
    let cases = [
        // list           provider        target_field                                  legal
        ("integrations",  "openai",       "key",                                        true),
        ("integrations",  "bedrock",      "configurations.aws_secret_access_key",       true),
        ("integrations",  "bedrock",      "configurations.awsSecretAccessKey",          true),
        ("integrations",  "bedrock",      "aws_secret_access_key",                      true),
        ("integrations",  "bedrock",      "configurations.aws_role_arn",                true),
        ("integrations",  "vertex-ai",    "configurations.vertex_service_account_json", true),
        ("integrations",  "openai",       "configurations.custom_headers",              true),
        ("integrations",  "oracle",       "configurations.oracle_private_key",          true),
        ("virtual_keys",  "openai",       "key",                                        true),
        ("virtual_keys",  "bedrock",      "model_config.awsSecretAccessKey",            true),
        ("virtual_keys",  "bedrock",      "model_config.aws_secret_access_key",         true),
        ("virtual_keys",  "azure-openai", "model_config.azureAdToken",                  true),
        ("integrations",  "bedrock",      "model_config.awsSecretAccessKey",            false),
        ("virtual_keys",  "bedrock",      "configurations.aws_secret_access_key",       false),
        ("integrations",  "openai",       "configurations.aws_secret_access_key",       false),
        ("integrations",  "openai",       "configurations.custom_host",                 false),
        ("integrations",  "openai",       "custom_host",                                false),
        ("integrations",  "bedrock",      "configurations.aws_region",                  false),
        ("virtual_keys",  "azure-openai", "model_config.resourceName",                  false),
        ("virtual_keys",  "azure-openai", "model_config.apiVersion",                    false),
        ("integrations",  "azure-openai", "configurations.azure_deployment_config",     false),
        ("integrations",  "openai",       "configurations.key",                         false),
        ("integrations",  "openai",       "configurations.api_key",                     false),
        ("integrations",  "openai",       "configurations.",                            false),
        ("integrations",  "openai",       "configurations",                             false),
        ("integrations",  "openai",       "configurations.a.b",                         false),
        ("integrations",  "openai",       "Key",                                        false),
        ("integrations",  "openai",       "slug",                                       false),
    ];
    for (list, provider, target_field, is_legal) in cases {
        let outcome = strict(&document(list, provider, target_field));
        assert_eq!(outcome.is_ok(), is_legal, "{list} {provider} {target_field}: {:?}", outcome.err());
    }
}

/// Two spellings of one field are one target.
#[test]
fn targets_are_unique_after_normalisation() {
    let mappings = json!([map("configurations.openai_project", "r1"), map("configurations.openaiProject", "r2")]);
    let problems = strict(&changed(&[("/integrations/0/secret_mappings", mappings)])).unwrap_err();
    assert!(problems[0].starts_with("integrations[0].secret_mappings[1].target_field"), "{problems:#?}");
}

#[test]
fn half_a_set_is_a_fault() {
    let bedrock = |fields: &[&str]| {
        let mappings: Vec<_> = fields.iter().map(|field| map(field, "r1")).collect();
        strict(&changed(&[(
            "/integrations/-",
            json!({"slug": "b", "ai_provider_id": "bedrock", "secret_mappings": mappings}),
        )]))
    };
    assert!(bedrock(&[]).is_ok());
    assert!(bedrock(&["key"]).is_ok());
    assert!(bedrock(&["aws_access_key_id", "aws_secret_access_key"]).is_ok());
    assert!(bedrock(&["aws_access_key_id", "aws_secret_access_key", "aws_session_token"]).is_ok());
    assert!(bedrock(&["aws_access_key_id"]).is_err());
    assert!(bedrock(&["aws_secret_access_key", "aws_session_token"]).is_err());
    assert!(bedrock(&["aws_session_token"]).is_err());

    let azure = |configurations: Value| {
        strict(&changed(&[(
            "/integrations/-",
            json!({"slug": "a", "ai_provider_id": "azure-ai", "configurations": configurations}),
        )]))
    };
    let (tenant, client, secret) = ("azure_entra_tenant_id", "azure_entra_client_id", "azure_entra_client_secret");
    assert!(azure(json!({"azure_auth_mode": "entra", tenant: "t", client: "c", secret: "s"})).is_ok());
    assert!(azure(json!({"azure_auth_mode": "workload", tenant: "t", client: "c"})).is_ok());
    assert!(azure(json!({"azure_auth_mode": "entra", tenant: "t", client: "c"})).is_err());
    assert!(azure(json!({client: "c", secret: "s"})).is_err());
}

#[test]
fn a_field_without_effect_is_told_and_is_no_fault() {
    let cases = [
        ("custom_hots", Some("`custom_hots` is no field of the provider `openai`")),
        ("custom_host", None),
        ("Custom_Host", Some("`Custom_Host` is no field of the provider `openai`")),
    ];
    for (name, message) in cases {
        let document = changed(&[("/integrations/0/configurations", json!({name: "https://models.example/v1"}))]);
        let told: Vec<_> = strict(&document).unwrap().ignored.iter().map(ToString::to_string).collect();
        let expected = message.map(|message| format!("integrations[0].configurations (int-one): {message}"));
        assert_eq!(told, Vec::from_iter(expected), "{name}");
    }
    let example = link(EXAMPLE.as_bytes(), &LinkRules::STRICT).unwrap();
    assert_eq!(example.ignored, []);
}
