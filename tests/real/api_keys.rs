//! API keys from their making to their end: the bodies and curl lines of the document on them at a real control plane, each
//! resulting key at a sidecar that follows it, in front of the real gateway, with unmodified SDKs.
//!
//! The applications are `tests/sdk/keys.py` and `keys.mjs`, which are told which SDK to use with which key. A transition lasts
//! half an hour at least; where it has to end, its end is moved in the control plane's database, and everything after that, the
//! feed and the refusal, is as always.

mod budget;
mod rotation;

pub use budget::is_spent_and_reset;
pub use rotation::{costs_no_client_a_request, ends_the_old_secret};

use std::{fs, path::Path, process::Stdio};

use http::Method;
use serde_json::{Value, json};
use sidekey::control::store::{Action, Change, Hash, Kind, Location, Store};
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines},
    process::{Child, ChildStdin, ChildStdout},
};

use crate::{
    client::{Call, Reply},
    components::{Gateway, OpenBao, free_address},
    control_plane::{ControlPlane, Home, OWNER, TOKEN},
    harness, process,
    provider::Provider,
    sdk,
    world::{Setup, Sidekey},
};

/// The lines of the document; what they print is an answer each.
const BODIES: &str = include_str!("../conformance/api_key_bodies.sh");
const SERVICE: &str = include_str!("../conformance/api_key_service.sh");
const USER: &str = include_str!("../conformance/api_key_user.sh");

/// What `api.openai.com` and `api.anthropic.com` take, from OpenBao.
const OPENAI_SECRET: &str = "sk-openai-of-the-vault";
const ANTHROPIC_SECRET: &str = "sk-ant-of-the-vault";

/// Every SDK: the application that has it, its name there, and what it asks at `@openai` or `@anthropic`.
const SDKS: [(App, &str, &str); 5] = [
    (App::Python, "portkey", "chat"),
    (App::Python, "openai", "chat"),
    (App::Python, "anthropic", "messages"),
    (App::Node, "portkey", "chat"),
    (App::Node, "openai", "chat"),
];

/// Everything that runs.
struct Stage {
    provider: Provider,
    plane: ControlPlane,
    sidekey: Sidekey,
    python: Application,
    node: Application,
    _bao: OpenBao,
    _gateway: Gateway,
}

/// A key as its making told it.
#[derive(Clone, Debug)]
struct Key {
    id: String,
    secret: String,
}

#[derive(Clone, Copy, Debug)]
enum App {
    Python,
    Node,
}

/// A running script.
struct Application {
    stdin: ChildStdin,
    lines: Lines<BufReader<ChildStdout>>,
    _child: Child,
}

