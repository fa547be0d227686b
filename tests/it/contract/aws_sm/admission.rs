//! What is refused before anything is sent.

use sidekey::manager::{FailureClass, registry::Ambient};

use super::*;

const ARN: &str = "arn:aws:secretsmanager:eu-west-1:123456789012:secret:app/key-AbCdEf";

fn role(arn: &str, external_id: Option<&str>) -> AwsMethod {
    AwsMethod::AssumedRole { role_arn: arn.into(), external_id: external_id.map(|id| id.to_owned().into()) }
}

fn stage(path: &str, stage: &str) -> SecretLocation {
    SecretLocation { path: path.into(), version: VersionSelector::Stage(stage.into()) }
}

fn auth_in(region: Option<&str>, method: AwsMethod) -> AwsAuth {
    AwsAuth { region: region.map(Into::into), method }
}

#[tokio::test]
async fn names_arns_versions_and_regions() {
    let server = Server::start().await;
    let registry = registry_with(&server, Method::AccessKey, |_| {});
    let cn = "arn:aws-cn:secretsmanager:cn-north-1:123456789012:secret:app/key";
    let gov = "arn:aws-us-gov:secretsmanager:us-gov-west-1:123456789012:secret:app/key";
    let long = "x".repeat(512);
    #[rustfmt::skip]
    let rows = [
        // location, what the refusal names
        (at("app/key"), None),
        (at("/app/key"), None),
        (at("rds!cluster-1a2b"), None),
        (at("a_b+c=d.e@f-g"), None),
        (at(&long), None),
        (at(ARN), None),
        (at("arn:aws:secretsmanager:eu-west-1:123456789012:secret:partial"), None),
        (at(cn), None),
        (at(gov), None),
        (pinned("app/key", &version_id(1)), None),
        (stage("app/key", "AWSPENDING"), None),
        (pinned("app/key", "1"), Some("32 to 64")),
        (at("app key"), Some("no name of a secret")),
        (at("app?key"), Some("no name of a secret")),
        (at("app:key"), Some("no name of a secret")),
        (at("arn:aws:secretsmanager:eu-west-1:123456789012:secret:"), Some("no name of a secret")),
        (at("arn:aws:secretsmanager:eu-west-1:123456789012:key/x"), Some("something else than a secret")),
        (at("arn:aws:ssm:eu-west-1:123456789012:secret:app"), Some("another service")),
        (at("arn:aws:secretsmanager::123456789012:secret:app"), Some("without a region")),
        (at("arn:aws:secretsmanager:cn-north-1:123456789012:secret:app"), Some("another partition")),
        (at("arn:aws:secretsmanager:a.evil.example/:123456789012:secret:app"), Some("region")),
        (at("arn:mars:secretsmanager:eu-west-1:123456789012:secret:app"), Some("unknown partition")),
        (at("arn:aws:secretsmanager:eu-west-1:1:secret:app"), Some("twelve digits")),
    ];
    for (location, named) in rows {
        let auth = AuthConfig::Aws(auth(Method::AccessKey));
        let admitted = registry.admit(ManagerType::AwsSm, &auth, Some(&location));
        match named {
            None => assert_eq!(admitted, Ok(()), "{location:?}"),
            Some(named) => {
                let reason = admitted.expect_err(&location.path);
                assert!(reason.contains(named), "{reason}");
                let refused = registry.manager(&reference("aws", ManagerType::AwsSm, auth, location.clone()));
                assert_eq!(refused.unwrap_err().class, FailureClass::Misconfigured, "{location:?}");
            }
        }
    }
    assert_eq!(server.seen().len(), 0, "nothing was sent");
}

