//! A cloud that keeps the contracts of Microsoft Entra, Key Vault and the machine's identity service, without any network:
//! a request goes in, an answer comes out. Servers around it are the tests' own.
//!
//! Ours: all of this file, written after Microsoft's REST references. Tokens are JWTs (RFC 7519) whose signature, audience,
//! issuer, tenant and expiry the vaults check, so that a client that asks for the wrong thing gets nowhere. Real: the
//! official libraries that talk to it, TLS, and the names of the clouds, which the tests' name servers lead here.

use std::{
    collections::HashMap,
    sync::{
        Mutex, MutexGuard,
        atomic::{AtomicU32, AtomicU64, Ordering},
    },
    time::{SystemTime, UNIX_EPOCH},
};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use hmac::{Hmac, KeyInit as _, Mac as _};
use serde_json::{Value, json};
use sha2::Sha256;

/// The one tenant.
pub const TENANT: &str = "00000000-aaaa-4000-8000-00000000000a";
/// A client of it.
pub const CLIENT: &str = "00000000-bbbb-4000-8000-00000000000b";
/// Its secret.
pub const CLIENT_SECRET: &str = "client~secret-canary.7_Q";
/// A token of a cluster that the client trusts.
pub const FEDERATED: &str = "eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJjYW5hcnkifQ.c2lnbmF0dXJl";
/// An identity assigned to the machine; the system-assigned one has no name.
pub const ASSIGNED: &str = "00000000-cccc-4000-8000-00000000000c";
/// The header that App Service wants to see.
pub const APP_SERVICE_HEADER: &str = "app-service-header-canary";
/// A name that no identity may read.
pub const FORBIDDEN: &str = "forbidden";

/// How long tokens last, seconds.
const LEASE_SECS: u64 = 3599;

/// A request.
#[derive(Clone, Debug, Default)]
pub struct Asked {
    /// Name or address, without a port.
    pub host: String,
    pub method: String,
    /// Path and query.
    pub target: String,
    /// Names in lower case.
    pub headers: HashMap<String, String>,
    pub body: String,
}

/// An answer.
#[derive(Clone, Debug)]
pub struct Reply {
    pub status: u16,
    pub headers: Vec<(&'static str, String)>,
    pub body: String,
    /// There is none.
    pub never: bool,
}

/// The cloud.
pub struct Cloud {
    key: [u8; 32],
    /// Tokens of earlier epochs are dead.
    epoch: AtomicU64,
    created: AtomicU32,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Of a secret's name.
    secrets: HashMap<String, Vec<Stored>>,
    scripts: HashMap<String, Vec<Reply>>,
    challenge: Option<String>,
    client_secret: String,
    seen: Vec<Asked>,
}

#[derive(Clone)]
struct Stored {
    version: String,
    value: String,
    attributes: Value,
}

// === impl Cloud ===

impl Default for Cloud {
    fn default() -> Self {
        let mut key = [0; 32];
        getrandom::fill(&mut key).unwrap();
        let state = State { client_secret: CLIENT_SECRET.to_owned(), ..State::default() };
        Self { key, epoch: AtomicU64::new(0), created: AtomicU32::new(0), state: Mutex::new(state) }
    }
}

impl Cloud {
    /// A new version of the secret `name`; its version comes back.
    pub fn put(&self, name: &str, value: &str) -> String {
        self.put_with(name, value, json!({}))
    }

    /// [`Cloud::put`] with attributes of its own.
    pub fn put_with(&self, name: &str, value: &str, attributes: Value) -> String {
        let number = self.created.fetch_add(1, Ordering::Relaxed);
        let version = format!("{number:08x}000000000000000000000abc");
        let created = 1_700_000_000 + u64::from(number);
        let mut all = json!({"enabled": true, "created": created, "updated": created, "recoveryLevel": "Recoverable"});
        for (key, value) in attributes.as_object().unwrap() {
            all[key] = value.clone();
        }
        let stored = Stored { version: version.clone(), value: value.to_owned(), attributes: all };
        self.state().secrets.entry(name.to_owned()).or_default().push(stored);
        version
    }

