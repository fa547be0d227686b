//! How an identity gets an access token: a service-account key, a credentials file of the operator's, or the metadata server.
//!
//! Tokens are asked for at fixed addresses: no key or file says where its proof is sent, because a key may be a tenant's.
//! The proof is written into one buffer that is wiped after it was sent. A credentials file and the token file that it names
//! are read again at each login, because both are replaced while we run.
//! Source: RFC 7523 (keys), RFC 8693 (federation), AIP-4110 to AIP-4117, Compute Engine's metadata server.

use std::{fmt, path::Path, path::PathBuf, sync::Arc, time::Duration};

use async_trait::async_trait;
use http::{
    HeaderMap, HeaderName, HeaderValue, Method, StatusCode,
    header::{AUTHORIZATION, CONTENT_TYPE},
};
use serde::Deserialize;
use serde_json::{Value, value::RawValue};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};
use tokio::io::AsyncReadExt as _;
use url::Url;
use zeroize::Zeroizing;

use self::federation::Federation;
use super::answer;
use crate::{
    egress::{Answer, Bounds, Call, Reach, Transport},
    manager::{
        FailureClass, FetchError, Settings,
        registry::GcpSettings,
        session::{Authority, Grant, Lease, LoginError, Token},
    },
    model::GcpMethod,
    secret::{SecretValue, json::Literal},
};

mod federation;
mod key;

pub(super) use key::ServiceKey;

/// Where keys are exchanged, and what each assertion is made out to (Google, "Using OAuth 2.0 for server to server").
const TOKEN_URL: &str = "https://oauth2.googleapis.com/token";

/// Where tokens of other identity providers are exchanged.
const STS_URL: &str = "https://sts.googleapis.com/v1/token";

/// The metadata server. An address, so that no name server has a say in it.
const METADATA_HOST: &str = "169.254.169.254";

/// The only scope that Secret Manager takes.
const SCOPE: &str = "https://www.googleapis.com/auth/cloud-platform";

const METADATA_FLAVOR: HeaderName = HeaderName::from_static("metadata-flavor");

/// One call of a login at most; a login may repeat it.
const ATTEMPT: Duration = Duration::from_secs(10);

/// Largest answer of a token service, in bytes. Tokens have one to four thousand.
const MAX_ANSWER: usize = 64 * 1024;

/// Largest credentials file and largest token file, in bytes.
const MAX_FILE: u64 = 64 * 1024;

/// Rest after a refused login. Google locks nobody out, and the metadata server may refuse while a pod starts.
const REST: Duration = Duration::from_secs(30);

/// Where an identity's proof comes from.
pub(super) enum Source {
    /// `serviceAccountKey`.
    Key(ServiceKey),
    /// `workloadIdentity` with `GOOGLE_APPLICATION_CREDENTIALS`.
    File(PathBuf),
    /// `workloadIdentity` otherwise; host and perhaps port of the metadata server.
    Metadata(String),
}

/// Logs in with one source.
#[derive(Debug)]
pub(super) struct Login {
    transport: Arc<Transport>,
    source: Source,
    /// `managers.gcp.token_url`.
    token_url: Option<Url>,
    timeout: Duration,
}

#[derive(Deserialize)]
struct Issued<'a> {
    #[serde(borrow)]
    access_token: &'a RawValue,
    expires_in: u64,
}

#[derive(Deserialize)]
struct Impersonated<'a> {
    #[serde(borrow, rename = "accessToken")]
    access_token: &'a RawValue,
    #[serde(rename = "expireTime")]
    expires_at: String,
}

// === impl Source ===

