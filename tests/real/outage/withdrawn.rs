//! Secrets that may not be used any more, each withdrawn in another way: how long Sidekey goes on with what it remembers.

use std::time::Duration;

use futures_util::future::join_all;
use http::Method;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use super::{PATIENCE, add, load::Line, number};
use crate::{
    components::OpenBao,
    world::{Setup, World},
};

/// How often the maintenance looks which values are due.
const ROUND: Duration = Duration::from_secs(1);
/// A denial is believed when it is repeated after this time.
const CONFIRMED_AFTER: Duration = Duration::from_secs(2);
/// What reads and a busy machine add.
const SLACK: Duration = Duration::from_secs(2);

/// A way to withdraw a secret, or the right to read it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    /// Its version is deleted; it could be restored.
    Deleted,
    /// Its version is destroyed.
    Destroyed,
    /// All versions and what is known about them.
    Erased,
    /// A version that the reference asks for by number is destroyed; newer ones are there.
    PinnedDestroyed,
    /// A policy forbids this one path.
    Forbidden,
    /// The identity's token is revoked.
    TokenRevoked,
    /// The identity's role is gone, and its tokens are revoked.
    RoleRemoved,
}

/// What of a value's life is left when it is withdrawn.
#[derive(Clone, Copy)]
enum Until {
    /// The next refresh.
    Refresh,
    /// A second refusal.
    Confirmed,
    /// The hard bound: it is the identity that is refused, the value may be as good as ever.
    Bound,
}

const WAYS: [(Way, &str, Until); 7] = [
    (Way::Deleted, "secret_not_found", Until::Refresh),
    (Way::Destroyed, "secret_not_found", Until::Refresh),
    (Way::Erased, "secret_not_found", Until::Refresh),
    (Way::PinnedDestroyed, "secret_not_found", Until::Refresh),
    (Way::Forbidden, "secret_denied", Until::Confirmed),
    (Way::TokenRevoked, "manager_unauthenticated", Until::Bound),
    (Way::RoleRemoved, "manager_unauthenticated", Until::Bound),
];

/// Documents of the identity whose policy is broken.
const DOCUMENTS: usize = 3;

/// Every way at once, with requests coming in: each stops in its time, and with the right code.
pub async fn stops_within_the_bound() {
    let (ttl, stale) = (number("OUTAGE_TTL_SECS", 4), number("OUTAGE_STALE_SECS", 4));
    let bao = OpenBao::start().await;
    let mut tokens = Vec::new();
    for (way, ..) in WAYS {
        tokens.push(way.prepare(&bao).await);
    }
    let world = World::with(|setup| {
        setup.config["cache"] = json!({"ttl_secs": ttl, "stale_secs": stale, "negative_ttl_secs": 1});
        setup.config["provenance_header"] = json!(true);
        for ((way, ..), auth) in WAYS.iter().zip(&tokens) {
            let version = if *way == Way::PinnedDestroyed { "?version=1" } else { "" };
            add(setup, &way.name(), auth.clone(), &format!("secret/data/{}{version}", way.name()));
        }
    })
    .await;
    let address = world.sidekey.address;
    let (ttl, stale) = (Duration::from_secs(ttl), Duration::from_secs(stale));
    println!("| withdrawn | served for | at most | then |");
    let rows = join_all(WAYS.iter().zip(&tokens).map(async |((way, code, until), auth)| {
        let mut line = Line::open(address, &way.name()).await;
        let first = line.send().await;
        assert_eq!(first.status, 200, "{way:?}: {first:?}");
        way.withdraw(&bao, auth).await;
        let since = Instant::now();
        let bound = match until {
            Until::Refresh => ttl + ROUND,
            Until::Confirmed => ttl + ROUND + CONFIRMED_AFTER,
            Until::Bound => ttl + stale,
        };
        loop {
            let got = line.send().await;
            if got.status != 200 {
                assert_eq!(got.code(), *code, "{way:?}: {got:?}");
                let lasted = got.sent - since;
                break format!("| {} | {:.1} s | {} s | {code} |", way.name(), lasted.as_secs_f64(), bound.as_secs());
            }
            assert!(got.sent < since + bound + SLACK, "{way:?}: still served: {got:?}");
            assert!(got.age().is_some_and(|age| age < (ttl + stale).as_secs()), "{way:?}: {got:?}");
            sleep(Duration::from_millis(50)).await;
        }
    }))
    .await;
    println!("{}", rows.join("\n"));
}