    /// Answers `path` so from now on, one after the other, the last one for ever.
    pub fn script(&self, path: &str, replies: impl IntoIterator<Item = Reply>) {
        self.state().scripts.insert(path.to_owned(), replies.into_iter().collect());
    }

    /// Forgets the scripts.
    pub fn heal(&self) {
        self.state().scripts.clear();
    }

    /// The vaults' challenge from now on.
    pub fn challenge(&self, text: &str) {
        self.state().challenge = Some(text.to_owned());
    }

    /// The client has another secret from now on.
    pub fn rotate(&self, client_secret: &str) {
        client_secret.clone_into(&mut self.state().client_secret);
    }

    /// Ends every token.
    pub fn revoke_all(&self) {
        self.epoch.fetch_add(1, Ordering::Relaxed);
    }

    /// Every request so far.
    pub fn seen(&self) -> Vec<Asked> {
        self.state().seen.clone()
    }

    /// Requests whose target contains `part`.
    pub fn asked(&self, part: &str) -> usize {
        self.state().seen.iter().filter(|asked| asked.target.contains(part)).count()
    }

    /// What the cloud answers.
    pub fn answer(&self, asked: &Asked) -> Reply {
        self.state().seen.push(asked.clone());
        let path = asked.target.split('?').next().unwrap_or_default();
        if let Some(script) = self.state().scripts.get_mut(path) {
            return if script.len() > 1 { script.remove(0) } else { script[0].clone() };
        }
        let segments: Vec<&str> = path.trim_start_matches('/').split('/').collect();
        match (asked.method.as_str(), segments.as_slice()) {
            ("POST", [tenant, "oauth2", "v2.0", "token"]) => self.log_in(tenant, &asked.body),
            ("GET", ["metadata", "identity", "oauth2", "token"]) => self.of_the_machine(asked, None),
            ("GET", ["msi", "token"]) => self.of_the_machine(asked, Some(APP_SERVICE_HEADER)),
            (_, ["secrets", rest @ ..]) => self.vault(asked, rest),
            _ => Reply::text(404, "default backend - 404"),
        }
    }

    fn log_in(&self, tenant: &str, body: &str) -> Reply {
        let form: HashMap<String, String> = url::form_urlencoded::parse(body.as_bytes()).into_owned().collect();
        let field = |name: &str| form.get(name).map_or("", String::as_str);
        let proof = match field("client_assertion_type") {
            "" => field("client_secret") == self.state().client_secret,
            kind => {
                kind == "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
                    && field("client_assertion") == FEDERATED
            }
        };
        let Some(resource) = field("scope").strip_suffix("/.default") else {
            return Reply::entra(400, "invalid_scope", 70011);
        };
        match () {
            () if tenant != TENANT => Reply::entra(400, "invalid_request", 90002),
            () if field("grant_type") != "client_credentials" => Reply::entra(400, "unsupported_grant_type", 70003),
            () if field("client_id") != CLIENT => Reply::entra(400, "unauthorized_client", 700_016),
            () if !proof && form.contains_key("client_assertion") => Reply::entra(401, "invalid_client", 700_213),
            () if !proof => Reply::entra(401, "invalid_client", 7_000_215),
            () if !resource.contains(".vault") && !resource.starts_with("https://vault.") => {
                Reply::entra(400, "invalid_resource", 500_011)
            }
            () => Reply::json(
                200,
                &json!({"token_type": "Bearer", "expires_in": LEASE_SECS, "ext_expires_in": LEASE_SECS,
                        "access_token": self.token(CLIENT, resource, LEASE_SECS)}),
            ),
        }
    }

