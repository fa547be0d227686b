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

/// The binary runs where the old identity is; the control plane seals to the new one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reseal_moves_every_value_to_the_recipients_of_now() {
    let folder = tempfile::tempdir().unwrap();
    let (old, new) = (Identity::generate().unwrap(), Identity::generate().unwrap());
    let any = "127.0.0.1:0".parse().unwrap();
    let before = control_plane(folder.path(), any, &old.recipient().to_string());
    let control = ControlPlane::start(before).await.unwrap();
    let owner = fs::read_to_string(folder.path().join("bootstrap-key")).unwrap();
    let call = async |address: SocketAddr, target: &str, body: serde_json::Value| {
        let reply =
            Call::to(address, Method::POST, target).header("x-portkey-api-key", owner.trim()).json(&body).send().await;
        assert_eq!(reply.status, 200, "{target}: {}", reply.text());
    };
    let reference = json!({"name": "n", "slug": "ref", "manager_type": "hashicorp_vault", "secret_path": "secret/data/app",
        "auth_config": {"vault_auth_type": "token", "vault_addr": "https://vault.internal", "vault_token": "hvs.canary"}});
    call(control.address(), "/v1/secret-references", reference).await;
    let integration = json!({"name": "i", "slug": "int", "ai_provider_id": "openai", "key": "sk-canary-1",
        "configurations": {"custom_headers": {"x-team": "canary-2"}}});
    call(control.address(), "/v1/integrations", integration).await;
    control.stop().await;

    let after = control_plane(folder.path(), any, &new.recipient().to_string());
    let control = ControlPlane::start(after).await.unwrap();
    let file = |name: &str| folder.path().join(name);
    fs::write(file("token"), TOKEN).unwrap();
    fs::write(file("identity"), &*old.expose().unwrap()).unwrap();
    let config = format!(
        "snapshot: {{control_plane: {{url: 'http://{}', token_file: token}}}}\nsealing: {{identity_file: identity}}\n",
        control.address()
    );
    fs::write(file("sidecar.yaml"), config).unwrap();
    let place = folder.path().to_owned();
    let ran = tokio::task::spawn_blocking(move || {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_sidekey"));
        let arguments = ["reseal", "--config", "sidecar.yaml", "--key-file", "bootstrap-key"];
        command.args(arguments).current_dir(place).env_clear().output().unwrap()
    });
    let ran = ran.await.unwrap();
    let told = String::from_utf8(ran.stdout).unwrap();
    assert_eq!(ran.status.code(), Some(0), "{told} {}", String::from_utf8_lossy(&ran.stderr));
    assert_eq!(told, "secret_references (ref): 1 sealed again\nintegrations (int): 2 sealed again\n");

    let call = Call::to(control.address(), Method::GET, "/v1/snapshot");
    let snapshot = call.header("authorization", &format!("Bearer {TOKEN}")).send().await.body;
    let link = |identity: Identity| {
        let opener = Arc::new(Opener::new(identity.into()));
        let rules = sidekey::model::LinkRules { opener: Some(&opener), ..sidekey::model::LinkRules::STRICT };
        sidekey::model::link(&snapshot, &rules).unwrap()
    };
    for (identity, opens) in [(new, true), (old, false)] {
        let snapshot = link(identity);
        assert_eq!(snapshot.references[0].auth.open().is_ok(), opens);
        assert!(snapshot.entities().all(|entity| entity.open().is_ok() == opens));
    }
    control.stop().await;
}
