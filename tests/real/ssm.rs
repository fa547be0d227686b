//! `aws_ssm` against MiniStack, which checks what the scripted server of `tests/it/contract` does not: signatures and policies.

use std::sync::Arc;

use futures_util::future::join_all;
use serde_json::json;
use sidekey::{
    egress::{self, Policy},
    manager::{
        FailureClass, FetchError, Fetched, Managers as _, SecretManager,
        registry::{AwsSettings, Registry},
    },
    metric::Metrics,
    model::{AuthConfig, AwsAuth, AwsMethod, ManagerType, SecretLocation, VersionSelector},
};

use crate::{components::MiniStack, vault};

fn manager(aws: &MiniStack, id: &str, secret: &str) -> Arc<dyn SecretManager> {
    let mut settings = vault::settings(Policy::new(egress::Settings::default()));
    settings.aws = AwsSettings { endpoint_url: Some(aws.url().parse().unwrap()), ..AwsSettings::default() };
    let method =
        AwsMethod::AccessKey { access_key_id: id.to_owned().into(), secret_access_key: secret.to_owned().into() };
    let auth = AuthConfig::Aws(AwsAuth { region: Some("us-east-1".into()), method });
    let reference = vault::reference(ManagerType::AwsSsm, auth, at("/app/key"));
    Registry::new(settings, Arc::new(Metrics::new())).unwrap().manager(&reference).unwrap()
}

fn at(path: &str) -> SecretLocation {
    SecretLocation::parse(ManagerType::AwsSsm, path, None).unwrap()
}

async fn read(manager: &Arc<dyn SecretManager>, location: &SecretLocation) -> Result<(String, String), FetchError> {
    match manager.fetch(location, None).await? {
        Fetched::Document { value, version, .. } => {
            Ok((value.expose_str().unwrap().to_owned(), version.unwrap().0.to_string()))
        }
        other => panic!("{other:?}"),
    }
}

/// Values, versions and labels of parameters that a policy opens, in one call and in several; the rest stays closed.
pub async fn reads_what_the_policy_opens() {
    let aws = MiniStack::start().await;
    let put = async |name: &str, value: &str, kind: &str| {
        let body = json!({"Name": name, "Value": value, "Type": kind, "Overwrite": true});
        aws.json("AmazonSSM.PutParameter", &body).await;
    };
    put("/app/key", "sk-1", "SecureString").await;
    put("/app/key", "sk-2", "SecureString").await;
    let label = json!({"Name": "/app/key", "ParameterVersion": 1, "Labels": ["live"]});
    aws.json("AmazonSSM.LabelParameterVersion", &label).await;
    put("/app/list", "a,b,c", "StringList").await;
    put("/other/key", "sk-other", "SecureString").await;
    for number in 0..11 {
        put(&format!("/app/{number}"), &format!("value {number}"), "String").await;
    }
    let policy = json!({"Version": "2012-10-17", "Statement": [{
        "Effect": "Allow", "Action": ["ssm:GetParameter", "ssm:GetParameters"],
        // The second is how the emulator spells a parameter that is named by its ARN; AWS writes both alike.
        "Resource": [
            "arn:aws:ssm:us-east-1:000000000000:parameter/app/*",
            "arn:aws:ssm:us-east-1:000000000000:parameter/arn:aws:ssm:us-east-1:000000000000:parameter/app/*",
        ],
    }]});
    let (id, secret) = aws.user("gw", &policy).await;
    let reader = manager(&aws, &id, &secret);
    for (path, value, version) in [
        ("/app/key", "sk-2", "2"),
        ("/app/key:1", "sk-1", "1"),
        ("/app/key:live", "sk-1", "1"),
        ("/app/list", "a,b,c", "1"),
        ("arn:aws:ssm:us-east-1:000000000000:parameter/app/key", "sk-2", "2"),
        ("arn:aws:ssm:us-east-1:000000000000:parameter/app/key:1", "sk-1", "1"),
    ] {
        let found = read(&reader, &at(path)).await.unwrap_or_else(|error| panic!("{path}: {error:?}"));
        assert_eq!((found.0.as_str(), found.1.as_str()), (value, version), "{path}");
    }
    let previous = SecretLocation { version: VersionSelector::Previous, ..at("/app/key") };
    assert_eq!(read(&reader, &previous).await.unwrap().0, "sk-1");

    let locations: Vec<_> = (0..11).map(|number| at(&format!("/app/{number}"))).collect();
    let found = join_all(locations.iter().map(|location| read(&reader, location))).await;
    for (number, found) in found.into_iter().enumerate() {
        assert_eq!(found.unwrap().0, format!("value {number}"));
    }
    let mixed = ["/app/key", "/app/absent", "/app/key:9", "/other/key", "/app/list"].map(at);
    let found = join_all(mixed.iter().map(|location| read(&reader, location))).await;
    let found: Vec<_> = found.into_iter().map(|found| found.map(|(value, _)| value).map_err(|e| e.class)).collect();
    let (gone, denied) = (Err(FailureClass::Gone), Err(FailureClass::Denied));
    assert_eq!(found, [Ok("sk-2".to_owned()), gone.clone(), gone, denied, Ok("a,b,c".to_owned())]);
}

/// A signature by another secret, and a key that nobody knows.
pub async fn refuses_wrong_keys() {
    let aws = MiniStack::start().await;
    let policy =
        json!({"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "ssm:*", "Resource": "*"}]});
    let (id, _) = aws.user("gw", &policy).await;
    for (id, secret) in [(id.as_str(), "another secret"), ("AKIANOBODYKNOWSTHIS0", "secret")] {
        let error = read(&manager(&aws, id, secret), &at("/app/key")).await.unwrap_err();
        assert_eq!(error.class, FailureClass::Unauthenticated, "{error:?}");
    }
}