#[tokio::test]
async fn identities_regions_and_external_ids() {
    let server = Server::start().await;
    let ambient = |allowed, paths: &[&str]| Ambient { allowed, paths: paths.iter().map(ToString::to_string).collect() };
    let own = || auth_in(Some("us-east-1"), AwsMethod::ServiceRole);
    let assumed = |external_id| auth_in(Some("us-east-1"), role(ROLE, external_id));
    let fixed = || auth_in(Some("us-east-1"), key(KEY_ID));
    let off = || ambient(false, &[]);
    let below = || ambient(true, &["app"]);
    let open = || ambient(true, &[]);
    #[rustfmt::skip]
    let rows = [
        // auth, ambient, managers.aws.external_id, path, what the refusal names
        (own(), open(), None, "app/key", None),
        (own(), off(), None, "app/key", Some("managers.aws_sm.ambient is off")),
        (own(), below(), None, "app/key", None),
        (own(), below(), None, "apple/key", Some("managers.aws_sm.ambient_paths")),
        (own(), below(), None, ARN, Some("managers.aws_sm.ambient_paths")),
        (own(), ambient(true, &["arn:aws:secretsmanager:eu-west-1:123456789012:secret:app"]), None, ARN, None),
        (assumed(None), off(), None, "app/key", Some("managers.aws_sm.ambient is off")),
        (assumed(None), below(), None, "other/key", Some("managers.aws_sm.ambient_paths")),
        (fixed(), off(), None, "app/key", None),
        (assumed(None), open(), Some("org-1"), "app/key", None),
        (assumed(Some("org-1")), open(), Some("org-1"), "app/key", None),
        (assumed(Some("org-2")), open(), Some("org-1"), "app/key", Some("managers.aws.external_id")),
        (assumed(Some("org-2")), open(), None, "app/key", None),
        (auth_in(Some("us-east-1"), role("arn:aws-cn:iam::123456789012:role/gw", None)), open(), None, "app/key", Some("another partition")),
        (auth_in(Some("-"), key(KEY_ID)), open(), None, "app/key", Some("aws_region")),
    ];
    for (auth, ambient, external_id, path, named) in rows {
        let registry = registry_with(&server, Method::AccessKey, |settings| {
            settings.aws.ambient_sm = ambient;
            settings.aws.external_id = external_id.map(ToOwned::to_owned);
        });
        let told = format!("{auth:?} {path}");
        let admitted = registry.admit(ManagerType::AwsSm, &AuthConfig::Aws(auth), Some(&at(path)));
        match named {
            None => assert_eq!(admitted, Ok(()), "{told}"),
            Some(named) => {
                let reason = admitted.expect_err(&told);
                assert!(reason.contains(named), "{told}: {reason}");
            }
        }
    }
}

#[tokio::test]
async fn a_region_has_to_come_from_somewhere() {
    #[rustfmt::skip]
    let rows = [
        // aws_region, managers.aws.region, environment, path, region that is asked
        (Some("eu-central-1"), Some("eu-north-1"), &[("AWS_REGION", "us-west-2")][..], ARN, Some("eu-west-1")),
        (Some("eu-central-1"), Some("eu-north-1"), &[("AWS_REGION", "us-west-2")], "app/key", Some("eu-central-1")),
        (None, Some("eu-north-1"), &[("AWS_REGION", "us-west-2")], "app/key", Some("eu-north-1")),
        (None, None, &[("AWS_REGION", "us-west-2"), ("AWS_DEFAULT_REGION", "us-west-1")], "app/key", Some("us-west-2")),
        (None, None, &[("AWS_REGION", " "), ("AWS_DEFAULT_REGION", "us-west-1")], "app/key", Some("us-west-1")),
        (None, None, &[], ARN, Some("eu-west-1")),
        (None, None, &[], "app/key", None),
        (None, None, &[("AWS_REGION", "evil.example/")], "app/key", None),
    ];
    for (named, configured, environment, path, expected) in rows {
        let server = Server::start().await;
        server.put(path, "text");
        let registry = registry_with(&server, Method::AccessKey, |settings| {
            settings.aws.region = configured.map(ToOwned::to_owned);
            settings.aws.environment = Environment::of(environment);
        });
        let reference = reference("aws", ManagerType::AwsSm, AuthConfig::Aws(auth_in(named, key(KEY_ID))), at(path));
        let manager = registry.manager(&reference);
        match expected {
            None => {
                let error = manager.unwrap_err();
                let source = std::error::Error::source(&error).unwrap().to_string();
                assert!(error.class == FailureClass::Misconfigured && source.contains("AWS_REGION"), "{source}");
            }
            Some(region) => {
                text(&manager.unwrap(), &at(path)).await.unwrap();
                assert_eq!(server.last("GetSecretValue").region.as_deref(), Some(region), "{named:?} {path}");
            }
        }
    }
}
