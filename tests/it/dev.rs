//! `sidekey dev`: the first thing a user sees.

use std::{fs, net::SocketAddr, path::Path, process::Stdio, time::Duration};

use rustix::process::{Pid, Signal, kill_process};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader, Lines},
    net::{TcpListener, TcpStream},
    process::{Child, ChildStdout, Command},
    time::timeout,
};

/// Longest wait for anything. Only a failing test waits this long.
const PATIENCE: Duration = Duration::from_secs(30);

/// A running show and what it has said so far.
struct Show {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
    said: String,
}

impl Show {
    /// Starts it with `temporary` as the folder for temporary files.
    fn start(temporary: &Path, arguments: &[&str]) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_sidekey"));
        command.arg("dev").args(arguments).env_clear().env("TMPDIR", temporary);
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true).spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        Self { child, lines, said: String::new() }
    }

    /// Reads up to the line that holds `part`, which it returns.
    async fn until(&mut self, part: &str) -> String {
        let found = async {
            while let Some(line) = self.lines.next_line().await.unwrap() {
                self.said.push_str(&line);
                self.said.push('\n');
                if line.contains(part) {
                    return Some(line);
                }
            }
            None
        };
        timeout(PATIENCE, found).await.unwrap_or_default().unwrap_or_else(|| panic!("no {part:?}:\n{}", self.said))
    }

    fn interrupt(&self) {
        let pid = i32::try_from(self.child.id().unwrap()).unwrap();
        kill_process(Pid::from_raw(pid).unwrap(), Signal::INT).unwrap();
    }

    /// Exit status and everything that was said, standard error last.
    async fn end(mut self) -> (i32, String) {
        let ended = async {
            while let Some(line) = self.lines.next_line().await.unwrap() {
                self.said.push_str(&line);
                self.said.push('\n');
            }
            let mut errors = self.child.stderr.take().unwrap();
            errors.read_to_string(&mut self.said).await.unwrap();
            self.child.wait().await.unwrap().code().unwrap()
        };
        let status = timeout(PATIENCE, ended).await.unwrap();
        (status, self.said)
    }
}

fn is_empty(folder: &Path) -> bool {
    fs::read_dir(folder).unwrap().next().is_none()
}

/// The last word of a line like `  sidecar  http://127.0.0.1:8900`.
fn address(line: &str) -> SocketAddr {
    line.split_once("http://").unwrap().1.split_whitespace().next().unwrap().parse().unwrap()
}

#[tokio::test]
async fn once_shows_the_credential_arriving_and_leaves_nothing() {
    let temporary = tempfile::tempdir().unwrap();
    let (status, said) = Show::start(temporary.path(), &["--once"]).end().await;
    assert_eq!(status, 0, "{said}");
    for part in [
        "x-portkey-provider: @openai-prod\n",
        "x-portkey-provider: openai\n",
        "authorization: Bearer sk-dev…",
        "✓ The credential arrived. The client never had it.",
        "curl http://127.0.0.1:",
        "-H 'x-portkey-provider: @openai-prod'",
    ] {
        assert!(said.contains(part), "{part}\n{said}");
    }
    assert!(is_empty(temporary.path()), "{said}");
}

#[tokio::test]
async fn it_stays_until_ctrl_c_and_shows_what_arrives() {
    let temporary = tempfile::tempdir().unwrap();
    let mut show = Show::start(temporary.path(), &[]);
    let sidecar = address(&show.until("sidecar").await);
    let line = show.until("state").await;
    let folder = Path::new(line.split_whitespace().nth(1).unwrap());
    let secret = fs::read_to_string(folder.join("secrets/openai-api-key")).unwrap();
    let line = show.until("x-portkey-api-key: ").await;
    let line = if line.contains("-H") { line } else { show.until("-H 'x-portkey-api-key: ").await };
    let key = line.split_once("x-portkey-api-key: ").unwrap().1.split_once('\'').unwrap().0.to_owned();
    show.until("Ctrl-C").await;

    // What the curl line does.
    let body = r#"{"model": "gpt-4o-mini", "messages": []}"#;
    let mut client = TcpStream::connect(sidecar).await.unwrap();
    let request = format!(
        "POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nx-portkey-api-key: {key}\r\nx-portkey-provider: @openai-prod\r\nconnection: close\r\n\
         content-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    client.write_all(request.as_bytes()).await.unwrap();
    let mut reply = String::new();
    timeout(PATIENCE, client.read_to_string(&mut reply)).await.unwrap().unwrap();
    assert!(reply.starts_with("HTTP/1.1 200") && reply.contains("chat.completion"), "{reply}");
    assert!(reply.contains("Bearer sk-dev…") && !reply.contains(&secret), "{reply}");
    show.until("POST /v1/chat/completions  Bearer sk-dev…").await;

    show.interrupt();
    let (status, said) = show.end().await;
    assert_eq!(status, 0, "{said}");
    assert!(!said.contains(&secret) && is_empty(temporary.path()), "{said}");
}

#[tokio::test]
async fn two_of_them_do_not_quarrel_over_ports() {
    let temporary = tempfile::tempdir().unwrap();
    let mut one = Show::start(temporary.path(), &[]);
    let sidecar = address(&one.until("sidecar").await);
    one.until("Ctrl-C").await;
    let (status, said) = Show::start(temporary.path(), &["--once"]).end().await;
    assert_eq!(status, 0, "{said}");
    assert!(!said.contains(&sidecar.to_string()), "{said}");
    one.interrupt();
    assert_eq!(one.end().await.0, 0);
}

#[tokio::test]
async fn a_gateway_that_cannot_be_used_fails() {
    let temporary = tempfile::tempdir().unwrap();
    // Nothing listens where a listener was.
    let closed = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    for (upstream, status, part) in [
        (format!("http://{closed}"), 1, "✗ The sidecar answered 502 Bad Gateway upstream_unreachable"),
        (
            "http://127.0.0.1/path".to_owned(),
            64,
            "--upstream: \"http://127.0.0.1/path\" holds more than scheme, host and port",
        ),
        ("http://me:sk-canary@127.0.0.1".to_owned(), 64, "holds a user name or password"),
        ("gateway".to_owned(), 64, "invalid value"),
    ] {
        let (ended, said) = Show::start(temporary.path(), &["--once", "--upstream", &upstream]).end().await;
        assert_eq!(ended, status, "{upstream}: {said}");
        assert!(said.contains(part) && !said.contains("canary"), "{upstream}: {said}");
        assert!(is_empty(temporary.path()), "{upstream}");
    }
}
