//! The field table: names are unique where they must be, and every spelling leads to its row.

use std::collections::HashSet;

use super::*;

/// Rows of the field table that a caller relies on, spelling by spelling.
#[test]
fn a_field_is_found_under_each_of_its_spellings() {
    #[rustfmt::skip]
    let cases = [
        // provider       stored as                      gateway's name               header
        ("openai",        "openai_organization",         "openai_organization",       Some("x-portkey-openai-organization")),
        ("openai",        "openaiProject",               "openai_project",            Some("x-portkey-openai-project")),
        ("openai",        "custom_host",                 "custom_host",               Some("x-portkey-custom-host")),
        ("any-other",     "customHost",                  "custom_host",               Some("x-portkey-custom-host")),
        ("qdrant",        "custom_headers",              "custom_headers",            None),
        ("azure-openai",  "azure_resource_name",         "resource_name",             Some("x-portkey-azure-resource-name")),
        ("azure-openai",  "resourceName",                "resource_name",             Some("x-portkey-azure-resource-name")),
        ("azure-openai",  "azure_api_version",           "api_version",               Some("x-portkey-azure-api-version")),
        ("azure-openai",  "deploymentName",              "deployment_id",             Some("x-portkey-azure-deployment-id")),
        ("azure-openai",  "azure_workload_client_id",    "azure_workload_client_id",  Some("x-portkey-azure-workload-client-id")),
        ("azure-ai",      "azure_api_version",           "azure_api_version",         Some("x-portkey-azure-api-version")),
        ("azure-ai",      "azureDeploymentName",         "azure_deployment_name",     None),
        ("azure-ai",      "azure_workload_client_id",    "azure_workload_client_id",  None),
        ("azure-ai",      "azureFoundryUrl",             "azure_foundry_url",         Some("x-portkey-azure-foundry-url")),
        ("azure-ai",      "azure_entra_client_secret",   "azure_entra_client_secret", Some("x-portkey-azure-entra-client-secret")),
        ("bedrock",       "awsSecretAccessKey",          "aws_secret_access_key",     Some("x-portkey-aws-secret-access-key")),
        ("sagemaker",     "aws_session_token",           "aws_session_token",         Some("x-portkey-aws-session-token")),
        ("sagemaker",     "amznSagemakerInferenceComponent", "amzn_sagemaker_inference_component", Some("x-portkey-amzn-sagemaker-inference-component")),
        ("vertex-ai",     "vertexServiceAccountJson",    "vertex_service_account_json", Some("x-portkey-vertex-service-account-json")),
        ("workers-ai",    "workers_ai_account_id",       "workers_ai_account_id",     Some("x-portkey-workers-ai-account-id")),
        ("huggingface",   "huggingfaceBaseUrl",          "huggingface_base_url",      Some("x-portkey-huggingface-base-url")),
        ("cortex",        "snowflakeAccount",            "snowflake_account",         Some("x-portkey-snowflake-account")),
        ("oracle",        "oracle_version",              "oracle_api_version",        Some("x-portkey-oracle-api-version")),
        ("oracle",        "oracleVersion",               "oracle_api_version",        Some("x-portkey-oracle-api-version")),
        ("oracle",        "oraclePrivateKey",            "oracle_private_key",        Some("x-portkey-oracle-private-key")),
        ("databricks",    "databricks_workspace",        "databricks_workspace",      Some("x-portkey-databricks-workspace")),
    ];
    for (provider, spelling, name, header) in cases {
        let spec = FieldSpec::stored(provider, spelling).unwrap_or_else(|| panic!("{provider} {spelling}"));
        assert_eq!((spec.name, spec.header), (name, header), "{provider} {spelling}");
        assert_eq!(FieldSpec::named(provider, name), Some(spec), "{provider} {name}");
    }
}

#[test]
fn a_field_of_another_provider_is_none() {
    let cases = [
        ("openai", "aws_region"),
        ("azure-openai", "azure_foundry_url"),
        ("bedrock", "amzn_sagemaker_session_id"),
        ("openai", "key"),
        ("openai", "api_key"),
        ("openai", "Custom_Host"),
        ("openai", ""),
    ];
    for (provider, spelling) in cases {
        assert_eq!(FieldSpec::stored(provider, spelling), None, "{provider} {spelling}");
    }
}

