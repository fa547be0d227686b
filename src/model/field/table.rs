//! The rows. Names read in the gateway's source (1.15.2), the OpenAPI description and the Terraform provider.
//!
//! Not in Portkey's schemas, added by analogy because the gateway reads them and a request may not choose them:
//! `aws_session_token`, `azure_ad_token`, `azure_entra_scope`, `aws_s3_bucket`, `vertex_storage_bucket_name`,
//! `fireworks_account_id`. Left out because no gateway of this line reads them: `azure_workload_tenant_id`, and the legacy
//! `azureDeploymentType` and `azureRegion`.

use super::{FieldRole, FieldSet, FieldSpec};

const AZURE_OPENAI: &[&str] = &["azure-openai"];
const AZURE_AI: &[&str] = &["azure-ai"];
const AZURE: &[&str] = &["azure-openai", "azure-ai"];
const AWS: &[&str] = &["bedrock", "sagemaker"];
const BEDROCK: &[&str] = &["bedrock"];
const SAGEMAKER: &[&str] = &["sagemaker"];
const VERTEX: &[&str] = &["vertex-ai"];
const ORACLE: &[&str] = &["oracle"];
const DATABRICKS: &[&str] = &["databricks"];

/// The plain key. Has its own place in an entity, not one under a prefix.
pub static KEY: FieldSpec = FieldSpec {
    name: "api_key",
    providers: &[],
    configurations: None,
    model_config: None,
    header: Some("authorization"),
    ..field(&[], "api_key", "", "").secret()
};