impl Source {
    /// The source that `method` means here.
    ///
    /// # Errors
    /// A reason for people.
    pub(super) fn new(method: &GcpMethod, settings: &GcpSettings) -> Result<Self, String> {
        Ok(match method {
            GcpMethod::ServiceAccountKey { key } => {
                Self::Key(ServiceKey::parse(key.expose()).map_err(|error| format!("gcp_service_account_json {error}"))?)
            }
            GcpMethod::WorkloadIdentity => match settings.environment.get("GOOGLE_APPLICATION_CREDENTIALS") {
                Some(path) => Self::File(path.into()),
                None => {
                    let host = settings.environment.get("GCE_METADATA_HOST");
                    Self::Metadata(host.unwrap_or_else(|| METADATA_HOST.to_owned()))
                }
            },
        })
    }
}

/// The identity for operators. Never a secret.
impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Key(key) => write!(f, "service account {}", key.email()),
            Self::File(path) => write!(f, "workload identity of {}", path.display()),
            Self::Metadata(host) => write!(f, "workload identity of the metadata server {host}"),
        }
    }
}

impl fmt::Debug for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Source({self})")
    }
}

// === impl Login ===

impl Login {
    pub(super) fn new(transport: Arc<Transport>, source: Source, settings: &GcpSettings, bounds: &Settings) -> Self {
        let token_url = settings.token_url.clone();
        Self { transport, source, token_url, timeout: bounds.login_deadline.min(ATTEMPT) }
    }

    async fn by_key(&self, key: &ServiceKey) -> Result<Grant, LoginError> {
        let assertion = key.assertion(TOKEN_URL, SCOPE).ok_or_else(|| unusable("key_cannot_sign"))?;
        let url = self.token_url.clone().map_or_else(|| url_of(TOKEN_URL), Ok)?;
        let grant_type = "urn:ietf:params:oauth:grant-type:jwt-bearer";
        issued(&self.post(url, &[("grant_type", grant_type), ("assertion", &assertion)]).await?)
    }

    async fn by_file(&self, path: &Path) -> Result<Grant, LoginError> {
        let content = read(path, "credentials_file").await?;
        let json = std::str::from_utf8(&content).ok().and_then(Literal::parse);
        let json = json.ok_or_else(|| unusable("credentials_file_not_json"))?;
        match text(json, "type").as_deref() {
            Some("service_account") => {
                let key = ServiceKey::parse(&content)
                    .map_err(|error| LoginError::accident(unauthenticated("credentials_file").with_source(error)))?;
                self.by_key(&key).await
            }
            Some("external_account") => self.by_federation(&Federation::parse(json).map_err(unusable)?).await,
            // A developer's own login has no place in a server.
            _ => Err(unusable("credentials_type")),
        }
    }