/// Every input that was shown to move a credential elsewhere (portkey_fields.json `destination_steering`, contract 5).
#[test]
fn what_steers_is_a_destination_and_no_target() {
    let steering = [
        ("openai", "custom_host"),
        ("azure-openai", "resource_name"),
        ("azure-ai", "azure_foundry_url"),
        ("azure-ai", "azure_endpoint_name"),
        ("bedrock", "aws_region"),
        ("sagemaker", "aws_region"),
        ("bedrock", "aws_s3_bucket"),
        ("vertex-ai", "vertex_region"),
        ("vertex-ai", "vertex_storage_bucket_name"),
        ("workers-ai", "workers_ai_account_id"),
        ("huggingface", "huggingface_base_url"),
        ("cortex", "snowflake_account"),
        ("fireworks-ai", "fireworks_account_id"),
        ("oracle", "oracle_region"),
        ("databricks", "databricks_workspace"),
    ];
    for (provider, name) in steering {
        let spec = FieldSpec::named(provider, name).unwrap();
        assert_eq!((spec.role, spec.destination, spec.is_target()), (FieldRole::Destination, true, false), "{name}");
    }
    let others = FIELDS
        .iter()
        .filter(|spec| spec.role == FieldRole::Destination)
        .filter(|spec| !steering.iter().any(|(provider, name)| spec.name == *name && spec.has_provider(provider)));
    assert_eq!(others.map(|spec| spec.name).collect::<Vec<_>>(), [""; 0], "a destination this test does not know");

    for (provider, name) in [
        ("bedrock", "aws_auth_type"),
        ("bedrock", "aws_role_arn"),
        ("sagemaker", "aws_external_id"),
        ("azure-ai", "azure_auth_mode"),
        ("azure-openai", "azure_entra_scope"),
        ("vertex-ai", "vertex_auth_type"),
    ] {
        let spec = FieldSpec::named(provider, name).unwrap();
        assert_eq!((spec.role, spec.destination), (FieldRole::Authentication, true), "{name}");
    }
}

#[test]
fn credentials_are_sensitive_and_nothing_else_is() {
    let sensitive: HashSet<_> = FIELDS.iter().filter(|spec| spec.sensitive).map(|spec| spec.name).collect();
    let expected = HashSet::from([
        "custom_headers",
        "azure_entra_client_secret",
        "azure_ad_token",
        "aws_access_key_id",
        "aws_secret_access_key",
        "aws_session_token",
        "aws_external_id",
        "vertex_service_account_json",
        "oracle_private_key",
        "oracle_key_passphrase",
    ]);
    assert_eq!(sensitive, expected);
    assert!(FieldSpec::key().sensitive);
    let multiline: Vec<_> = FIELDS.iter().filter(|spec| spec.multiline).map(|spec| spec.name).collect();
    assert_eq!(multiline, ["vertex_service_account_json", "oracle_private_key"]);
}

/// A spelling or a gateway name of one provider means one row.
#[test]
fn rows_do_not_overlap() {
    for (index, row) in FIELDS.iter().enumerate() {
        for other in &FIELDS[index + 1..] {
            let shared = row.providers.is_empty()
                || other.providers.is_empty()
                || row.providers.iter().any(|provider| other.providers.contains(provider));
            let names = |spec: &FieldSpec| [Some(spec.name), spec.configurations, spec.model_config];
            let clash = names(row).iter().flatten().any(|name| names(other).contains(&Some(name)));
            assert!(!(shared && clash), "{} and {}", row.name, other.name);
        }
    }
}

#[test]
fn headers_are_lower_case_and_the_gateways_own() {
    for spec in FIELDS {
        if let Some(header) = spec.header {
            assert!(header.starts_with("x-portkey-") && header == header.to_ascii_lowercase(), "{header}");
        }
    }
    for set in [FieldSet::AwsKeys, FieldSet::Entra] {
        for name in set.required() {
            assert!(FIELDS.iter().any(|spec| spec.name == *name && spec.set == Some(set)), "{name}");
        }
    }
}
