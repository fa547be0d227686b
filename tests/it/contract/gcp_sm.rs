//! `gcp_sm` against the contract, and what stands on its wire, with a scripted server that speaks Google's formats.

mod admission;
mod server;

use std::{
    io,
    net::{IpAddr, Ipv4Addr},
    sync::{Arc, Mutex},
};

use async_trait::async_trait;
use serde_json::json;
use sidekey::{
    egress::{Lookup, Policy, Settings as EgressSettings},
    manager::{
        FailureClass, FetchError, Fetched, Managers as _, SecretManager, Version,
        registry::{Environment, GcpSettings, Registry},
    },
    metric::Metrics,
    model::{AuthConfig, GcpAuth, GcpMethod, ManagerType, SecretLocation, VersionSelector},
};
use url::Url;

use super::{Arranged, CANARY, Case, Subject, at, keeps_the_contract, reference, settings};
use server::{Reply, Server};

const SECRET: &str = "projects/p/secrets/found";
const LATEST: &str = "/v1/projects/p/secrets/found/versions/latest";
const ACCESS: &str = "/v1/projects/p/secrets/found/versions/latest:access";

/// How a reference logs in at the scripted server.
#[derive(Clone, Copy, Debug)]
enum Method {
    Key,
    Workload,
}

fn auth(method: Method) -> GcpAuth {
    let method = match method {
        Method::Key => GcpMethod::ServiceAccountKey { key: server::key_file().into() },
        Method::Workload => GcpMethod::WorkloadIdentity,
    };
    GcpAuth { project: Some("p".into()), location: None, method }
}

fn gcp(server: &Server) -> GcpSettings {
    GcpSettings {
        endpoint_url: Some(Url::parse(&server.url()).unwrap()),
        token_url: Some(Url::parse(&format!("{}/token", server.url())).unwrap()),
        environment: Environment::of(&[("GCE_METADATA_HOST", &server.host())]),
        ..GcpSettings::default()
    }
}

fn registry(gcp: GcpSettings) -> Registry {
    // Nothing private is opened: the operator's own addresses need no opening.
    let mut settings = settings(Policy::new(EgressSettings::default()));
    settings.gcp = gcp;
    Registry::new(settings, Arc::new(Metrics::new())).unwrap()
}

