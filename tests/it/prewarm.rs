//! Secrets read ahead of the first request: which, how spread, and what a start waits for.

use std::{
    collections::HashSet, fs, net::SocketAddr, os::unix::fs::PermissionsExt, path::Path, process::Stdio, time::Duration,
};

use http::Method;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use sidekey::{
    manager::{
        FailureClass,
        fake::{Answer, Fake},
    },
    resolve::prewarm::Warmed,
};
use tokio::{
    io::{AsyncBufReadExt, BufReader, Lines},
    process::{Child, ChildStderr, Command},
    time::Instant,
};

use crate::{
    harness::{Call, Gateway, within},
    resolver::{Rig, SETTINGS, reference, snapshot},
};

const LIMIT: Duration = Duration::from_secs(30);

fn names<'n>(names: impl IntoIterator<Item = &'n str>) -> HashSet<String> {
    names.into_iter().map(str::to_owned).collect()
}

#[tokio::test(start_paused = true)]
async fn what_is_named_is_read_once_and_the_rest_is_not() {
    let references = [("a", "one"), ("b", "one"), ("c", "two"), ("d", "three"), ("gone", "none")];
    let rig = Rig::new(SETTINGS, &references);
    for path in ["one", "two", "three"] {
        rig.fake.script(path, [Answer::text("sk")]);
    }
    rig.get("c").await;
    let wanted = names(["a", "b", "c", "gone", "nobody"]);
    let warmed = rig.resolver.prewarm(&rig.snapshot, &wanted, LIMIT).await;
    assert_eq!(warmed, Warmed { read: 2, failed: 1, left: 0 });
    let calls = ["one", "two", "three", "none"].map(|path| rig.fake.calls(path));
    assert_eq!(calls, [1, 1, 0, 1], "one document for two references, and nothing twice");
}

#[tokio::test(start_paused = true)]
async fn what_is_turned_away_is_tried_again_until_the_time_is_up() {
    let rig = Rig::new(SETTINGS, &[("a", "a"), ("b", "b")]);
    let throttled = || Answer::fail(FailureClass::Throttled);
    rig.fake.script("a", [throttled(), throttled(), throttled(), Answer::text("sk")]);
    rig.fake.script("b", [Answer::hang()]);
    let before = Instant::now();
    let warmed = rig.resolver.prewarm(&rig.snapshot, &names(["a", "b"]), Duration::from_secs(6)).await;
    assert_eq!(warmed, Warmed { read: 1, failed: 0, left: 1 });
    assert_eq!(before.elapsed(), Duration::from_secs(6));
    assert_eq!(rig.fake.calls("a"), 4);
}

/// A manager that is down and comes back is waited for, and keeps nobody else's secrets back meanwhile.
#[tokio::test(start_paused = true)]
async fn a_short_outage_is_waited_for() {
    let slugs: Vec<String> = (0..50).map(|at| format!("down{at}")).collect();
    let references: Vec<_> = slugs.iter().map(|slug| (slug.as_str(), slug.as_str())).chain([("up", "up")]).collect();
    let rig = Rig::new(SETTINGS, &references);
    rig.fake.script("up", [Answer::text("sk")]);
    for slug in &slugs {
        let down = || Answer::fail(FailureClass::Unavailable);
        rig.fake.script(slug, [down(), Answer::fail(FailureClass::Timeout), down(), Answer::text("sk")]);
    }
    let wanted = names(references.iter().map(|(slug, _)| *slug));
    let short = rig.resolver.prewarm(&rig.snapshot, &wanted, Duration::from_millis(1100)).await;
    assert_eq!((short.read, short.failed), (1, 0), "{short:?}");
    let warmed = rig.resolver.prewarm(&rig.snapshot, &wanted, LIMIT).await;
    assert_eq!(warmed, Warmed { read: 51, failed: 0, left: 0 });
}

/// A thousand references at fifty instances that start in one moment.
#[tokio::test(start_paused = true)]
async fn many_instances_do_not_read_in_step() {
    const REFERENCES: usize = 1000;
    const INSTANCES: usize = 50;
    let slugs: Vec<String> = (0..REFERENCES).map(|at| format!("r{at}")).collect();
    let fake = Fake::new();
    for slug in &slugs {
        fake.script(slug, [Answer::text("sk").after(Duration::from_millis(20))]);
    }
    let rigs: Vec<_> = (0..INSTANCES)
        .map(|_| {
            let references = slugs.iter().map(|slug| reference(slug, slug, json!({})));
            Rig::over(SETTINGS, snapshot(references), &fake, |managers| managers)
        })
        .collect();
    let wanted = names(slugs.iter().map(String::as_str));
    let warming = rigs.iter().map(|rig| rig.resolver.prewarm(&rig.snapshot, &wanted, LIMIT));
    let warmed = futures_util::future::join_all(warming).await;
    assert!(warmed.iter().all(|warmed| warmed.read == REFERENCES), "{warmed:?}");
    assert_eq!(fake.total_calls(), REFERENCES * INSTANCES);
    // Fifty instances with sixteen reads each: 800 under way over 1000 secrets. In step all of them would read the same sixteen.
    let peak = slugs.iter().map(|slug| fake.peak(slug)).max().unwrap();
    assert!(peak < INSTANCES / 3, "{peak} instances read one secret at once");
}

