//! Unmodified SDKs, every endpoint they have, through Sidekey, a real gateway and a real vault.
//!
//! A script of `tests/sdk/` plays an application: it only knows Sidekey's address and a Portkey key. After each of its cases
//! the requests that the provider received are held against [`CASES`]. What worked makes up `docs/sdk-matrix.md`; a test
//! fails when that page says anything else. To write it anew:
//! `REAL_TESTS_WRITE_DOCS=1 tests/run real sdk:: --test-threads 1`.

mod page;

use std::{fs, path::Path, process::Stdio, time::Duration};

use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines},
    process::{Child, ChildStdin, ChildStdout, Command},
};

use crate::{
    components::{installed, version},
    harness, process,
    provider::{Answer, Received, aws},
    world::{CLIENT_KEY, Secrets, World},
};

const SCRIPTS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/sdk");

/// How long one case of a script may take, seconds: its own time-out, and a margin.
const CASE_SECS: u64 = 40;

/// The model that `openai-prod` cannot serve here, so that a fallback goes on to its second target.
const FIRST_FAILS: &str = "first-fails";

/// The columns of the page.
const SDKS: [Sdk; 5] = [
    Sdk { script: "portkey_python.py", package: "portkey-ai", language: "Python", pin: "PORTKEY_AI_PYTHON" },
    Sdk { script: "portkey_node.mjs", package: "portkey-ai", language: "Node", pin: "PORTKEY_AI_NODE" },
    Sdk { script: "openai_python.py", package: "openai", language: "Python", pin: "OPENAI_PYTHON" },
    Sdk { script: "openai_node.mjs", package: "openai", language: "Node", pin: "OPENAI_NODE" },
    Sdk { script: "anthropic_python.py", package: "anthropic", language: "Python", pin: "ANTHROPIC_PYTHON" },
];

/// The rows of the page, and what the provider has to receive.
const CASES: [Case; 22] = [
    case(
        "chat by provider slug",
        "chat (`POST /v1/chat/completions`), header `x-portkey-provider: @slug`",
        &[OPENAI_CHAT],
    ),
    case("chat by virtual key", "chat, header `x-portkey-virtual-key: slug`", &[OPENAI_CHAT]),
    case("chat by model slug", "chat, body `model: @slug/model`", &[OPENAI_CHAT]),
    case("chat stream", "chat, streamed event by event", &[OPENAI_CHAT]),
    case(
        "chat by inline fallback config",
        "chat, inline fallback config over two virtual keys",
        &[OPENAI_CHAT, BACKUP_CHAT],
    ),
    case("chat by stored config", "chat, stored config `pc-…`", &[OPENAI_CHAT, BACKUP_CHAT]),
    case("chat on Anthropic", "chat, an Anthropic virtual key", &[ANTHROPIC_MESSAGES]),
    case("chat on Bedrock", "chat, Bedrock: SigV4 from two keys of one JSON secret", &[BEDROCK_CONVERSE]),
    case("chat on Azure OpenAI", "chat, an Azure OpenAI deployment", &[AZURE_CHAT]),
    case("messages by provider slug", "`POST /v1/messages`, header `x-portkey-provider: @slug`", &[ANTHROPIC_MESSAGES]),
    case("messages by virtual key", "`POST /v1/messages`, header `x-portkey-virtual-key: slug`", &[ANTHROPIC_MESSAGES]),
    case("messages by model slug", "`POST /v1/messages`, body `model: @slug/model`", &[ANTHROPIC_MESSAGES]),
    case("messages stream", "`POST /v1/messages`, streamed event by event", &[ANTHROPIC_MESSAGES]),
    case("count tokens", "`POST /v1/messages/count_tokens`", &[at("/v1/messages/count_tokens", ANTHROPIC_MESSAGES)]),
    case("responses", "`POST /v1/responses`", &[at("/v1/responses", OPENAI_CHAT)]),
    case("embeddings", "`POST /v1/embeddings`", &[at("/v1/embeddings", OPENAI_CHAT)]),
    case(
        "transcription",
        "`POST /v1/audio/transcriptions`, multipart `model=@slug/whisper-1`",
        &[at("/v1/audio/transcriptions", OPENAI_CHAT)],
    ),
    case("speech", "`POST /v1/audio/speech`, a binary answer", &[at("/v1/audio/speech", OPENAI_CHAT)]),
    case("images", "`POST /v1/images/generations`", &[at("/v1/images/generations", OPENAI_CHAT)]),
    case("file upload", "`POST /v1/files`, a streamed upload", &[at("/v1/files", OPENAI_CHAT)]),
    case("models", "`GET /v1/models`", &[at("/v1/models", OPENAI_CHAT)]),
    case("realtime", "`GET /v1/realtime?model=@slug/model`, a WebSocket", &[at("/v1/realtime", OPENAI_CHAT)]),
];