fn manager(auth: GcpAuth, gcp: GcpSettings) -> Arc<dyn SecretManager> {
    registry(gcp).manager(&reference("gcp", ManagerType::GcpSm, AuthConfig::Gcp(auth), at(SECRET))).unwrap()
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

async fn failure(manager: &Arc<dyn SecretManager>, location: &SecretLocation) -> (FailureClass, String) {
    let error = text(manager, location).await.unwrap_err();
    (error.class, error.code.unwrap().to_string())
}

struct GcpSm(Method);

#[async_trait]
impl Subject for GcpSm {
    async fn arrange(&self, case: Case) -> Result<Arranged, &'static str> {
        let server = Server::start().await;
        let mut gcp = gcp(&server);
        let mut document = format!(r#"{{"api_key":"{CANARY}"}}"#);
        let mut version = None;
        let location = match case {
            Case::Found | Case::ExpiredLogin => {
                server.put(SECRET, &document);
                version = Some("1");
                at(SECRET)
            }
            Case::MissingKey => {
                document = CANARY.to_owned();
                server.put(SECRET, &document);
                at("found")
            }
            Case::Gone => at("projects/p/secrets/absent"),
            Case::Denied => {
                let denied = format!("Permission 'secretmanager.versions.access' denied for {CANARY}");
                server.answer(ACCESS, Reply::failure(403, "PERMISSION_DENIED", &denied));
                at(SECRET)
            }
            Case::Throttled => {
                let throttled = Reply::failure(429, "RESOURCE_EXHAUSTED", &format!("Quota exceeded {CANARY}"));
                server.answer(ACCESS, throttled.header("retry-after", "30"));
                at(SECRET)
            }
            Case::Down => {
                gcp.endpoint_url = Some(Url::parse(&Server::nobody()).unwrap());
                at(SECRET)
            }
            Case::Slow => {
                server.answer(ACCESS, Reply::never());
                at(SECRET)
            }
            Case::Malformed => {
                server.answer(ACCESS, Reply::text(200, &format!("<html>{CANARY}</html>")));
                at(SECRET)
            }
            Case::PinnedVersion => {
                server.put(SECRET, &document);
                server.put(SECRET, "newer");
                version = Some("1");
                pinned(SECRET, "1")
            }
            Case::AbsentVersion => {
                server.put(SECRET, &document);
                pinned(SECRET, "7")
            }
            Case::WrongVersion => pinned(SECRET, "1.5"),
        };
        let manager = manager(auth(self.0), gcp);
        if case == Case::ExpiredLogin {
            text(&manager, &location).await.unwrap();
            server.revoke_all();
        }
        Ok(Arranged { manager, location, document, version, _world: Box::new(server) })
    }
}

#[tokio::test]
async fn gcp_sm_by_key_keeps_the_contract() {
    keeps_the_contract(&GcpSm(Method::Key), &[]).await;
}

#[tokio::test]
async fn gcp_sm_by_workload_identity_keeps_the_contract() {
    keeps_the_contract(&GcpSm(Method::Workload), &[]).await;
}

#[tokio::test]
async fn every_form_of_a_path_is_read_where_it_lies() {
    let server = Server::start().await;
    let regional = "projects/p/locations/europe-west3/secrets/found";
    for (name, payload) in [(SECRET, "global"), (SECRET, "newer"), (regional, "regional")] {
        server.put(name, payload);
    }
    server.put("projects/other/secrets/found", "other");
    let global = manager(auth(Method::Key), gcp(&server));
    let own_region = GcpAuth { location: Some("europe-west3".into()), ..auth(Method::Key) };
    let regional_only = manager(own_region, gcp(&server));
    #[rustfmt::skip]
    let rows = [
        // manager, location, payload, version
        (&global, at("found"), "newer", "2"),
        (&global, at(SECRET), "newer", "2"),
        (&global, at("projects/p/secrets/found/versions/1"), "global", "1"),
        (&global, pinned("found", "1"), "global", "1"),
        (&global, at("projects/other/secrets/found"), "other", "1"),
        (&global, at(regional), "regional", "1"),
        (&regional_only, at("found"), "regional", "1"),
        (&regional_only, at(SECRET), "regional", "1"),
    ];
    for (manager, location, payload, version) in rows {
        let found = text(manager, &location).await.unwrap();
        assert_eq!(found, (payload.to_owned(), version.to_owned()), "{location:?}");
    }
    assert_eq!(*global.identity(), *format!("service account {} at {}", server::ACCOUNT, server.url()));
}

#[tokio::test]
async fn the_latest_version_is_the_one_made_last_even_when_it_is_disabled() {
    let server = Server::start().await;
    for payload in ["one", "two", "three", "four"] {
        server.put(SECRET, payload);
    }
    let manager = manager(auth(Method::Key), gcp(&server));
    let previous = versioned(SECRET, VersionSelector::Previous);
    assert_eq!(text(&manager, &previous).await.unwrap(), ("three".to_owned(), "3".to_owned()));
    server.set(SECRET, 4, "DISABLED");
    server.set(SECRET, 3, "DESTROYED");
    let disabled = (FailureClass::Disabled, "FAILED_PRECONDITION".to_owned());
    assert_eq!(failure(&manager, &at(SECRET)).await, disabled);
    assert_eq!(failure(&manager, &pinned(SECRET, "3")).await, disabled);
    assert_eq!(text(&manager, &previous).await.unwrap(), ("two".to_owned(), "2".to_owned()));
    server.set(SECRET, 2, "DISABLED");
    server.set(SECRET, 1, "DISABLED");
    assert_eq!(failure(&manager, &previous).await, (FailureClass::Gone, "no_previous_version".to_owned()));
}

#[tokio::test]
async fn an_unchanged_version_is_not_read_again() {
    let server = Server::start().await;
    server.put(SECRET, "one");
    let manager = manager(auth(Method::Key), gcp(&server));
    let known = |number: &str| Some(Version(number.into()));
    text(&manager, &at(SECRET)).await.unwrap();
    server.take();
    let fetch = async |known: Option<Version>| manager.fetch(&at(SECRET), known.as_ref()).await;
    assert!(matches!(fetch(known("1")).await, Ok(Fetched::Unchanged)));
    assert_eq!(server.take(), [LATEST]);
    // A look that fails is no failure, and what it cannot tell is read.
    for reply in
        [Reply::text(200, "<html>"), Reply::failure(404, "NOT_FOUND", ""), Reply::failure(401, "UNAUTHENTICATED", "")]
    {
        server.answer(LATEST, reply);
        assert!(matches!(fetch(known("1")).await, Ok(Fetched::Document { .. })));
        assert_eq!(server.take(), [LATEST, ACCESS]);
    }
    server.forget(LATEST);
    server.put(SECRET, "two");
    assert!(matches!(fetch(known("1")).await, Ok(Fetched::Document { version, .. }) if version == known("2")));
    server.set(SECRET, 2, "DISABLED");
    assert_eq!(fetch(known("2")).await.unwrap_err().class, FailureClass::Disabled);
    server.set(SECRET, 2, "ENABLED");
    // Roles that may read often may not look: they are asked once.
    server.take();
    server.answer(LATEST, Reply::failure(403, "PERMISSION_DENIED", "Permission 'secretmanager.versions.get' denied"));
    for asked in [[LATEST, ACCESS].as_slice(), &[ACCESS]] {
        assert!(matches!(fetch(known("2")).await, Ok(Fetched::Document { .. })));
        assert_eq!(server.take(), asked);
    }
}

#[tokio::test]
async fn a_damaged_payload_is_refused() {
    let server = Server::start().await;
    let body = json!({"name": format!("{SECRET}/versions/1"), "payload": {"data": "c2stMQ==", "dataCrc32c": "1"}});
    server.answer(ACCESS, Reply::json(&body));
    let manager = manager(auth(Method::Key), gcp(&server));
    assert_eq!(failure(&manager, &at(SECRET)).await, (FailureClass::Malformed, "checksum".to_owned()));
}

#[tokio::test]
async fn what_may_pass_is_retried_and_what_stays_is_not() {
    use FailureClass::{Denied, Disabled, Gone, Malformed, Misconfigured, Throttled, Unavailable};
    let rpc = |code, status| Reply::failure(code, status, "");
    let good = || Reply::json(&json!({"name": format!("{SECRET}/versions/1"), "payload": {"data": "eA=="}}));
    #[rustfmt::skip]
    let rows = [
        // answers, outcome, reads
        (vec![rpc(503, "UNAVAILABLE"), rpc(500, "INTERNAL"), good()], Ok(()), 3),
        (vec![rpc(429, "RESOURCE_EXHAUSTED"), good()], Ok(()), 2),
        (vec![rpc(429, "RESOURCE_EXHAUSTED").header("retry-after", "20")], Err((Throttled, Some(20))), 1),
        (vec![rpc(503, "UNAVAILABLE")], Err((Unavailable, None)), 3),
        (vec![Reply::text(302, "").header("location", "https://evil.example")], Err((Unavailable, None)), 3),
        (vec![rpc(404, "NOT_FOUND")], Err((Gone, None)), 1),
        (vec![rpc(403, "PERMISSION_DENIED")], Err((Denied, None)), 1),
        (vec![rpc(400, "FAILED_PRECONDITION")], Err((Disabled, None)), 1),
        (vec![rpc(400, "INVALID_ARGUMENT")], Err((Misconfigured, None)), 1),
        (vec![Reply::text(403, "<html>blocked</html>")], Err((Malformed, None)), 1),
    ];
    for (answers, expected, reads) in rows {
        let server = Server::start().await;
        server.script(ACCESS, answers.clone());
        let manager = manager(auth(Method::Key), gcp(&server));
        let outcome = text(&manager, &at(SECRET)).await.map(drop);
        let outcome = outcome.map_err(|error| (error.class, error.retry_after.map(|wait| wait.as_secs())));
        assert_eq!(outcome, expected, "{answers:?}");
        assert_eq!(server.take().iter().filter(|target| *target == ACCESS).count(), reads, "{answers:?}");
    }
}

#[tokio::test]
async fn a_refusal_that_stays_does_not_become_a_login_each_time() {
    let server = Server::start().await;
    server.answer(ACCESS, Reply::failure(401, "UNAUTHENTICATED", ""));
    let manager = manager(auth(Method::Key), gcp(&server));
    for _ in 0..3 {
        assert_eq!(failure(&manager, &at(SECRET)).await.0, FailureClass::Unauthenticated);
    }
    assert_eq!(server.take(), ["/token", ACCESS, "/token", ACCESS, ACCESS, ACCESS]);
}

#[tokio::test]
async fn a_refused_key_rests() {
    let server = Server::start().await;
    let refused = json!({"error": "invalid_grant", "error_description": format!("Invalid JWT Signature {CANARY}")});
    server.answer("/token", Reply::text(400, &refused.to_string()));
    let manager = manager(auth(Method::Key), gcp(&server));
    for _ in 0..3 {
        let error = text(&manager, &at(SECRET)).await.unwrap_err();
        assert_eq!((error.class, error.code.as_deref()), (FailureClass::Unauthenticated, Some("invalid_grant")));
        assert!(error.retry_after.is_some());
    }
    assert_eq!(server.take(), ["/token"]);
}

#[tokio::test]
async fn only_the_metadata_server_is_believed() {
    let server = Server::start().await;
    server.put(SECRET, "one");
    let path = "/computeMetadata/v1/instance/service-accounts/default/token";
    let token = json!({"access_token": "ya29.stolen", "expires_in": 3599, "token_type": "Bearer"});
    #[rustfmt::skip]
    let rows = [
        (Reply::json(&token), (FailureClass::Malformed, "not_the_metadata_server")),
        (Reply::text(404, "no service account").header("metadata-flavor", "Google"), (FailureClass::Unauthenticated, "404")),
        (Reply::text(404, "<html>"), (FailureClass::Malformed, "not_google")),
    ];
    for (reply, (class, code)) in rows {
        server.answer(path, reply);
        let manager = manager(auth(Method::Workload), gcp(&server));
        assert_eq!(failure(&manager, &at(SECRET)).await, (class, code.to_owned()));
    }
}

/// Knows no name and remembers which were asked for.
#[derive(Debug, Default)]
struct Asked(Mutex<Vec<String>>);

#[async_trait]
impl Lookup for Asked {
    async fn lookup(&self, host: &str) -> io::Result<Vec<IpAddr>> {
        self.0.lock().unwrap().push(host.to_owned());
        // One step further a connection would be made; discard is a port of nobody's.
        Ok(vec![Ipv4Addr::LOCALHOST.into()])
    }
}

#[tokio::test]
async fn names_are_googles_and_the_region_is_one_label_of_them() {
    let server = Server::start().await;
    #[rustfmt::skip]
    let rows = [
        // path, gcp_location, host, what comes of a host that leads inside: one that a region stands in is judged
        (SECRET, None, "secretmanager.googleapis.com", FailureClass::Unavailable),
        (SECRET, Some("europe-west3"), "secretmanager.europe-west3.rep.googleapis.com", FailureClass::Misconfigured),
        ("projects/p/locations/us-east1/secrets/s", None, "secretmanager.us-east1.rep.googleapis.com", FailureClass::Misconfigured),
    ];
    for (path, region, host, class) in rows {
        let asked = Arc::new(Asked::default());
        let mut settings = settings(Policy::new(EgressSettings::default()));
        settings.gcp = GcpSettings { endpoint_url: None, ..gcp(&server) };
        let registry =
            Registry::with_lookup(settings, Arc::new(Metrics::new()), Arc::clone(&asked) as Arc<dyn Lookup>).unwrap();
        let auth = GcpAuth { location: region.map(Into::into), ..auth(Method::Key) };
        let manager = registry.manager(&reference("gcp", ManagerType::GcpSm, AuthConfig::Gcp(auth), at(path))).unwrap();
        assert_eq!(text(&manager, &at(path)).await.unwrap_err().class, class, "{host}");
        let asked = asked.0.lock().unwrap();
        assert!(!asked.is_empty() && asked.iter().all(|name| name == host), "{asked:?}");
    }
    // Without an address of the operator's, keys go to Google's and not where they say.
    let asked = Arc::new(Asked::default());
    let mut settings = settings(Policy::new(EgressSettings::default()));
    settings.gcp = GcpSettings { token_url: None, ..gcp(&server) };
    let registry =
        Registry::with_lookup(settings, Arc::new(Metrics::new()), Arc::clone(&asked) as Arc<dyn Lookup>).unwrap();
    let reference = reference("gcp", ManagerType::GcpSm, AuthConfig::Gcp(auth(Method::Key)), at(SECRET));
    let manager = registry.manager(&reference).unwrap();
    assert_eq!(text(&manager, &at(SECRET)).await.unwrap_err().class, FailureClass::Unavailable);
    assert!(asked.0.lock().unwrap().iter().all(|name| name == "oauth2.googleapis.com"));
}
