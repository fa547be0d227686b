//! `aws_sm` in a sidecar that goes on serving: sessions that end, keys that rotate, throttling, denials, deletions.
//!
//! Sidekey asks the regional endpoints of AWS by their own names, over TLS. Behind them stands MiniStack, which checks
//! signatures, session tokens and their end, and policies. What it cannot do (it throttles nobody and asks no KMS), the host in
//! front of it answers, with the bodies that AWS documents.

use std::{
    net::Ipv4Addr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    time::Duration,
};

use http::StatusCode;
use serde_json::{Value, json};
use tokio::{
    task::JoinHandle,
    time::{Instant, sleep},
};
use tokio_util::sync::CancellationToken;

use super::{ACCOUNT, SECRET, access_key, own, policy, put, web_identity};
use crate::{
    client::Call,
    components::MiniStack,
    harness,
    provider::{Answer, Provider, Received},
    world::{Setup, World, find, mapping, push, reference},
};

const SECRETS: &str = "secretsmanager.us-east-1.amazonaws.com";
const STS: &str = "sts.us-east-1.amazonaws.com";
/// Where AWS is: unlike the addresses that names lead to here otherwise, one that anybody may have.
const PUBLIC: Ipv4Addr = Ipv4Addr::new(52, 94, 5, 1);

/// Seconds that a session lasts at the emulator; AWS itself allows no less than 900.
const SESSION_SECS: u64 = 6;

/// Requests that go on until they are stopped.
struct Load {
    stop: CancellationToken,
    sent: JoinHandle<Vec<(StatusCode, String)>>,
}

/// Every read that the emulator answered: the session token it came with, and the status.
#[derive(Clone, Default)]
struct Reads(Arc<Mutex<Vec<(String, u16)>>>);

// === impl Load ===

impl Load {
    /// One request after the other to the virtual key `slug`.
    fn start(world: &World, slug: &str) -> Self {
        let (stop, to, slug) = (CancellationToken::new(), world.sidekey.address, slug.to_owned());
        let stopped = stop.clone();
        let sent = tokio::spawn(async move {
            let mut sent = Vec::new();
            while !stopped.is_cancelled() {
                let call = Call::chat("gpt-4o-mini", "ping").header("x-portkey-provider", format!("@{slug}"));
                let reply = call.send(to).await;
                sent.push((reply.status, reply.header("x-sidekey-error")));
                sleep(Duration::from_millis(50)).await;
            }
            sent
        });
        Self { stop, sent }
    }

    /// How many there were; panics when one of them failed.
    async fn all_served(self) -> usize {
        self.stop.cancel();
        let sent = self.sent.await.unwrap();
        let failed: Vec<_> = sent.iter().filter(|(status, _)| *status != StatusCode::OK).collect();
        assert!(failed.is_empty(), "{} of {} failed: {failed:?}", failed.len(), sent.len());
        sent.len()
    }
}

// === impl Reads ===

impl Reads {
    /// The session tokens that were used, in the order of their first use.
    fn sessions(&self) -> Vec<String> {
        let mut sessions: Vec<String> = self.0.lock().unwrap().iter().map(|(token, _)| token.clone()).collect();
        let mut seen = std::collections::HashSet::new();
        sessions.retain(|token| seen.insert(token.clone()));
        sessions
    }

    fn refused(&self) -> usize {
        self.0.lock().unwrap().iter().filter(|(_, status)| *status != 200).count()
    }
}

/// Lets `host` of AWS answer what the emulator answers.
fn stand_behind(provider: &Provider, host: &str, aws: &MiniStack) {
    provider.resolve(host, PUBLIC);
    let to = aws.address();
    provider.script(host, move |received| Some(relay(received.again(), to)));
}

fn relay(call: Call, to: std::net::SocketAddr) -> Answer {
    Answer::Later(Box::pin(async move { Answer::relayed(&call.send(to).await) }))
}

/// Adds the reference `aws-key` and the virtual key `aws-prod` that uses it, and trusts the authority of the test.
fn add(setup: &mut Setup, auth: Value, path: &str) {
    add_as(setup, "aws", auth, path);
    setup.config["egress"]["extra_ca_files"] = json!([harness::folder().join("authority.pem")]);
    let environment = [("AWS_REGION", "us-east-1"), ("AWS_EC2_METADATA_DISABLED", "true")];
    setup.environment.extend(environment.map(|(name, value)| (name.to_owned(), value.to_owned())));
}

