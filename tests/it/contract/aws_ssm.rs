//! `aws_ssm` against the contract, and what stands on its wire: who travels with whom, and what one failure costs the others.

use std::sync::Arc;

use async_trait::async_trait;
use futures_util::future::join_all;
use serde_json::{Value, json};
use sidekey::{
    manager::{FailureClass, FetchError, Fetched, Managers as _, SecretManager, registry::Ambient},
    model::{AuthConfig, ManagerType, SecretLocation, VersionSelector},
};
use url::Url;

use super::{
    Arranged, CANARY, Case, Subject, at,
    aws_sm::{
        Method, auth, registry_with,
        server::{KEY_ID, Reply, Server},
    },
    keeps_the_contract, reference,
};

const ARN: &str = "arn:aws:ssm:eu-west-1:210987654321:parameter/app/key";

fn manager(server: &Server, method: Method, endpoint: &str) -> Arc<dyn SecretManager> {
    let registry = registry_with(server, method, |settings| {
        settings.aws.endpoint_url = Some(Url::parse(endpoint).unwrap());
        // As in production, so that more than one call fills.
        settings.bounds.max_in_flight = 32;
    });
    registry.manager(&reference("ssm", ManagerType::AwsSsm, AuthConfig::Aws(auth(method)), at("/app/key"))).unwrap()
}

fn by_key(server: &Server) -> Arc<dyn SecretManager> {
    manager(server, Method::AccessKey, &server.url())
}

fn versioned(path: &str, version: VersionSelector) -> SecretLocation {
    SecretLocation { path: path.into(), version }
}

fn pinned(path: &str, version: &str) -> SecretLocation {
    versioned(path, VersionSelector::Pinned(version.into()))
}

async fn text(manager: &Arc<dyn SecretManager>, location: &SecretLocation) -> Result<(String, String), FetchError> {
    match manager.fetch(location, None).await? {
        Fetched::Document { value, map: false, version, not_after: None } => {
            Ok((value.expose_str().unwrap().to_owned(), version.unwrap().0.to_string()))
        }
        other => panic!("{other:?}"),
    }
}

/// Fetches all at once: values or classes, in order.
async fn all(manager: &Arc<dyn SecretManager>, locations: &[SecretLocation]) -> Vec<Result<String, FailureClass>> {
    let outcomes = join_all(locations.iter().map(|location| text(manager, location))).await;
    outcomes.into_iter().map(|outcome| outcome.map(|(text, _)| text).map_err(|error| error.class)).collect()
}

/// How many names each call of `GetParameters` held.
fn batches(server: &Server) -> Vec<usize> {
    let names = |body: &str| serde_json::from_str::<Value>(body).unwrap()["Names"].as_array().unwrap().len();
    let seen = server.seen();
    seen.iter().filter(|seen| seen.action == "GetParameters").map(|seen| names(&seen.body)).collect()
}

struct Ssm(Method);

#[async_trait]
impl Subject for Ssm {
    async fn arrange(&self, case: Case) -> Result<Arranged, &'static str> {
        let server = Server::start().await;
        let mut document = format!(r#"{{"api_key":"{CANARY}"}}"#);
        let mut version = None;
        let mut endpoint = server.url();
        let script = |reply: Reply| {
            server.script("GetParameter", [reply.clone()]);
            server.script("GetParameters", [reply]);
        };
        let location = match case {
            Case::Found | Case::ExpiredLogin => {
                server.put_parameter("/app/found", &document, "");
                version = Some("1");
                at("/app/found")
            }
            Case::MissingKey => {
                document = CANARY.to_owned();
                server.put_parameter("flat", &document, "");
                at("flat")
            }
            Case::Gone => at("/app/absent"),
            Case::Denied => {
                script(Reply::error(400, "AccessDeniedException", &format!("{CANARY} is not authorized to perform")));
                at("/app/denied")
            }
            Case::Throttled => {
                script(Reply::error(400, "ThrottlingException", CANARY).header("retry-after", "30"));
                at("/app/found")
            }
            Case::Down => {
                endpoint = Server::nobody();
                at("/app/found")
            }
            Case::Slow => {
                script(Reply::never());
                at("/app/found")
            }
            Case::Malformed => {
                script(Reply::text(200, &format!("<html>{CANARY}</html>")));
                at("/app/found")
            }
            Case::PinnedVersion => {
                server.put_parameter("/app/found", &document, "");
                server.put_parameter("/app/found", "newer", "");
                version = Some("1");
                pinned("/app/found", "1")
            }
            Case::AbsentVersion => {
                server.put_parameter("/app/found", &document, "");
                pinned("/app/found", "7")
            }
            Case::WrongVersion => pinned("/app/found", "first"),
        };
        if case == Case::ExpiredLogin && matches!(self.0, Method::AccessKey) {
            return Err("a fixed key cannot be replaced");
        }
        let manager = manager(&server, self.0, &endpoint);
        if case == Case::ExpiredLogin {
            text(&manager, &location).await.unwrap();
            server.end_sessions();
        }
        Ok(Arranged { manager, location, document, version, _world: Box::new(server) })
    }
}