    /// The token endpoint of the virtual machine, or with `secret` that of App Service.
    fn of_the_machine(&self, asked: &Asked, secret: Option<&str>) -> Reply {
        let refused = |text: &str| Reply::json(400, &json!({"error": text, "error_description": "canary"}));
        if asked.headers.get("metadata").map(String::as_str) != Some("true")
            || asked.headers.contains_key("x-forwarded-for")
        {
            return refused("bad_request_102");
        }
        if secret.is_some() && asked.headers.get("x-identity-header").map(String::as_str) != secret {
            return Reply::text(401, "");
        }
        let query = asked.target.split_once('?').map_or("", |(_, query)| query);
        let query: HashMap<String, String> = url::form_urlencoded::parse(query.as_bytes()).into_owned().collect();
        let identity = match query.get("client_id").map(String::as_str) {
            None => "system-assigned",
            Some(ASSIGNED) => ASSIGNED,
            Some(_) => return refused("invalid_request"),
        };
        let (Some("2019-08-01"), Some(resource)) =
            (query.get("api-version").map(String::as_str), query.get("resource"))
        else {
            return refused("bad_request_101");
        };
        let expires_on = (now() + 24 * 3600).to_string();
        let token = self.token(identity, resource, 24 * 3600);
        Reply::json(
            200,
            &json!({"access_token": token, "expires_on": expires_on, "resource": resource, "token_type": "Bearer"}),
        )
    }

    fn vault(&self, asked: &Asked, segments: &[&str]) -> Reply {
        let resource = format!("https://{}", asked.host.split_once('.').map_or("", |(_, parent)| parent));
        let token = asked.headers.get("authorization").and_then(|value| value.strip_prefix("Bearer "));
        if let Err(reason) = self.check(token, &resource) {
            let challenge =
                format!(r#"Bearer authorization="https://login.microsoftonline.com/{TENANT}", resource="{resource}""#);
            let challenge = self.state().challenge.clone().unwrap_or(challenge);
            let body = json!({"error": {"code": "Unauthorized", "message": reason}});
            return Reply::json(401, &body).header("www-authenticate", &challenge);
        }
        let Some(query) =
            asked.target.split_once("?api-version=").map(|(_, query)| query).filter(|query| !query.is_empty())
        else {
            return Reply::vault(400, "BadParameter", None);
        };
        let state = self.state();
        let (name, version) = match *segments {
            [name, "versions"] => return state.versions(asked, name, query),
            [name, version] => (name, version),
            _ => return Reply::vault(400, "BadParameter", None),
        };
        if name == FORBIDDEN {
            return Reply::vault(403, "Forbidden", Some("ForbiddenByRbac"));
        }
        let versions = state.secrets.get(name).map_or(&[][..], Vec::as_slice);
        let found = match version {
            "" => versions.last(),
            version => versions.iter().find(|stored| stored.version == version),
        };
        match found {
            None => Reply::vault(404, "SecretNotFound", None),
            Some(stored) if stored.attributes["enabled"] == false => {
                Reply::vault(403, "Forbidden", Some("SecretDisabled"))
            }
            Some(stored) => {
                let id = format!("https://{}/secrets/{name}/{}", asked.host, stored.version);
                let body = json!({"value": stored.value, "contentType": "text/plain", "id": id,
                                  "attributes": stored.attributes, "tags": {}});
                Reply::json(200, &body)
            }
        }
    }

    fn token(&self, client: &str, resource: &str, seconds: u64) -> String {
        let claims = json!({
            "aud": resource, "iss": format!("https://sts.windows.net/{TENANT}/"), "tid": TENANT, "appid": client,
            "exp": now() + seconds, "epoch": self.epoch.load(Ordering::Relaxed), "canary": "token-canary",
        });
        let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let signed = format!("{}.{}", part(&json!({"alg": "HS256", "typ": "JWT"})), part(&claims));
        let signature = URL_SAFE_NO_PAD.encode(self.sign(&signed));
        format!("{signed}.{signature}")
    }

    fn check(&self, token: Option<&str>, resource: &str) -> Result<(), &'static str> {
        let (signed, signature) = token.ok_or("no token")?.rsplit_once('.').ok_or("no JWT")?;
        if URL_SAFE_NO_PAD.encode(self.sign(signed)) != signature {
            return Err("signature");
        }
        let claims = URL_SAFE_NO_PAD.decode(signed.split('.').nth(1).ok_or("no claims")?).map_err(|_| "claims")?;
        let claims: Value = serde_json::from_slice(&claims).map_err(|_| "claims")?;
        match () {
            () if claims["aud"] != resource => Err("audience"),
            () if claims["iss"] != format!("https://sts.windows.net/{TENANT}/") => Err("issuer"),
            () if claims["tid"] != TENANT => Err("tenant"),
            () if claims["exp"].as_u64().is_none_or(|exp| exp <= now()) => Err("expired"),
            () if claims["epoch"].as_u64() != Some(self.epoch.load(Ordering::Relaxed)) => Err("revoked"),
            () => Ok(()),
        }
    }