/// The basic body and the curl lines: within scope the keys work with every SDK, beyond scope and workspace they do not.
pub async fn of_the_document_work_with_every_sdk() {
    let mut stage = Stage::start().await;
    let keys = stage.run(BODIES).await;
    let [basic, rotating, budget] = keys.as_slice() else { panic!("{keys:?}") };
    for key in [basic, rotating, budget] {
        for (app, sdk, call) in SDKS {
            let said = stage.ask(app, sdk, call, &key.secret, None).await;
            assert_eq!(said["text"], "pong", "{app:?} {sdk}: {said}");
        }
    }
    for (app, sdk, call, text) in [
        (App::Python, "portkey", "stream", "token-0token-1token-2"),
        (App::Node, "openai", "stream", "token-0token-1token-2"),
        (App::Node, "portkey", "embeddings", "[0.25,0.5]"),
        (App::Python, "openai", "embeddings", "[0.25, 0.5]"),
    ] {
        let said = stage.ask(app, sdk, call, &basic.secret, None).await;
        assert_eq!(said["text"], text, "{app:?} {sdk} {call}: {said}");
    }
    let received = stage.provider.take();
    assert_eq!(received.len(), 3 * SDKS.len() + 4);
    for request in &received {
        let (credential, wanted) = match request.host.as_str() {
            "api.openai.com" => (request.header("authorization"), format!("Bearer {OPENAI_SECRET}")),
            host => {
                (request.header("x-api-key"), format!("{ANTHROPIC_SECRET}{}", host.replace("api.anthropic.com", "")))
            }
        };
        assert_eq!(credential, wanted, "{request:?}");
        assert!([basic, rotating, budget].iter().all(|key| !request.contains(&key.secret)), "{request:?}");
    }

    // Other scopes than completions.write; nothing of it reaches a provider.
    let services = stage.run(SERVICE).await.swap_remove(0);
    let user = stage.run(USER).await.swap_remove(0);
    for (app, sdk, call) in SDKS {
        let said = stage.ask(app, sdk, call, &services.secret, None).await;
        assert_eq!(
            (&said["status"], &said["code"]),
            (&json!(403), &json!("scope_not_allowed")),
            "{app:?} {sdk}: {said}"
        );
        let said = stage.ask(app, sdk, call, &format!("{}x", basic.secret), None).await;
        assert_eq!((&said["status"], &said["code"]), (&json!(401), &json!("unauthorized")), "{app:?} {sdk}: {said}");
    }
    for (path, key, status) in [
        ("/v1/prompts/p-1/render", basic, 403),
        ("/v1/logs", basic, 403),
        ("/v1/logs", &services, 403),
        ("/v1/prompts/p-1/render", &user, 403),
        ("/v1/chat/completions", &user, 200),
    ] {
        let reply = stage.post(path, &key.secret, "@openai").await;
        assert_eq!(reply.status, status, "{path}: {}", reply.text());
    }
    stage.provider.take();
    // A virtual key of the own workspace, of another one, and for a key of no workspace of somebody's.
    for (key, entity, status) in
        [(&user, "@of-the-team", 200), (&user, "@of-others", 400), (basic, "@openai", 200), (&user, "@nowhere", 400)]
    {
        let reply = stage.post("/v1/chat/completions", &key.secret, entity).await;
        assert_eq!(reply.status, status, "{entity}: {}", reply.text());
    }
    assert_eq!(stage.provider.take().len(), 2);

    // Revoked is unknown.
    stage.admin(Method::DELETE, &format!("/api-keys/{}", basic.id), &json!({})).await;
    let refused = stage.until_answered(&basic.secret, 401).await;
    let unknown = stage.post("/v1/chat/completions", "sk-sidekey-unknown", "@openai").await;
    let shape = |reply: &Reply| reply.json()["error"]["message"].clone();
    assert_eq!(shape(&refused), shape(&unknown));
    let log = format!("{}{}", stage.sidekey.log(), stage.plane.process.log());
    for secret in [&basic.secret, &rotating.secret, &user.secret, OPENAI_SECRET, ANTHROPIC_SECRET] {
        assert!(!log.contains(secret), "a log shows {secret}");
    }
}

// === impl Stage ===

impl Stage {
    async fn start() -> Self {
        let provider = Provider::start().await;
        let (bao, gateway) = tokio::join!(OpenBao::start(), Gateway::start(provider.authority_file()));
        bao.put("openai", json!({ "api_key": OPENAI_SECRET })).await;
        bao.put("anthropic", json!({ "api_key": ANTHROPIC_SECRET })).await;
        let folder = harness::folder();
        let home = Home::on_sqlite(&folder).sealing().with("egress: {allow_cidrs: [127.0.0.1/32]}\n");
        let plane = home.start("control-plane").await;
        let file = |name: &str| folder.join(name);
        fs::write(file("token"), TOKEN).expect("the test's folder is writable");
        let config = json!({
            "listen": free_address().to_string(),
            "admin_listen": free_address().to_string(),
            "upstream": {"url": gateway.url()},
            "client_auth": "api_key",
            "api_key_hash_file": file("api-key-hash"),
            "sealing": {"identity_file": file("identity")},
            "snapshot": {"control_plane": {"url": format!("http://{}", plane.address), "token_file": file("token"),
                "public_key_file": file("public.pem")}},
            "egress": {"allow_cidrs": ["127.0.0.1/32"]},
            "limits": {"drain_delay_secs": 0},
            "log": {"level": "info", "format": "json"},
        });
        let sidekey = Sidekey::start(&Setup { config, snapshot: Value::Null, environment: Vec::new() }).await;
        let (python, node) = (Application::start("keys.py", &sidekey), Application::start("keys.mjs", &sidekey));
        let stage = Self { provider, plane, sidekey, python, node, _bao: bao, _gateway: gateway };
        stage.furnish().await;
        stage
    }

