//! A control plane in this process, with a data plane's identity to look into what it sealed.

use std::{fs, path::Path};

use http::Method;
use serde_json::Value;
use sidekey::{
    app::ControlPlane,
    config::ControlPlaneConfig,
    seal::{
        Place,
        identity::{Identities, Identity},
    },
    telemetry::{self, Capture, Level},
};
use tempfile::TempDir;
use tracing::subscriber::DefaultGuard;

use crate::harness::{Call, Reply};

/// What is running, and who may look into it.
pub struct Stage {
    /// The control plane.
    pub control: ControlPlane,
    /// Where its files are.
    pub folder: TempDir,
    /// Whom it seals to.
    pub identities: Identities,
    /// The OWNER key of its first organisation.
    pub owner: String,
    /// What it logs.
    pub log: Capture,
    _logging: DefaultGuard,
}

impl Stage {
    /// Starts one on an empty SQLite database.
    pub async fn start() -> Self {
        Self::with("egress: {allow_hosts: [vault.internal]}\n").await
    }

    /// Starts one with more lines of configuration.
    pub async fn with(more: &str) -> Self {
        let log = Capture::default();
        let subscriber = telemetry::subscriber(Level::TRACE, None, telemetry::Format::Json, log.clone()).unwrap();
        let _logging = tracing::subscriber::set_default(subscriber);
        let folder = tempfile::tempdir().unwrap();
        let identity = Identity::generate().unwrap();
        let config = config(folder.path(), &identity.recipient().to_string(), more);
        let control = ControlPlane::start(config).await.unwrap();
        let owner = fs::read_to_string(folder.path().join("bootstrap-key")).unwrap();
        Self { control, folder, identities: identity.into(), owner, log, _logging }
    }

    /// A call by the OWNER.
    pub fn call(&self, method: Method, target: &str) -> Call {
        self.call_as(&self.owner, method, target)
    }

    /// A call with an API key.
    pub fn call_as(&self, key: &str, method: Method, target: &str) -> Call {
        Call::to(self.control.address(), method, target).header("x-portkey-api-key", key)
    }

    /// Calls as the OWNER and expects 200; the body.
    pub async fn done(&self, method: Method, target: &str, body: Value) -> Value {
        let reply = self.send(method, target, body).await;
        assert_eq!(reply.status, 200, "{target}: {}", reply.text());
        reply.json()
    }

    /// Calls as the OWNER.
    pub async fn send(&self, method: Method, target: &str, body: Value) -> Reply {
        let call = self.call(method, target);
        if body.is_null() { call.send().await } else { call.json(&body).send().await }
    }

    /// The stored body of an object, as the database has it.
    pub async fn stored(&self, kind: sidekey::control::store::Kind, name: &str) -> (String, String, Value) {
        let store = self.control.control().store();
        let organisation = store.organisations().await.unwrap().remove(0);
        let object = store.tenant(&organisation).await.unwrap().named(kind, name).await.unwrap().remove(0);
        (organisation, object.id.clone(), object.read().unwrap())
    }

    /// Opens what stands behind `$sealed`.
    pub fn open(&self, place: Place<'_>, member: &Value) -> String {
        let sealed = member["$sealed"].as_str().unwrap_or_else(|| panic!("{member} is not sealed"));
        self.identities.open(place, sealed).unwrap().expose_str().unwrap().to_owned()
    }
}

/// A configuration whose files are in `folder`.
pub fn config(folder: &Path, recipient: &str, more: &str) -> ControlPlaneConfig {
    let database = folder.join("control.db");
    let text = format!(
        "listen: 127.0.0.1:0\ndatabase_file: {}\nsealing: {{recipients: [{recipient}]}}\n{more}",
        database.display()
    );
    ControlPlaneConfig::parse("control-plane.yaml", &text, []).unwrap()
}

/// Status and message of a refusal, in the shape that every refusal has.
#[track_caller]
pub fn refusal(reply: &Reply) -> (u16, String, String) {
    let body = reply.json();
    assert_eq!(body["success"], false, "{body}");
    let text = |key: &str| body["data"][key].as_str().unwrap_or_else(|| panic!("{body} has no {key}")).to_owned();
    (reply.status, text("errorCode"), text("message"))
}
