//! `sidekey control-plane` under what happens to servers: killed, full, in the plural.

pub mod canaries;
pub mod durability;
pub mod measure;
pub mod replicas;
pub mod schema;
pub mod sidecar;
pub mod tools;

use std::{
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

use http::Method;
use serde_json::{Value, json};
use sidekey::{
    control::{
        key::{Hasher, token_sha256},
        store::{Kind, Location, Store},
    },
    seal::{identity::Identity, signature::SigningKey},
};

use crate::{
    client::Call,
    components::free_address,
    process::{Process, command},
    world::program,
};

/// What a data plane presents.
pub const TOKEN: &str = "dp-sidekey-of-the-configuration";
/// The OWNER key.
pub const OWNER: &str = "sk-sidekey-owner-key-of-this-test";

/// Where a control plane has its things.
pub struct Home {
    folder: PathBuf,
    database: String,
    log: &'static str,
}

/// A running control plane.
pub struct ControlPlane {
    pub address: SocketAddr,
    pub process: Process,
}

/// What was written, by name: what a call was answered, or that it was not.
#[derive(Default)]
pub struct Ledger {
    entries: Mutex<Vec<(String, Written)>>,
    next: AtomicUsize,
}

/// What became of a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Written {
    /// 200.
    Acknowledged,
    /// A refusal, or no answer: it may have happened, or not.
    Unknown,
}

// === impl Home ===

impl Home {
    /// On SQLite, in `folder`.
    pub fn on_sqlite(folder: &Path) -> Self {
        let database = format!("database_file: {}\n", folder.join("control.db").display());
        Self::new(folder, database)
    }

    /// On the PostgreSQL at `url`, with files in `folder`.
    pub fn on_postgres(folder: &Path, url: &str) -> Self {
        fs::write(folder.join("database-url"), url).expect("a file");
        fs::write(folder.join("api-key-hash"), &*Hasher::generate().expect("a key")).expect("a file");
        let signing = SigningKey::generate().expect("a key").expose().expect("a key");
        fs::write(folder.join("signing-key.pem"), &*signing).expect("a file");
        Self::new(folder, format!("database_url_file: {}\n", folder.join("database-url").display()))
    }

    /// With somebody to seal to: whoever has the file `identity`. Who follows the feed has `public.pem`.
    pub fn sealing(mut self) -> Self {
        let (identity, signing) = (Identity::generate().expect("a key"), self.folder.join("signing-key.pem"));
        fs::write(self.folder.join("identity"), &*identity.expose().expect("a key")).expect("a file");
        self.database.push_str(&format!("sealing: {{recipients: [{}]}}\n", identity.recipient()));
        if !signing.exists() {
            let made = SigningKey::generate().expect("a key").expose().expect("a key");
            fs::write(&signing, &*made).expect("a file");
        }
        let signing = SigningKey::parse(&fs::read_to_string(signing).expect("a file")).expect("a key");
        fs::write(self.folder.join("public.pem"), signing.verifying().to_pem()).expect("a file");
        self
    }

    /// With more lines of configuration.
    pub fn with(mut self, more: &str) -> Self {
        self.database.push_str(more);
        self
    }

    /// With `RUST_LOG` at `directives`.
    pub fn saying(self, log: &'static str) -> Self {
        Self { log, ..self }
    }

    fn new(folder: &Path, database: String) -> Self {
        fs::write(folder.join("bootstrap-key"), OWNER).expect("a file");
        let file = |name: &str| folder.join(name).display().to_string();
        let database = format!(
            "{database}bootstrap_key_file: {}\napi_key_hash_file: {}\nsigning_key_file: {}\n",
            file("bootstrap-key"),
            file("api-key-hash"),
            file("signing-key.pem")
        );
        Self { folder: folder.to_owned(), database, log: "" }
    }

    /// Starts a control plane; returns when it listens.
    pub async fn start(&self, name: &str) -> ControlPlane {
        self.start_at(name, free_address()).await
    }

    /// As [`Home::start`], at an address that is known.
    pub async fn start_at(&self, name: &str, address: SocketAddr) -> ControlPlane {
        let mut starting = self.spawn_at(name, address);
        starting.process.until("ready", async || tokio::net::TcpStream::connect(address).await.ok()).await;
        starting
    }

    /// Starts a control plane, and does not wait for it.
    pub fn spawn(&self, name: &str) -> ControlPlane {
        self.spawn_at(name, free_address())
    }

