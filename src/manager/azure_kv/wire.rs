//! Carries the requests of the Azure libraries over our own way out, and judges the answers before the libraries see them.
//!
//! Only success and the challenge that a vault owes to a request without a token pass; everything else leaves as a classed
//! failure, so that no library waits, retries, follows a link to another host, or turns a service's words into an error
//! text. Neither a secret's value nor the token it is asked with passes through the Key Vault library, which would copy both
//! into buffers that nobody wipes: they travel in its context, the token to here and the value from here.

use std::{
    fmt,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use azure_core::{
    error::{Error as LibraryError, ErrorKind},
    http::{
        AsyncRawResponse, Body, ClientOptions, Context, Request, RetryOptions, StatusCode as LibraryStatus,
        Transport as LibraryTransport,
        headers::Headers,
        policies::{Policy, PolicyResult},
    },
};
use bytes::Bytes;
use http::{
    HeaderMap, HeaderName, HeaderValue, Method, StatusCode,
    header::{AUTHORIZATION, WWW_AUTHENTICATE},
};
use url::Url;
use zeroize::Zeroizing;

use super::{answer, cloud::Cloud};
use crate::{
    egress::{Answer, Bounds, Call, Reach, SendError, Transport},
    manager::{FailureClass, FetchError, session::Token},
};

/// Largest answer, in bytes. A secret has 25 KiB, which escapes make six times as long.
const MAX_ANSWER: usize = 256 * 1024;

/// Sends one request. [`Transport`] in production, a script in tests.
#[async_trait]
pub(super) trait Line: fmt::Debug + Send + Sync {
    /// As [`Transport::send`].
    ///
    /// # Errors
    /// As [`Transport::send`].
    async fn send(&self, call: Call, bounds: Bounds) -> Result<Answer, SendError>;
}

/// A line to one peer, as the end of a library's pipeline.
#[derive(Debug)]
pub(super) struct Wire {
    pub(super) line: Arc<dyn Line>,
    pub(super) peer: Peer,
    /// One exchange.
    pub(super) timeout: Duration,
}

/// Who is at the other end.
#[derive(Debug)]
pub(super) enum Peer {
    /// The vault at this address, and nothing else that an answer of it may name.
    Vault {
        /// Scheme, host and port.
        url: Url,
        /// Whose tokens it may ask for.
        cloud: Arc<Cloud>,
    },
    /// Entra, or who stands in for it.
    Authority,
    /// The machine's identity service.
    Machine,
}

/// Takes the body of an answer past the library, when it lies in the library's context.
#[derive(Default)]
pub(super) struct Parcel(Mutex<Option<Zeroizing<Vec<u8>>>>);

/// Carries a classed failure through the libraries' error types.
pub(super) struct Carried {
    failure: Mutex<Option<FetchError>>,
    /// A verdict on the identity, at a login.
    refused: bool,
}

// === impl Line ===

#[async_trait]
impl Line for Transport {
    async fn send(&self, call: Call, bounds: Bounds) -> Result<Answer, SendError> {
        Transport::send(self, call, bounds).await
    }
}

// === impl Wire ===

impl Wire {
    /// Options with which a library uses this wire and leaves retrying to us.
    pub(super) fn options(self) -> ClientOptions {
        ClientOptions {
            retry: RetryOptions::none(),
            transport: Some(LibraryTransport::with_policy(Arc::new(self))),
            ..ClientOptions::default()
        }
    }

    fn call(&self, request: &Request, token: Option<&Token>) -> Result<Call, FetchError> {
        let misfit = |code: &'static str| FetchError::new(FailureClass::Misconfigured).with_code(code);
        let reach = match &self.peer {
            Peer::Vault { url, .. } if url.origin() != request.url().origin() => {
                // A link in a list of versions, which the token must not follow.
                return Err(answer::malformed("foreign_link"));
            }
            Peer::Vault { cloud, .. } => cloud.reach,
            Peer::Authority | Peer::Machine => Reach::Fixed,
        };
        let method = Method::from_bytes(request.method().as_str().as_bytes()).map_err(|_| misfit("method"))?;
        let mut headers = HeaderMap::new();
        for (name, value) in request.headers().iter() {
            let name = HeaderName::from_bytes(name.as_str().as_bytes()).map_err(|_| misfit("header"))?;
            let mut value = HeaderValue::from_str(value.as_str()).map_err(|_| misfit("header"))?;
            value.set_sensitive(name == "x-identity-header");
            headers.insert(name, value);
        }
        if let Some(value) = headers.get_mut(AUTHORIZATION) {
            *value = token.and_then(Token::bearer).ok_or_else(|| misfit("no_token"))?;
        }
        let body = match request.body() {
            Body::Bytes(bytes) => bytes.to_vec(),
            Body::SeekableStream(_) => return Err(misfit("body")),
        };
        Ok(Call { method, url: request.url().clone(), headers, body: Zeroizing::new(body), reach })
    }

    /// What of `answer` the library may see.
    fn judge(&self, answer: Answer, has_token: bool, parcel: Option<&Parcel>) -> Result<AsyncRawResponse, Carried> {
        match &self.peer {
            Peer::Vault { cloud, .. } => match answer.status {
                StatusCode::OK => Ok(match parcel {
                    Some(parcel) => {
                        parcel.put(answer.body);
                        passed(LibraryStatus::Ok, Headers::new(), Bytes::new())
                    }
                    None => passed(LibraryStatus::Ok, Headers::new(), Bytes::from_owner(answer.body)),
                }),
                StatusCode::UNAUTHORIZED if !has_token => challenge(&answer, cloud),
                _ => Err(Carried::accident(answer::vault_failure(&answer))),
            },
            Peer::Authority | Peer::Machine if answer.status == StatusCode::OK => {
                Ok(passed(LibraryStatus::Ok, Headers::new(), Bytes::from_owner(answer.body)))
            }
            Peer::Authority => Err(Carried::of(answer::entra_failure(&answer))),
            Peer::Machine => Err(Carried::of(answer::machine_failure(&answer))),
        }
    }
}

#[async_trait]
#[allow(
    elided_lifetimes_in_paths,
    reason = "the trait's own signature hides it, and an early-bound one does not match"
)]
impl Policy for Wire {
    async fn send(&self, context: &Context, request: &mut Request, _: &[Arc<dyn Policy>]) -> PolicyResult {
        let token = context.value::<Arc<Token>>().map(Arc::as_ref);
        let call = self.call(request, token).map_err(Carried::accident)?;
        let has_token = call.headers.contains_key(AUTHORIZATION);
        let bounds = Bounds { timeout: self.timeout, max_body: MAX_ANSWER };
        let answer = self.line.send(call, bounds).await.map_err(|error| Carried::accident(error.into()))?;
        Ok(self.judge(answer, has_token, context.value::<Arc<Parcel>>().map(Arc::as_ref))?)
    }
}

