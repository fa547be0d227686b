//! Events as their sources document them.

use serde_json::json;

use super::*;

fn aws(region: &str, account: Option<&str>, name: &str) -> AwsName {
    AwsName { region: Some(region.to_owned()), account: account.map(str::to_owned), name: name.to_owned() }
}

#[test]
fn events_of_aws_name_secrets_in_every_form() {
    const ARN: &str = "arn:aws:secretsmanager:us-west-2:012345678901:secret:mySecret-a1b2c3";
    let secret = || vec![Target::AwsSecret(aws("us-west-2", Some("012345678901"), "mySecret-a1b2c3"))];
    let event = |source: &str, kind: &str, resources: Value, detail: Value| {
        json!({
            "version": "0", "id": "6a7e8feb-b491-4cf7-a9f1-bf3703467718", "detail-type": kind, "source": source,
            "account": "012345678901", "time": "2026-11-25T14:00:00Z", "region": "us-west-2",
            "resources": resources, "detail": detail,
        })
    };
    let trail = "AWS API Call via CloudTrail";
    #[rustfmt::skip]
    let rows = [
        (
            event("aws.secretsmanager", "Secret Label Updated", json!([ARN]),
                json!({"name": "mySecret", "labelUpdated": "AWSCURRENT", "versionId": "v2"})),
            [secret(), vec![Target::AwsSecret(aws("us-west-2", Some("012345678901"), "mySecret"))]].concat(),
        ),
        (
            event("aws.secretsmanager", trail, json!([]),
                json!({"eventSource": "secretsmanager.amazonaws.com", "eventName": "UpdateSecret", "responseElements": {"aRN": ARN}})),
            secret(),
        ),
        (
            event("aws.secretsmanager", trail, json!([]),
                json!({"eventSource": "secretsmanager.amazonaws.com", "eventName": "PutSecretValue", "requestParameters": {"secretId": "mySecret"}, "responseElements": {"arn": ARN}})),
            [secret(), vec![Target::AwsSecret(aws("us-west-2", None, "mySecret"))]].concat(),
        ),
        (
            event("aws.secretsmanager", "AWS Service Event via CloudTrail", json!([]),
                json!({"eventSource": "secretsmanager.amazonaws.com", "eventName": "RotationSucceeded", "additionalEventData": {"SecretId": ARN}})),
            secret(),
        ),
        (
            event("aws.ssm", "Parameter Store Change", json!(["arn:aws:ssm:us-west-2:012345678901:parameter/team/openai"]),
                json!({"operation": "Update", "name": "/team/openai", "type": "SecureString"})),
            vec![Target::AwsParameter(aws("us-west-2", Some("012345678901"), "/team/openai"))],
        ),
        (event("aws.ec2", "EC2 Instance State-change Notification", json!([ARN]), json!({})), vec![]),
        (event("aws.secretsmanager", trail, json!(["arn:aws:s3:::bucket"]), json!({"eventName": "ListSecrets"})), vec![]),
    ];
    for (event, targets) in rows {
        assert_eq!(eventbridge(event.to_string().as_bytes()), Ok(targets), "{event}");
    }
    for body in ["", "[]", "{}", r#"{"source": "aws.secretsmanager"}"#, "not json"] {
        assert_eq!(eventbridge(body.as_bytes()), Err(Malformed), "{body}");
    }
}

#[test]
fn events_of_key_vault_are_read_in_both_schemas() {
    const ID: &str = "https://sample-kv.vault.azure.net/secrets/newsecret/ee059b2bb5bc48398a53b168c6cdcb10";
    let data = json!({"Id": ID, "VaultName": "sample-kv", "ObjectType": "Secret", "ObjectName": "newsecret",
        "Version": "ee059b2bb5bc48398a53b168c6cdcb10", "NBF": 1_559_081_980, "EXP": 1_559_082_102});
    let grid = json!({"id": "00eccf70-95a7-4e7c-8299-2eb17ee9ad64", "topic": "/subscriptions/x/vaults/sample-kv", "subject": "newsecret",
        "eventType": "Microsoft.KeyVault.SecretNewVersionCreated", "eventTime": "2026-07-25T01:08:33Z", "data": data, "dataVersion": "1", "metadataVersion": "1"});
    let cloud = json!({"id": "00eccf70", "source": "/subscriptions/x/vaults/sample-kv", "subject": "newsecret",
        "type": "Microsoft.KeyVault.SecretNewVersionCreated", "time": "2026-07-25T01:08:33Z", "data": data, "specversion": "1.0"});
    let terse = json!({"type": "Microsoft.KeyVault.SecretExpired", "data": {"VaultName": "sample-kv", "ObjectName": "newsecret"}});
    let key = json!({"type": "Microsoft.KeyVault.KeyNewVersionCreated", "data": {"VaultName": "sample-kv", "ObjectName": "newsecret"}});
    let at = |vault: &str| Target::AzureSecret { vault: vault.to_owned(), name: "newsecret".to_owned() };
    let full = || at("sample-kv.vault.azure.net");
    #[rustfmt::skip]
    let rows = [
        (json!([grid]), Ok(Grid::Events(vec![full()]))),
        (cloud.clone(), Ok(Grid::Events(vec![full()]))),
        (json!([cloud, key, terse]), Ok(Grid::Events(vec![full(), at("sample-kv")]))),
        (json!([{"id": "2d1781af", "topic": "/subscriptions/x", "subject": "", "eventType": VALIDATION,
            "data": {"validationCode": "512d38b6-c7b8-40c8-89fe-f46f9e9622b6", "validationUrl": "https://rp-eastus2.eventgrid.azure.net/x"}}]),
            Ok(Grid::Validation("512d38b6-c7b8-40c8-89fe-f46f9e9622b6".to_owned()))),
        (json!([]), Ok(Grid::Events(vec![]))),
        (json!([{"eventType": VALIDATION, "data": {}}]), Err(Malformed)),
        (json!([{"data": {}}]), Err(Malformed)),
        (json!([7]), Err(Malformed)),
        (json!("x"), Err(Malformed)),
    ];
    for (event, said) in rows {
        assert_eq!(event_grid(event.to_string().as_bytes()), said, "{event}");
    }
    let many = json!(vec![cloud; 1000]).to_string();
    let Ok(Grid::Events(targets)) = event_grid(many.as_bytes()) else { panic!("events") };
    assert_eq!(targets.len(), MAX_TARGETS);
}