fn add_as(setup: &mut Setup, name: &str, auth: Value, path: &str) {
    let mut row = reference(&format!("{name}-key"), auth, path, None);
    row["manager_type"] = json!("aws_sm");
    push(&mut setup.snapshot, "secret_references", row);
    let mappings = json!([mapping("key", &format!("{name}-key"), None)]);
    setup.virtual_key(&format!("{name}-prod"), "openai", json!({}), mappings);
}

/// A request to the virtual key `NAME-prod`: its status, code, and `Retry-After` in seconds.
async fn ask(world: &World, name: &str) -> (u16, String, Option<u64>) {
    let call = Call::chat("gpt-4o-mini", "ping").header("x-portkey-provider", format!("@{name}-prod"));
    let reply = world.send(call).await;
    assert!(!reply.text().contains(SECRET), "{}", reply.text());
    (reply.status.as_u16(), reply.header("x-sidekey-error"), reply.header("retry-after").parse().ok())
}

/// Waits until `holds`.
async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let began = Instant::now();
    while !holds() {
        assert!(began.elapsed() < Duration::from_secs(60), "not {what}");
        sleep(Duration::from_millis(20)).await;
    }
}

/// An error as Secrets Manager writes it.
fn refusal(code: &str, message: &str) -> Answer {
    let body = json!({"__type": code, "Message": message}).to_string();
    Answer::whole(400, "application/x-amz-json-1.1", body)
}

/// Sessions of six seconds, by web identity. They are renewed before they end, and no read ever comes with one that is over;
/// while STS is away the old session serves until its end and the kept value beyond; a session that AWS ends before its time
/// is replaced within the read that finds out. No request fails in all of this.
pub async fn sessions_end_and_no_request_fails() {
    let aws = MiniStack::start().await;
    put(&aws, "app/key").await;
    let environment = web_identity(&aws).await;
    let world = World::with(|setup| {
        add(setup, own(), "app/key");
        setup.environment.extend(environment);
        // Every request asks AWS, unless AWS cannot be asked.
        setup.config["cache"] = json!({"ttl_secs": 0, "stale_secs": 60});
    })
    .await;
    let log = world.sidekey.log();
    assert!(
        log.contains("identity") && log.contains("web identity arn:aws:iam"),
        "who it is, before any request: {log}"
    );
    let reads = Reads::default();
    let (record, to) = (reads.clone(), aws.address());
    world.provider.resolve(SECRETS, PUBLIC);
    world.provider.script(SECRETS, move |received| {
        let (call, token, record) = (received.again(), received.header("x-amz-security-token"), record.clone());
        // Looking at labels is not what the policy opens.
        let is_read = received.header("x-amz-target") == "secretsmanager.GetSecretValue";
        Some(Answer::Later(Box::pin(async move {
            let reply = call.send(to).await;
            if is_read {
                record.0.lock().unwrap().push((token, reply.status.as_u16()));
            }
            Answer::relayed(&reply)
        })))
    });
    // Nobody signs this call, so that another duration can be asked for on the way.
    let (away, lies) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
    let (is_away, does_lie) = (away.clone(), lies.clone());
    world.provider.resolve(STS, PUBLIC);
    world.provider.script(STS, move |received| {
        if is_away.load(Ordering::SeqCst) {
            return Some(Answer::Hangup);
        }
        let form = format!("{}&DurationSeconds={SESSION_SECS}", received.text());
        let (call, does_lie) = (received.again().with_body(form.into()), does_lie.load(Ordering::SeqCst));
        Some(Answer::Later(Box::pin(async move {
            let mut reply = call.send(to).await;
            if does_lie {
                reply.body = far_ahead(&reply.text()).into();
            }
            Answer::relayed(&reply)
        })))
    });

    let load = Load::start(&world, "aws-prod");
    until("renewed twice", || reads.sessions().len() >= 3).await;
    assert_eq!(reads.refused(), 0, "a session was used after its end");

    away.store(true, Ordering::SeqCst);
    let last = reads.sessions().len();
    sleep(Duration::from_secs(SESSION_SECS + 1)).await;
    assert_eq!(
        (reads.sessions().len(), reads.refused()),
        (last, 0),
        "there is no other session, and none is overdrawn"
    );
    away.store(false, Ordering::SeqCst);
    until("logged in again", || reads.sessions().len() > last).await;

    lies.store(true, Ordering::SeqCst);
    until("told that a session is over", || reads.refused() > 0).await;
    let last = reads.sessions().len();
    until("logged in for it", || reads.sessions().len() > last).await;
    let served = load.all_served().await;
    println!("{served} requests, {} sessions, {} reads refused", reads.sessions().len(), reads.refused());
}

