//! The chain of `default`, and the machine's identity service on a paused clock, asked by the official library.

use std::sync::Mutex;

use http::{HeaderMap, StatusCode};
use tokio::time::Instant;
use url::Url;

use super::*;
use crate::{
    egress::{self, Answer, Bounds, Call, Policy, Reach, SendError},
    manager::session::Session,
};

const TOKEN: &str =
    r#"{"access_token":"t","expires_on":"4102444800","resource":"https://vault.azure.net","token_type":"Bearer"}"#;

/// Answers from a function of the seconds since its start, and notes what it was asked.
#[derive(Debug)]
struct Script {
    started: Instant,
    answer: fn(u64) -> (u16, &'static str),
    asked: Mutex<Vec<(Reach, String)>>,
}

#[async_trait]
impl Line for Script {
    async fn send(&self, call: Call, _: Bounds) -> Result<Answer, SendError> {
        self.asked.lock().unwrap().push((call.reach, call.url.to_string()));
        let (status, body) = (self.answer)(self.started.elapsed().as_secs());
        let status = StatusCode::from_u16(status).unwrap();
        Ok(Answer { status, headers: HeaderMap::new(), body: Zeroizing::new(body.as_bytes().to_vec()) })
    }
}

fn session(client: Option<&str>, answer: fn(u64) -> (u16, &'static str)) -> (Session, Arc<Script>) {
    let script = Arc::new(Script { started: Instant::now(), answer, asked: Mutex::default() });
    let policy = Policy::new(egress::Settings::default());
    let cloud = Arc::new(Cloud::of(&Url::parse("https://kv1.vault.azure.net").unwrap(), None, &policy).unwrap());
    let proof = Proof::Machine { client: client.map(Arc::from), source: "instance metadata" };
    let login = Login { proof, cloud, line: Arc::clone(&script) as _ };
    (Session::new(Arc::new(login), "test".into(), Duration::from_secs(90), Box::new(|_| {})), script)
}

#[tokio::test(start_paused = true)]
async fn an_identity_service_may_wake_up_for_seventy_seconds() {
    for status in [404, 410, 429, 500, 503] {
        let answer: fn(u64) -> (u16, &'static str) = match status {
            404 => |second| if second < 70 { (404, "") } else { (200, TOKEN) },
            410 => |second| if second < 70 { (410, "") } else { (200, TOKEN) },
            429 => |second| if second < 70 { (429, "") } else { (200, TOKEN) },
            500 => |second| if second < 70 { (500, "") } else { (200, TOKEN) },
            _ => |second| if second < 70 { (503, "") } else { (200, TOKEN) },
        };
        let (session, script) = session(None, answer);
        // A fetch leaves at its own deadline; the login goes on.
        let fetch = tokio::time::timeout(Duration::from_secs(8), session.token()).await;
        assert!(fetch.is_err(), "{status}");
        session.token().await.unwrap();
        assert!((70..90).contains(&script.started.elapsed().as_secs()), "{status} {:?}", script.started.elapsed());
        let asked = script.asked.lock().unwrap();
        assert!((5..=30).contains(&asked.len()), "{status}: asked {} times", asked.len());
        let url = "http://169.254.169.254/metadata/identity/oauth2/token?api-version=2019-08-01&resource=https%3A%2F%2Fvault.azure.net";
        assert!(asked.iter().all(|asked| *asked == (Reach::Fixed, url.to_owned())), "{asked:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn one_that_never_wakes_ends_with_the_login() {
    let (session, script) = session(None, |_| (410, ""));
    assert_eq!(session.token().await.unwrap_err().class, FailureClass::Timeout);
    assert_eq!(script.started.elapsed(), Duration::from_secs(90));
}

#[tokio::test(start_paused = true)]
async fn an_identity_that_is_not_assigned_is_refused_at_once() {
    let (session, script) =
        session(Some("00000000-cccc"), |_| (400, r#"{"error":"invalid_request","error_description":"\"x\""}"#));
    let error = session.token().await.unwrap_err();
    assert_eq!((error.class, error.code.as_deref()), (FailureClass::Unauthenticated, Some("invalid_request")));
    let asked = script.asked.lock().unwrap();
    assert!(asked.len() == 1 && asked[0].1.ends_with("&client_id=00000000-cccc"), "{asked:?}");
}

#[test]
fn the_environment_decides_by_what_is_set() {
    #[rustfmt::skip]
    let rows = [
        // tenant, client, secret, token file, who wins
        (Some("t"), Some("c"), Some("s"), Some("/f"), "entra client c of t"),
        (Some("t"), Some("c"), Some("s"), None, "entra client c of t"),
        (Some("t"), Some("c"), None, Some("/f"), "workload identity c of t"),
        (None, Some("c"), Some("s"), Some("/f"), "managed identity c by instance metadata"),
        (Some("t"), None, Some("s"), Some("/f"), "system-assigned managed identity by instance metadata"),
        (Some("t"), Some("c"), None, None, "managed identity c by instance metadata"),
        (None, None, None, None, "system-assigned managed identity by instance metadata"),
    ];
    for (tenant, client, secret, token_file, winner) in rows {
        let surroundings = || Surroundings {
            tenant: tenant.map(Arc::from),
            client: client.map(Arc::from),
            client_secret: secret.map(|secret| secret.to_owned().into()),
            token_file: token_file.map(PathBuf::from),
            ..Surroundings::default()
        };
        assert_eq!(Proof::of(&AzureMethod::Default, surroundings()).to_string(), winner);
        // What a reference says is not changed by what the environment holds.
        let managed = Proof::of(&AzureMethod::Managed { client_id: None }, surroundings()).to_string();
        assert_eq!(managed, "system-assigned managed identity by instance metadata");
    }
}
