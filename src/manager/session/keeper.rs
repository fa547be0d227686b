//! Keeps the token of a session alive: renews at two thirds of the lease, and logs in anew before renewing comes to an end.

use std::{
    sync::{Arc, Weak},
    time::Duration,
};

use tokio::time::Instant;

use super::{Lease, Shared, Token};
use crate::manager::retry::{jitter, transient};

/// Pause before a failed renewal is tried again, at least; shorter only when the lease ends earlier.
const RENEWAL_PAUSE: Duration = Duration::from_secs(5);

/// Pause before the lease of a fixed token is asked for again.
const LOOK_UP_PAUSE: Duration = Duration::from_secs(30);

/// Renews `token` at two thirds of its lease for as long as the session lives, and logs in anew where renewing ends: not
/// renewable, refused, or shortened because the manager's maximum is near.
pub(super) async fn keep(session: Weak<Shared>, token: Arc<Token>, mut lease: Lease) {
    while lease == Lease::Unknown {
        let Some(shared) = session.upgrade() else { return };
        match shared.authority.look_up(&token).await {
            Ok(found) => lease = found,
            Err(error) if transient(error.class) => {
                drop(shared);
                tokio::time::sleep(LOOK_UP_PAUSE).await;
            }
            Err(error) => {
                let identity = &*shared.identity;
                let class = error.class.as_str();
                tracing::debug!(identity, class, "the lease of a token is not told, it is not renewed");
                return;
            }
        }
    }
    let Lease::Ends { after: first, mut renewable } = lease else { return };
    let (mut wait, mut ends) = (two_thirds(first), Instant::now() + first);
    loop {
        tokio::time::sleep(wait).await;
        let Some(shared) = session.upgrade() else { return };
        let mut nearly_over = !renewable;
        if renewable {
            match shared.authority.renew(&token).await {
                Ok(Lease::Ends { after, renewable: still }) => {
                    (renewable, ends) = (still, Instant::now() + after);
                    wait = two_thirds(after);
                    nearly_over = !still || after * 2 < first;
                    shared.renewed(&token, ends);
                    tracing::debug!(identity = &*shared.identity, lease_secs = after.as_secs(), "token renewed");
                }
                Ok(Lease::Endless | Lease::Unknown) => return,
                Err(error) => {
                    nearly_over = !transient(error.class);
                    wait = pause_until(ends);
                    tracing::warn!(
                        identity = &*shared.identity,
                        class = error.class.as_str(),
                        error = &error as &dyn std::error::Error,
                        "token not renewed"
                    );
                }
            }
        }
        if nearly_over && shared.authority.renews_identity() {
            let running = { shared.log_in(&mut shared.state()) };
            let Ok(mut running) = running else { return };
            drop(shared);
            if matches!(running.wait_for(Option::is_some).await.as_deref(), Ok(Some(Ok(_)))) {
                // The new token has a keeper of its own.
                return;
            }
            wait = pause_until(ends);
        }
        if Instant::now() >= ends {
            // Over: the next fetch logs in, or learns that a fixed token is dead.
            return;
        }
    }
}

fn two_thirds(lease: Duration) -> Duration {
    (lease * 2 / 3).max(Duration::from_secs(1))
}

/// A pause that leaves several tries before `ends`.
fn pause_until(ends: Instant) -> Duration {
    let rest = ends.saturating_duration_since(Instant::now());
    (rest / 4).max(RENEWAL_PAUSE.min(rest)) + jitter(RENEWAL_PAUSE / 5)
}
