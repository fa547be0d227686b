//! The only way out for managers: one request, checked, bounded in time and size, without redirects.
//!
//! The answer is handed over whatever its status; what it means is the manager's business. Bodies lie in buffers that are
//! wiped on drop. The HTTP library's own buffers are not covered.

use std::{
    error::Error as StdError,
    fmt, io,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use arc_swap::ArcSwap;
use bytes::Bytes;
use http::{HeaderMap, Method, StatusCode};
use tokio::time::Instant;
use url::{Host, Url};
use zeroize::Zeroizing;

use super::{Lookup, Policy, Reach, Refused, SystemLookup, TrustError, resolve::CheckedResolver, trust::Authorities};

/// How often, at most, the CA files are compared with what is in use. A failed handshake compares at once.
const TRUST_CHECK: Duration = Duration::from_secs(10);

/// Idle connections are given up after this: long enough for a burst of refreshes, short enough to follow DNS.
const POOL_IDLE: Duration = Duration::from_secs(30);

/// Idle connections kept for each host.
const POOL_PER_HOST: usize = 16;

/// One request of a manager.
#[derive(Debug)]
pub struct Call {
    /// Method.
    pub method: Method,
    /// Where to; judged by the policy before anything is sent.
    pub url: Url,
    /// Header fields. Mark credentials as sensitive.
    pub headers: HeaderMap,
    /// Body; empty = none.
    pub body: Zeroizing<Vec<u8>>,
    /// The least that must hold for the host; [`Reach::Opened`] for the sidecar's own identity.
    pub reach: Reach,
}

/// Bounds of one request.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// From the first byte sent to the last byte received, name resolution and handshake included.
    pub timeout: Duration,
    /// Largest body that is accepted, in bytes.
    pub max_body: usize,
}