#[tokio::test]
async fn aws_ssm_by_access_key_keeps_the_contract() {
    keeps_the_contract(&Ssm(Method::AccessKey), &[Case::ExpiredLogin]).await;
}

#[tokio::test]
async fn aws_ssm_by_assumed_role_keeps_the_contract() {
    keeps_the_contract(&Ssm(Method::AssumedRole), &[]).await;
}

#[tokio::test]
async fn aws_ssm_by_service_role_keeps_the_contract() {
    keeps_the_contract(&Ssm(Method::ServiceRole), &[]).await;
}

#[tokio::test]
async fn a_location_becomes_a_request() {
    let server = Server::start().await;
    for (value, label) in [("one", "live"), ("two", ""), ("three,four", "next")] {
        server.put_parameter("/app/key", value, label);
    }
    let manager = by_key(&server);
    let label = |name: &str| VersionSelector::Stage(name.into());
    #[rustfmt::skip]
    let rows = [
        // location, name that is asked for last, value and version, region of the signature
        (at("/app/key"), "/app/key", ("three,four", "3"), "us-east-1"),
        (pinned("/app/key", "2"), "/app/key:2", ("two", "2"), "us-east-1"),
        (versioned("/app/key", label("live")), "/app/key:live", ("one", "1"), "us-east-1"),
        (versioned("/app/key", VersionSelector::Previous), "/app/key:2", ("two", "2"), "us-east-1"),
        (at(ARN), ARN, ("three,four", "3"), "eu-west-1"),
        (pinned(ARN, "1"), "arn:aws:ssm:eu-west-1:210987654321:parameter/app/key:1", ("one", "1"), "eu-west-1"),
    ];
    for (location, name, (value, version), region) in rows {
        let found = text(&manager, &location).await.unwrap();
        assert_eq!((found.0.as_str(), found.1.as_str()), (value, version), "{location:?}");
        let seen = server.last("GetParameter");
        let asked: Value = serde_json::from_str(&seen.body).unwrap();
        assert_eq!(asked, json!({"Name": name, "WithDecryption": true}));
        assert_eq!((seen.key_id.as_deref(), seen.region.as_deref()), (Some(KEY_ID), Some(region)), "{location:?}");
    }
    let first = versioned("/app/first", VersionSelector::Previous);
    server.put_parameter("/app/first", "one", "");
    let none = text(&manager, &first).await.unwrap_err();
    assert_eq!((none.class, none.code.as_deref()), (FailureClass::Gone, Some("no_previous_version")));
}

#[tokio::test]
async fn eleven_names_travel_in_two_calls() {
    let server = Server::start().await;
    let names: Vec<String> = (0..11).map(|number| format!("/app/{number}")).collect();
    for name in &names {
        server.put_parameter(name, &format!("value of {name}"), "");
    }
    let manager = by_key(&server);
    let locations: Vec<_> = names.iter().map(|name| at(name)).collect();
    let expected: Vec<_> = names.iter().map(|name| Ok(format!("value of {name}"))).collect();
    assert_eq!(all(&manager, &locations).await, expected);
    assert_eq!((batches(&server), server.calls("GetParameter")), (vec![10], 1));
    // One parameter in several versions, and one that is asked for twice.
    server.put_parameter("/app/0", "newer", "live");
    let label = VersionSelector::Stage("live".into());
    let locations = [at("/app/0"), pinned("/app/0", "1"), versioned("/app/0", label), at("/app/0")];
    let found = all(&manager, &locations).await;
    let expected = ["newer", "value of /app/0", "newer", "newer"].map(|text| Ok(text.to_owned()));
    assert_eq!(found, expected);
    assert_eq!(batches(&server), [10, 3]);
}

#[tokio::test]
async fn one_bad_name_costs_the_others_nothing() {
    use FailureClass::{Denied, Gone};
    let server = Server::start().await;
    for name in ["/a", "/b", "/secret"] {
        server.put_parameter(name, name, "");
    }
    let manager = by_key(&server);
    let found = |name: &str| Ok(name.to_owned());
    let absent = [at("/a"), at("/absent"), pinned("/b", "9"), at("/b")];
    assert_eq!(all(&manager, &absent).await, [found("/a"), Err(Gone), Err(Gone), found("/b")]);
    assert_eq!((batches(&server), server.calls("GetParameter")), (vec![4], 0));
    server.deny_parameter("/secret");
    let denied = [at("/a"), at("/secret"), at("/b")];
    for round in 1..=2 {
        assert_eq!(all(&manager, &denied).await, [found("/a"), Err(Denied), found("/b")]);
        // Together, each alone, and the denied one once more by the other permission.
        assert_eq!((batches(&server).len(), server.calls("GetParameter")), (1 + 2 * round, 3 * round));
    }
}