// === impl Parcel ===

impl Parcel {
    fn put(&self, body: Zeroizing<Vec<u8>>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(body);
    }

    /// The body, once.
    pub(super) fn take(&self) -> Option<Zeroizing<Vec<u8>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

impl fmt::Debug for Parcel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Parcel").finish_non_exhaustive()
    }
}

// === impl Carried ===

impl Carried {
    /// A failure that says nothing about the identity.
    pub(super) fn accident(failure: FetchError) -> Self {
        Self::of((failure, false))
    }

    fn of((failure, refused): (FetchError, bool)) -> Self {
        Self { failure: Mutex::new(Some(failure)), refused }
    }

    /// The failure that `error` carries, and whether it is a verdict on the identity. Without one the library itself found
    /// fault: with an answer it could not read (`unreadable` names whose), or with what it was given.
    pub(super) fn open(error: &LibraryError, unreadable: &'static str) -> (FetchError, bool) {
        let mut kind = error.kind();
        let mut next: Option<&(dyn std::error::Error + 'static)> = Some(error);
        while let Some(error) = next {
            if let Some(carried) = error.downcast_ref::<Self>() {
                let failure = carried.failure.lock().unwrap_or_else(PoisonError::into_inner).take();
                return (failure.unwrap_or_else(|| FetchError::new(FailureClass::Unavailable)), carried.refused);
            }
            kind = error.downcast_ref::<LibraryError>().map_or(kind, LibraryError::kind);
            next = error.source();
        }
        // The library's own text may quote what it read, so it goes no further.
        let failure = match kind {
            ErrorKind::DataConversion | ErrorKind::HttpResponse { .. } | ErrorKind::Io => answer::malformed(unreadable),
            // Two first requests at once: the challenge of one takes away the token of the other.
            ErrorKind::Credential | ErrorKind::Connection => {
                FetchError::new(FailureClass::Unavailable).with_code("token_lost")
            }
            ErrorKind::Other => FetchError::new(FailureClass::Misconfigured).with_code("library"),
        };
        (failure, false)
    }
}

impl From<Carried> for LibraryError {
    fn from(carried: Carried) -> Self {
        // Of all kinds this is the one that no policy of the library tries again.
        Self::new(ErrorKind::Other, carried)
    }
}

impl fmt::Debug for Carried {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Carried").field("refused", &self.refused).finish_non_exhaustive()
    }
}

