//! A server that speaks as Secret Manager, Google's token service and the metadata server do, and can be told to misbehave.
//!
//! Fresh: no secrets, one service account whose assertions are checked (signature, audience, scope, time).

use std::{
    collections::{HashMap, HashSet},
    convert::Infallible,
    sync::{Arc, LazyLock, Mutex},
    time::{SystemTime, UNIX_EPOCH},
};

use base64::{
    Engine as _,
    engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD},
};
use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use rcgen::{KeyPair, PKCS_RSA_SHA256};
use rustls::{SignatureScheme, crypto::aws_lc_rs};
use serde_json::{Value, json};

use crate::contract::listening::Listening;

pub const ACCOUNT: &str = "gw@p.iam.gserviceaccount.com";

const AUDIENCE: &str = "https://oauth2.googleapis.com/token";
const SCOPE: &str = "https://www.googleapis.com/auth/cloud-platform";
const METADATA: &str = "/computeMetadata/v1/instance/service-accounts/default/token";

/// Making a key takes a moment, so that all tests share one.
static KEY: LazyLock<KeyPair> = LazyLock::new(|| KeyPair::generate_for(&PKCS_RSA_SHA256).unwrap());

/// A running server; stops when dropped.
pub struct Server {
    listening: Listening,
    state: Arc<State>,
}

/// What to answer.
#[derive(Clone, Debug)]
pub struct Reply {
    status: u16,
    headers: Vec<(&'static str, String)>,
    body: String,
    never: bool,
}

#[derive(Default)]
struct State {
    /// Versions by secret, oldest first: payload and state.
    secrets: Mutex<HashMap<String, Vec<(String, &'static str)>>>,
    scripts: Mutex<HashMap<String, Vec<Reply>>>,
    tokens: Mutex<HashSet<String>>,
    seen: Mutex<Vec<String>>,
}

/// The key file of [`ACCOUNT`]; where it says to send its assertions nobody should ever go.
pub fn key_file() -> String {
    json!({
        "type": "service_account", "project_id": "p", "private_key_id": "k-1", "private_key": KEY.serialize_pem(),
        "client_email": ACCOUNT, "token_uri": "https://evil.example/token", "universe_domain": "googleapis.com",
    })
    .to_string()
}

// === impl Server ===

impl Server {
    pub async fn start() -> Self {
        let state = Arc::new(State::default());
        let listening = Listening::start(&state, serve).await;
        Self { listening, state }
    }

    /// An address where nobody listens.
    pub fn nobody() -> String {
        Listening::nobody()
    }

    pub fn host(&self) -> String {
        self.listening.host()
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.host())
    }

    /// A new version of the secret at the resource `name`.
    pub fn put(&self, name: &str, payload: &str) {
        let version = (payload.to_owned(), "ENABLED");
        self.state.secrets.lock().unwrap().entry(name.to_owned()).or_default().push(version);
    }

    /// Turns version `number` (from 1) of `name` into `state`.
    pub fn set(&self, name: &str, number: usize, state: &'static str) {
        self.state.secrets.lock().unwrap().get_mut(name).unwrap()[number - 1].1 = state;
    }

    /// Answers `path` so from now on, whatever else would happen.
    pub fn answer(&self, path: &str, reply: Reply) {
        self.script(path, [reply]);
    }

    /// Answers `path` so, one after the other, the last one for ever.
    pub fn script(&self, path: &str, replies: impl IntoIterator<Item = Reply>) {
        let replies = replies.into_iter().collect();
        self.state.scripts.lock().unwrap().insert(path.to_owned(), replies);
    }

    /// Takes back what [`Server::script`] said of `path`.
    pub fn forget(&self, path: &str) {
        self.state.scripts.lock().unwrap().remove(path);
    }

    /// Ends every token.
    pub fn revoke_all(&self) {
        self.state.tokens.lock().unwrap().clear();
    }

    /// Targets asked for since the last time, in order.
    pub fn take(&self) -> Vec<String> {
        std::mem::take(&mut *self.state.seen.lock().unwrap())
    }
}

// === impl Reply ===

impl Reply {
    pub fn text(status: u16, body: &str) -> Self {
        Self { status, headers: Vec::new(), body: body.to_owned(), never: false }
    }

    pub fn json(body: &Value) -> Self {
        Self::text(200, &body.to_string())
    }

    /// A failure as Google writes it.
    pub fn failure(code: u16, status: &str, message: &str) -> Self {
        Self::text(code, &json!({"error": {"code": code, "message": message, "status": status}}).to_string())
    }

    /// No answer at all.
    pub fn never() -> Self {
        Self { never: true, ..Self::text(200, "") }
    }

