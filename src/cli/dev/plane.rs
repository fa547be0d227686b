//! The control plane of the show: started on an empty database, and told of the example by its admin API.

use std::{
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use bytes::Bytes;
use http::{Request, StatusCode};
use http_body_util::{BodyExt, Full, Limited};
use hyper_util::{client::legacy::Client, rt::TokioExecutor};
use serde_json::{Value, json};
use tokio::time::timeout;
use url::Url;
use zeroize::Zeroizing;

use super::{
    ANY_PORT, Error, MAX_ANSWER,
    stage::{REFERENCE, SECRET_FILE, VIRTUAL_KEY, write_private},
};
use crate::{
    app::{ControlPlane, ControlPlaneError},
    config::ControlPlaneConfig,
    control::key::token_sha256,
    seal::{identity::Identity, signature::SigningKey},
};

/// For one call of the admin API.
const PATIENCE: Duration = Duration::from_secs(10);
/// Where everything of the example belongs.
const WORKSPACE: &str = "ws-dev";

/// A running control plane with an example in it.
#[derive(Debug)]
pub struct Plane {
    control: ControlPlane,
    folder: PathBuf,
    /// The API key of the example's client.
    pub api_key: String,
}

// === impl Plane ===

impl Plane {
    /// Starts it on `listen` with its files in `folder`, and makes reference, integration, virtual key and API key.
    /// `provider` is where the gateway is to take the credential instead of to its provider.
    ///
    /// # Errors
    /// When a file cannot be written, it cannot start, or it refuses what it is told.
    pub async fn start(folder: &Path, listen: SocketAddr, provider: Option<&Url>) -> Result<Self, Error> {
        let file = |name: &str| folder.join(name);
        let identity = Identity::generate().map_err(|_| "no random numbers can be had")?;
        let exposed = identity.expose().ok_or("the identity cannot be written")?;
        write_private(&file("identity"), exposed.as_bytes())?;
        let mut token = Zeroizing::new([0; 16]);
        getrandom::fill(&mut *token)?;
        let token = Zeroizing::new(format!("{:032x}", u128::from_ne_bytes(*token)));
        write_private(&file("token"), token.as_bytes())?;
        let configure = |listen: SocketAddr| {
            let text = json!({
                "listen": listen.to_string(),
                "database_file": file("control.db"),
                "sealing": { "recipients": [identity.recipient().to_string()] },
                "data_planes": [{ "name": "dev", "token_sha256": token_sha256(&token) }],
                "limits": { "drain_secs": 1 },
            });
            // JSON is YAML.
            ControlPlaneConfig::parse("dev", &text.to_string(), [])
        };
        let control = match ControlPlane::start(configure(listen)?).await {
            // The port was taken between the look and the start.
            Err(ControlPlaneError::Listen { .. }) => ControlPlane::start(configure(ANY_PORT)?).await?,
            started => started?,
        };
        let signing = Zeroizing::new(fs::read_to_string(file("signing-key.pem"))?);
        write_private(&file("signing-key.pub"), SigningKey::parse(&signing)?.verifying().to_pem().as_bytes())?;
        let mut plane = Self { control, folder: folder.to_owned(), api_key: String::new() };
        plane.rehearse(provider).await?;
        Ok(plane)
    }

    /// Where its admin API is.
    pub fn address(&self) -> SocketAddr {
        self.control.address()
    }

    /// What a sidecar needs to follow it, and to know its clients.
    pub fn configuration(&self) -> Value {
        let file = |name: &str| self.folder.join(name);
        json!({
            "snapshot": { "control_plane": {
                "url": format!("http://{}", self.address()),
                "token_file": file("token"),
                "public_key_file": file("signing-key.pub"),
            } },
            "sealing": { "identity_file": file("identity") },
            "client_auth": "api_key",
            "api_key_hash_file": file("api-key-hash"),
        })
    }

    /// Ends it.
    pub async fn stop(self) {
        self.control.stop().await;
    }

    /// Makes what the one request needs, as an administrator would.
    async fn rehearse(&mut self, provider: Option<&Url>) -> Result<(), Error> {
        let configurations = match provider {
            Some(url) => json!({ "custom_host": url.join("v1")?.as_str() }),
            None => json!({}),
        };
        let mapping = json!({ "target_field": "key", "secret_reference_id": REFERENCE });
        self.make("admin/workspaces", json!({ "name": "Dev", "slug": WORKSPACE })).await?;
        let reference = json!({
            "name": "OpenAI key", "slug": REFERENCE, "manager_type": "file", "auth_config": {},
            "secret_path": SECRET_FILE, "allow_all_workspaces": true,
        });
        self.make("secret-references", reference).await?;
        let integration = json!({
            "name": "OpenAI", "slug": "openai-main", "ai_provider_id": "openai", "workspace_id": WORKSPACE,
            "configurations": configurations, "secret_mappings": [mapping],
        });
        self.make("integrations", integration).await?;
        let virtual_key = json!({
            "name": "OpenAI", "slug": VIRTUAL_KEY, "integration_id": "openai-main", "workspace_id": WORKSPACE,
        });
        self.make("virtual-keys", virtual_key).await?;
        let key = json!({ "name": "Dev", "workspace_id": WORKSPACE, "scopes": ["completions.write"] });
        let made = self.make("api-keys/workspace/service", key).await?;
        made["key"].as_str().ok_or("the control plane made no API key")?.clone_into(&mut self.api_key);
        Ok(())
    }

    async fn make(&self, path: &str, body: Value) -> Result<Value, Error> {
        let owner = Zeroizing::new(fs::read_to_string(self.folder.join("bootstrap-key"))?);
        let request = Request::post(format!("http://{}/v1/{path}", self.address()))
            .header("content-type", "application/json")
            .header("x-portkey-api-key", owner.trim())
            .body(Full::<Bytes>::from(body.to_string()))?;
        let call = async {
            let (head, body) = Client::builder(TokioExecutor::new()).build_http().request(request).await?.into_parts();
            let body = Limited::new(body, MAX_ANSWER).collect().await?.to_bytes();
            Ok::<_, Error>((head.status, body))
        };
        let (status, body) = timeout(PATIENCE, call).await.map_err(|_| "the control plane does not answer")??;
        let answer: Value = serde_json::from_slice(&body).unwrap_or_default();
        if status != StatusCode::OK {
            let message = answer.pointer("/data/message").and_then(Value::as_str).unwrap_or_default();
            return Err(format!("the control plane answers POST /{path} with {status}: {message}").into());
        }
        Ok(answer)
    }
}