#[tokio::test]
async fn either_permission_will_do() {
    let server = Server::start().await;
    for name in ["/a", "/b"] {
        server.put_parameter(name, name, "");
    }
    let denied = |action: &str| server.script(action, [Reply::error(400, "AccessDeniedException", "canary")]);
    let both = [at("/a"), at("/b")];
    let expected = ["/a", "/b"].map(|name| Ok(name.to_owned()));
    let one_by_one = by_key(&server);
    denied("GetParameters");
    for batches in [1, 1] {
        assert_eq!(all(&one_by_one, &both).await, expected);
        assert_eq!(server.calls("GetParameters"), batches, "who may not ask for several tries it no more for a while");
    }
    server.unscript("GetParameters");
    denied("GetParameter");
    let together = by_key(&server);
    assert_eq!(text(&together, &at("/a")).await.unwrap().0, "/a");
    assert_eq!(all(&together, &both).await, expected);
}

#[tokio::test]
async fn a_failure_of_all_is_told_to_all_at_once() {
    use FailureClass::{Throttled, Unavailable};
    let server = Server::start().await;
    #[rustfmt::skip]
    let rows = [
        (Reply::error(400, "ThrottlingException", CANARY).header("retry-after", "30"), Throttled, 1),
        (Reply::error(500, "InternalServerError", CANARY), Unavailable, 3),
    ];
    for (reply, class, calls) in rows {
        let manager = by_key(&server);
        let before = server.seen().len();
        server.script("GetParameters", [reply]);
        assert_eq!(all(&manager, &[at("/a"), at("/b"), at("/c")]).await, [Err(class), Err(class), Err(class)]);
        assert_eq!(server.seen().len() - before, calls, "{class:?}");
    }
}

#[tokio::test]
async fn a_key_that_decrypts_nothing_denies_its_parameters_only() {
    let server = Server::start().await;
    server.put_parameter("/plain", "sk-1", "");
    let message = format!("The ciphertext refers to a customer master key that {CANARY} may not use");
    let kms = Reply::error(400, "AccessDeniedException", &message);
    let key = Reply::error(400, "InvalidKeyId", CANARY);
    for reply in [kms, key] {
        let manager = by_key(&server);
        server.script("GetParameters", [reply.clone()]);
        server.script("GetParameter", [reply]);
        let error = text(&manager, &at("/encrypted")).await.unwrap_err();
        assert_eq!(error.class, FailureClass::Denied);
        assert!(!format!("{error} {error:?}").contains(CANARY), "{error:?}");
    }
}

#[tokio::test]
async fn who_leaves_takes_nobody_along() {
    let server = Server::start().await;
    for name in ["/a", "/b"] {
        server.put_parameter(name, name, "");
    }
    let manager = by_key(&server);
    let (a, b) = (at("/a"), at("/b"));
    let stays = text(&manager, &b);
    {
        // The first one, who sees to the departure, leaves before it.
        let leaves = manager.fetch(&a, None);
        tokio::pin!(leaves);
        assert!(futures_util::poll!(&mut leaves).is_pending());
    }
    assert_eq!(stays.await.unwrap().0, "/b");
}

#[tokio::test]
async fn what_a_reference_may_be_is_told_at_load() {
    let server = Server::start().await;
    let ambient =
        |paths: &[&str]| Ambient { allowed: true, paths: paths.iter().map(|path| (*path).to_owned()).collect() };
    let secrets = "arn:aws:secretsmanager:us-east-1:123456789012:secret:a";
    #[rustfmt::skip]
    let rows = [
        // method, ambient, path, what the reason says
        (Method::AccessKey, ambient(&["/other"]), "/app/key", None),
        (Method::AccessKey, ambient(&[]), ARN, None),
        (Method::AccessKey, ambient(&[]), "app/key", Some("leading /")),
        (Method::AccessKey, ambient(&[]), "/aws/reference/secretsmanager/a", Some("aws_sm")),
        (Method::AccessKey, ambient(&[]), secrets, Some("another service")),
        (Method::ServiceRole, ambient(&["/app"]), "/app/key", None),
        (Method::ServiceRole, ambient(&["/app"]), "/apps/key", Some("managers.aws_ssm.ambient_paths")),
        (Method::ServiceRole, ambient(&["/app"]), ARN, Some("managers.aws_ssm.ambient_paths")),
        (Method::AssumedRole, Ambient { allowed: false, paths: Vec::new() }, "/app/key", Some("managers.aws_ssm.ambient is off")),
    ];
    for (method, ambient, path, expected) in rows {
        let registry = registry_with(&server, method, |settings| settings.aws.ambient_ssm = ambient);
        let verdict = registry.admit(ManagerType::AwsSsm, &AuthConfig::Aws(auth(method)), Some(&at(path)));
        match (expected, verdict) {
            (None, Ok(())) => {}
            (Some(text), Err(reason)) if reason.contains(text) => {}
            (expected, verdict) => panic!("{path} should say {expected:?} and says {verdict:?}"),
        }
    }
}