    async fn by_federation(&self, federation: &Federation) -> Result<Grant, LoginError> {
        let subject = federation.subject(&read(&federation.token_file, "token_file").await?).map_err(unusable)?;
        let fields = [
            ("grant_type", "urn:ietf:params:oauth:grant-type:token-exchange"),
            ("requested_token_type", "urn:ietf:params:oauth:token-type:access_token"),
            ("audience", &federation.audience),
            ("scope", SCOPE),
            ("subject_token_type", &federation.token_type),
            ("subject_token", &subject),
        ];
        let grant = issued(&self.post(url_of(STS_URL)?, &fields).await?)?;
        let Some(url) = &federation.impersonation_url else { return Ok(grant) };
        let mut bearer =
            HeaderValue::from_bytes(grant.token.expose()).map_err(|_| malformed("token_not_header_safe"))?;
        bearer.set_sensitive(true);
        let headers = HeaderMap::from_iter([
            (AUTHORIZATION, bearer),
            (CONTENT_TYPE, HeaderValue::from_static("application/json")),
        ]);
        let lifetime = federation.lifetime_secs;
        let body = format!(r#"{{"scope":["{SCOPE}"],"lifetime":"{lifetime}s"}}"#).into_bytes();
        let answer = self.send(Method::POST, url.clone(), headers, body.into()).await?;
        impersonated(&answer, OffsetDateTime::now_utc())
    }

    async fn by_metadata(&self, host: &str) -> Result<Grant, LoginError> {
        let url = format!("http://{host}/computeMetadata/v1/instance/service-accounts/default/token");
        let google = HeaderValue::from_static("Google");
        let headers = HeaderMap::from_iter([(METADATA_FLAVOR, google.clone())]);
        let answer = self.send(Method::GET, url_of(&url)?, headers, Zeroizing::default()).await?;
        if answer.headers.get(METADATA_FLAVOR) != Some(&google) {
            return Err(malformed("not_the_metadata_server"));
        }
        issued(&answer)
    }

    async fn post(&self, url: Url, fields: &[(&str, &str)]) -> Result<Answer, LoginError> {
        let form = HeaderValue::from_static("application/x-www-form-urlencoded");
        self.send(Method::POST, url, HeaderMap::from_iter([(CONTENT_TYPE, form)]), encode(fields)).await
    }

    async fn send(
        &self,
        method: Method,
        url: Url,
        headers: HeaderMap,
        body: Zeroizing<Vec<u8>>,
    ) -> Result<Answer, LoginError> {
        let call = Call { method, url, headers, body, reach: Reach::Fixed };
        let bounds = Bounds { timeout: self.timeout, max_body: MAX_ANSWER };
        let answer = self.transport.send(call, bounds).await.map_err(|error| LoginError::accident(error.into()))?;
        if answer.status == StatusCode::OK { Ok(answer) } else { Err(verdict(&answer)) }
    }
}

#[async_trait]
impl Authority for Login {
    async fn log_in(&self) -> Result<Grant, LoginError> {
        match &self.source {
            Source::Key(key) => self.by_key(key).await,
            Source::File(path) => self.by_file(path).await,
            Source::Metadata(host) => self.by_metadata(host).await,
        }
    }

    /// Access tokens cannot be extended and their leases say so, so that nobody asks.
    async fn renew(&self, _: &Token) -> Result<Lease, FetchError> {
        Err(FetchError::new(FailureClass::Misconfigured).with_code("not_renewable"))
    }

    /// As [`Login::renew`].
    async fn look_up(&self, _: &Token) -> Result<Lease, FetchError> {
        Err(FetchError::new(FailureClass::Misconfigured).with_code("no_lookup"))
    }

    fn renews_identity(&self) -> bool {
        true
    }