impl fmt::Display for Carried {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the request failed")
    }
}

impl std::error::Error for Carried {}

fn passed(status: LibraryStatus, headers: Headers, body: Bytes) -> AsyncRawResponse {
    AsyncRawResponse::from_bytes(status, headers, body)
}

/// Passes a challenge on if it asks for this cloud's tokens and no others.
fn challenge(answer: &Answer, cloud: &Cloud) -> Result<AsyncRawResponse, Carried> {
    let text = answer.headers.get(WWW_AUTHENTICATE).and_then(|value| value.to_str().ok());
    let text = text.ok_or_else(|| Carried::accident(answer::malformed("no_challenge")))?;
    let audiences = audiences(text);
    if audiences.is_empty() {
        return Err(Carried::accident(answer::malformed("no_challenge")));
    }
    if !audiences.into_iter().all(|audience| cloud.is_own(audience)) {
        return Err(Carried::accident(foreign_challenge()));
    }
    let mut headers = Headers::new();
    headers.insert("www-authenticate", text.to_owned());
    Ok(passed(LibraryStatus::Unauthorized, headers, Bytes::new()))
}

/// A vault that asks for tokens it should not see is none: the reference names the wrong address, or a hostile one.
pub(super) fn foreign_challenge() -> FetchError {
    FetchError::new(FailureClass::Misconfigured).with_code("foreign_challenge")
}

/// Everything in a challenge that a reader could take for what the token is for.
fn audiences(challenge: &str) -> Vec<&str> {
    challenge
        .match_indices("=\"")
        .filter(|(at, _)| {
            ["resource", "scope"].iter().any(|name| challenge[..*at].to_ascii_lowercase().ends_with(name))
        })
        .map(|(at, _)| challenge[at + 2..].split('"').next().unwrap_or_default())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_audience_of_a_challenge_is_looked_at() {
        #[rustfmt::skip]
        let rows: [(&str, &[&str]); 6] = [
            (r#"Bearer authorization="https://login.lab/t", resource="https://vault.azure.net""#, &["https://vault.azure.net"]),
            (r#"Bearer authorization="https://login.lab/t", scope="https://vault.azure.net/.default""#, &["https://vault.azure.net/.default"]),
            (r#"Bearer resource="https://vault.azure.net", scope="https://evil.example/.default""#, &["https://vault.azure.net", "https://evil.example/.default"]),
            (r#"Bearer RESOURCE="https://evil.example", x_scope="y"#, &["https://evil.example", "y"]),
            (r#"Bearer realm="x""#, &[]),
            ("Basic", &[]),
        ];
        for (challenge, expected) in rows {
            assert_eq!(audiences(challenge), expected, "{challenge}");
        }
    }

    #[test]
    fn a_failure_is_found_below_whatever_the_library_wraps_around_it() {
        let error = FetchError::new(FailureClass::Throttled).with_code("429");
        let error = LibraryError::from(Carried::of((error, true))).with_context("outer");
        let error = LibraryError::with_error(ErrorKind::Credential, error, "outermost");
        let (found, refused) = Carried::open(&error, "not_entra");
        assert_eq!((found.class, found.code.as_deref(), refused), (FailureClass::Throttled, Some("429"), true));
        let own = LibraryError::with_message(ErrorKind::DataConversion, "quotes the answer");
        let own = LibraryError::with_error(ErrorKind::Credential, own, "outermost");
        let (found, refused) = Carried::open(&own, "not_entra");
        assert_eq!((found.class, found.code.as_deref(), refused), (FailureClass::Malformed, Some("not_entra"), false));
        assert!(found.source.is_none());
    }
}
