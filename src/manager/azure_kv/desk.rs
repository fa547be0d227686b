//! The token of one identity for one cloud's vaults: when it is given up, and what a vault may ask it for.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use azure_core::{
    credentials::{AccessToken, TokenCredential, TokenRequestOptions},
    time::OffsetDateTime,
};
use tokio::time::Instant;

use super::wire::{Carried, foreign_challenge};
use crate::manager::{
    FetchError,
    session::{Session, Token},
};

/// A token is replaced for the vault's sake at most this often: after a change of groups only a new one helps, but a denial
/// that stays must not turn every fetch into a login.
const REPLACE_EVERY: Duration = Duration::from_secs(60);

/// Hands out the session's token.
#[derive(Debug)]
pub(super) struct Desk {
    session: Session,
    /// The token that was last given up, and when.
    replaced: Mutex<Option<(Arc<Token>, Instant)>>,
}

/// What the Key Vault library holds for a credential: it says what the vault's challenge asks for, and gets a mark in place
/// of a token. The wire puts the token there.
#[derive(Debug)]
pub(super) struct Doorkeeper {
    /// The only scope that is served.
    pub(super) scope: String,
}

// === impl Desk ===

impl Desk {
    /// A desk in front of `session`.
    pub(super) fn new(session: Session) -> Self {
        Self { session, replaced: Mutex::default() }
    }

    /// A token, but not `refused`.
    ///
    /// # Errors
    /// [`FetchError`] of the login.
    pub(super) async fn token(&self, refused: Option<&Arc<Token>>) -> Result<Arc<Token>, FetchError> {
        match refused {
            Some(refused) => self.session.token_instead_of(refused).await,
            None => self.session.token().await,
        }
    }

    /// Whether a fetch that began at `started` and was turned away with `used` should come again with another token.
    pub(super) fn replaces(&self, used: &Arc<Token>, started: Instant) -> bool {
        if used.age() <= started.elapsed() {
            // It comes from a login that this fetch has waited for.
            return false;
        }
        let mut replaced = self.replaced.lock().unwrap_or_else(PoisonError::into_inner);
        match &*replaced {
            // Many fetches are turned away at once; one new login serves them all.
            Some((token, _)) if Arc::ptr_eq(token, used) => true,
            Some((_, at)) if at.elapsed() < REPLACE_EVERY => false,
            Some(_) | None => {
                *replaced = Some((Arc::clone(used), Instant::now()));
                true
            }
        }
    }
}

// === impl Doorkeeper ===

#[async_trait]
impl TokenCredential for Doorkeeper {
    async fn get_token(&self, scopes: &[&str], _: Option<TokenRequestOptions<'_>>) -> azure_core::Result<AccessToken> {
        if scopes != [self.scope.as_str()] {
            // What the library read out of a challenge after all.
            return Err(Carried::accident(foreign_challenge()).into());
        }
        // Over as soon as the library has it, so that it asks for each request.
        Ok(AccessToken::new("placed by the wire", OffsetDateTime::UNIX_EPOCH))
    }
}
