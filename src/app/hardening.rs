//! What is done to the process before it holds a secret.

use rustix::process::{self, DumpableBehavior, Resource, Rlimit};

/// Keeps the memory of the process to itself, and chooses the one TLS provider. Called once, before anything else.
///
/// Not dumpable means: no core file, and no process of the same user may attach as a debugger or read
/// `/proc/<pid>/mem` (prctl(2), `PR_SET_DUMPABLE`; root still may). The limit stops cores that are piped to a collector.
/// Where a sandbox forbids either call, the process runs on as its sandbox made it.
pub fn harden() {
    #[cfg(any(target_os = "linux", target_os = "android"))]
    let _ = process::set_dumpable_behavior(DumpableBehavior::NotDumpable);
    let _ = process::setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) });
    // Fails only when a provider is there already, as in a test that starts two sidecars.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
}
