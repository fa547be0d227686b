//! `aws_sm` against the contract, and what stands on its wire, with a scripted server that speaks the format of AWS.

mod admission;
mod identity;
mod log;
pub(super) mod server;
mod wire;

use std::{fs, sync::Arc};

use async_trait::async_trait;
use serde_json::json;
use sidekey::{
    egress::{self, Policy},
    manager::{
        FetchError, Fetched, Managers as _, SecretManager,
        registry::{Environment, Registry, RegistrySettings},
    },
    metric::Metrics,
    model::{AuthConfig, AwsAuth, AwsMethod, ManagerType, SecretLocation, VersionSelector},
};
use url::Url;

use super::{Arranged, CANARY, Case, Subject, at, keeps_the_contract, reference, settings};
use server::{BASE_ID, EXTERNAL_ID, KEY_ID, ROLE, Reply, SECRET_KEY, Server, WEB_TOKEN, version_id};

/// How a reference proves itself at the scripted server.
#[derive(Clone, Copy, Debug)]
pub(super) enum Method {
    AccessKey,
    /// From a key in the environment.
    AssumedRole,
    /// By web identity.
    ServiceRole,
}

pub(super) fn auth(method: Method) -> AwsAuth {
    let (region, method) = match method {
        Method::AccessKey => (Some("us-east-1"), key(KEY_ID)),
        Method::AssumedRole => {
            let external_id = Some(EXTERNAL_ID.to_owned().into());
            (Some("us-east-1"), AwsMethod::AssumedRole { role_arn: ROLE.into(), external_id })
        }
        Method::ServiceRole => (None, AwsMethod::ServiceRole),
    };
    AwsAuth { region: region.map(Into::into), method }
}

fn key(id: &str) -> AwsMethod {
    AwsMethod::AccessKey { access_key_id: id.to_owned().into(), secret_access_key: SECRET_KEY.to_owned().into() }
}

/// What the environment of a sidecar says: a region, and who it is unless a reference brings its own key.
fn environment(server: &Server, method: Method) -> Environment {
    let token_file = server.folder().join("web-identity");
    fs::write(&token_file, format!("{WEB_TOKEN}\n")).unwrap();
    match method {
        Method::AccessKey | Method::AssumedRole => Environment::of(&[
            ("AWS_REGION", "us-east-1"),
            ("AWS_ACCESS_KEY_ID", BASE_ID),
            ("AWS_SECRET_ACCESS_KEY", "canary-base-key"),
        ]),
        Method::ServiceRole => Environment::of(&[
            ("AWS_REGION", "us-east-1"),
            ("AWS_ROLE_ARN", ROLE),
            ("AWS_WEB_IDENTITY_TOKEN_FILE", token_file.to_str().unwrap()),
        ]),
    }
}

pub(super) fn registry_with(server: &Server, method: Method, change: impl FnOnce(&mut RegistrySettings)) -> Registry {
    // Nothing is opened: addresses of `managers.aws.*` are the operator's and need no opening.
    let mut settings = settings(Policy::new(egress::Settings::default()));
    let url = Url::parse(&server.url()).unwrap();
    settings.aws.endpoint_url = Some(url.clone());
    settings.aws.sts_endpoint_url = Some(url);
    settings.aws.environment = environment(server, method);
    change(&mut settings);
    Registry::new(settings, Arc::new(Metrics::new())).unwrap()
}

fn manager_of(registry: &Registry, auth: AwsAuth) -> Result<Arc<dyn SecretManager>, FetchError> {
    registry.manager(&reference("aws", ManagerType::AwsSm, AuthConfig::Aws(auth), at("app/key")))
}

fn manager(server: &Server, method: Method) -> Arc<dyn SecretManager> {
    manager_of(&registry_with(server, method, |_| {}), auth(method)).unwrap()
}

fn pinned(path: &str, version: &str) -> SecretLocation {
    SecretLocation { path: path.into(), version: VersionSelector::Pinned(version.into()) }
}

async fn text(manager: &Arc<dyn SecretManager>, location: &SecretLocation) -> Result<String, FetchError> {
    match manager.fetch(location, None).await? {
        Fetched::Document { value, map: false, .. } => Ok(value.expose_str().unwrap().to_owned()),
        other => panic!("{other:?}"),
    }
}

struct Aws(Method);

#[async_trait]
impl Subject for Aws {
    async fn arrange(&self, case: Case) -> Result<Arranged, &'static str> {
        let server = Server::start().await;
        let map = |key: &str| json!({ (key): CANARY }).to_string();
        let mut document = map("api_key");
        let mut version = None;
        let mut endpoint = server.url();
        let location = match case {
            Case::Found | Case::ExpiredLogin => {
                server.put("app/found", &document);
                version = Some("00000000-0000-0000-0000-000000000001");
                at("app/found")
            }
            Case::MissingKey => {
                document = map("other");
                server.put("app/found", &document);
                at("app/found")
            }
            Case::Gone => at("app/absent"),
            Case::Denied => {
                let denied = format!("User: {CANARY} is not authorized to perform: secretsmanager:GetSecretValue");
                server.script("GetSecretValue", [Reply::error(400, "AccessDeniedException", &denied)]);
                at("app/denied")
            }
            Case::Throttled => {
                let reply = Reply::error(400, "ThrottlingException", CANARY).header("retry-after", "30");
                server.script("GetSecretValue", [reply]);
                at("app/found")
            }
            Case::Down => {
                endpoint = Server::nobody();
                at("app/found")
            }
            Case::Slow => {
                server.script("GetSecretValue", [Reply::never()]);
                at("app/found")
            }
            Case::Malformed => {
                server.script("GetSecretValue", [Reply::text(200, &format!("<html>{CANARY}</html>"))]);
                at("app/found")
            }
            Case::PinnedVersion => {
                server.put("app/found", &document);
                server.put("app/found", &map("newer"));
                version = Some("00000000-0000-0000-0000-000000000001");
                pinned("app/found", &version_id(1))
            }
            Case::AbsentVersion => {
                server.put("app/found", &document);
                pinned("app/found", &version_id(7))
            }
            Case::WrongVersion => pinned("app/found", "1"),
        };
        if case == Case::ExpiredLogin && matches!(self.0, Method::AccessKey) {
            return Err("a fixed key cannot be replaced");
        }
        let registry = registry_with(&server, self.0, |settings| {
            settings.aws.endpoint_url = Some(Url::parse(&endpoint).unwrap());
        });
        let manager = manager_of(&registry, auth(self.0)).unwrap();
        if case == Case::ExpiredLogin {
            text(&manager, &location).await.unwrap();
            server.end_sessions();
        }
        Ok(Arranged { manager, location, document, version, _world: Box::new(server) })
    }
}

#[tokio::test]
async fn aws_sm_by_access_key_keeps_the_contract() {
    keeps_the_contract(&Aws(Method::AccessKey), &[Case::ExpiredLogin]).await;
}

#[tokio::test]
async fn aws_sm_by_assumed_role_keeps_the_contract() {
    keeps_the_contract(&Aws(Method::AssumedRole), &[]).await;
}

#[tokio::test]
async fn aws_sm_by_service_role_keeps_the_contract() {
    keeps_the_contract(&Aws(Method::ServiceRole), &[]).await;
}