/// The answer of STS with an end that is an hour ahead: what a wrong clock makes of a session.
fn far_ahead(answer: &str) -> String {
    let (before, rest) = answer.split_once("<Expiration>").expect("an end");
    let (_, after) = rest.split_once("</Expiration>").expect("an end");
    format!("{before}<Expiration>2099-01-01T00:00:00Z</Expiration>{after}")
}

/// Throttling comes as a 400 and is told as what it is, within the deadline and after three attempts in all; who has a value is
/// served it meanwhile.
pub async fn throttling_is_bridged_or_told() {
    let aws = MiniStack::start().await;
    let (id, secret) = reader(&aws).await;
    for name in ["app/key", "app/cold"] {
        put(&aws, name).await;
    }
    let world = World::with(|setup| {
        add(setup, access_key(&id, &secret), "app/key");
        add_as(setup, "cold", access_key(&id, &secret), "app/cold");
        setup.config["cache"] = json!({"ttl_secs": 0, "stale_secs": 60});
    })
    .await;
    stand_behind(&world.provider, SECRETS, &aws);
    assert_eq!(ask(&world, "aws").await.0, 200);

    let throttles = Arc::new(AtomicBool::new(true));
    let told = Arc::new(AtomicU32::new(0));
    let (does, counts) = (throttles.clone(), told.clone());
    world.provider.script(SECRETS, move |_| {
        does.load(Ordering::SeqCst).then(|| {
            counts.fetch_add(1, Ordering::SeqCst);
            refusal("ThrottlingException", "Rate exceeded")
        })
    });
    let began = Instant::now();
    let (status, code, retry_after) = ask(&world, "cold").await;
    assert_eq!((status, code.as_str()), (503, "manager_throttled"));
    assert!(retry_after.is_some_and(|wait| wait >= 1), "{retry_after:?}");
    assert!(began.elapsed() < Duration::from_secs(8), "{:?}", began.elapsed());
    assert_eq!(told.load(Ordering::SeqCst), 3, "Amazon's library repeats nothing of its own accord");
    assert_eq!(ask(&world, "aws").await.0, 200, "a value that is there is served");

    throttles.store(false, Ordering::SeqCst);
    let began = Instant::now();
    while ask(&world, "cold").await.0 != 200 {
        assert!(began.elapsed() < Duration::from_secs(60), "{}", world.sidekey.log());
        sleep(Duration::from_millis(200)).await;
    }
}

/// What AWS says no to for good: a key of KMS that the identity may not use, and a secret that is to be deleted. Both end the
/// value that was there; a restored secret is served again.
pub async fn denials_and_deletions_end_a_value() {
    let aws = MiniStack::start().await;
    let (id, secret) = reader(&aws).await;
    for name in ["app/key", "app/leaving"] {
        put(&aws, name).await;
    }
    let world = World::with(|setup| {
        add(setup, access_key(&id, &secret), "app/key");
        add_as(setup, "leaving", access_key(&id, &secret), "app/leaving");
        setup.config["cache"] = json!({"ttl_secs": 0, "stale_secs": 3600});
    })
    .await;
    stand_behind(&world.provider, SECRETS, &aws);
    assert_eq!(ask(&world, "aws").await.0, 200);
    assert_eq!(ask(&world, "leaving").await.0, 200);

    let deletion = json!({"SecretId": "app/leaving", "RecoveryWindowInDays": 7});
    aws.json("secretsmanager.DeleteSecret", &deletion).await;
    let (status, code, _) = ask(&world, "leaving").await;
    assert_eq!((status, code.as_str()), (502, "secret_not_found"));
    aws.json("secretsmanager.RestoreSecret", &json!({"SecretId": "app/leaving"})).await;
    let began = Instant::now();
    while ask(&world, "leaving").await.0 != 200 {
        assert!(began.elapsed() < Duration::from_secs(30), "a restored secret is not served");
        sleep(Duration::from_millis(200)).await;
    }

    // The policy opens the secret and not the key that it is encrypted with.
    let closed = |received: &Received| received.contains("app/key");
    world.provider.script(SECRETS, move |received| {
        closed(received).then(|| refusal("AccessDeniedException", "Access to KMS is not allowed"))
    });
    // A denial counts when a second read confirms it.
    let began = Instant::now();
    let (status, code, _) = loop {
        let answer = ask(&world, "aws").await;
        if answer.0 != 200 {
            break answer;
        }
        assert!(began.elapsed() < Duration::from_secs(30), "a denied value is served for ever");
        sleep(Duration::from_millis(200)).await;
    };
    assert_eq!((status, code.as_str()), (502, "secret_denied"));
    assert!(world.sidekey.log().contains("AccessDeniedException"), "the log names the code");
}