/// An answer, whatever its status.
pub struct Answer {
    /// Status.
    pub status: StatusCode,
    /// Header fields.
    pub headers: HeaderMap,
    /// The whole body, wiped on drop.
    pub body: Zeroizing<Vec<u8>>,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum SendError {
    /// The policy refuses the URL or an address of its host.
    #[error("the address is refused")]
    Refused(#[source] Refused),
    /// [`Bounds::timeout`] passed.
    #[error("no answer in time")]
    Timeout,
    /// No connection: name, network, refused.
    #[error("no connection")]
    Connect(#[source] reqwest::Error),
    /// A connection, but no trusted one.
    #[error("no trusted connection")]
    Tls(#[source] reqwest::Error),
    /// The connection broke, or what came was not HTTP.
    #[error("the connection broke before the answer was complete")]
    Broken(#[source] reqwest::Error),
    /// The body is larger than [`Bounds::max_body`].
    #[error("the answer is larger than {0} bytes")]
    TooLarge(usize),
}

/// The HTTP clients of all managers that share a set of certificate authorities.
pub struct Transport {
    policy: Arc<Policy>,
    lookup: Arc<dyn Lookup>,
    ca_files: Arc<[PathBuf]>,
    connect_timeout: Duration,
    clients: ArcSwap<Clients>,
    checked_at: Mutex<Instant>,
}

/// The clients of one reading of the CA files. They share one TLS configuration and differ in what the resolver lets through.
struct Clients {
    authorities: Authorities,
    admitted: reqwest::Client,
    opened: reqwest::Client,
    fixed: reqwest::Client,
    /// As `fixed`, past the proxy: what lies on this machine or this link a proxy cannot reach.
    near: reqwest::Client,
}

// === impl Transport ===

impl Transport {
    /// Reads `ca_files` (trusted beside the system's authorities) and makes the clients. Blocks; call it at start.
    ///
    /// # Errors
    /// [`TrustError`] when a CA file or the TLS configuration cannot be used.
    pub fn new(policy: Policy, ca_files: Vec<PathBuf>, connect_timeout: Duration) -> Result<Self, TrustError> {
        Self::with_lookup(policy, ca_files, connect_timeout, Arc::new(SystemLookup::default()))
    }

    /// [`Transport::new`] with a resolver of one's own.
    ///
    /// # Errors
    /// As [`Transport::new`].
    pub fn with_lookup(
        policy: Policy,
        ca_files: Vec<PathBuf>,
        connect_timeout: Duration,
        lookup: Arc<dyn Lookup>,
    ) -> Result<Self, TrustError> {
        let policy = Arc::new(policy);
        let clients = Clients::build(Authorities::read(&ca_files)?, &policy, &lookup, connect_timeout)?;
        Ok(Self {
            policy,
            lookup,
            ca_files: ca_files.into(),
            connect_timeout,
            clients: ArcSwap::from_pointee(clients),
            checked_at: Mutex::new(Instant::now()),
        })
    }

    /// The policy in force.
    pub fn policy(&self) -> &Policy {
        &self.policy
    }

    /// Sends `call` once and reads the whole answer.
    ///
    /// # Errors
    /// [`SendError`].
    pub async fn send(&self, call: Call, bounds: Bounds) -> Result<Answer, SendError> {
        let reach = match call.reach {
            Reach::Admitted => self.policy.reach(&call.url),
            Reach::Opened => self.policy.reach_opened(&call.url),
            Reach::Fixed => Ok(Reach::Fixed),
        };
        let reach = reach.map_err(SendError::Refused)?;
        let attempt = async {
            self.reload(false).await;
            let body = Bytes::from_owner(call.body);
            let request = |clients: &Clients| {
                let request = clients.client(reach, &call.url).request(call.method.clone(), call.url.clone());
                let request = request.headers(call.headers.clone());
                if body.is_empty() { request } else { request.body(body.clone()) }
            };
            let first = request(&self.clients.load()).send().await.map_err(SendError::of);
            let response = match first {
                // A new authority may have been written since the last look; nothing was sent yet, so once more is safe.
                Err(SendError::Tls(_)) if self.reload(true).await => {
                    request(&self.clients.load()).send().await.map_err(SendError::of)?
                }
                first => first?,
            };
            Answer::read(response, bounds.max_body).await
        };
        tokio::time::timeout(bounds.timeout, attempt).await.unwrap_or(Err(SendError::Timeout))
    }

    /// Compares the CA files with what is in use, at most every [`TRUST_CHECK`] unless `now`; whether they had changed.
    /// Unusable files change nothing: a broken write must not cut off the managers.
    async fn reload(&self, now: bool) -> bool {
        if self.ca_files.is_empty() || !self.due(now) {
            return false;
        }
        let files = Arc::clone(&self.ca_files);
        let Ok(read) = tokio::task::spawn_blocking(move || Authorities::read(&files)).await else { return false };
        let built = match read {
            Ok(authorities) if authorities == self.clients.load().authorities => return false,
            Ok(authorities) => Clients::build(authorities, &self.policy, &self.lookup, self.connect_timeout),
            Err(error) => Err(error),
        };
        match built {
            Ok(clients) => {
                tracing::info!("CA files changed: managers are reached with the new authorities");
                self.clients.store(Arc::new(clients));
                true
            }
            Err(error) => {
                tracing::warn!(
                    error = &error as &dyn StdError,
                    "CA files changed and cannot be used, the old ones stay"
                );
                false
            }
        }
    }

    fn due(&self, now: bool) -> bool {
        let mut checked_at = self.checked_at.lock().unwrap_or_else(PoisonError::into_inner);
        let due = now || checked_at.elapsed() >= TRUST_CHECK;
        if due {
            *checked_at = Instant::now();
        }
        due
    }
}

impl fmt::Debug for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Transport")
            .field("policy", &self.policy)
            .field("ca_files", &self.ca_files)
            .finish_non_exhaustive()
    }
}

// === impl Clients ===

impl Clients {
    fn build(
        authorities: Authorities,
        policy: &Arc<Policy>,
        lookup: &Arc<dyn Lookup>,
        connect_timeout: Duration,
    ) -> Result<Self, TrustError> {
        let tls = authorities.tls()?;
        let client = |reach, proxy: Option<&Url>| {
            let resolver = CheckedResolver { policy: Arc::clone(policy), reach, lookup: Arc::clone(lookup) };
            let builder = reqwest::Client::builder()
                .tls_backend_preconfigured(tls.clone())
                .dns_resolver(resolver)
                // A token header would follow a redirect, and the environment's proxy would see loopback traffic.
                .redirect(reqwest::redirect::Policy::none())
                .no_proxy()
                .retry(reqwest::retry::never())
                .referer(false)
                .http1_only()
                .user_agent(concat!("sidekey/", env!("CARGO_PKG_VERSION")))
                .connect_timeout(connect_timeout)
                .pool_idle_timeout(POOL_IDLE)
                .pool_max_idle_per_host(POOL_PER_HOST);
            match proxy {
                Some(proxy) => builder.proxy(reqwest::Proxy::all(proxy.clone())?).build(),
                None => builder.build(),
            }
        };
        let proxy = policy.proxy_url();
        let (admitted, opened) = (client(Reach::Admitted, proxy)?, client(Reach::Opened, proxy)?);
        let (fixed, near) = (client(Reach::Fixed, proxy)?, client(Reach::Fixed, None)?);
        Ok(Self { authorities, admitted, opened, fixed, near })
    }

    fn client(&self, reach: Reach, url: &Url) -> &reqwest::Client {
        match reach {
            Reach::Admitted => &self.admitted,
            Reach::Opened => &self.opened,
            Reach::Fixed if is_near(url) => &self.near,
            Reach::Fixed => &self.fixed,
        }
    }
}

// === impl Answer ===

impl Answer {
    async fn read(mut response: reqwest::Response, max_body: usize) -> Result<Self, SendError> {
        let status = response.status();
        let headers = std::mem::take(response.headers_mut());
        let announced = response.content_length().and_then(|length| usize::try_from(length).ok());
        let mut body = Zeroizing::new(Vec::with_capacity(announced.unwrap_or_default().min(max_body)));
        // Pieces are not collected: a hostile server sends bytes one by one, and keeping each apart costs far more than it has.
        while let Some(chunk) = response.chunk().await.map_err(SendError::of)? {
            let size = body.len() + chunk.len();
            if size > max_body {
                return Err(SendError::TooLarge(max_body));
            }
            if size > body.capacity() {
                // Growing in place would leave pieces of the secret behind; the buffer that is replaced is wiped.
                let mut larger = Zeroizing::new(Vec::with_capacity(size.max(2 * body.capacity()).min(max_body)));
                larger.extend_from_slice(&body);
                body = larger;
            }
            body.extend_from_slice(&chunk);
        }
        Ok(Self { status, headers, body })
    }
}

impl fmt::Debug for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Answer").field("status", &self.status).finish_non_exhaustive()
    }
}

// === impl SendError ===

impl SendError {
    fn of(error: reqwest::Error) -> Self {
        let error = error.without_url();
        if let Some(refused) = cause::<Refused>(&error) {
            Self::Refused(refused.clone())
        } else if error.is_timeout() {
            Self::Timeout
        } else if cause::<rustls::Error>(&error).is_some() {
            Self::Tls(error)
        } else if error.is_connect() {
            Self::Connect(error)
        } else {
            Self::Broken(error)
        }
    }
}

/// Whether `url` names loopback or a link-local or metadata address, where only this machine can go.
fn is_near(url: &Url) -> bool {
    match url.host() {
        Some(Host::Ipv4(address)) => address.is_loopback() || address.is_link_local(),
        Some(Host::Ipv6(address)) => {
            // fd00:ec2::/32 is Amazon's own: metadata and container credentials.
            address.is_loopback() || address.is_unicast_link_local() || address.segments()[..2] == [0xfd00, 0x0ec2]
        }
        Some(Host::Domain(name)) => {
            name == "localhost" || name.ends_with(".localhost") || name == "metadata.google.internal"
        }
        None => false,
    }
}

/// The first `T` among `error` and its causes. An [`io::Error`] hides the error it wraps from `source`, so it is opened.
fn cause<'a, T: StdError + 'static>(error: &'a (dyn StdError + 'static)) -> Option<&'a T> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(found) = error.downcast_ref::<T>() {
            return Some(found);
        }
        next = match error.downcast_ref::<io::Error>().and_then(io::Error::get_ref) {
            Some(inner) => Some(inner),
            None => error.source(),
        };
    }
    None
}