    fn sign(&self, text: &str) -> Vec<u8> {
        let mut mac = Hmac::<Sha256>::new_from_slice(&self.key).unwrap();
        mac.update(text.as_bytes());
        mac.finalize().into_bytes().to_vec()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }
}

// === impl State ===

impl State {
    /// The list of versions in pages of two, in no order.
    fn versions(&self, asked: &Asked, name: &str, query: &str) -> Reply {
        const PAGE: usize = 2;
        if name == FORBIDDEN {
            return Reply::vault(403, "Forbidden", Some("ForbiddenByRbac"));
        }
        let mut versions = self.secrets.get(name).cloned().unwrap_or_default();
        let turn = usize::from(versions.len() > 1);
        versions.rotate_left(turn);
        let skip: usize = query.split_once("&skip=").map_or(0, |(_, skip)| skip.parse().unwrap());
        let page: Vec<Value> = versions
            .iter()
            .skip(skip)
            .take(PAGE)
            .map(|stored| {
                json!({"id": format!("https://{}/secrets/{name}/{}", asked.host, stored.version), "attributes": stored.attributes})
            })
            .collect();
        let api = query.split('&').next().unwrap_or_default();
        let next = (skip + PAGE < versions.len())
            .then(|| format!("{}?api-version={api}&skip={}", asked.target.split('?').next().unwrap(), skip + PAGE));
        Reply::json(200, &json!({"value": page, "nextLink": next}))
    }
}

// === impl Reply ===

impl Reply {
    pub fn text(status: u16, body: &str) -> Self {
        Self { status, headers: Vec::new(), body: body.to_owned(), never: false }
    }

    pub fn json(status: u16, body: &Value) -> Self {
        Self::text(status, &body.to_string()).header("content-type", "application/json")
    }

    /// No answer at all.
    pub fn never() -> Self {
        Self { never: true, ..Self::text(200, "") }
    }

    pub fn header(mut self, name: &'static str, value: &str) -> Self {
        self.headers.push((name, value.to_owned()));
        self
    }

    /// A failure of Key Vault.
    pub fn vault(status: u16, code: &str, inner: Option<&str>) -> Self {
        let mut error = json!({"code": code, "message": "Caller canary is not …"});
        if let Some(inner) = inner {
            error["innererror"] = json!({"code": inner});
        }
        Self::json(status, &json!({"error": error}))
    }

    /// A failure of Entra, whose words hold line breaks.
    pub fn entra(status: u16, error: &str, code: u32) -> Self {
        let text = format!("AADSTS{code}: canary of the description.\r\nTrace ID: canary");
        Self::json(
            status,
            &json!({"error": error, "error_description": text, "error_codes": [code], "timestamp": "2026-11-25 10:00:00Z"}),
        )
    }
}

/// Seconds since 1970.
pub fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}