/// Every field an entity stores beside the plain key, grouped by provider.
#[rustfmt::skip]
pub static FIELDS: &[FieldSpec] = &[
    // any provider; the values of custom_headers travel under their own names
    field(&[], "custom_host", "custom_host", "customHost").header("x-portkey-custom-host").destination(),
    field(&[], "custom_headers", "custom_headers", "customHeaders").secret().structured(),

    field(&["openai"], "openai_organization", "openai_organization", "openaiOrganization").header("x-portkey-openai-organization"),
    field(&["openai"], "openai_project", "openai_project", "openaiProject").header("x-portkey-openai-project"),

    field(AZURE_OPENAI, "resource_name", "azure_resource_name", "resourceName").header("x-portkey-azure-resource-name").destination(),
    field(AZURE_OPENAI, "deployment_id", "azure_deployment_name", "deploymentName").header("x-portkey-azure-deployment-id").deployment(),
    field(AZURE_OPENAI, "api_version", "azure_api_version", "apiVersion").header("x-portkey-azure-api-version").deployment(),
    field(AZURE_OPENAI, "azure_model_name", "azure_model_slug", "aiModelName").header("x-portkey-azure-model-name").deployment(),
    field(AZURE_OPENAI, "azure_workload_client_id", "azure_workload_client_id", "azureWorkloadClientId").header("x-portkey-azure-workload-client-id"),

    field(AZURE_AI, "azure_foundry_url", "azure_foundry_url", "azureFoundryUrl").header("x-portkey-azure-foundry-url").destination(),
    field(AZURE_AI, "azure_endpoint_name", "azure_endpoint_name", "azureEndpointName").header("x-portkey-azure-endpoint-name").destination(),
    field(AZURE_AI, "azure_api_version", "azure_api_version", "azureApiVersion").header("x-portkey-azure-api-version"),
    field(AZURE_AI, "azure_deployment_name", "azure_deployment_name", "azureDeploymentName"),
    field(AZURE_AI, "azure_workload_client_id", "azure_workload_client_id", "azureWorkloadClientId"),

    field(AZURE, "azure_auth_mode", "azure_auth_mode", "azureAuthMode").header("x-portkey-azure-auth-mode").authentication(),
    field(AZURE, "azure_entra_tenant_id", "azure_entra_tenant_id", "azureEntraTenantId").header("x-portkey-azure-entra-tenant-id").set(FieldSet::Entra),
    field(AZURE, "azure_entra_client_id", "azure_entra_client_id", "azureEntraClientId").header("x-portkey-azure-entra-client-id").set(FieldSet::Entra),
    field(AZURE, "azure_entra_client_secret", "azure_entra_client_secret", "azureEntraClientSecret").header("x-portkey-azure-entra-client-secret").secret().set(FieldSet::Entra),
    field(AZURE, "azure_entra_scope", "azure_entra_scope", "azureEntraScope").header("x-portkey-azure-entra-scope").authentication(),
    field(AZURE, "azure_managed_client_id", "azure_managed_client_id", "azureManagedClientId").header("x-portkey-azure-managed-client-id"),
    field(AZURE, "azure_ad_token", "azure_ad_token", "azureAdToken").header("x-portkey-azure-ad-token").secret(),

    field(AWS, "aws_auth_type", "aws_auth_type", "awsAuthType").header("x-portkey-aws-auth-type").authentication(),
    field(AWS, "aws_region", "aws_region", "awsRegion").header("x-portkey-aws-region").destination(),
    field(AWS, "aws_access_key_id", "aws_access_key_id", "awsAccessKeyId").header("x-portkey-aws-access-key-id").secret().set(FieldSet::AwsKeys),
    field(AWS, "aws_secret_access_key", "aws_secret_access_key", "awsSecretAccessKey").header("x-portkey-aws-secret-access-key").secret().set(FieldSet::AwsKeys),
    field(AWS, "aws_session_token", "aws_session_token", "awsSessionToken").header("x-portkey-aws-session-token").secret().set(FieldSet::AwsKeys),
    field(AWS, "aws_role_arn", "aws_role_arn", "awsRoleArn").header("x-portkey-aws-role-arn").authentication(),
    field(AWS, "aws_external_id", "aws_external_id", "awsExternalId").header("x-portkey-aws-external-id").secret().authentication(),
    field(BEDROCK, "aws_s3_bucket", "aws_s3_bucket", "awsS3Bucket").header("x-portkey-aws-s3-bucket").destination(),

    field(SAGEMAKER, "amzn_sagemaker_custom_attributes", "amzn_sagemaker_custom_attributes", "amznSagemakerCustomAttributes").header("x-portkey-amzn-sagemaker-custom-attributes"),
    field(SAGEMAKER, "amzn_sagemaker_target_model", "amzn_sagemaker_target_model", "amznSagemakerTargetModel").header("x-portkey-amzn-sagemaker-target-model"),
    field(SAGEMAKER, "amzn_sagemaker_target_variant", "amzn_sagemaker_target_variant", "amznSagemakerTargetVariant").header("x-portkey-amzn-sagemaker-target-variant"),
    field(SAGEMAKER, "amzn_sagemaker_target_container_hostname", "amzn_sagemaker_target_container_hostname", "amznSagemakerTargetContainerHostname").header("x-portkey-amzn-sagemaker-target-container-hostname"),
    field(SAGEMAKER, "amzn_sagemaker_inference_id", "amzn_sagemaker_inference_id", "amznSagemakerInferenceId").header("x-portkey-amzn-sagemaker-inference-id"),
    field(SAGEMAKER, "amzn_sagemaker_enable_explanations", "amzn_sagemaker_enable_explanations", "amznSagemakerEnableExplanations").header("x-portkey-amzn-sagemaker-enable-explanations"),
    field(SAGEMAKER, "amzn_sagemaker_inference_component", "amzn_sagemaker_inference_component", "amznSagemakerInferenceComponent").header("x-portkey-amzn-sagemaker-inference-component"),
    field(SAGEMAKER, "amzn_sagemaker_session_id", "amzn_sagemaker_session_id", "amznSagemakerSessionId").header("x-portkey-amzn-sagemaker-session-id"),
    field(SAGEMAKER, "amzn_sagemaker_model_name", "amzn_sagemaker_model_name", "amznSagemakerModelName").header("x-portkey-amzn-sagemaker-model-name"),

    field(VERTEX, "vertex_auth_type", "vertex_auth_type", "vertexAuthType").header("x-portkey-vertex-auth-type").authentication(),
    field(VERTEX, "vertex_region", "vertex_region", "vertexRegion").header("x-portkey-vertex-region").destination(),
    field(VERTEX, "vertex_project_id", "vertex_project_id", "vertexProjectId").header("x-portkey-vertex-project-id"),
    field(VERTEX, "vertex_service_account_json", "vertex_service_account_json", "vertexServiceAccountJson").header("x-portkey-vertex-service-account-json").secret().structured().multiline(),
    field(VERTEX, "vertex_storage_bucket_name", "vertex_storage_bucket_name", "vertexStorageBucketName").header("x-portkey-vertex-storage-bucket-name").destination(),
    field(VERTEX, "vertex_skip_ptu_cost_attribution", "vertex_skip_ptu_cost_attribution", "vertexSkipPtuCostAttribution").header("x-portkey-vertex-skip-ptu-cost-attribution"),

    field(&["workers-ai"], "workers_ai_account_id", "workers_ai_account_id", "workersAiAccountId").header("x-portkey-workers-ai-account-id").destination(),
    field(&["huggingface"], "huggingface_base_url", "huggingface_base_url", "huggingfaceBaseUrl").header("x-portkey-huggingface-base-url").destination(),
    field(&["cortex"], "snowflake_account", "snowflake_account", "snowflakeAccount").header("x-portkey-snowflake-account").destination(),
    field(&["fireworks-ai"], "fireworks_account_id", "fireworks_account_id", "fireworksAccountId").header("x-portkey-fireworks-account-id").destination(),
    field(&["mistral-ai"], "mistral_fim_completion", "mistral_fim_completion", "mistralFimCompletion").header("x-portkey-mistral-fim-completion"),

    field(ORACLE, "oracle_region", "oracle_region", "oracleRegion").header("x-portkey-oracle-region").destination(),
    field(ORACLE, "oracle_api_version", "oracle_version", "oracleVersion").header("x-portkey-oracle-api-version"),
    field(ORACLE, "oracle_compartment_id", "oracle_compartment_id", "oracleCompartmentId").header("x-portkey-oracle-compartment-id"),
    field(ORACLE, "oracle_serving_mode", "oracle_serving_mode", "oracleServingMode").header("x-portkey-oracle-serving-mode"),
    field(ORACLE, "oracle_tenancy", "oracle_tenancy", "oracleTenancy").header("x-portkey-oracle-tenancy"),
    field(ORACLE, "oracle_user", "oracle_user", "oracleUser").header("x-portkey-oracle-user"),
    field(ORACLE, "oracle_fingerprint", "oracle_fingerprint", "oracleFingerprint").header("x-portkey-oracle-fingerprint"),
    field(ORACLE, "oracle_private_key", "oracle_private_key", "oraclePrivateKey").header("x-portkey-oracle-private-key").secret().multiline(),
    field(ORACLE, "oracle_key_passphrase", "oracle_key_passphrase", "oracleKeyPassphrase").header("x-portkey-oracle-key-passphrase").secret(),

    field(DATABRICKS, "databricks_workspace", "databricks_workspace", "databricksWorkspace").header("x-portkey-databricks-workspace").destination(),
    field(DATABRICKS, "databricks_serving_endpoint_name", "databricks_serving_endpoint_name", "databricksServingEndpointName").header("x-portkey-databricks-serving-endpoint-name"),
];

