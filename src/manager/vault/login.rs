//! How an identity gets a token: a fixed one, AppRole, or the sidecar's Kubernetes service account.
//!
//! The proof (secret id, JWT) is written into one buffer that is wiped after it was sent. A JWT file is read again at each
//! login, because the kubelet replaces it, and it must look like a JWT: `vault_jwt_file` may be a tenant's word.

use std::{path::PathBuf, sync::Arc, time::Duration};

use async_trait::async_trait;
use http::StatusCode;
use rustify::{
    endpoint::Endpoint,
    enums::{RequestMethod, RequestType, ResponseType},
    errors::ClientError,
};
use vaultrs::api::token::requests::{LookupTokenSelfRequest, RenewTokenSelfRequest};

use super::{answer, wire::Wire};
use crate::{
    egress::Reach,
    manager::{
        FailureClass, FetchError, jwt,
        session::{Authority, Grant, Lease, LoginError, Token},
    },
    secret::SecretValue,
};

/// Rest after the n-th refused login in a row, in minutes. Vault locks an AppRole out at the fifth failure within 15 minutes
/// and forgets failures after 15 quiet minutes, so that the last rest is longer.
const LOCKOUT_REST_MINS: [u64; 4] = [1, 2, 4, 16];

/// Rest after a refused login of a method without lock-out.
const PLAIN_REST: Duration = Duration::from_secs(60);

/// How to prove who one is.
#[derive(Debug)]
pub(super) enum Proof {
    /// `token`.
    Token {
        /// The token itself.
        token: SecretValue,
    },
    /// `approle`.
    AppRole {
        /// Where the method is mounted, without `auth/`.
        mount: String,
        /// Role id.
        role_id: Arc<str>,
        /// Secret id.
        secret_id: SecretValue,
    },
    /// `kubernetes`.
    Kubernetes {
        /// Where the method is mounted, without `auth/`.
        mount: String,
        /// Role.
        role: Arc<str>,
        /// File of the service-account token.
        jwt_file: PathBuf,
        /// What must hold for a host that may see the token.
        reach: Reach,
    },
}

/// Logs in at one server.
#[derive(Debug)]
pub(super) struct Login {
    pub(super) wire: Arc<Wire>,
    pub(super) proof: Proof,
    /// The whole login's time.
    pub(super) deadline: Duration,
}

/// `POST auth/{mount}/login` with two text fields.
struct Present<'a> {
    mount: &'a str,
    fields: [(&'static str, &'a str); 2],
}

/// Whether a token lives, as far as it can be told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pulse {
    /// It is known to the server.
    Alive,
    /// Expired, revoked, or never issued.
    Dead,
}

// === impl Login ===

impl Login {
    /// Asks `lookup-self` whether `token` is dead, or alive and not allowed to read.
    ///
    /// # Errors
    /// [`FetchError`] when the server does not tell.
    pub(super) async fn pulse(&self, token: &Token) -> Result<Pulse, FetchError> {
        let answer = self.wire.ask(&LookupTokenSelfRequest {}, token.header()).await?;
        match answer.status {
            StatusCode::OK => Ok(Pulse::Alive),
            // Without the default policy a living token may not look itself up either.
            StatusCode::FORBIDDEN if answer::denied_by_policy(&answer) => Ok(Pulse::Alive),
            StatusCode::FORBIDDEN => match answer::failure(&answer) {
                error if error.class == FailureClass::Denied => Ok(Pulse::Dead),
                error => Err(error),
            },
            _ => Err(answer::failure(&answer)),
        }
    }

