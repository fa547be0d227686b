//! Whose bearer tokens are believed: issuer, audience, time and sender first, the signature last.
//!
//! What a token claims is compared before its issuer's keys are asked for, so that a token for somebody else costs nothing.
//! Sources: Event Grid, "Deliver events to Microsoft Entra protected endpoints"; Entra, "Access token claims reference";
//! Pub/Sub, "Authentication for push subscriptions".

use std::sync::Arc;

use http::{HeaderMap, header::AUTHORIZATION};
use url::Url;

use super::{
    issuer_keys::{IssuerKeys, KeySource, Signed},
    jwt::{Claims, Token},
    settings::{EventGrid, Pubsub},
};
use crate::egress::Transport;

/// How far the issuer's clock may be from ours, in seconds.
const LEEWAY_SECS: f64 = 60.0;
/// Issuers of Entra's version 1 tokens, before the tenant: the public and government clouds, and China.
const ENTRA_V1: [&str; 2] = ["https://sts.windows.net", "https://sts.chinacloudapi.cn"];

/// What a token must say, and who must have signed it.
#[derive(Debug)]
pub struct Bearer {
    issuers: Vec<String>,
    audience: String,
    sender: Sender,
    keys: Arc<IssuerKeys>,
}

/// Who has got the token.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Sender {
    /// Whoever the issuer lets have one for this audience.
    Any,
    /// A service account of Google.
    ServiceAccount(String),
    /// An application of an Entra tenant.
    Application { tenant: String, id: String },
}

/// What came of looking at a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Believed {
    /// It is good.
    Yes,
    /// It is not.
    No,
    /// Its issuer's keys cannot be had just now.
    Unknown,
}

// === impl Bearer ===

impl Bearer {
    /// Tokens of an authorization server; `None` when its keys cannot be found by `issuer` alone.
    pub fn oauth(issuer: &str, audience: &str, keys_url: Option<Url>, transport: Arc<Transport>) -> Option<Self> {
        let source = keys_url.map(KeySource::KeySet).or_else(|| KeySource::of_issuer(issuer))?;
        Some(Self::new(vec![issuer.to_owned()], audience, Sender::Any, source, transport))
    }

    /// Tokens that Event Grid gets from Entra, of either version.
    pub fn event_grid(settings: &EventGrid, transport: Arc<Transport>) -> Option<Self> {
        let EventGrid { audience, tenant_id, app_id, authority_host } = settings;
        let v2 = format!("{}/{tenant_id}/v2.0", authority_host.as_str().trim_end_matches('/'));
        let source = KeySource::of_issuer(&v2)?;
        let v1 = ENTRA_V1.iter().map(|host| format!("{host}/{tenant_id}/"));
        let issuers = v1.chain([v2.clone()]).collect();
        let sender = Sender::Application { tenant: tenant_id.clone(), id: app_id.clone() };
        Some(Self::new(issuers, audience, sender, source, transport))
    }

    /// Tokens of a push subscription.
    pub fn pubsub(settings: &Pubsub, transport: Arc<Transport>) -> Option<Self> {
        let Pubsub { audience, service_account, issuer } = settings;
        let sender = Sender::ServiceAccount(service_account.clone());
        Some(Self::new(vec![issuer.clone()], audience, sender, KeySource::of_issuer(issuer)?, transport))
    }