const OPENAI_CHAT: Seen = Seen { host: "api.openai.com", path: "/v1/chat/completions", shows: bearer_openai };
const BACKUP_CHAT: Seen = Seen { shows: bearer_backup, ..OPENAI_CHAT };
const ANTHROPIC_MESSAGES: Seen = Seen { host: "api.anthropic.com", path: "/v1/messages", shows: key_anthropic };
const AZURE_CHAT: Seen =
    Seen { host: "myres.openai.azure.com", path: "/openai/deployments/dep-1/chat/completions", shows: key_azure };
const BEDROCK_CONVERSE: Seen = Seen {
    host: "bedrock-runtime.eu-west-1.amazonaws.com",
    path: "/model/amazon.nova-lite/converse",
    shows: signature_aws,
};

struct Sdk {
    script: &'static str,
    package: &'static str,
    language: &'static str,
    pin: &'static str,
}

struct Case {
    name: &'static str,
    says: &'static str,
    sees: &'static [Seen],
}

/// A request at the provider.
#[derive(Clone, Copy)]
struct Seen {
    host: &'static str,
    path: &'static str,
    shows: fn(&Received, &Secrets) -> bool,
}

/// A running script.
struct Script {
    child: Child,
    stdin: ChildStdin,
    lines: Lines<BufReader<ChildStdout>>,
    cases: usize,
}

pub async fn portkey_python() {
    check(&SDKS[0]).await;
}

pub async fn portkey_node() {
    check(&SDKS[1]).await;
}

pub async fn openai_python() {
    check(&SDKS[2]).await;
}

pub async fn openai_node() {
    check(&SDKS[3]).await;
}

pub async fn anthropic_python() {
    check(&SDKS[4]).await;
}

/// The command that runs `name`, a script of `tests/sdk/`, with the SDKs of its language.
pub fn script(name: &str) -> Command {
    // Node looks for packages beside the script, so the scripts go where a link to them can stand.
    let folder = harness::folder().join("sdk");
    fs::create_dir_all(&folder).expect("the test's folder is writable");
    for entry in fs::read_dir(SCRIPTS).expect("the scripts") {
        let entry = entry.expect("an entry");
        fs::copy(entry.path(), folder.join(entry.file_name())).expect("the test's folder is writable");
    }
    let mut program = match Path::new(name).extension().is_some_and(|extension| extension == "mjs") {
        true => {
            let packages = installed("npm-clients/node_modules");
            std::os::unix::fs::symlink(packages, folder.join("node_modules")).expect("a link");
            process::command("node")
        }
        false => process::command(installed("venv-clients/bin/python")),
    };
    program.arg(folder.join(name));
    program
}

async fn check(sdk: &Sdk) {
    let mut authority = None;
    // The Node SDKs open WebSockets over TLS only.
    let world = World::with(|setup| authority = (sdk.language == "Node").then(|| setup.serve_tls())).await;
    let scheme = if authority.is_some() { "https" } else { "http" };
    let base_url = format!("{scheme}://localhost:{}", world.sidekey.address.port());
    let primary = format!("Bearer {}", world.secrets.openai);

    let mut script = Script::start(sdk, &base_url, authority.as_deref());
    let mut works: Vec<&str> = Vec::new();
    let mut wrong: Vec<String> = Vec::new();
    world.provider.script("api.openai.com", move |request| {
        let fails = request.json()["model"] == FIRST_FAILS && request.header("authorization") == primary;
        fails.then(|| Answer::json(500, &json!({"error": {"message": "out of order", "type": "server_error"}})))
    });
    while let Some(outcome) = script.next_case().await {
        let name = outcome["case"].as_str().expect("a case has a name");
        let case = CASES.iter().find(|case| case.name == name).unwrap_or_else(|| panic!("no case {name:?} in sdk.rs"));
        let received = world.provider.take();
        match outcome["error"].as_str() {
            Some(error) => wrong.push(format!("{name}: {error}\n   at the provider: {received:#?}")),
            None => match case.judge(&received, &world.secrets) {
                Ok(()) => works.push(case.name),
                Err(reason) => wrong.push(format!("{name}: {reason}\n   at the provider: {received:#?}")),
            },
        }
    }
    assert!(wrong.is_empty(), "{} of {} cases failed:\n{}", wrong.len(), wrong.len() + works.len(), wrong.join("\n"));
    world.assert_no_secret("the log of sidekey", &world.sidekey.log());
    page::check(sdk, &works);
}

