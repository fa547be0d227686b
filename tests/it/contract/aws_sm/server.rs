//! A server that speaks Secrets Manager, the Parameter Store (JSON 1.1) and STS (Query) as AWS does, and can be told to
//! misbehave.
//!
//! It knows keys and sessions by id and checks no signature; `tests/real/aws.rs` has a server that does.

use std::{
    collections::{HashMap, HashSet},
    convert::Infallible,
    path::Path,
    sync::{Arc, Mutex},
};

use bytes::Bytes;
use http::{HeaderMap, Request, Response};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::contract::listening::Listening;

pub const KEY_ID: &str = "AKIACANARYCANARY0001";
pub const SECRET_KEY: &str = "canary/secret+key";
pub const BASE_ID: &str = "AKIABASEBASEBASE0001";
pub const ROLE: &str = "arn:aws:iam::123456789012:role/gw";
pub const EXTERNAL_ID: &str = "org-canary";
pub const WEB_TOKEN: &str = "eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJjYW5hcnkifQ.c2lnbmF0dXJl";

/// A running server; stops when dropped.
pub struct Server {
    listening: Listening,
    state: Arc<State>,
    folder: TempDir,
}

/// A request as it arrived.
#[derive(Clone, Debug)]
pub struct Seen {
    /// `GetSecretValue`, `AssumeRole` …
    pub action: String,
    /// Access key id of the signature.
    pub key_id: Option<String>,
    /// Region of the signature.
    pub region: Option<String>,
    pub session_token: Option<String>,
    pub body: String,
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
    /// Versions of each secret, oldest first: id and the member that holds the value.
    secrets: Mutex<HashMap<String, Vec<(String, Value)>>>,
    /// Versions of each parameter, oldest first: value and label.
    parameters: Mutex<HashMap<String, Vec<(String, String)>>>,
    /// Parameters that nobody may read.
    denied: Mutex<HashSet<String>>,
    scripts: Mutex<HashMap<String, Vec<Reply>>>,
    keys: Mutex<HashSet<String>>,
    seen: Mutex<Vec<Seen>>,
}

/// The id of the `number`-th version.
pub fn version_id(number: usize) -> String {
    format!("00000000-0000-0000-0000-{number:012}")
}

// === impl Server ===

impl Server {
    pub async fn start() -> Self {
        let state = Arc::new(State::default());
        state.keys.lock().unwrap().extend([KEY_ID.to_owned(), BASE_ID.to_owned()]);
        let listening = Listening::start(&state, serve).await;
        Self { listening, state, folder: tempfile::tempdir().unwrap() }
    }

    /// An address where nobody listens.
    pub fn nobody() -> String {
        Listening::nobody()
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.listening.host())
    }

    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// A new current version of the secret `name`.
    pub fn put(&self, name: &str, text: &str) {
        self.put_as(name, json!({"SecretString": text}));
    }

    /// [`Server::put`] with the member that holds the value.
    pub fn put_as(&self, name: &str, member: Value) {
        let mut secrets = self.state.secrets.lock().unwrap();
        let versions = secrets.entry(name.to_owned()).or_default();
        versions.push((version_id(versions.len() + 1), member));
    }

    /// A new version of the parameter `name`, with a label unless that is empty.
    pub fn put_parameter(&self, name: &str, value: &str, label: &str) {
        let version = (value.to_owned(), label.to_owned());
        self.state.parameters.lock().unwrap().entry(name.to_owned()).or_default().push(version);
    }

    /// The parameter `name` may not be read, and no call that holds it.
    pub fn deny_parameter(&self, name: &str) {
        self.state.denied.lock().unwrap().insert(name.to_owned());
    }

    /// Answers `action` so from now on, one reply after the other, the last one for ever.
    pub fn script(&self, action: &str, replies: impl IntoIterator<Item = Reply>) {
        self.state.scripts.lock().unwrap().insert(action.to_owned(), replies.into_iter().collect());
    }

    /// Ends every session; keys stay.
    pub fn end_sessions(&self) {
        self.state.keys.lock().unwrap().retain(|id| id.starts_with("AKIA"));
    }

    /// The key `id` is known no more.
    pub fn forget(&self, id: &str) {
        self.state.keys.lock().unwrap().remove(id);
    }

    pub fn admit(&self, id: &str) {
        self.state.keys.lock().unwrap().insert(id.to_owned());
    }

    /// Takes back what [`Server::script`] said of `action`.
    pub fn unscript(&self, action: &str) {
        self.state.scripts.lock().unwrap().remove(action);
    }

    pub fn seen(&self) -> Vec<Seen> {
        self.state.seen.lock().unwrap().clone()
    }

    /// How often `action` was asked for.
    pub fn calls(&self, action: &str) -> usize {
        self.seen().iter().filter(|seen| seen.action == action).count()
    }

    pub fn last(&self, action: &str) -> Seen {
        self.seen().into_iter().rfind(|seen| seen.action == action).expect("such a call")
    }
}

