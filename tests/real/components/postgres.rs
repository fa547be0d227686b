//! PostgreSQL, the Debian package: a cluster in memory that dies with the test.

use std::{fs, net::SocketAddr, path::PathBuf, process::Command};

use super::free_address;
use crate::{
    harness,
    process::{Process, command},
};

/// Where its files are: a file system of the test's own, which its user can reach.
const FOLDER: &str = "/mnt";

/// A running server.
pub struct Postgres {
    address: SocketAddr,
    process: Process,
}

impl Postgres {
    /// Starts one, in about two seconds.
    pub async fn start() -> Self {
        let binaries = binaries();
        run("mount", &["-t", "tmpfs", "-o", "mode=0777", "tmpfs", FOLDER]);
        let data = format!("{FOLDER}/data");
        let mut initdb = as_postgres(&binaries.join("initdb"));
        let made = initdb.args(["-D", &data, "-U", "postgres", "-A", "trust", "--no-sync"]).output().await;
        let made = made.expect("initdb starts");
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        let address = free_address();
        let mut server = as_postgres(&binaries.join("postgres"));
        server.args(["-D", &data, "-p", &address.port().to_string(), "-c", "listen_addresses=127.0.0.1"]);
        server.args(["-c", &format!("unix_socket_directories={FOLDER}"), "-c", "max_connections=100"]);
        let mut process = Process::start("postgres", server);
        process.until("listening", async || tokio::net::TcpStream::connect(address).await.ok()).await;
        let ready = Self { address, process };
        ready.until_ready(&binaries).await;
        ready
    }

    /// `postgres://…`.
    pub fn url(&self) -> String {
        format!("postgres://postgres@{}/postgres", self.address)
    }

    /// The process, to stop or pause it.
    pub fn process(&mut self) -> &mut Process {
        &mut self.process
    }

    async fn until_ready(&self, binaries: &std::path::Path) {
        let port = self.address.port().to_string();
        loop {
            let mut probe = command(binaries.join("pg_isready"));
            let probe = probe.args(["-q", "-h", "127.0.0.1", "-p", &port]).status().await;
            if probe.expect("pg_isready starts").success() {
                return;
            }
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    }
}

/// The newest version's.
fn binaries() -> PathBuf {
    let versions = fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let newest = versions.map(|version| version.path().join("bin")).filter(|bin| bin.join("initdb").exists()).max();
    newest.unwrap_or_else(|| harness::skip("PostgreSQL is not installed (Debian: postgresql)"))
}

/// PostgreSQL refuses to be root.
fn as_postgres(program: &std::path::Path) -> tokio::process::Command {
    let mut command = command("setpriv");
    command.args(["--reuid=postgres", "--regid=postgres", "--init-groups"]).arg(program).current_dir("/");
    command
}

fn run(program: &str, arguments: &[&str]) {
    let status = Command::new(program).args(arguments).status();
    if !status.is_ok_and(|status| status.success()) {
        harness::skip(&format!("{program} {arguments:?} is not permitted here: root could"));
    }
}
