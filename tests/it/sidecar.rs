//! `sidekey sidecar` as a process: how it starts, what signals do, and how it ends.

use std::{fs, net::SocketAddr, path::Path, process::Stdio, time::Duration};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader, Lines},
    net::{TcpListener, TcpStream},
    process::{Child, ChildStderr, Command},
    time::timeout,
};

use crate::harness::Gateway;

/// Longest wait for anything. Only a failing test waits this long.
const PATIENCE: Duration = Duration::from_secs(20);
const SNAPSHOT: &str = r#"{"schema_version": 1, "version": 1, "organisation_id": "org"}"#;
/// An integration over the file `secret`.
const ONE_SECRET: &str = r#"{
    "schema_version": 1, "version": 1, "organisation_id": "org",
    "secret_references": [{
        "id": "r", "slug": "r", "manager_type": "file", "auth_config": {}, "secret_path": "secret", "status": "active",
        "allow_all_workspaces": true
    }],
    "integrations": [{
        "id": "i", "slug": "openai", "ai_provider_id": "openai", "status": "active", "allow_all_workspaces": true,
        "configurations": {}, "secret_mappings": [{"target_field": "key", "secret_reference_id": "r"}]
    }]
}"#;

/// A running sidecar and its log.
struct Running {
    child: Child,
    log: Lines<BufReader<ChildStderr>>,
    seen: Vec<String>,
}

impl Running {
    fn start(folder: &Path) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_sidekey"));
        command.args(["sidecar", "--config", "sidecar.yaml"]).current_dir(folder).env_clear();
        let mut child = command.stderr(Stdio::piped()).kill_on_drop(true).spawn().unwrap();
        let log = BufReader::new(child.stderr.take().unwrap()).lines();
        Self { child, log, seen: Vec::new() }
    }

    /// The next line of the log whose message begins with `message`.
    async fn line(&mut self, message: &str) -> Value {
        let found = async {
            while let Some(line) = self.log.next_line().await.unwrap() {
                self.seen.push(line.clone());
                let line: Value = serde_json::from_str(&line).unwrap_or_default();
                if line["message"].as_str().is_some_and(|text| text.starts_with(message)) {
                    return line;
                }
            }
            Value::Null
        };
        let line = timeout(PATIENCE, found).await.unwrap_or_default();
        assert_ne!(line, Value::Null, "{message:?} was not logged: {:#?}", self.seen);
        line
    }

    /// Where clients connect and where health is, once it serves.
    async fn addresses(&mut self) -> (SocketAddr, SocketAddr) {
        let line = self.line("Serving.").await;
        let listen = line["listen"].as_str().unwrap().trim_matches(['[', ']']).parse().unwrap();
        (listen, line["admin_listen"].as_str().unwrap().parse().unwrap())
    }

    fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.child.id().unwrap()).unwrap();
        kill_process(Pid::from_raw(pid).unwrap(), signal).unwrap();
    }

    /// The exit status; what was logged until then goes to `seen`.
    async fn exit(&mut self) -> i32 {
        let ended = async {
            while let Some(line) = self.log.next_line().await.unwrap() {
                self.seen.push(line);
            }
            self.child.wait().await.unwrap()
        };
        let status = timeout(PATIENCE, ended).await;
        status.unwrap_or_else(|_| panic!("it did not end: {:#?}", self.seen)).code().unwrap()
    }
}

fn folder(configuration: &str) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("snapshot.json"), SNAPSHOT).unwrap();
    fs::write(folder.path().join("sidecar.yaml"), configuration).unwrap();
    folder
}

/// A configuration on free ports in front of `upstream`, with `more` keys.
fn configuration(upstream: SocketAddr, more: &str) -> String {
    format!(
        "listen: 127.0.0.1:0\nadmin_listen: 127.0.0.1:0\nupstream: {{url: 'http://{upstream}'}}\n\
         snapshot: {{file: snapshot.json}}\n{more}\n"
    )
}

/// The reply to a GET, head and body.
async fn get(address: SocketAddr, path: &str) -> String {
    get_with(address, path, "").await
}

/// As [`get`], with `headers`.
async fn get_with(address: SocketAddr, path: &str, headers: &str) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n{headers}\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut reply = String::new();
    timeout(PATIENCE, stream.read_to_string(&mut reply)).await.unwrap().unwrap();
    reply
}

#[tokio::test]
async fn it_serves_until_it_is_told_to_stop() {
    let gateway = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let upstream = gateway.local_addr().unwrap();
    for signal in [Signal::TERM, Signal::INT] {
        let folder = folder(&configuration(upstream, "limits: {drain_delay_secs: 0}"));
        let mut running = Running::start(folder.path());
        let (listen, admin) = running.addresses().await;
        assert!(get(admin, "/healthz").await.starts_with("HTTP/1.1 200"));
        // Counted right after the swap that let it serve.
        let counted = async { while !get(admin, "/metrics").await.contains("sidekey_snapshot_version 1") {} };
        timeout(PATIENCE, counted).await.unwrap();
        assert!(get(listen, "/log/stream").await.starts_with("HTTP/1.1 404"));
        running.signal(signal);
        assert_eq!(running.exit().await, 0, "{:#?}", running.seen);
        assert!(TcpStream::connect(listen).await.is_err());
    }
}