    fn spawn_at(&self, name: &str, address: SocketAddr) -> ControlPlane {
        let config = format!(
            "listen: {address}\n{}data_planes: [{{name: fleet, token_sha256: {}}}]\n",
            self.database,
            token_sha256(TOKEN)
        );
        let file = self.folder.join(format!("{name}.yaml"));
        fs::write(&file, config).expect("a configuration");
        let mut program = command(program());
        program.arg("control-plane").arg("--config").arg(file);
        if !self.log.is_empty() {
            program.env("RUST_LOG", self.log);
        }
        ControlPlane { address, process: Process::start(name, program) }
    }
}

// === impl ControlPlane ===

impl ControlPlane {
    /// Ends it as a power cut would.
    pub async fn kill(&mut self) {
        self.process.signal(rustix::process::Signal::KILL);
        self.process.ended().await;
    }

    /// Makes a workspace of this name, if there is anybody to do it.
    pub async fn write(&self, name: &str) -> Written {
        write(self.address, name).await
    }

    /// The feed, with `query`.
    pub async fn feed(&self, query: &str) -> crate::client::Reply {
        let call = Call::get(&format!("/v1/snapshot{query}")).header("authorization", format!("Bearer {TOKEN}"));
        call.send(self.address).await
    }
}

// === impl Ledger ===

impl Ledger {
    /// Writes to `control` until it does not answer, or `most` writes have been begun.
    pub async fn fill(&self, control: &ControlPlane, most: usize) {
        self.fill_at(control.address, most).await;
    }

    /// As [`Ledger::fill`], of the one at `address`.
    pub async fn fill_at(&self, address: SocketAddr, most: usize) {
        loop {
            let index = self.next.fetch_add(1, Ordering::Relaxed);
            if index >= most {
                return;
            }
            let name = format!("ws-{index:05}");
            let written = write(address, &name).await;
            self.entries.lock().expect("no panic").push((name, written));
            if written == Written::Unknown {
                return;
            }
        }
    }

    pub fn acknowledged(&self) -> usize {
        let entries = self.entries.lock().expect("no panic");
        entries.iter().filter(|(_, written)| *written == Written::Acknowledged).count()
    }

    /// Panics unless all that was acknowledged is there, nothing is half there, and each version has its audit record.
    pub async fn check(&self, location: &Location) {
        let store = Store::open(location).await.expect("the database opens");
        let organisation = store.organisations().await.expect("organisations").remove(0);
        let mut tenant = store.tenant(&organisation).await.expect("a tenant");
        let version = tenant.head().await.expect("a head").version;
        let records = tenant.audit(i64::MAX).await.expect("the audit log");
        let mut versions: Vec<_> = records.iter().map(|record| record.version).collect();
        versions.sort_unstable();
        assert_eq!(versions, (1..=version).collect::<Vec<_>>(), "one audit record a version");

        let objects = tenant.all(Kind::Workspace, &Default::default()).await.expect("workspaces");
        for object in &objects {
            object.read::<sidekey::control::workspace::Body>().expect("a whole row");
            let record = records.iter().find(|record| record.version == object.version).expect("a record");
            assert_eq!((&record.object_id, record.action.as_str()), (&object.id, "created"), "{}", object.slug);
        }
        let there: std::collections::HashSet<_> = objects.iter().map(|object| object.slug.as_str()).collect();
        for (name, written) in &*self.entries.lock().expect("no panic") {
            assert!(
                *written == Written::Unknown || there.contains(name.as_str()),
                "{name} was acknowledged and is gone"
            );
        }
        drop(tenant);
        store.close().await;
    }
}

async fn write(address: SocketAddr, name: &str) -> Written {
    let body = json!({"name": name, "slug": name, "description": "x".repeat(200)});
    let call = Call::new(Method::POST, "/v1/admin/workspaces").header("x-portkey-api-key", OWNER).json(&body);
    match call.try_send(address).await {
        Some(reply) if reply.status == 200 => Written::Acknowledged,
        _ => Written::Unknown,
    }
}

/// The ETag of an answer, as `since` takes it.
pub fn state(reply: &crate::client::Reply) -> String {
    reply.header("etag").trim_matches('"').to_owned()
}

/// A number that a measurement may set by `name`.
pub fn number(name: &str, default: usize) -> usize {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

/// A list in a snapshot.
pub fn rows<'a>(snapshot: &'a Value, list: &str) -> &'a [Value] {
    snapshot[list].as_array().map_or(&[], Vec::as_slice)
}