    pub fn header(mut self, name: &'static str, value: &str) -> Self {
        self.headers.push((name, value.to_owned()));
        self
    }
}

async fn serve(state: Arc<State>, request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    let (head, body) = request.into_parts();
    let body = String::from_utf8(body.collect().await.unwrap().to_bytes().to_vec()).unwrap();
    let header = |name| head.headers.get(name).map(|value| value.to_str().unwrap().to_owned());
    state.seen.lock().unwrap().push(head.uri.to_string());
    let path = head.uri.path();
    let scripted = state
        .scripts
        .lock()
        .unwrap()
        .get_mut(path)
        .map(|script: &mut Vec<Reply>| if script.len() > 1 { script.remove(0) } else { script[0].clone() });
    let reply = scripted.unwrap_or_else(|| match (head.method.as_str(), path) {
        ("POST", "/token") => state.exchange(&body),
        ("GET", METADATA) if header("metadata-flavor").as_deref() == Some("Google") => {
            state.token().header("metadata-flavor", "Google")
        }
        ("GET", METADATA) => {
            Reply::text(403, "Missing Metadata-Flavor:Google header.").header("metadata-flavor", "Google")
        }
        ("GET", path) => match header("authorization") {
            Some(token) if state.tokens.lock().unwrap().contains(&token) => {
                state.read(path.strip_prefix("/v1/").unwrap())
            }
            _ => Reply::failure(401, "UNAUTHENTICATED", "Request had invalid authentication credentials."),
        },
        _ => Reply::text(404, "<html>Not Found</html>"),
    });
    if reply.never {
        std::future::pending::<()>().await;
    }
    let mut response = Response::builder().status(reply.status);
    for (name, value) in reply.headers {
        response = response.header(name, value);
    }
    Ok(response.body(Full::new(Bytes::from(reply.body))).unwrap())
}

// === impl State ===

impl State {
    fn exchange(&self, form: &str) -> Reply {
        let fields: HashMap<_, _> = url::form_urlencoded::parse(form.as_bytes()).into_owned().collect();
        let is_grant =
            fields.get("grant_type").is_some_and(|kind| kind == "urn:ietf:params:oauth:grant-type:jwt-bearer");
        if !is_grant || fields.len() != 2 || !fields.get("assertion").is_some_and(|assertion| is_good(assertion)) {
            return Reply::text(
                400,
                &json!({"error": "invalid_grant", "error_description": "Invalid JWT"}).to_string(),
            );
        }
        self.token()
    }

    fn token(&self) -> Reply {
        let token = format!("ya29.canary-{}", self.seen.lock().unwrap().len());
        self.tokens.lock().unwrap().insert(format!("Bearer {token}"));
        Reply::json(&json!({"access_token": token, "expires_in": 3599, "token_type": "Bearer"}))
    }

    fn read(&self, resource: &str) -> Reply {
        let secrets = self.secrets.lock().unwrap();
        let gone = || Reply::failure(404, "NOT_FOUND", &format!("Secret [{resource}] not found or has no versions."));
        let (name, wanted) = resource.split_once("/versions").unwrap();
        let Some(versions) = secrets.get(name) else { return gone() };
        // Google names projects by number in its answers, whatever was asked for.
        let named = |number: usize| format!("{}/versions/{number}", name.replace("projects/p/", "projects/8147/"));
        let described = |number: usize| json!({"name": named(number), "state": versions[number - 1].1});
        if wanted.is_empty() {
            let newest_first = (1..=versions.len()).rev().map(described).collect::<Vec<_>>();
            return Reply::json(&json!({"versions": newest_first, "totalSize": versions.len()}));
        }
        let (wanted, access) = wanted.strip_suffix(":access").map_or((wanted, false), |wanted| (wanted, true));
        let number = match wanted.trim_start_matches('/') {
            "latest" => versions.len(),
            number => number.parse().unwrap_or_default(),
        };
        match versions.get(number.wrapping_sub(1)) {
            None => gone(),
            Some((_, state)) if access && *state != "ENABLED" => {
                Reply::failure(400, "FAILED_PRECONDITION", &format!("Secret Version [{resource}] is in {state} state."))
            }
            Some((payload, _)) if access => {
                let payload =
                    json!({"data": STANDARD.encode(payload), "dataCrc32c": crc32c(payload.as_bytes()).to_string()});
                Reply::json(&json!({"name": named(number), "payload": payload}))
            }
            Some(_) => Reply::json(&described(number)),
        }
    }
}

/// Whether Google would take this assertion.
fn is_good(assertion: &str) -> bool {
    let parts: Vec<&str> = assertion.split('.').collect();
    let [header, claims, signature] = parts[..] else { return false };
    let decode = |part: &str| URL_SAFE_NO_PAD.decode(part).unwrap();
    let mapping = aws_lc_rs::default_provider().signature_verification_algorithms.mapping;
    let (_, rs256) = mapping.iter().find(|(scheme, _)| *scheme == SignatureScheme::RSA_PKCS1_SHA256).unwrap();
    let signed = format!("{header}.{claims}");
    let is_signed = rs256[0].verify_signature(KEY.public_key_raw(), signed.as_bytes(), &decode(signature)).is_ok();
    let header: Value = serde_json::from_slice(&decode(header)).unwrap();
    let claims: Value = serde_json::from_slice(&decode(claims)).unwrap();
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    let (issued, expires) = (claims["iat"].as_u64().unwrap(), claims["exp"].as_u64().unwrap());
    is_signed
        && header == json!({"alg": "RS256", "typ": "JWT", "kid": "k-1"})
        && (claims["iss"] == ACCOUNT && claims["aud"] == AUDIENCE && claims["scope"] == SCOPE)
        && issued <= now
        && now < expires
        && expires - issued <= 3600
}

/// Bit by bit, so that it shares no mistake with ours.
fn crc32c(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(u32::MAX, |sum, byte| {
        (0..8).fold(sum ^ u32::from(*byte), |sum, _| (sum >> 1) ^ (0x82f6_3b78 * (sum & 1)))
    })
}