/// A policy that forbids everything is seen by one document after the other, far apart; none is forgotten, and an alarm is
/// raised. Corrected, it is over.
pub async fn a_wrong_policy_does_not_empty_the_cache() {
    const TTL: Duration = Duration::from_secs(8);
    let bao = OpenBao::start().await;
    let token = limited(&bao, "many", r#"path "secret/data/many-*" { capabilities = ["read"] }"#).await;
    for number in 0..DOCUMENTS {
        bao.put(&format!("many-{number}"), json!({"api_key": format!("sk-{number}")})).await;
    }
    let world = World::with(|setup: &mut Setup| {
        setup.config["cache"] = json!({"ttl_secs": TTL.as_secs(), "stale_secs": 600, "negative_ttl_secs": 1});
        setup.config["provenance_header"] = json!(true);
        for number in 0..DOCUMENTS {
            let name = format!("many-{number}");
            add(setup, &name, auth(&bao, &token), &format!("secret/data/{name}"));
        }
    })
    .await;
    // Read far enough apart that each would be denied, and confirmed to be, before the next is looked at.
    let mut lines = Vec::new();
    for number in 0..DOCUMENTS {
        let mut line = Line::open(world.sidekey.address, &format!("many-{number}")).await;
        for _ in 0..2 {
            assert_eq!(line.send().await.status, 200);
        }
        lines.push(line);
        sleep(TTL / DOCUMENTS as u32).await;
    }
    policy(&bao, "many", r#"path "secret/data/elsewhere" { capabilities = ["read"] }"#).await;
    let broken_at = Instant::now();
    while broken_at.elapsed() < TTL + ROUND + 2 * CONFIRMED_AFTER {
        for line in &mut lines {
            let got = line.send().await;
            assert_eq!(got.status, 200, "one wrong policy took a value away after {:?}: {got:?}", broken_at.elapsed());
        }
        sleep(Duration::from_millis(200)).await;
    }
    assert!(world.sidekey.log().contains("Several secrets of one identity are denied at once"), "nobody is told");
    let stale = lines[0].send().await;
    assert!(stale.header("x-sidekey-provenance").contains("outcome=stale"), "{stale:?}");

    policy(&bao, "many", r#"path "secret/data/many-*" { capabilities = ["read"] }"#).await;
    let mended_at = Instant::now();
    for line in &mut lines {
        while !line.send().await.header("x-sidekey-provenance").contains("outcome=hit") {
            assert!(mended_at.elapsed() < PATIENCE, "it does not recover");
            sleep(Duration::from_millis(50)).await;
        }
    }
    println!(
        "{DOCUMENTS} documents, all denied for {:.0} s, none forgotten; fresh again {:.1} s after the policy was corrected",
        (mended_at - broken_at).as_secs_f64(),
        mended_at.elapsed().as_secs_f64()
    );
}

// === impl Way ===

impl Way {
    fn name(self) -> String {
        format!("{self:?}").to_lowercase()
    }

    /// Writes the secret, and makes an identity that reads this one; its `auth_config`.
    async fn prepare(self, bao: &OpenBao) -> Value {
        let name = self.name();
        for version in 1..=2 {
            bao.put(&name, json!({"api_key": format!("sk-{name}-{version}")})).await;
        }
        let token = limited(bao, &name, &format!(r#"path "secret/data/{name}" {{ capabilities = ["read"] }}"#)).await;
        if self != Self::RoleRemoved {
            return auth(bao, &token);
        }
        bao.write(&format!("auth/approle/role/{name}"), json!({"token_policies": name, "token_ttl": "10m"})).await;
        bao.write(&format!("auth/approle/role/{name}/role-id"), json!({"role_id": name})).await;
        bao.write(&format!("auth/approle/role/{name}/custom-secret-id"), json!({"secret_id": "s-removed"})).await;
        json!({"vault_auth_type": "approle", "vault_addr": bao.url(), "vault_role_id": name, "vault_secret_id": "s-removed"})
    }

    async fn withdraw(self, bao: &OpenBao, auth: &Value) {
        let name = self.name();
        match self {
            Self::Deleted => {
                bao.call(Method::DELETE, &format!("secret/data/{name}"), &json!({})).await.expect(204);
            }
            Self::Destroyed => drop(bao.write(&format!("secret/destroy/{name}"), json!({"versions": [1, 2]})).await),
            Self::Erased => {
                bao.call(Method::DELETE, &format!("secret/metadata/{name}"), &json!({})).await.expect(204);
            }
            Self::PinnedDestroyed => drop(bao.write(&format!("secret/destroy/{name}"), json!({"versions": [1]})).await),
            Self::Forbidden => {
                policy(bao, &name, &format!(r#"path "secret/data/{name}" {{ capabilities = ["deny"] }}"#)).await;
            }
            Self::TokenRevoked => drop(bao.write("auth/token/revoke", json!({"token": auth["vault_token"]})).await),
            Self::RoleRemoved => {
                let role = format!("auth/approle/role/{name}");
                bao.call(Method::DELETE, &role, &json!({})).await.expect(204);
                bao.write("sys/leases/revoke-prefix/auth/approle/login", json!({})).await;
            }
        }
    }
}

/// A token with a policy of its own.
async fn limited(bao: &OpenBao, name: &str, rules: &str) -> String {
    policy(bao, name, rules).await;
    bao.new_token(json!({"policies": [name], "ttl": "1h"})).await
}

async fn policy(bao: &OpenBao, name: &str, rules: &str) {
    bao.write(&format!("sys/policies/acl/{name}"), json!({"policy": rules})).await;
}

fn auth(bao: &OpenBao, token: &str) -> Value {
    json!({"vault_auth_type": "token", "vault_addr": bao.url(), "vault_token": token})
}