const fn case(name: &'static str, says: &'static str, sees: &'static [Seen]) -> Case {
    Case { name, says, sees }
}

const fn at(path: &'static str, seen: Seen) -> Seen {
    Seen { path, ..seen }
}

// === impl Sdk ===

impl Sdk {
    fn title(&self) -> String {
        format!("{} {} ({})", self.package, version(self.pin), self.language)
    }
}

// === impl Script ===

impl Script {
    fn start(sdk: &Sdk, base_url: &str, authority: Option<&Path>) -> Self {
        let mut program = script(sdk.script);
        program.env("BASE_URL", base_url).env("CLIENT_KEY", CLIENT_KEY);
        if let Some(authority) = authority {
            program.env("NODE_EXTRA_CA_CERTS", authority);
        }
        let errors = fs::File::create(harness::folder().join("sdk.log")).expect("a log file");
        program.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(errors).kill_on_drop(true);
        let mut child = program.spawn().expect("the script starts");
        let stdin = child.stdin.take().expect("piped");
        let lines = BufReader::new(child.stdout.take().expect("piped")).lines();
        Self { child, stdin, lines, cases: 0 }
    }

    /// Lets the script go on and gives the outcome of its next case; `None` when it is through.
    async fn next_case(&mut self) -> Option<Value> {
        if self.cases > 0 {
            self.stdin.write_all(b"\n").await.expect("the script listens");
        }
        self.cases += 1;
        let line = tokio::time::timeout(Duration::from_secs(CASE_SECS), self.lines.next_line()).await;
        let log = || fs::read_to_string(harness::folder().join("sdk.log")).unwrap_or_default();
        let line = line.unwrap_or_else(|_| panic!("case {} takes too long:\n{}", self.cases, log()));
        let Some(line) = line.expect("a line") else {
            let status = self.child.wait().await.expect("an end");
            assert!(status.success(), "the script ended with {status}:\n{}", log());
            return None;
        };
        Some(serde_json::from_str(&line).unwrap_or_else(|_| panic!("not an outcome: {line}")))
    }
}

// === impl Case ===

impl Case {
    fn judge(&self, received: &[Received], secrets: &Secrets) -> Result<(), String> {
        if received.len() != self.sees.len() {
            return Err(format!("{} requests instead of {}", received.len(), self.sees.len()));
        }
        for (request, wanted) in received.iter().zip(self.sees) {
            let (host, path) = (wanted.host, wanted.path);
            if (request.scheme, request.host.as_str(), request.path()) != ("https", host, path) {
                return Err(format!("it went to {}://{}{}", request.scheme, request.host, request.path()));
            }
            if !(wanted.shows)(request, secrets) {
                return Err("it does not carry the credential of its virtual key".to_owned());
            }
            for foreign in [CLIENT_KEY, "@openai-prod", "OPENAI_API_KEY", "DUMMY-KEY", "dummy", "x-portkey-"] {
                if request.contains(foreign) || request.headers.keys().any(|name| name.as_str().contains(foreign)) {
                    return Err(format!("{foreign} of the client went along"));
                }
            }
        }
        Ok(())
    }
}

fn bearer_openai(request: &Received, secrets: &Secrets) -> bool {
    request.header("authorization") == format!("Bearer {}", secrets.openai)
}

fn bearer_backup(request: &Received, secrets: &Secrets) -> bool {
    request.header("authorization") == format!("Bearer {}", secrets.openai_backup)
}

fn key_anthropic(request: &Received, secrets: &Secrets) -> bool {
    request.header("x-api-key") == secrets.anthropic && request.header("authorization").is_empty()
}

fn key_azure(request: &Received, secrets: &Secrets) -> bool {
    request.header("api-key") == secrets.azure && request.header("authorization").is_empty()
}

fn signature_aws(request: &Received, secrets: &Secrets) -> bool {
    aws::is_signed_by(request, &secrets.aws_access_key_id, &secrets.aws_secret_access_key)
}