    /// Two workspaces, and virtual keys of everybody and of each of them.
    async fn furnish(&self) {
        for slug in ["ws-team", "ws-others"] {
            self.admin(Method::POST, "/admin/workspaces", &json!({"name": slug, "slug": slug})).await;
        }
        for provider in ["openai", "anthropic"] {
            let (auth, path) = (self._bao.token_auth(), format!("secret/data/{provider}"));
            let reference = json!({"name": provider, "slug": format!("{provider}-key"), "manager_type": "hashicorp_vault",
                "auth_config": auth, "secret_path": path, "secret_key": "api_key"});
            self.admin(Method::POST, "/secret-references", &reference).await;
            let mapping = json!({"target_field": "key", "secret_reference_id": format!("{provider}-key")});
            let integration = json!({"name": provider, "slug": format!("{provider}-main"), "ai_provider_id": provider,
                "secret_mappings": [mapping]});
            self.admin(Method::POST, "/integrations", &integration).await;
            let everybody = json!({"global_workspace_access": {"enabled": true}, "create_default_provider": false,
                "override_existing_workspace_access": true});
            self.admin(Method::PUT, &format!("/integrations/{provider}-main/workspaces"), &everybody).await;
        }
        for (slug, integration, workspace) in [
            ("openai", "openai-main", ""),
            ("anthropic", "anthropic-main", ""),
            ("of-the-team", "openai-main", "ws-team"),
            ("of-others", "openai-main", "ws-others"),
        ] {
            let provider =
                json!({"name": slug, "slug": slug, "integration_id": integration, "workspace_id": workspace});
            self.admin(Method::POST, "/providers", &provider).await;
        }
    }

    /// A call of the admin API by the owner.
    async fn admin(&self, method: Method, path: &str, body: &Value) -> Value {
        let call = Call::new(method, &format!("/v1{path}")).header("x-portkey-api-key", OWNER).json(body);
        call.send(self.plane.address).await.expect(200).json()
    }

    /// Runs lines of the document; the keys they make, once the sidecar knows them.
    async fn run(&self, script: &str) -> Vec<Key> {
        let mut bash = process::command("bash");
        bash.args(["-euc", script]).env("BASE_URL", format!("http://{}", self.plane.address)).env("OWNER_KEY", OWNER);
        let output = bash.output().await.expect("bash");
        let text = String::from_utf8_lossy(&output.stdout);
        let text_of = |answer: &Value, member: &str| {
            answer[member].as_str().unwrap_or_else(|| panic!("no {member}: {answer}")).to_owned()
        };
        let answers = serde_json::Deserializer::from_str(&text).into_iter::<Value>().map(|answer| {
            let answer = answer.unwrap_or_else(|_| panic!("no answer: {text}"));
            Key { id: text_of(&answer, "id"), secret: text_of(&answer, "key") }
        });
        let keys: Vec<_> = answers.collect();
        for key in &keys {
            self.until_known(&key.secret).await;
        }
        keys
    }

