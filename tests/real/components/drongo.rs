//! drongo, an emulator of Google Cloud: the REST interface of Secret Manager. It looks at no token and sends no checksum.

use std::net::SocketAddr;

use http::Method;
use serde_json::{Value, json};

use super::{free_address, installed};
use crate::{
    client::{Call, Reply},
    process::{Process, command},
};

/// A running emulator.
pub struct Drongo {
    address: SocketAddr,
    _process: Process,
}

impl Drongo {
    pub async fn start() -> Self {
        let address = free_address();
        let mut server = command(installed("venv-drongo/bin/drongo"));
        server.args(["server", "--host", "127.0.0.1", "--port"]).arg(address.port().to_string());
        let mut process = Process::start("drongo", server);
        process.until("listening", async || tokio::net::TcpStream::connect(address).await.ok()).await;
        Self { address, _process: process }
    }

    /// `http://address`, as in `managers.gcp.endpoint_url`.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// A new version of the secret `name` of the project `demo`, which is made where it is missing.
    pub async fn put(&self, name: &str, value: &str) {
        use base64::Engine as _;
        let body = json!({"replication": {"automatic": {}}});
        // Refused when it is there.
        self.call(Method::POST, &format!("projects/demo/secrets?secretId={name}"), &body).await;
        let payload = base64::engine::general_purpose::STANDARD.encode(value);
        let body = json!({"payload": {"data": payload}});
        self.call(Method::POST, &format!("projects/demo/secrets/{name}:addVersion"), &body).await.expect(200);
    }

    /// Any call; `path` is what follows `/v1/`. The status is the caller's to judge.
    pub async fn call(&self, method: Method, path: &str, body: &Value) -> Reply {
        Call::new(method, &format!("/v1/{path}")).json(body).send(self.address).await
    }
}