/// A row: providers, the gateway's name, the spelling of integrations, the spelling of virtual keys.
const fn field(
    providers: &'static [&'static str],
    name: &'static str,
    configurations: &'static str,
    model_config: &'static str,
) -> FieldSpec {
    FieldSpec {
        name,
        providers,
        configurations: Some(configurations),
        model_config: Some(model_config),
        header: None,
        sensitive: false,
        role: FieldRole::Option,
        destination: false,
        multiline: false,
        structured: false,
        set: None,
    }
}

impl FieldSpec {
    const fn header(mut self, name: &'static str) -> Self {
        self.header = Some(name);
        self
    }

    const fn secret(mut self) -> Self {
        self.sensitive = true;
        self
    }

    const fn destination(mut self) -> Self {
        self.role = FieldRole::Destination;
        self.destination = true;
        self
    }

    const fn authentication(mut self) -> Self {
        self.role = FieldRole::Authentication;
        self.destination = true;
        self
    }

    const fn deployment(mut self) -> Self {
        self.role = FieldRole::Deployment;
        self
    }

    const fn multiline(mut self) -> Self {
        self.multiline = true;
        self
    }

    const fn structured(mut self) -> Self {
        self.structured = true;
        self
    }

    const fn set(mut self, set: FieldSet) -> Self {
        self.set = Some(set);
        self
    }
}