    /// Waits until the sidecar takes `secret` for a key.
    async fn until_known(&self, secret: &str) {
        self.until(async || {
            // The gateway's greeting: any key will do, and no provider is asked.
            let reply = Call::get("/").header("x-portkey-api-key", secret).send(self.sidekey.address).await;
            (reply.status != 401).then_some(())
        })
        .await;
    }

    /// Asks with `secret` until it is answered with `status`.
    async fn until_answered(&self, secret: &str, status: u16) -> Reply {
        self.until(async || {
            let reply = self.post("/v1/chat/completions", secret, "@openai").await;
            (reply.status == status).then_some(reply)
        })
        .await
    }

    async fn until<T>(&self, mut probe: impl AsyncFnMut() -> Option<T>) -> T {
        let deadline = tokio::time::Instant::now() + std::time::Duration::from_secs(20);
        loop {
            if let Some(found) = probe().await {
                return found;
            }
            assert!(tokio::time::Instant::now() < deadline, "{}", self.sidekey.log());
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
    }

    async fn post(&self, path: &str, secret: &str, entity: &str) -> Reply {
        let call =
            Call::post(path).json(&json!({"model": "gpt-4o", "messages": [{"role": "user", "content": "ping"}]}));
        let call = call.header("x-portkey-api-key", secret).header("x-portkey-provider", entity);
        call.send(self.sidekey.address).await
    }

    /// What an application says that asks so, at the virtual key that fits, or at `entity`.
    async fn ask(&mut self, app: App, sdk: &str, call: &str, secret: &str, entity: Option<&str>) -> Value {
        let entity = entity.unwrap_or(if call == "messages" { "@anthropic" } else { "@openai" });
        let application = match app {
            App::Python => &mut self.python,
            App::Node => &mut self.node,
        };
        application
            .ask(&json!({"sdk": sdk, "key": secret, "call": call, "headers": {"x-portkey-provider": entity}}))
            .await
    }

    /// Has the older secrets of a key end at `end` (milliseconds since 1970), as if their transition had been that short.
    async fn end_transition(&self, key: &Key, end: i64) {
        let store = Store::open(&Location::File(harness::folder().join("control.db"))).await.expect("the database");
        let organisation = store.organisations().await.expect("organisations").remove(0);
        let mut write = store.write(&organisation, "the test").await.expect("a write");
        let object = write.get(Kind::ApiKey, &key.id).await.expect("the database").expect("the key");
        let hashes = write.hashes_of(&object).await.expect("the database");
        assert_eq!(hashes.iter().filter(|hash| hash.expires_at != 0).count(), 1, "one is in transition: {hashes:?}");
        let moved = |hash: Hash| Hash { expires_at: if hash.expires_at == 0 { 0 } else { end }, ..hash };
        let hashes: Vec<_> = hashes.into_iter().map(moved).collect();
        write.set_hashes(&object, &hashes).await.expect("the database");
        write.commit(Change::of(Action::Updated, &object, Vec::new())).await.expect("the database");
        store.close().await;
    }
}

// === impl Application ===

impl Application {
    fn start(script: &str, sidekey: &Sidekey) -> Self {
        let mut program = sdk::script(script);
        program.env("BASE_URL", format!("http://{}", sidekey.address)).env("CLIENT_KEY", "none");
        let name = Path::new(script).with_extension("log");
        let errors = fs::File::create(harness::folder().join(name)).expect("a log file");
        program.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(errors).kill_on_drop(true);
        let mut child = program.spawn().expect("the script starts");
        let stdin = child.stdin.take().expect("piped");
        let lines = BufReader::new(child.stdout.take().expect("piped")).lines();
        Self { stdin, lines, _child: child }
    }

    async fn ask(&mut self, asked: &Value) -> Value {
        self.stdin.write_all(format!("{asked}\n").as_bytes()).await.expect("the script listens");
        let line = self.lines.next_line().await.expect("a line");
        serde_json::from_str(&line.unwrap_or_else(|| panic!("the script ended at {asked}"))).expect("an outcome")
    }
}