// === impl Reply ===

impl Reply {
    pub fn text(status: u16, body: &str) -> Self {
        Self { status, headers: Vec::new(), body: body.to_owned(), never: false }
    }

    pub fn json(status: u16, body: &Value) -> Self {
        Self::text(status, &body.to_string())
    }

    /// A JSON error, as Secrets Manager writes it.
    pub fn error(status: u16, code: &str, message: &str) -> Self {
        Self::json(status, &json!({"__type": code, "Message": message}))
    }

    /// An XML error, as STS writes it.
    pub fn query_error(status: u16, code: &str, message: &str) -> Self {
        Self::text(
            status,
            &format!(
                "<ErrorResponse xmlns=\"https://sts.amazonaws.com/doc/2011-06-15/\"><Error><Type>Sender</Type>\
                 <Code>{code}</Code><Message>{message}</Message></Error><RequestId>r</RequestId></ErrorResponse>"
            ),
        )
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
    let seen = seen(&head.headers, body);
    state.seen.lock().unwrap().push(seen.clone());
    let reply = state.reply(&seen);
    if reply.never {
        std::future::pending::<()>().await;
    }
    let mut response = Response::builder().status(reply.status).header("x-amzn-requestid", "r-1");
    for (name, value) in reply.headers {
        response = response.header(name, value);
    }
    Ok(response.body(Full::new(Bytes::from(reply.body))).unwrap())
}

fn seen(headers: &HeaderMap, body: String) -> Seen {
    let header = |name| headers.get(name).map(|value| value.to_str().unwrap().to_owned());
    let action = match header("x-amz-target") {
        Some(target) => target.rsplit('.').next().unwrap().to_owned(),
        None => form(&body, "Action").unwrap_or_default(),
    };
    // AWS4-HMAC-SHA256 Credential=ID/20261125/us-east-1/secretsmanager/aws4_request, …
    let scope = header("authorization").and_then(|text| Some(text.split_once("Credential=")?.1.to_owned()));
    let part = |at| scope.as_ref().and_then(|scope| scope.split('/').nth(at).map(str::to_owned));
    Seen { action, key_id: part(0), region: part(2), session_token: header("x-amz-security-token"), body }
}

/// A field of a Query request.
pub fn form(body: &str, name: &str) -> Option<String> {
    let mut pairs = url::form_urlencoded::parse(body.as_bytes());
    pairs.find(|(key, _)| key == name).map(|(_, value)| value.into_owned())
}

// === impl State ===

impl State {
    fn reply(&self, seen: &Seen) -> Reply {
        if let Some(script) = self.scripts.lock().unwrap().get_mut(&seen.action) {
            return if script.len() > 1 { script.remove(0) } else { script[0].clone() };
        }
        if seen.action == "AssumeRoleWithWebIdentity" {
            return match form(&seen.body, "WebIdentityToken").as_deref() {
                Some(WEB_TOKEN) => self.issue(&seen.action),
                _ => Reply::query_error(400, "InvalidIdentityToken", "canary"),
            };
        }
        let is_known = seen.key_id.as_ref().is_some_and(|id| self.keys.lock().unwrap().contains(id));
        match (seen.action.as_str(), is_known, seen.session_token.is_some()) {
            ("AssumeRole", true, _) => match form(&seen.body, "ExternalId").as_deref() {
                Some(EXTERNAL_ID) => self.issue(&seen.action),
                _ => Reply::query_error(403, "AccessDenied", "canary is not authorized to perform: sts:AssumeRole"),
            },
            ("AssumeRole", false, true) => Reply::query_error(403, "ExpiredToken", "canary"),
            ("AssumeRole", false, false) => Reply::query_error(403, "InvalidClientTokenId", "canary"),
            (_, false, true) => Reply::error(400, "ExpiredTokenException", "canary"),
            (_, false, false) => Reply::error(400, "UnrecognizedClientException", "canary"),
            ("GetSecretValue", true, _) => self.get(&seen.body),
            ("DescribeSecret", true, _) => self.describe(&seen.body),
            ("GetParameter", true, _) => self.parameter(&seen.body),
            ("GetParameters", true, _) => self.parameters(&seen.body),
            _ => Reply::error(400, "UnknownOperationException", "canary"),
        }
    }

    fn issue(&self, action: &str) -> Reply {
        let id = format!("ASIASESSION{:09}", self.seen.lock().unwrap().len());
        self.keys.lock().unwrap().insert(id.clone());
        Reply::text(
            200,
            &format!(
                "<{action}Response xmlns=\"https://sts.amazonaws.com/doc/2011-06-15/\"><{action}Result><Credentials>\
                 <AccessKeyId>{id}</AccessKeyId><SecretAccessKey>canary-session-key</SecretAccessKey>\
                 <SessionToken>canary-session-token</SessionToken><Expiration>2099-01-01T00:00:00Z</Expiration>\
                 </Credentials></{action}Result></{action}Response>"
            ),
        )
    }

