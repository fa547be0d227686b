//! A control plane in this process, with a data plane's identity to look into what it sealed.
//!
//! On SQLite, or on the PostgreSQL of `CONTROL_TESTS_DATABASE_URL`, where each stage has a database of its own
//! (`tests/components/postgres cargo test --test it -- control::`).

#[cfg(feature = "postgres")]
mod postgres;

use std::{fs, path::Path};

use http::Method;
use serde_json::{Value, json};
use sidekey::{
    app::ControlPlane,
    config::ControlPlaneConfig,
    control::{
        api_key::{self, Role},
        key::{self, Hasher},
        store::{Action, Change, Kind, Object},
    },
    seal::{
        Place,
        identity::{Identities, Identity},
    },
    telemetry::{self, Capture, Level},
};
use sqlx::{AssertSqlSafe, SqlitePool};
use tempfile::TempDir;
use tracing::subscriber::DefaultGuard;

use crate::harness::{Call, Reply};

/// Where the URL of a PostgreSQL stands, if there is one.
const URL_FILE: &str = "database-url";

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
        #[cfg(feature = "postgres")]
        postgres::prepare(folder.path()).await;
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

    /// A new API key of `organisation` (empty = the first one) and of `workspace_id` (empty = the whole organisation).
    pub async fn key(&self, organisation: &str, workspace_id: &str, role: Role, scopes: &[&str]) -> String {
        let store = self.control.control().store();
        let organisation = match organisation {
            "" => store.organisations().await.unwrap().remove(0),
            organisation => organisation.to_owned(),
        };
        let key = key::generate().unwrap();
        let file = fs::read_to_string(self.folder.path().join("api-key-hash")).unwrap();
        let mut write = store.write(&organisation, "test").await.unwrap();
        let id = Object::new_id();
        let mut object = Object::new(Kind::ApiKey, id.clone(), id, "test".to_owned());
        workspace_id.clone_into(&mut object.workspace_id);
        let scopes = scopes.iter().map(|scope| (*scope).to_owned()).collect();
        object.write(&api_key::Body { role, scopes, ..api_key::Body::default() }).unwrap();
        write.insert(&mut object).await.unwrap();
        write.set_hashes(&object, &[Hasher::parse(&file).unwrap().hash(&key, 0)]).await.unwrap();
        write.commit(Change::of(Action::Created, &object, Vec::new())).await.unwrap();
        key.to_string()
    }

    /// Makes another organisation, which nothing of ours does yet; its id.
    pub async fn another_organisation(&self) -> String {
        let id = Object::new_id();
        let sql = format!(
            "INSERT INTO organisations (id, name, version, created_at) VALUES ('{id}', 'other', 0, {})",
            i64::MAX
        );
        #[cfg(feature = "postgres")]
        if postgres::execute(self.folder.path(), &sql).await {
            return id;
        }
        let url = format!("sqlite:{}", self.folder.path().join("control.db").display());
        let pool = SqlitePool::connect(&url).await.unwrap();
        sqlx::query(AssertSqlSafe(sql)).execute(&pool).await.unwrap();
        pool.close().await;
        id
    }

    /// Calls with an API key.
    pub async fn send_as(&self, key: &str, method: Method, target: &str, body: Value) -> Reply {
        let call = self.call_as(key, method, target);
        if body.is_null() { call.send().await } else { call.json(&body).send().await }
    }

    /// A new workspace; its id.
    pub async fn workspace(&self, slug: &str) -> String {
        let made = self.done(Method::POST, "/v1/admin/workspaces", json!({"name": slug, "slug": slug})).await;
        made["id"].as_str().unwrap().to_owned()
    }

    /// A secret reference that `more` changes; its id.
    pub async fn reference(&self, slug: &str, more: Value) -> String {
        let mut body =
            json!({"name": slug, "slug": slug, "manager_type": "file", "auth_config": {}, "secret_path": "a"});
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let made = self.done(Method::POST, "/v1/secret-references", body).await;
        made["id"].as_str().unwrap().to_owned()
    }

    /// The stored body of an object, as the database has it.
    pub async fn stored(&self, kind: Kind, name: &str) -> (String, String, Value) {
        let store = self.control.control().store();
        let organisation = store.organisations().await.unwrap().remove(0);
        let object = store.tenant(&organisation).await.unwrap().named(kind, name).await.unwrap().remove(0);
        (organisation, object.id.clone(), object.read().unwrap())
    }

    /// All that is kept of what was posted: files, and what a database elsewhere has, by name.
    pub async fn kept(&self) -> Vec<(String, Vec<u8>)> {
        let mut kept = Vec::new();
        for entry in fs::read_dir(self.folder.path()).unwrap() {
            let path = entry.unwrap().path();
            kept.push((path.display().to_string(), fs::read(path).unwrap()));
        }
        #[cfg(feature = "postgres")]
        kept.extend(postgres::kept(self.folder.path()).await);
        kept
    }

    /// Opens what stands behind `$sealed`.
    pub fn open(&self, place: Place<'_>, member: &Value) -> String {
        let sealed = member["$sealed"].as_str().unwrap_or_else(|| panic!("{member} is not sealed"));
        self.identities.open(place, sealed).unwrap().expose_str().unwrap().to_owned()
    }
}

/// A configuration whose files are in `folder`.
pub fn config(folder: &Path, recipient: &str, more: &str) -> ControlPlaneConfig {
    let database = if folder.join(URL_FILE).exists() {
        let file = |name: &str| folder.join(name).display().to_string();
        format!(
            "database_url_file: {}\nbootstrap_key_file: {}\napi_key_hash_file: {}\nsigning_key_file: {}",
            file(URL_FILE),
            file("bootstrap-key"),
            file("api-key-hash"),
            file("signing-key.pem")
        )
    } else {
        format!("database_file: {}", folder.join("control.db").display())
    };
    let text = format!("listen: 127.0.0.1:0\n{database}\nsealing: {{recipients: [{recipient}]}}\n{more}");
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
