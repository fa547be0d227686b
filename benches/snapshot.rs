//! A snapshot of many entities: how long it takes to load, what each of them costs in memory, and how long one is looked for.
//!
//! ```text
//! cargo bench --bench snapshot [-- ENTITIES]      default 1,000,000
//! ```
//!
//! Entities are virtual keys of a thousand workspaces, each linked to one of a thousand integrations with a mapped credential, with
//! ids and names as the control plane writes them. Loading is what a swap does: parse, link, and let go of the document. Memory is
//! resident memory before and after, CPU that of the loading thread, so that a busy machine counts for little.

#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::cast_precision_loss,
    reason = "a program for one machine"
)]

use std::{fmt::Write as _, fs, hint::black_box, sync::Arc, time::Duration};

use sidekey::model::{Caller, LinkRules, Snapshot, link};
use tokio::time::Instant;

const WORKSPACES: usize = 1000;
const INTEGRATIONS: usize = 1000;
const LOOK_UPS: usize = 2_000_000;

fn main() {
    let entities = std::env::args().skip(1).find_map(|argument| argument.parse().ok()).unwrap_or(1_000_000);
    let document = document(entities);
    println!("{entities} entities, a document of {} MB", document.len() / 1_000_000);

    let before = resident();
    let (snapshot, wall, cpu) = timed(|| link(document.as_bytes(), &LinkRules::STRICT).unwrap());
    let megabytes = (resident() - before) / 1_000_000;
    println!("load: {:.2} s, {:.2} s of CPU (goal: 3 s)", wall.as_secs_f64(), cpu.as_secs_f64());
    println!("peak beside the document: {} MB", (peak() - before) / 1_000_000);
    drop(document);
    let bytes = (megabytes * 1_000_000) as f64 / entities as f64;
    println!("memory: {megabytes} MB, {bytes:.0} bytes for an entity (goal: 400)");

    let callers: Vec<Caller> =
        (0..WORKSPACES).map(|number| Caller { workspace: Some(Arc::from(workspace(number))) }).collect();
    // Names that were not just used: a stride that no cache foresees.
    let asked: Vec<(usize, String)> =
        (0..LOOK_UPS).map(|turn| turn * 7_919_993 % entities).map(|number| (number, slug(number))).collect();
    let ((), wall, cpu) = timed(|| {
        for (number, slug) in &asked {
            black_box(snapshot.entity(slug, &callers[number % WORKSPACES]).unwrap());
        }
    });
    println!("look-up: {:.0} ns, {:.0} ns of CPU (goal: 200)", each(wall), each(cpu));
    let (few, wall, cpu) = timed(|| {
        let mut few = 0;
        for (number, slug) in
            asked.iter().cycle().take(LOOK_UPS / 100).flat_map(|asked| std::iter::repeat_n(asked, 100))
        {
            few += usize::from(snapshot.entity(slug, &callers[number % WORKSPACES]).is_ok());
        }
        few
    });
    assert_eq!(few, LOOK_UPS);
    println!("look-up of one that was just used: {:.0} ns, {:.0} ns of CPU", each(wall), each(cpu));

    let ((), wall, _) = timed(|| drop::<Snapshot>(snapshot));
    println!("letting go: {:.2} s, on a thread of its own", wall.as_secs_f64());
}

fn document(entities: usize) -> String {
    let mut text = String::with_capacity(entities * 260 + 1_000_000);
    text.push_str(r#"{"schema_version": 1, "version": 1, "organisation_id": "11111111-1111-4111-8111-111111111111", "workspaces": ["#);
    list(&mut text, WORKSPACES, |text, number| {
        write!(text, r#"{{"id": "{}", "slug": "ws-team-{number}", "name": "Team {number}"}}"#, workspace(number))
            .unwrap();
    });
    text.push_str(r#"], "secret_references": ["#);
    list(&mut text, INTEGRATIONS, |text, number| {
        write!(
            text,
            r#"{{"id": "{}", "slug": "ref-{number}", "manager_type": "hashicorp_vault", "auth_config": {{"vault_auth_type": "token",
            "vault_addr": "https://vault:8200", "vault_token": "t"}}, "secret_path": "secret/data/team-{number}", "secret_key": "key"}}"#,
            uuid('c', number)
        )
        .unwrap();
    });
    text.push_str(r#"], "integrations": ["#);
    list(&mut text, INTEGRATIONS, |text, number| {
        write!(
            text,
            r#"{{"id": "{}", "slug": "int-{number}", "ai_provider_id": "openai", "status": "active",
            "secret_mappings": [{{"target_field": "key", "secret_reference_id": "{}"}}]}}"#,
            uuid('b', number),
            uuid('c', number)
        )
        .unwrap();
    });
    text.push_str(r#"], "virtual_keys": ["#);
    list(&mut text, entities, |text, number| {
        write!(
            text,
            r#"{{"id": "{}", "slug": "{}", "integration_id": "{}", "workspace_id": "{}", "status": "active", "expires_at": null, "key": null, "model_config": {{}}, "secret_mappings": []}}"#,
            uuid('a', number),
            slug(number),
            uuid('b', number % INTEGRATIONS),
            workspace(number % WORKSPACES)
        )
        .unwrap();
    });
    text.push_str("]}");
    text
}

fn list(text: &mut String, count: usize, item: impl Fn(&mut String, usize)) {
    for number in 0..count {
        if number > 0 {
            text.push_str(",\n");
        }
        item(text, number);
    }
}

fn slug(number: usize) -> String {
    format!("openai-team-{number:07}")
}

fn workspace(number: usize) -> String {
    uuid('d', number)
}

fn uuid(kind: char, number: usize) -> String {
    format!("{kind}{number:07x}-1111-4111-8111-{number:012x}")
}

fn timed<T>(work: impl FnOnce() -> T) -> (T, Duration, Duration) {
    let (wall, cpu) = (Instant::now(), cpu());
    let made = work();
    (made, wall.elapsed(), self::cpu() - cpu)
}

fn each(time: Duration) -> f64 {
    time.as_nanos() as f64 / LOOK_UPS as f64
}

/// CPU time of the process, threads that have ended included.
fn cpu() -> Duration {
    let stat = fs::read_to_string("/proc/self/stat").unwrap();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
    // User and system time, in hundredths of a second (proc(5), fields 14 and 15).
    let ticks: u64 = fields[11..13].iter().map(|ticks| ticks.parse::<u64>().unwrap()).sum();
    Duration::from_millis(ticks * 10)
}

fn resident() -> u64 {
    status("VmRSS:")
}

fn peak() -> u64 {
    status("VmHWM:")
}

/// In bytes.
fn status(name: &str) -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
}