    fn get(&self, body: &str) -> Reply {
        let asked: Value = serde_json::from_str(body).unwrap();
        let absent = || Reply::error(400, "ResourceNotFoundException", "Secrets Manager can't find the canary.");
        let secrets = self.secrets.lock().unwrap();
        let Some(versions) = asked["SecretId"].as_str().and_then(|id| secrets.get(id)) else { return absent() };
        let index = match (asked["VersionId"].as_str(), asked["VersionStage"].as_str()) {
            (Some(id), _) => versions.iter().position(|(version, _)| version == id),
            (None, None | Some("AWSCURRENT")) => Some(versions.len() - 1),
            (None, Some("AWSPREVIOUS")) => versions.len().checked_sub(2),
            (None, Some(_)) => None,
        };
        let Some((id, member)) = index.and_then(|at| versions.get(at)) else { return absent() };
        let mut answer = json!({"ARN": "arn", "Name": asked["SecretId"], "VersionId": id, "CreatedDate": 1.7e9});
        answer.as_object_mut().unwrap().extend(member.as_object().unwrap().clone());
        Reply::json(200, &answer)
    }

    fn describe(&self, body: &str) -> Reply {
        let asked: Value = serde_json::from_str(body).unwrap();
        let secrets = self.secrets.lock().unwrap();
        let Some(versions) = asked["SecretId"].as_str().and_then(|id| secrets.get(id)) else {
            return Reply::error(400, "ResourceNotFoundException", "canary");
        };
        let labels = versions.iter().rev().zip(["AWSCURRENT", "AWSPREVIOUS"]);
        let labels: HashMap<_, _> = labels.map(|((id, _), label)| (id.clone(), [label])).collect();
        Reply::json(200, &json!({"ARN": "arn", "Name": asked["SecretId"], "VersionIdsToStages": labels}))
    }

    fn parameter(&self, body: &str) -> Reply {
        let asked: Value = serde_json::from_str(body).unwrap();
        assert_eq!(asked["WithDecryption"], true);
        match self.lookup(asked["Name"].as_str().unwrap()) {
            Ok(parameter) => Reply::json(200, &json!({"Parameter": parameter})),
            Err(code) => Reply::error(400, code, "canary"),
        }
    }

    fn parameters(&self, body: &str) -> Reply {
        let asked: Value = serde_json::from_str(body).unwrap();
        assert_eq!(asked["WithDecryption"], true);
        let names: Vec<&str> = asked["Names"].as_array().unwrap().iter().map(|name| name.as_str().unwrap()).collect();
        let distinct: HashSet<_> = names.iter().collect();
        if names.len() > 10 || distinct.len() < names.len() {
            return Reply::error(400, "ValidationException", "1 validation error detected");
        }
        let (mut parameters, mut invalid) = (Vec::new(), Vec::new());
        for name in names {
            match self.lookup(name) {
                Ok(parameter) => parameters.push(parameter),
                Err(code @ "AccessDeniedException") => return Reply::error(400, code, "canary"),
                Err(_) => invalid.push(name),
            }
        }
        // No order is promised.
        parameters.reverse();
        Reply::json(200, &json!({"Parameters": parameters, "InvalidParameters": invalid}))
    }

    fn lookup(&self, asked: &str) -> Result<Value, &'static str> {
        let (arn, asked) = match asked.split_once(":parameter") {
            Some((_, name)) => (true, name),
            None => (false, asked),
        };
        let (name, selector) = asked.split_once(':').map_or((asked, None), |(name, selector)| (name, Some(selector)));
        if self.denied.lock().unwrap().contains(name) {
            return Err("AccessDeniedException");
        }
        let parameters = self.parameters.lock().unwrap();
        let versions = parameters.get(name).ok_or("ParameterNotFound")?;
        let index = match selector {
            None => Some(versions.len() - 1),
            Some(selector) => match selector.parse::<usize>() {
                Ok(number) => number.checked_sub(1).filter(|index| *index < versions.len()),
                Err(_) => versions.iter().position(|(_, label)| label == selector),
            },
        };
        let index = index.ok_or("ParameterVersionNotFound")?;
        let full = format!("arn:aws:ssm:us-east-1:123456789012:parameter/{}", name.trim_start_matches('/'));
        let mut parameter = json!({"Name": if arn { &full } else { name }, "ARN": full, "Type": "SecureString",
            "Value": versions[index].0, "Version": index + 1, "LastModifiedDate": 1.7e9, "DataType": "text"});
        if let Some(selector) = selector {
            parameter["Selector"] = json!(format!(":{selector}"));
        }
        Ok(parameter)
    }
}