    async fn present(&self, mount: &str, fields: [(&'static str, &str); 2], reach: Reach) -> Result<Grant, LoginError> {
        let present = Present { mount, fields };
        let answer = self.wire.present(&present, reach, self.deadline).await.map_err(LoginError::accident)?;
        if answer.status == StatusCode::OK {
            return answer::grant(&answer.body).map_err(LoginError::accident);
        }
        let error = answer::failure(&answer);
        Err(match error.class {
            // Bad proof, unknown role, or no such mount: the identity as configured does not get in.
            FailureClass::Denied | FailureClass::Gone | FailureClass::Misconfigured | FailureClass::Unauthenticated => {
                LoginError::refusal(FetchError { class: FailureClass::Unauthenticated, ..error })
            }
            FailureClass::Throttled
            | FailureClass::Unavailable
            | FailureClass::Timeout
            | FailureClass::Malformed
            | FailureClass::Disabled => LoginError::accident(error),
        })
    }
}

#[async_trait]
impl Authority for Login {
    async fn log_in(&self) -> Result<Grant, LoginError> {
        match &self.proof {
            Proof::Token { token } => {
                Ok(Grant { token: SecretValue::new(token.expose().to_vec()), lease: Lease::Unknown })
            }
            Proof::AppRole { mount, role_id, secret_id } => {
                let secret_id = secret_id.expose_str().ok_or_else(|| unusable("secret_id_not_text"))?;
                self.present(mount, [("role_id", role_id), ("secret_id", secret_id.trim())], Reach::Admitted).await
            }
            Proof::Kubernetes { mount, role, jwt_file, reach } => {
                let jwt = jwt::read(jwt_file).await?;
                self.present(mount, [("role", role), ("jwt", &jwt)], *reach).await
            }
        }
    }

    async fn renew(&self, token: &Token) -> Result<Lease, FetchError> {
        let answer = self.wire.call(&RenewTokenSelfRequest { increment: None }, token.header()).await?;
        answer::renewed(&answer.body)
    }

    async fn look_up(&self, token: &Token) -> Result<Lease, FetchError> {
        let answer = self.wire.call(&LookupTokenSelfRequest {}, token.header()).await?;
        answer::looked_up(&answer.body)
    }

    fn renews_identity(&self) -> bool {
        match self.proof {
            Proof::Token { .. } => false,
            Proof::AppRole { .. } | Proof::Kubernetes { .. } => true,
        }
    }

    fn patience(&self, strikes: u32) -> Duration {
        match self.proof {
            Proof::Token { .. } | Proof::Kubernetes { .. } => PLAIN_REST,
            Proof::AppRole { .. } => {
                let index = usize::try_from(strikes.max(1) - 1).unwrap_or(usize::MAX).min(LOCKOUT_REST_MINS.len() - 1);
                Duration::from_secs(LOCKOUT_REST_MINS[index] * 60)
            }
        }
    }
}

// === impl Present ===

impl Endpoint for Present<'_> {
    type Response = serde_json::Value;
    const REQUEST_BODY_TYPE: RequestType = RequestType::JSON;
    const RESPONSE_BODY_TYPE: ResponseType = ResponseType::JSON;

    fn path(&self) -> String {
        format!("auth/{}/login", self.mount)
    }

    fn method(&self) -> RequestMethod {
        RequestMethod::POST
    }

    fn body(&self) -> Result<Option<Vec<u8>>, ClientError> {
        // Six bytes are the longest escape of one, so that the buffer never grows and leaves no copy of the proof behind.
        let room = self.fields.iter().map(|(name, value)| name.len() + value.len() * 6 + 6).sum::<usize>() + 2;
        let mut body = Vec::with_capacity(room);
        let [first, second] = self.fields;
        let fields = FieldPair(first, second);
        serde_json::to_writer(&mut body, &fields)
            .map_err(|error| ClientError::DataParseError { source: error.into() })?;
        Ok(Some(body))
    }
}

/// Two fields of a JSON object.
struct FieldPair<'a>((&'static str, &'a str), (&'static str, &'a str));

impl serde::Serialize for FieldPair<'_> {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map([self.0, self.1])
    }
}

fn unusable(code: &'static str) -> LoginError {
    LoginError::accident(FetchError::new(FailureClass::Unauthenticated).with_code(code))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::egress::{self, Policy, Transport};

    #[test]
    fn the_proof_is_written_into_one_buffer() {
        let nasty = "\u{1}\"\\é".repeat(50);
        let present = Present { mount: "approle", fields: [("role_id", "r"), ("secret_id", &nasty)] };
        let body = present.body().unwrap().unwrap();
        let room = "role_id".len() + 6 + 6 + "secret_id".len() + nasty.len() * 6 + 6 + 2;
        assert_eq!(body.capacity(), room, "it grew");
        let sent: serde_json::Value = serde_json::from_slice(&body).unwrap();
        assert_eq!(sent, serde_json::json!({"role_id": "r", "secret_id": nasty}));
    }

    /// Every name is public.
    #[derive(Debug)]
    struct Public;

    #[async_trait]
    impl crate::egress::Lookup for Public {
        async fn lookup(&self, _: &str) -> std::io::Result<Vec<std::net::IpAddr>> {
            Ok(vec!["1.1.1.1".parse().unwrap()])
        }
    }

    #[tokio::test]
    async fn the_service_account_token_goes_to_opened_addresses_only() {
        let folder = tempfile::tempdir().unwrap();
        let jwt_file = folder.path().join("token");
        std::fs::write(&jwt_file, "a.b.c").unwrap();
        let allow_cidrs = vec!["10.0.0.0/8".parse().unwrap()];
        let policy = Policy::new(egress::Settings { allow_cidrs, ..egress::Settings::default() });
        let short = Duration::from_millis(200);
        let transport = Arc::new(Transport::with_lookup(policy, Vec::new(), short, Arc::new(Public)).unwrap());
        // The name alone could be in an opened network; the address it has is not.
        let url = url::Url::parse("https://vault.example").unwrap();
        let proof = Proof::Kubernetes { mount: "kubernetes".into(), role: "gw".into(), jwt_file, reach: Reach::Opened };
        let wire = Arc::new(Wire::new(transport, &url, None, short).unwrap());
        let refused = Login { wire, proof, deadline: short }.log_in().await.unwrap_err();
        assert_eq!(
            (refused.error.class, refused.error.code.as_deref()),
            (FailureClass::Misconfigured, Some("address_refused"))
        );
        assert!(!refused.refused, "no manager has looked at the identity");
    }

    #[test]
    fn refused_logins_stay_below_the_lockout() {
        let proof = Proof::AppRole { mount: "approle".into(), role_id: "r".into(), secret_id: "s".to_owned().into() };
        let url = url::Url::parse("https://vault.example").unwrap();
        let policy = Policy::new(egress::Settings::default());
        let transport = Transport::new(policy, Vec::new(), Duration::from_secs(1)).unwrap();
        let wire = Wire::new(Arc::new(transport), &url, None, Duration::from_secs(1)).unwrap();
        let login = Login { wire: Arc::new(wire), proof, deadline: Duration::from_secs(90) };
        let quiet = Duration::from_secs(15 * 60);
        let mut failures_since_quiet = 0;
        for strikes in 1..20 {
            failures_since_quiet += 1;
            assert!(failures_since_quiet < 5, "the fifth failure locks the role out");
            if login.patience(strikes) > quiet {
                failures_since_quiet = 0;
            }
        }
    }
}