    fn patience(&self, _: u32) -> Duration {
        REST
    }
}

/// The token of an OAuth answer (RFC 6749, 5.1); the metadata server answers alike.
fn issued(answer: &Answer) -> Result<Grant, LoginError> {
    // The parser's error may quote the answer, so it goes no further.
    let issued: Issued<'_> = serde_json::from_slice(&answer.body).map_err(|_| malformed("not_a_token"))?;
    Ok(Grant { token: bearer(issued.access_token)?, lease: lease(issued.expires_in) })
}

/// The token of `generateAccessToken`.
fn impersonated(answer: &Answer, now: OffsetDateTime) -> Result<Grant, LoginError> {
    let issued: Impersonated<'_> = serde_json::from_slice(&answer.body).map_err(|_| malformed("not_a_token"))?;
    let expires_at = OffsetDateTime::parse(&issued.expires_at, &Rfc3339).map_err(|_| malformed("not_a_token"))?;
    let seconds = u64::try_from((expires_at - now).whole_seconds()).unwrap_or_default();
    Ok(Grant { token: bearer(issued.access_token)?, lease: lease(seconds) })
}

/// A lease of 0 seconds would mean one without end.
fn lease(seconds: u64) -> Lease {
    Lease::of_seconds(seconds.max(1), false)
}

/// The whole `Authorization` with a token in it, in a buffer sized once.
fn bearer(token: &RawValue) -> Result<SecretValue, LoginError> {
    const SCHEME: &[u8] = b"Bearer ";
    let token =
        Literal::from(token).decode().filter(|token| !token.is_empty()).ok_or_else(|| malformed("not_a_token"))?;
    let mut text = Zeroizing::new(Vec::with_capacity(SCHEME.len() + token.len()));
    text.extend_from_slice(SCHEME);
    text.extend_from_slice(&token);
    Ok(text.into())
}

/// What an answer other than 200 says of the identity.
fn verdict(answer: &Answer) -> LoginError {
    let refused = |code: &str| LoginError::refusal(unauthenticated(code));
    match answer.status {
        StatusCode::BAD_REQUEST | StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN | StatusCode::NOT_FOUND => {
            // OAuth writes `{"error": "invalid_grant"}`, Google's other services `{"error": {"status": …}}`; the metadata
            // server writes no JSON at all, and says who it is.
            match serde_json::from_slice::<Value>(&answer.body).ok().as_ref().and_then(|body| body.get("error")) {
                Some(Value::String(code)) => refused(if is_code(code) { code } else { answer.status.as_str() }),
                Some(_) => match answer::failure(answer) {
                    error if error.class == FailureClass::Unavailable => LoginError::accident(error),
                    error => LoginError::refusal(FetchError { class: FailureClass::Unauthenticated, ..error }),
                },
                None if answer.headers.contains_key(METADATA_FLAVOR) => refused(answer.status.as_str()),
                None => malformed("not_google"),
            }
        }
        _ => LoginError::accident(answer::failure(answer)),
    }
}

/// `application/x-www-form-urlencoded`, in a buffer that does not grow.
fn encode(fields: &[(&str, &str)]) -> Zeroizing<Vec<u8>> {
    // Three bytes are the longest escape of one; `=` and `&` come on top.
    let room = fields.iter().map(|(name, value)| name.len() + 3 * value.len() + 2).sum();
    let mut form = Zeroizing::new(Vec::with_capacity(room));
    for (index, (name, value)) in fields.iter().enumerate() {
        if index > 0 {
            form.push(b'&');
        }
        form.extend_from_slice(name.as_bytes());
        form.push(b'=');
        for byte in value.bytes() {
            match byte {
                b'-' | b'.' | b'_' | b'~' => form.push(byte),
                byte if byte.is_ascii_alphanumeric() => form.push(byte),
                byte => form.extend_from_slice(percent_encoding::percent_encode_byte(byte).as_bytes()),
            }
        }
    }
    form
}

/// The content of a file; `code` stands in the log when there is none.
async fn read(path: &Path, code: &'static str) -> Result<Zeroizing<Vec<u8>>, LoginError> {
    let read = async {
        let file = tokio::fs::File::open(path).await?;
        let mut content = Zeroizing::new(Vec::with_capacity(MAX_FILE as usize + 1));
        file.take(MAX_FILE + 1).read_to_end(&mut content).await?;
        Ok(content)
    };
    let unreadable = |error: std::io::Error| LoginError::accident(unauthenticated(code).with_source(error));
    let content: Zeroizing<Vec<u8>> = read.await.map_err(unreadable)?;
    if content.len() as u64 > MAX_FILE { Err(unusable("file_too_large")) } else { Ok(content) }
}

/// A text member of an object.
fn text(json: Literal<'_>, name: &str) -> Option<String> {
    let text = json.member(name)?.decode()?;
    std::str::from_utf8(&text).ok().map(str::to_owned)
}

fn url_of(text: &str) -> Result<Url, LoginError> {
    Url::parse(text)
        .map_err(|_| LoginError::accident(FetchError::new(FailureClass::Misconfigured).with_code("token_url")))
}

/// Whether an answer's word is a code and not prose.
fn is_code(text: &str) -> bool {
    (1..=63).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_')
}

fn unauthenticated(code: &str) -> FetchError {
    FetchError::new(FailureClass::Unauthenticated).with_code(code)
}

fn unusable(code: &'static str) -> LoginError {
    LoginError::accident(unauthenticated(code))
}

fn malformed(code: &'static str) -> LoginError {
    LoginError::accident(FetchError::new(FailureClass::Malformed).with_code(code))
}

#[cfg(test)]
mod tests;