    /// Whether `headers` hold a good token; `now` is in seconds since 1970.
    pub async fn believes(&self, headers: &HeaderMap, now: f64) -> Believed {
        let presented = headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok()).and_then(bearer);
        let Some(token) = presented.and_then(Token::parse).filter(|token| self.wants(&token.claims, now)) else {
            return Believed::No;
        };
        match self.keys.signed(&token).await {
            Signed::Yes => Believed::Yes,
            Signed::No => Believed::No,
            Signed::Unknown => Believed::Unknown,
        }
    }

    fn new(issuers: Vec<String>, audience: &str, sender: Sender, source: KeySource, transport: Arc<Transport>) -> Self {
        let keys = Arc::new(IssuerKeys::new(source, transport));
        Self { issuers, audience: audience.to_owned(), sender, keys }
    }

    /// Whether the claims are those that are wanted, if they are true.
    fn wants(&self, claims: &Claims, now: f64) -> bool {
        let audience = match (claims.aud.is_empty(), &self.sender) {
            (true, Sender::Any) => claims.client_id.as_ref() == Some(&self.audience),
            (true, Sender::ServiceAccount(_) | Sender::Application { .. }) => false,
            (false, _) => claims.aud.names(&self.audience),
        };
        let sender = match &self.sender {
            Sender::Any => true,
            Sender::ServiceAccount(account) => claims.email_verified && claims.email.as_ref() == Some(account),
            Sender::Application { tenant, id } => {
                let sender = claims.azp.as_deref().or(claims.appid.as_deref());
                let is =
                    |claim: Option<&str>, wanted: &str| claim.is_some_and(|claim| claim.eq_ignore_ascii_case(wanted));
                is(claims.tid.as_deref(), tenant) && is(sender, id)
            }
        };
        let in_time = claims.exp.is_some_and(|exp| now < exp + LEEWAY_SECS)
            && claims.nbf.is_none_or(|nbf| now > nbf - LEEWAY_SECS);
        self.issuers.contains(&claims.iss) && audience && sender && in_time
    }
}

/// The token in `Bearer <token>` (RFC 6750, 2.1).
fn bearer(value: &str) -> Option<&str> {
    let (scheme, token) = value.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then_some(token)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::egress::{Policy, Settings};

    /// Header and claims of the token in Google's "Authentication for push subscriptions".
    const GOOGLE: &str = "eyJhbGciOiJSUzI1NiIsImtpZCI6IjdkNjgwZDhjNzBkNDRlOTQ3MTMzY2JkNDk5ZWJjMWE2MWMzZDVhYmMiLCJ0eXAiOiJKV1QifQ.eyJhdWQiOiJodHRwczovL2V4YW1wbGUuY29tIiwiYXpwIjoiMTEzNzc0MjY0NDYzMDM4MzIxOTY0IiwiZW1haWwiOiJnYWUtZ2NwQGFwcHNwb3QuZ3NlcnZpY2VhY2NvdW50LmNvbSIsImVtYWlsX3ZlcmlmaWVkIjp0cnVlLCJleHAiOjE1NTAxODU5MzUsImlhdCI6MTU1MDE4MjMzNSwiaXNzIjoiaHR0cHM6Ly9hY2NvdW50cy5nb29nbGUuY29tIiwic3ViIjoiMTEzNzc0MjY0NDYzMDM4MzIxOTY0In0";

    #[tokio::test]
    async fn the_example_of_googles_documentation_says_what_is_wanted_while_it_lasts() {
        let policy = Policy::new(Settings::default());
        let transport = Arc::new(Transport::new(policy, Vec::new(), Duration::from_secs(1)).unwrap());
        let bearer = |audience: &str, account: &str| {
            let settings = Pubsub {
                audience: audience.to_owned(),
                service_account: account.to_owned(),
                issuer: Pubsub::ISSUER.to_owned(),
            };
            Bearer::pubsub(&settings, Arc::clone(&transport)).unwrap()
        };
        let text = format!("{GOOGLE}.AAAA");
        let token = Token::parse(&text).unwrap();
        assert_eq!(token.kid.as_deref(), Some("7d680d8c70d44e947133cbd499ebc1a61c3d5abc"));
        let account = "gae-gcp@appspot.gserviceaccount.com";
        for (audience, account, now, wanted) in [
            ("https://example.com", account, 1_550_182_335.0, true),
            ("https://example.com", account, 1_550_185_994.0, true),
            ("https://example.com", account, 1_550_185_996.0, false),
            ("https://example.com/", account, 1_550_182_335.0, false),
            ("https://example.com", "other@appspot.gserviceaccount.com", 1_550_182_335.0, false),
        ] {
            assert_eq!(bearer(audience, account).wants(&token.claims, now), wanted, "{audience} {account} {now}");
        }
    }

    #[test]
    fn a_scheme_is_compared_without_case() {
        for (value, token) in [("Bearer a", Some("a")), ("bearer a", Some("a")), ("Basic a", None), ("Bearer", None)] {
            assert_eq!(bearer(value), token, "{value}");
        }
    }
}