/// A sidecar process in `folder`.
struct Running {
    child: Child,
    log: Lines<BufReader<ChildStderr>>,
    listen: SocketAddr,
    admin: SocketAddr,
    read_ahead: Option<Value>,
}

impl Running {
    async fn start(folder: &Path) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_sidekey"));
        command.args(["sidecar", "--config", "sidecar.yaml"]).current_dir(folder).env_clear();
        let mut child = command.stderr(Stdio::piped()).kill_on_drop(true).spawn().unwrap();
        let mut log = BufReader::new(child.stderr.take().unwrap()).lines();
        let mut read_ahead = None;
        loop {
            let line: Value = serde_json::from_str(&within(log.next_line()).await.unwrap().unwrap()).unwrap();
            if line["message"] == "Secrets were read ahead." {
                read_ahead = Some(line);
            } else if line["message"] == "Serving." {
                let listen = line["listen"].as_str().unwrap().trim_matches(['[', ']']).parse().unwrap();
                let admin = line["admin_listen"].as_str().unwrap().parse().unwrap();
                return Self { child, log, listen, admin, read_ahead };
            }
        }
    }

    /// Waits until it is ready.
    async fn ready(&self) {
        within(async { while Call::to(self.admin, Method::GET, "/readyz").send().await.status != 200 {} }).await;
    }

    /// Ends it; what it said about reading ahead.
    async fn stop(mut self) -> Option<Value> {
        let pid = Pid::from_raw(self.child.id().unwrap().try_into().unwrap()).unwrap();
        kill_process(pid, Signal::TERM).unwrap();
        while let Some(line) = within(self.log.next_line()).await.unwrap() {
            let line: Value = serde_json::from_str(&line).unwrap();
            if line["message"] == "Secrets were read ahead." {
                self.read_ahead = Some(line);
            }
        }
        assert!(within(self.child.wait()).await.unwrap().success());
        self.read_ahead
    }
}

#[tokio::test]
async fn a_start_reads_what_was_in_use_before_the_last_end() {
    let gateway = Gateway::start().await;
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let reference = |slug: &str| json!({"id": slug, "slug": slug, "manager_type": "file", "auth_config": {}, "secret_path": slug, "status": "active"});
    let key = |slug: &str| {
        json!({"id": slug, "slug": slug, "provider": "openai", "status": "active",
            "secret_mappings": [{"target_field": "key", "secret_reference_id": slug}]})
    };
    let snapshot = json!({"schema_version": 1, "version": 1, "organisation_id": "o",
        "secret_references": [reference("used"), reference("unused")], "virtual_keys": [key("used"), key("unused")]});
    fs::write(path("snapshot.json"), snapshot.to_string()).unwrap();
    fs::create_dir(path("secrets")).unwrap();
    fs::write(path("secrets/used"), "sk-canary-warm").unwrap();
    fs::write(path("secrets/unused"), "sk-canary-warm").unwrap();
    let configuration = format!(
        "listen: 127.0.0.1:0\nadmin_listen: 127.0.0.1:0\nupstream: {{url: 'http://{}'}}\nsnapshot: {{file: snapshot.json}}\n\
         limits: {{drain_delay_secs: 0}}\nmanagers: {{file: {{root: secrets}}}}\nprewarm: used\nprewarm_file: names\n",
        gateway.address
    );
    fs::write(path("sidecar.yaml"), configuration).unwrap();

    let first = Running::start(folder.path()).await;
    first.ready().await;
    let call = Call::to(first.listen, Method::GET, "/v1/models").header("x-portkey-provider", "@used");
    assert_eq!(call.send().await.status, 200);
    assert_eq!(first.stop().await, None, "nothing is known to be in use");
    assert_eq!(fs::read_to_string(path("names")).unwrap(), "used\n", "names, and no values");
    assert_eq!(fs::metadata(path("names")).unwrap().permissions().mode() & 0o777, 0o600);

    let second = Running::start(folder.path()).await;
    second.ready().await;
    // The manager is gone by now; whoever is ready serves all the same.
    fs::remove_file(path("secrets/used")).unwrap();
    let call = Call::to(second.listen, Method::GET, "/v1/models").header("x-portkey-provider", "@used");
    assert_eq!(call.send().await.status, 200);
    let told = second.stop().await.unwrap();
    assert_eq!((&told["read"], &told["failed"], &told["left"]), (&json!(1), &json!(0), &json!(0)));

    // A secret that is gone holds nothing up.
    let third = Running::start(folder.path()).await;
    third.ready().await;
    let told = third.stop().await.unwrap();
    assert_eq!((&told["read"], &told["failed"]), (&json!(0), &json!(1)));

    // Every reference of the snapshot, whether it was in use or not.
    let all = fs::read_to_string(path("sidecar.yaml")).unwrap().replace("used\nprewarm_file: names\n", "all\n");
    fs::write(path("sidecar.yaml"), all).unwrap();
    let fourth = Running::start(folder.path()).await;
    fourth.ready().await;
    let told = fourth.stop().await.unwrap();
    assert_eq!((&told["read"], &told["failed"], &told["left"]), (&json!(1), &json!(1), &json!(0)));
}
