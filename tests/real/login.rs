//! Every way of logging in at the vault, all the way: a request's credential comes from a secret that only this login opens.

use serde_json::{Value, json};

use crate::{
    client::Call,
    components::{KubeApiserver, kube::AUDIENCE},
    world::{World, find},
};

/// A token stands in the reference itself.
pub async fn by_token() {
    let mut world = World::start().await;
    let auth = world.bao.token_auth();
    serves_with(&mut world, auth).await;
    assert_eq!(world.bao.logins(), 0);
}

/// Role id and secret id are exchanged for a token, once.
pub async fn by_approle() {
    let mut world = World::start().await;
    let auth = world.bao.approle_auth();
    serves_with(&mut world, auth).await;
    assert_eq!(world.bao.logins(), 1);
}

/// Sidekey's ServiceAccount token is exchanged for a token; OpenBao asks a real TokenReview.
pub async fn by_service_account() {
    let cluster = KubeApiserver::start().await;
    let account = cluster.service_account("sidekey", AUDIENCE).await;
    let mut world = World::with(|setup| {
        setup.config["managers"] = json!({"vault": {"kubernetes_jwt_file": account.token_file}});
    })
    .await;
    let auth = cluster.admit(&world.bao, "sidekey", "sidekey").await;
    serves_with(&mut world, auth).await;
    assert_eq!(world.bao.logins(), 1);
}

/// A login that the vault refuses is Sidekey's failure to prove who it is, and nothing goes out without a credential.
pub async fn refused() {
    let mut world = World::start().await;
    let mut auth = world.bao.approle_auth();
    auth["vault_secret_id"] = json!("not the secret id");
    find(&mut world.snapshot, "secret_references", "openai-backup-key")["auth_config"] = auth;
    world.replace_snapshot().await;
    let reply = world.send(Call::chat("gpt-4o-mini", "ping").header("x-portkey-provider", "@openai-backup")).await;
    let reply = reply.expect(502);
    assert_eq!(reply.header("x-sidekey-error"), "manager_unauthenticated");
    assert!(!reply.text().contains("role"), "no text of the vault: {}", reply.text());
    assert!(world.provider.take().is_empty());
}

/// Two requests with a reference that logs in as `auth` says are served, with one login and one read.
async fn serves_with(world: &mut World, auth: Value) {
    find(&mut world.snapshot, "secret_references", "openai-backup-key")["auth_config"] = auth;
    world.replace_snapshot().await;
    for _ in 0..2 {
        world.send(Call::chat("gpt-4o-mini", "ping").header("x-portkey-provider", "@openai-backup")).await.expect(200);
        let credential = format!("Bearer {}", world.secrets.openai_backup);
        assert_eq!(world.provider.take_one().header("authorization"), credential);
    }
    assert_eq!(world.bao.reads("secret/data/openai-backup"), 1);
}
