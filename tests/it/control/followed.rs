//! Sidecars that follow the feed of a real control plane: how soon a write takes effect, and what a restart of it costs.

use std::{fs, net::SocketAddr, path::Path, sync::Arc, time::Duration};

use http::Method;
use serde_json::json;
use sidekey::{
    app::ControlPlane,
    config::ControlPlaneConfig,
    control::key::token_sha256,
    feed::{
        Feed, Linker,
        control_plane::{Address, ControlPlaneSource, Settings},
    },
    metric::Metrics,
    model::{AuthConfig, VaultMethod},
    seal::{identity::Identity, opener::Opener, signature::SigningKey},
};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::harness::Call;

const TOKEN: &str = "0123456789abcdef0123456789abcdef";
const SIDECARS: usize = 50;
const WRITES: usize = 20;

fn control_plane(folder: &Path, listen: SocketAddr, recipient: &str) -> ControlPlaneConfig {
    let text = format!(
        "listen: {listen}\ndatabase_file: {}\nsealing: {{recipients: [{recipient}]}}\negress: {{allow_hosts: \
         [vault.internal]}}\ndata_planes: [{{name: fleet, token_sha256: {}}}]\n",
        folder.join("control.db").display(),
        token_sha256(TOKEN)
    );
    ControlPlaneConfig::parse("control-plane.yaml", &text, []).unwrap()
}

/// How long it takes until every feed has `references`.
async fn reached(feeds: &[Arc<Feed>], references: usize, since: Instant) -> Vec<Duration> {
    let mut times = Vec::with_capacity(feeds.len());
    for feed in feeds {
        let mut status = feed.subscribe();
        let has = |_: &_| feed.current().is_some_and(|snapshot| snapshot.references.len() >= references);
        let arrived = tokio::time::timeout(Duration::from_secs(20), status.wait_for(has)).await;
        arrived.expect("a write did not arrive").unwrap();
        times.push(since.elapsed());
    }
    times
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fifty_sidecars_see_a_write_within_a_second_and_a_restart_within_ten() {
    let folder = tempfile::tempdir().unwrap();
    let identity = Identity::generate().unwrap();
    let recipient = identity.recipient().to_string();
    let any = "127.0.0.1:0".parse().unwrap();
    let control = ControlPlane::start(control_plane(folder.path(), any, &recipient)).await.unwrap();
    let address = control.address();
    let owner = fs::read_to_string(folder.path().join("bootstrap-key")).unwrap();
    let signing = SigningKey::parse(&fs::read_to_string(folder.path().join("signing-key.pem")).unwrap()).unwrap();
    let (token, public) = (folder.path().join("token"), folder.path().join("public.pem"));
    fs::write(&token, TOKEN).unwrap();
    fs::write(&public, signing.verifying().to_pem()).unwrap();

    let opener = Arc::new(Opener::new(identity.into()));
    let cancel = CancellationToken::new();
    let feeds: Vec<_> = (0..SIDECARS)
        .map(|_| {
            let settings = Settings::new(Address {
                url: format!("http://{address}").parse().unwrap(),
                token_file: token.clone(),
                ca_file: None,
                public_key_file: Some(public.clone()),
            });
            let linker = Linker { admit: Arc::new(|_, _, _| Ok(())), opener: Some(Arc::clone(&opener)) };
            let (feed, metrics) = (Arc::new(Feed::default()), Arc::new(Metrics::new()));
            let source = ControlPlaneSource::new(settings, linker, metrics);
            tokio::spawn(source.run(Arc::clone(&feed), cancel.clone()));
            feed
        })
        .collect();
    reached(&feeds, 0, Instant::now()).await;

    let write = async |number: usize| {
        let body = json!({"name": "n", "slug": format!("ref-{number}"), "manager_type": "hashicorp_vault",
            "secret_path": "secret/data/app", "auth_config": {"vault_auth_type": "token",
            "vault_addr": "https://vault.internal", "vault_token": "hvs.canary"}});
        let call = Call::to(address, Method::POST, "/v1/secret-references").header("x-portkey-api-key", owner.trim());
        let reply = call.json(&body).send().await;
        assert_eq!(reply.status, 200, "{}", reply.text());
        Instant::now()
    };
    let mut times = Vec::new();
    for number in 0..WRITES {
        let written = write(number).await;
        times.extend(reached(&feeds, number + 1, written).await);
    }
    times.sort();
    let p99 = times[times.len() * 99 / 100];
    println!("write to effect in {SIDECARS} sidecars: p50 {:?}, p99 {p99:?}", times[times.len() / 2]);
    assert!(p99 < Duration::from_secs(1), "{p99:?}");
    let snapshot = feeds[0].current().unwrap();
    let opened = snapshot.references[0].auth.open().unwrap();
    let AuthConfig::Vault(vault) = &*opened else { panic!("{opened:?}") };
    let VaultMethod::Token { token } = &vault.method else { panic!("{vault:?}") };
    assert_eq!(token.expose(), b"hvs.canary", "sealed there, opened here");

    control.stop().await;
    let refused = async {
        for feed in &feeds {
            feed.subscribe().wait_for(|status| status.refused.is_some()).await.unwrap();
        }
    };
    tokio::time::timeout(Duration::from_secs(20), refused).await.expect("the outage was not noticed");
    assert!(feeds.iter().all(|feed| feed.current().is_some_and(|snapshot| snapshot.references.len() == WRITES)));
    let control = ControlPlane::start(control_plane(folder.path(), address, &recipient)).await.unwrap();
    let restarted = Instant::now();
    write(WRITES).await;
    let slowest = reached(&feeds, WRITES + 1, restarted).await.pop().unwrap();
    println!("a restart reconverged in {slowest:?}");
    assert!(slowest < Duration::from_secs(10), "{slowest:?}");
    assert!(feeds.iter().all(|feed| feed.status().refused.is_none()));
    cancel.cancel();
    control.stop().await;
}