/// Nobody gave the machine an identity: instance metadata is the last resort, and nothing answers there. That looks like an
/// outage and is none; an outage of AWS is one.
pub async fn no_credentials_is_no_outage() {
    let aws = MiniStack::start().await;
    let (id, secret) = reader(&aws).await;
    let world = World::with(|setup| {
        add(setup, own(), "app/key");
        add_as(setup, "keyed", access_key(&id, &secret), "app/key");
        setup.environment.retain(|(name, _)| name != "AWS_EC2_METADATA_DISABLED");
        let nobody = ("AWS_EC2_METADATA_SERVICE_ENDPOINT".to_owned(), "http://127.0.0.1:9".to_owned());
        setup.environment.push(nobody);
    })
    .await;
    world.provider.resolve(SECRETS, PUBLIC);
    world.provider.script(SECRETS, |_| Some(Answer::Hangup));
    let (status, code, _) = ask(&world, "aws").await;
    assert_eq!((status, code.as_str()), (502, "manager_unauthenticated"));
    let (status, code, _) = ask(&world, "keyed").await;
    assert_eq!((status, code.as_str()), (503, "manager_unavailable"));
    assert!(world.sidekey.log().contains("no_credentials"), "{}", world.sidekey.log());
}

/// The access key in a reference is replaced, and the old one is made inactive: the next read comes with the new one, no
/// request fails, and the old one opens nothing.
pub async fn a_rotated_key_works_at_once() {
    let aws = MiniStack::start().await;
    put(&aws, "app/key").await;
    let (old, old_secret) = reader(&aws).await;
    let mut world = World::with(|setup| {
        add(setup, access_key(&old, &old_secret), "app/key");
        // No value from before helps.
        setup.config["cache"] = json!({"ttl_secs": 0, "stale_secs": 0});
    })
    .await;
    stand_behind(&world.provider, SECRETS, &aws);
    let load = Load::start(&world, "aws-prod");
    let keys = |world: &World| {
        let received = world.provider.received();
        let asked = received.iter().filter(|received| received.host == SECRETS);
        asked.map(|received| received.header("authorization")).collect::<Vec<_>>()
    };
    let used = |world: &World, id: &str| keys(world).iter().filter(|key| key.contains(id)).count();
    until("read with the old key", || used(&world, &old) >= 3).await;

    let (new, new_secret) = aws.access_key("reader").await;
    find(&mut world.snapshot, "secret_references", "aws-key")["auth_config"] = access_key(&new, &new_secret);
    world.replace_snapshot().await;
    until("read with the new key", || used(&world, &new) >= 1).await;
    // Reads under way when the snapshot came were still the old key's.
    until("done with the old key", || keys(&world).last().is_some_and(|key| key.contains(&new))).await;
    let deactivate = [("UserName", "reader"), ("AccessKeyId", old.as_str()), ("Status", "Inactive")];
    aws.iam("UpdateAccessKey", &deactivate).await;
    let (before, with_old) = (used(&world, &new), used(&world, &old));
    until("read on", || used(&world, &new) >= before + 5).await;
    assert_eq!(used(&world, &old), with_old, "the old key was used again");
    load.all_served().await;

    find(&mut world.snapshot, "secret_references", "aws-key")["auth_config"] = access_key(&old, &old_secret);
    world.replace_snapshot().await;
    let (status, code, _) = ask(&world, "aws").await;
    assert_eq!((status, code.as_str()), (502, "manager_unauthenticated"));
}

/// A user who may read what lies below `app/`: id and secret of its key.
async fn reader(aws: &MiniStack) -> (String, String) {
    let resource = format!("arn:aws:secretsmanager:us-east-1:{ACCOUNT}:secret:app/*");
    aws.user("reader", &policy("secretsmanager:GetSecretValue", &resource)).await
}
