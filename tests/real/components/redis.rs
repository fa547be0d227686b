//! Redis, in memory only.

use std::{fs, net::SocketAddr};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use super::{free_address, installed};
use crate::{
    authority::Authority,
    harness,
    process::{Process, command},
};

/// A running server.
pub struct Redis {
    address: SocketAddr,
    process: Process,
}

impl Redis {
    pub async fn start() -> Self {
        Self::start_at(free_address()).await
    }

    /// Starts a server that speaks TLS alone, with a certificate of `authority`, and asks for `password`.
    pub async fn start_tls(authority: &Authority, password: &str) -> Self {
        let leaf = authority.issue(&["localhost"]);
        let write = |name: &str, text: String| {
            let path = harness::folder().join(name);
            fs::write(&path, text).expect("the test's folder is writable");
            path.display().to_string()
        };
        let (certificate, key) = (write("redis.crt", leaf.certificate_pem()), write("redis.key", leaf.key_pem()));
        let trusted = write("redis-authority.pem", authority.certificate_pem());
        let address = free_address();
        let port = address.port().to_string();
        let files = ["--tls-cert-file", &certificate, "--tls-key-file", &key, "--tls-ca-cert-file", &trusted];
        let more = ["--port", "0", "--tls-port", &port, "--tls-auth-clients", "no", "--requirepass", password];
        Self::start_with(address, &[&files[..], &more[..]].concat()).await
    }

    /// Starts a server that was killed anew, at its address. It has forgotten everything.
    pub async fn start_again(&mut self) {
        *self = Self::start_at(self.address).await;
    }

    /// Kills the server.
    pub async fn kill(&mut self) {
        self.process.signal(rustix::process::Signal::KILL);
        self.process.ended().await;
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// `redis://address`.
    pub fn url(&self) -> String {
        format!("redis://{}", self.address)
    }

    /// What the server answers to a command of one line.
    pub async fn call(&self, line: &str) -> String {
        let mut stream = TcpStream::connect(self.address).await.expect("it listens");
        stream.write_all(format!("{line}\r\nQUIT\r\n").as_bytes()).await.expect("it reads");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.expect("it answers");
        answer.trim_end_matches("+OK\r\n").to_owned()
    }

    async fn start_at(address: SocketAddr) -> Self {
        Self::start_with(address, &["--port", &address.port().to_string()]).await
    }

    async fn start_with(address: SocketAddr, more: &[&str]) -> Self {
        let mut server = command(installed("redis-server"));
        server.args(["--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]).args(more);
        let mut process = Process::start("redis", server);
        process.until("listening", async || TcpStream::connect(address).await.ok()).await;
        Self { address, process }
    }
}