#[test]
fn notifications_of_secret_manager_are_read_from_attributes_and_data() {
    let message = |message: Value| json!({"message": message, "subscription": "projects/p/subscriptions/s"});
    let secret = |location: Option<&str>| {
        let location = location.map(str::to_owned);
        vec![Target::GcpSecret { project: "my-project".to_owned(), location, name: "my-secret".to_owned() }]
    };
    let data = STANDARD.encode(r#"{"name": "projects/my-project/secrets/my-secret/versions/3", "state": "ENABLED"}"#);
    #[rustfmt::skip]
    let rows = [
        (message(json!({"attributes": {"eventType": "SECRET_VERSION_ADD", "dataFormat": "JSON_API_V1",
            "secretId": "projects/my-project/secrets/my-secret", "versionId": "projects/my-project/secrets/my-secret/versions/3"},
            "data": data, "messageId": "1"})), Ok(secret(None))),
        (message(json!({"attributes": {"secretId": "projects/my-project/locations/europe-west3/secrets/my-secret"}})), Ok(secret(Some("europe-west3")))),
        (message(json!({"data": data})), Ok(secret(None))),
        (message(json!({"data": "!"})), Ok(vec![])),
        (message(json!({"attributes": {"secretId": "something/else"}})), Ok(vec![])),
        (message(json!({})), Ok(vec![])),
        (json!({}), Err(Malformed)),
        (json!([]), Err(Malformed)),
    ];
    for (body, targets) in rows {
        assert_eq!(pubsub(body.to_string().as_bytes()), targets, "{body}");
    }
}

#[test]
fn infisical_says_when_and_whether() {
    #[rustfmt::skip]
    let rows = [
        (json!({"event": "secrets.modified", "project": {"workspaceId": "w", "environment": "prod", "secretPath": "/"}, "timestamp": 1_700_000_000_123_u64}), Ok((1_700_000_000_123, true))),
        (json!({"event": "secrets.rotation-failed", "project": {}, "timestamp": 7}), Ok((7, false))),
        (json!({"event": "test", "timestamp": 7}), Ok((7, false))),
        (json!({"event": "secrets.modified"}), Err(Malformed)),
        (json!({"event": "secrets.modified", "timestamp": ""}), Err(Malformed)),
        (json!({"timestamp": 7}), Err(Malformed)),
    ];
    for (body, said) in rows {
        assert_eq!(infisical(body.to_string().as_bytes()), said, "{body}");
    }
}

#[test]
fn ours_names_references_and_paths() {
    let path = |path: &str| Target::Path { manager: ManagerType::HashicorpVault, path: path.to_owned() };
    let many = vec!["a"; MAX_TARGETS + 1];
    #[rustfmt::skip]
    let rows = [
        (json!({"references": ["openai"]}), Ok(vec![Target::Reference("openai".to_owned())])),
        (json!({"manager": "hashicorp_vault", "paths": ["secret/data/a", "secret/data/b"]}), Ok(vec![path("secret/data/a"), path("secret/data/b")])),
        (json!({"references": ["openai"], "manager": "hashicorp_vault", "paths": ["secret/data/a"]}), Ok(vec![Target::Reference("openai".to_owned()), path("secret/data/a")])),
        (json!({"paths": ["secret/data/a"]}), Err(Malformed)),
        (json!({"manager": "nobody", "paths": ["secret/data/a"]}), Err(Malformed)),
        (json!({"manager": "hashicorp_vault"}), Err(Malformed)),
        (json!({"reference": "openai"}), Err(Malformed)),
        (json!({"references": "openai"}), Err(Malformed)),
        (json!({"references": many}), Err(Malformed)),
        (json!({}), Err(Malformed)),
        (json!([]), Err(Malformed)),
    ];
    for (body, targets) in rows {
        assert_eq!(ours(body.to_string().as_bytes()), targets, "{body:.80}");
    }
}