#[tokio::test]
async fn what_runs_may_finish_and_a_second_signal_cuts_it() {
    let gateway = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let limits = "limits: {drain_delay_secs: 0, drain_secs: 3600}";
    let folder = folder(&configuration(gateway.local_addr().unwrap(), limits));
    let mut running = Running::start(folder.path());
    let (listen, _) = running.addresses().await;
    let mut client = TcpStream::connect(listen).await.unwrap();
    client.write_all(b"GET /v1/models HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    // The gateway has the request and keeps it. Probes of readiness come first and say so.
    let mut kept = Vec::new();
    loop {
        let (mut stream, _) = timeout(PATIENCE, gateway.accept()).await.unwrap().unwrap();
        let mut head = vec![0; 1024];
        let read = timeout(PATIENCE, stream.read(&mut head)).await.unwrap().unwrap();
        let asked = head[..read].starts_with(b"GET /v1/models");
        kept.push(stream);
        if asked {
            break;
        }
    }
    running.signal(Signal::TERM);
    running.line("Shutting down").await;
    running.signal(Signal::TERM);
    running.line("Cutting what still runs.").await;
    assert_eq!(running.exit().await, 0, "{:#?}", running.seen);
}

#[tokio::test]
async fn a_hangup_reads_files_again() {
    let gateway = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let folder = folder(&configuration(gateway.local_addr().unwrap(), "limits: {drain_delay_secs: 0}"));
    let mut running = Running::start(folder.path());
    let (_, admin) = running.addresses().await;
    // Content that did not change is read only when somebody asks.
    running.signal(Signal::HUP);
    running.line("Reading files and secrets again.").await;
    running.line("The snapshot is loaded.").await;
    assert!(get(admin, "/healthz").await.starts_with("HTTP/1.1 200"));
    running.signal(Signal::TERM);
    assert_eq!(running.exit().await, 0, "{:#?}", running.seen);
}

#[tokio::test]
async fn a_hangup_reads_secrets_again() {
    let gateway = Gateway::start().await;
    let keys = "limits: {drain_delay_secs: 0}\nmanagers: {file: {root: .}}";
    let folder = folder(&configuration(gateway.address, keys));
    fs::write(folder.path().join("snapshot.json"), ONE_SECRET).unwrap();
    fs::write(folder.path().join("secret"), "sk-1").unwrap();
    let mut running = Running::start(folder.path());
    let (listen, _) = running.addresses().await;
    let received = async || {
        let reply = get_with(listen, "/v1/models", "x-portkey-provider: @openai\r\n").await;
        assert!(reply.starts_with("HTTP/1.1 200"), "{reply}");
        let seen = gateway.seen().into_iter().rev().find(|seen| seen.target == "/v1/models").unwrap();
        seen.headers["authorization"].to_str().unwrap().to_owned()
    };
    assert_eq!(received().await, "Bearer sk-1");
    fs::write(folder.path().join("secret"), "sk-2").unwrap();
    assert_eq!(received().await, "Bearer sk-1", "remembered for five minutes");
    running.signal(Signal::HUP);
    let renewed = async { while received().await != "Bearer sk-2" {} };
    timeout(PATIENCE, renewed).await.expect("the new value was not read");
    running.signal(Signal::TERM);
    assert_eq!(running.exit().await, 0, "{:#?}", running.seen);
}

#[tokio::test]
async fn it_runs_without_a_snapshot_and_is_not_ready() {
    let gateway = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let folder = folder(&configuration(gateway.local_addr().unwrap(), ""));
    fs::remove_file(folder.path().join("snapshot.json")).unwrap();
    let mut running = Running::start(folder.path());
    let (listen, admin) = running.addresses().await;
    assert!(get(admin, "/readyz").await.starts_with("HTTP/1.1 503"));
    let reply = get(listen, "/v1/models").await;
    assert!(reply.starts_with("HTTP/1.1 503") && reply.contains("x-sidekey-error: no_snapshot"), "{reply}");
}

#[tokio::test]
async fn a_start_that_fails_says_why() {
    let taken = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let taken = taken.local_addr().unwrap();
    struct Case {
        configuration: String,
        status: i32,
        shown: &'static str,
    }
    let cases = [
        Case { configuration: "listen: 8900\n".to_owned(), status: 64, shown: "sidecar.yaml:1: listen: " },
        Case {
            configuration: "listen: 0.0.0.0:8900\n".to_owned(),
            status: 64,
            shown: "is open to the network and whoever reaches it uses your credentials",
        },
        Case {
            configuration: "tls: {cert_file: snapshot.json, key_file: snapshot.json}\nlisten: 127.0.0.1:0\n".to_owned(),
            status: 64,
            shown: "Not started.",
        },
        Case {
            configuration: format!("listen: {taken}\nadmin_listen: 127.0.0.1:0\n"),
            status: 1,
            shown: "cannot listen on",
        },
        Case {
            configuration: format!("listen: 127.0.0.1:0\nadmin_listen: {taken}\n"),
            status: 1,
            shown: "cannot be listened on",
        },
    ];
    for Case { configuration, status, shown } in cases {
        let folder = folder(&configuration);
        let mut running = Running::start(folder.path());
        assert_eq!(running.exit().await, status, "{configuration}: {:#?}", running.seen);
        assert!(running.seen.iter().any(|line| line.contains(shown)), "{configuration}: {:#?}", running.seen);
    }
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn its_memory_is_not_dumped() {
    let gateway = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let folder = folder(&configuration(gateway.local_addr().unwrap(), ""));
    let mut running = Running::start(folder.path());
    running.addresses().await;
    let limits = fs::read_to_string(format!("/proc/{}/limits", running.child.id().unwrap())).unwrap();
    let core = limits.lines().find(|line| line.starts_with("Max core file size")).unwrap();
    assert_eq!(core.split_whitespace().skip(4).take(2).collect::<Vec<_>>(), ["0", "0"], "{core}");
}
