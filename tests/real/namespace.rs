//! A machine for one test: its own network, mounts and processes, through `unshare`.
//!
//! Inside, loopback is the only interface and *every* IPv4 address is local to it, so a connection to any host on earth
//! ends at a listener of the test or is refused at once; names are resolved by a server of the test (port 53). When the
//! first process ends, the kernel ends all others. Works as root, and as anyone where user namespaces are allowed.

use std::{
    fs,
    path::Path,
    process::{Command, Stdio},
};

const FLAGS: [&str; 5] = ["--net", "--mount", "--pid", "--fork", "--kill-child"];

/// A way into a namespace that this machine allows.
#[derive(Clone, Debug)]
pub struct Namespace {
    mapped_root: bool,
}

/// Turns the fresh namespace of this process into the machine described above; `folder` takes the files it needs.
///
/// # Panics
/// When the machine does not let us, which [`Namespace::find`] would have said.
pub fn enter(folder: &Path) {
    run("ip", &["link", "set", "lo", "up"]);
    run("ip", &["route", "add", "local", "default", "dev", "lo"]);
    for (path, text) in [
        ("/etc/hosts", "127.0.0.1 localhost\n"),
        ("/etc/resolv.conf", "nameserver 127.0.0.1\noptions timeout:1 attempts:1\n"),
        ("/etc/nsswitch.conf", "passwd: files\ngroup: files\nhosts: files dns\n"),
    ] {
        let name = path.rsplit('/').next().unwrap_or(path);
        let ours = folder.join(name);
        fs::write(&ours, text).expect("the test's folder is writable");
        // What does not exist cannot be covered; without nsswitch.conf the C library asks files and DNS anyway.
        if Path::new(path).exists() {
            run("mount", &["--bind", &ours.to_string_lossy(), path]);
        }
    }
    // Only a convenience (`ps`, /proc/PID of children); refused where parts of /proc are masked.
    let _ = tool("mount").args(["-t", "proc", "proc", "/proc"]).stderr(Stdio::null()).status();
}

/// A command found where system tools live, even if the caller's `PATH` lacks `sbin`.
fn tool(name: &str) -> Command {
    let found = ["/usr/sbin", "/sbin", "/usr/bin", "/bin"]
        .iter()
        .map(|d| format!("{d}/{name}"))
        .find(|p| Path::new(p).exists());
    Command::new(found.unwrap_or_else(|| name.to_owned()))
}

fn run(name: &str, arguments: &[&str]) {
    let output = tool(name).args(arguments).output().unwrap_or_else(|error| panic!("{name}: {error}"));
    assert!(output.status.success(), "{name} {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
}

// === impl Namespace ===

impl Namespace {
    /// The first way that works, tried out with the very steps a test needs.
    ///
    /// # Errors
    /// What is missing, for people.
    pub fn find() -> Result<Self, String> {
        let mut reasons = Vec::new();
        for mapped_root in [false, true] {
            let namespace = Self { mapped_root };
            let mut probe = namespace.command().into_std();
            probe.args(["sh", "-c", "PATH=$PATH:/usr/sbin:/sbin; ip link set lo up && ip route add local default dev lo && mount --bind /etc/hosts /etc/hosts"]);
            match probe.output() {
                Ok(output) if output.status.success() => return Ok(namespace),
                Ok(output) => reasons.push(String::from_utf8_lossy(&output.stderr).trim().to_owned()),
                Err(error) => reasons.push(format!("unshare: {error}")),
            }
        }
        reasons.dedup();
        Err(format!(
            "a test needs a network namespace: root, or user namespaces for everyone, with unshare and mount (util-linux) \
             and ip (iproute2); this machine says: {}",
            reasons.join("; ")
        ))
    }

    /// `unshare …`, to which the program to run is appended.
    pub fn command(&self) -> tokio::process::Command {
        let mut command = tool("unshare");
        command.args(FLAGS);
        if self.mapped_root {
            command.args(["--user", "--map-root-user"]);
        }
        command.arg("--");
        command.into()
    }
}
