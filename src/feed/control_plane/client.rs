//! Asks the control plane: one request at a time, over a client of its own that nothing of a snapshot can reach.
//!
//! No redirects, no proxy of the environment, bounded waits and a bounded body. Token, certificates and public keys are read
//! anew for each request, so that whoever replaces a file needs no restart.

use std::{
    fmt, fs, io,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use http::{
    HeaderMap, HeaderValue, StatusCode,
    header::{AUTHORIZATION, CONTENT_TYPE, ETAG, IF_NONE_MATCH, RETRY_AFTER},
};
use rustls::{
    ClientConfig, RootCertStore,
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, pem::PemObject as _},
};
use tokio::time::timeout;
use url::Url;
use zeroize::Zeroizing;

use super::answer::Answer;
use crate::seal::signature::{NotAKey, VerifyingKey};

/// For a connection, TLS included.
const CONNECT: Duration = Duration::from_secs(5);
/// For the head of an answer, beside the time that was asked to wait.
const HEAD: Duration = Duration::from_secs(15);
/// For the next piece of a body.
const PIECE: Duration = Duration::from_secs(15);
/// For the whole of it.
const BODY: Duration = Duration::from_secs(300);
/// A peer that went without a word is noticed after a few of these.
const KEEPALIVE: Duration = Duration::from_secs(10);
/// Longest `Retry-After` that is followed.
const MAX_RETRY_AFTER: Duration = Duration::from_secs(30);
/// Largest file that is read beside the snapshot, in bytes.
const MAX_FILE: u64 = 1 << 20;
/// Longest token, in bytes; far below what a head may be.
const MAX_TOKEN: usize = 4096;
/// Of an update.
const SIGNATURE: &str = "x-sidekey-signature";

/// Where to ask, and what with.
#[derive(Clone, Debug)]
pub struct Address {
    /// `url`: scheme, host and port.
    pub url: Url,
    /// `token_file`: the bearer token of this data plane.
    pub token_file: PathBuf,
    /// `ca_file`: PEM certificates trusted beside the system's.
    pub ca_file: Option<PathBuf>,
    /// `public_key_file`: Ed25519 public keys in PEM, one of which must have signed; `None` = signatures are not checked.
    pub public_key_file: Option<PathBuf>,
}

/// What is asked for.
#[derive(Clone, Debug, Default)]
pub(super) struct Ask {
    /// `ETag`s of what needs not be told.
    pub(super) known: Vec<String>,
    /// From where a delta is welcome: `<epoch>-<version>`.
    pub(super) since: Option<String>,
    /// How long a change is waited for.
    pub(super) wait: Duration,
}

/// What came.
#[derive(Debug)]
pub(super) enum Fetched {
    /// Nothing that is not known.
    Unchanged,
    /// An update, with the keys to check it with.
    Update(Answer, Option<Vec<VerifyingKey>>),
}

/// Why nothing came.
#[derive(Debug, thiserror::Error)]
pub(super) enum FetchError {
    /// A file of ours.
    #[error("{key} {} {problem}", path.display())]
    File {
        /// Which key names it.
        key: &'static str,
        /// Which.
        path: PathBuf,
        /// Why it cannot be used, for people.
        problem: String,
    },
    /// The TLS configuration or the client cannot be made.
    #[error("no connection can be set up ({0})")]
    Setup(String),
    /// No connection, or it broke.
    #[error("cannot be reached ({0})")]
    Unreachable(String),
    /// It did not answer in time.
    #[error("does not answer in time")]
    Timeout,
    /// It does not know the token.
    #[error("does not know the token in token_file; make one there, or add its digest to data_planes")]
    Unauthorised,
    /// Any other status.
    #[error("answers with status {0}")]
    Status(u16, Option<Duration>),
    /// More than is taken.
    #[error("sends more than {0} bytes")]
    TooLarge(u64),
    /// An answer without an `ETag`.
    #[error("sends a snapshot without ETag; is this a control plane?")]
    NoTag,
}

/// A client of the control plane.
pub(super) struct Client {
    address: Address,
    max_bytes: u64,
    http: Option<(Vec<u8>, reqwest::Client)>,
}

/// What the files say now.
struct Files {
    authorisation: HeaderValue,
    authorities: Vec<u8>,
    keys: Option<Vec<VerifyingKey>>,
}

// === impl Client ===

impl Client {
    /// Nothing is connected yet.
    pub(super) fn new(address: Address, max_bytes: u64) -> Self {
        Self { address, max_bytes, http: None }
    }

    /// Asks once.
    pub(super) async fn fetch(&mut self, ask: &Ask) -> Result<Fetched, FetchError> {
        let (http, authorisation, keys) = self.ready().await?;
        let url = self.address.snapshot(ask).ok_or_else(|| FetchError::Setup("its URL is no base".to_owned()))?;
        let mut request = http.get(url).header(AUTHORIZATION, authorisation);
        if !ask.known.is_empty() {
            request = request.header(IF_NONE_MATCH, ask.known.join(", "));
        }
        let answered = timeout(ask.wait + HEAD, request.send()).await.map_err(|_| FetchError::Timeout)?;
        let response = answered.map_err(|error| FetchError::Unreachable(cause(&error)))?;
        match response.status() {
            StatusCode::NOT_MODIFIED => Ok(Fetched::Unchanged),
            StatusCode::OK => {
                let read = timeout(BODY, self.read(response)).await.map_err(|_| FetchError::Timeout)?;
                Ok(Fetched::Update(read?, keys))
            }
            StatusCode::UNAUTHORIZED => Err(FetchError::Unauthorised),
            status => Err(FetchError::Status(status.as_u16(), retry_after(response.headers()))),
        }
    }

    /// Tells once what has been used.
    pub(super) async fn report(&mut self, report: Bytes) -> Result<(), FetchError> {
        let (http, authorisation, _) = self.ready().await?;
        let url = self.address.url.join("/v1/usage").map_err(|_| FetchError::Setup("its URL is no base".to_owned()))?;
        let request = http.post(url).header(AUTHORIZATION, authorisation).header(CONTENT_TYPE, "application/json");
        let answered = timeout(HEAD, request.body(report).send()).await.map_err(|_| FetchError::Timeout)?;
        let response = answered.map_err(|error| FetchError::Unreachable(cause(&error)))?;
        match response.status() {
            status if status.is_success() => Ok(()),
            StatusCode::UNAUTHORIZED => Err(FetchError::Unauthorised),
            status => Err(FetchError::Status(status.as_u16(), retry_after(response.headers()))),
        }
    }

    /// A client by the files as they are now, what it shows, and the keys that answers are checked with.
    async fn ready(&mut self) -> Result<(reqwest::Client, HeaderValue, Option<Vec<VerifyingKey>>), FetchError> {
        let address = self.address.clone();
        let known = self.http.as_ref().map(|(authorities, _)| authorities.clone());
        let ready = move || {
            let files = Files::read(&address)?;
            let http = match known {
                Some(known) if known == files.authorities => None,
                _ => Some(connector(&address, &files.authorities)?),
            };
            Ok((files, http))
        };
        let (files, http) = tokio::task::spawn_blocking(ready)
            .await
            .unwrap_or_else(|_| Err(FetchError::Setup("its files could not be read to their end".to_owned())))?;
        let Files { authorisation, authorities, keys } = files;
        let http = match (http, &self.http) {
            (None, Some((_, http))) => http.clone(),
            (Some(http), _) => self.http.insert((authorities, http)).1.clone(),
            (None, None) => return Err(FetchError::Setup("there is no client".to_owned())),
        };
        Ok((http, authorisation, keys))
    }

    async fn read(&self, mut response: reqwest::Response) -> Result<Answer, FetchError> {
        let text = |name: &str| response.headers().get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
        let etag = text(ETAG.as_str()).ok_or(FetchError::NoTag)?;
        let signature = text(SIGNATURE);
        let announced = response.content_length().unwrap_or_default();
        if announced > self.max_bytes {
            return Err(FetchError::TooLarge(self.max_bytes));
        }
        let mut answer = Answer::begin(etag, signature, usize::try_from(announced).unwrap_or_default());
        loop {
            let piece = timeout(PIECE, response.chunk()).await.map_err(|_| FetchError::Timeout)?;
            let Some(piece) = piece.map_err(|error| FetchError::Unreachable(cause(&error)))? else { break };
            if (answer.body().len() + piece.len()) as u64 > self.max_bytes {
                return Err(FetchError::TooLarge(self.max_bytes));
            }
            answer.push(&piece);
        }
        Ok(answer)
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").field("address", &self.address).finish_non_exhaustive()
    }
}

// === impl Address ===

impl Address {
    /// A client that trusts what this one trusts, for the admin API of the same control plane. Blocks.
    ///
    /// # Errors
    /// Why there is none, for people.
    pub fn client(&self) -> Result<reqwest::Client, String> {
        let authorities = match &self.ca_file {
            Some(path) => content("ca_file", path).map_err(|error| error.to_string())?.to_vec(),
            None => Vec::new(),
        };
        connector(self, &authorities).map_err(|error| error.to_string())
    }

    fn snapshot(&self, ask: &Ask) -> Option<Url> {
        let mut url = self.url.join("/v1/snapshot").ok()?;
        if !ask.wait.is_zero() {
            url.query_pairs_mut().append_pair("wait", &ask.wait.as_secs().to_string());
        }
        if let Some(since) = &ask.since {
            url.query_pairs_mut().append_pair("since", since);
        }
        Some(url)
    }
}

// === impl Files ===

impl Files {
    fn read(address: &Address) -> Result<Self, FetchError> {
        let token = content("token_file", &address.token_file)?;
        let unusable = |problem: &str| FetchError::File {
            key: "token_file",
            path: address.token_file.clone(),
            problem: problem.to_owned(),
        };
        let token = token.trim_ascii();
        if token.is_empty() || token.len() > MAX_TOKEN || !token.iter().all(u8::is_ascii_graphic) {
            return Err(unusable("holds no token of visible ASCII"));
        }
        let bearer = Zeroizing::new([b"Bearer ", token].concat());
        let mut authorisation = HeaderValue::from_bytes(&bearer).map_err(|_| unusable("holds no token"))?;
        authorisation.set_sensitive(true);
        let authorities = match &address.ca_file {
            Some(path) => content("ca_file", path)?.to_vec(),
            None => Vec::new(),
        };
        let keys = address.public_key_file.as_deref().map(public_keys).transpose()?;
        Ok(Self { authorisation, authorities, keys })
    }
}

/// The public keys in the file at `path`. Blocks.
pub(super) fn public_keys(path: &Path) -> Result<Vec<VerifyingKey>, FetchError> {
    let key = "public_key_file";
    let text = content(key, path)?;
    let keys = std::str::from_utf8(&text).ok().and_then(|text| VerifyingKey::parse_all(text).ok());
    keys.ok_or_else(|| {
        let problem = NotAKey::Public.to_string();
        FetchError::File { key, path: path.to_owned(), problem }
    })
}

fn content(key: &'static str, path: &Path) -> Result<Zeroizing<Vec<u8>>, FetchError> {
    let fail = |problem: String| FetchError::File { key, path: path.to_owned(), problem };
    let unread = |error: io::Error| fail(format!("cannot be read ({})", error.kind()));
    if fs::metadata(path).map_err(unread)?.len() > MAX_FILE {
        return Err(fail(format!("is larger than {MAX_FILE} bytes")));
    }
    fs::read(path).map(Zeroizing::new).map_err(unread)
}

fn connector(address: &Address, authorities: &[u8]) -> Result<reqwest::Client, FetchError> {
    let mut roots = RootCertStore::empty();
    // One unreadable system certificate must not take the others with it.
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if let Some(path) = &address.ca_file {
        let fail = || FetchError::File {
            key: "ca_file",
            path: path.clone(),
            problem: "holds no certificate in PEM, or one that cannot be used".to_owned(),
        };
        let own: Vec<_> = CertificateDer::pem_slice_iter(authorities).collect::<Result<_, _>>().map_err(|_| fail())?;
        if own.is_empty() {
            return Err(fail());
        }
        for certificate in own {
            roots.add(certificate).map_err(|_| fail())?;
        }
    }
    let setup = |error: &dyn std::error::Error| FetchError::Setup(error.to_string());
    let mut tls = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| setup(&error))?
        .with_root_certificates(roots)
        .with_no_client_auth();
    tls.alpn_protocols = vec![b"http/1.1".to_vec()];
    reqwest::Client::builder()
        .tls_backend_preconfigured(tls)
        // The token would follow a redirect, and the environment's proxy would see it.
        .redirect(reqwest::redirect::Policy::none())
        .no_proxy()
        .retry(reqwest::retry::never())
        .referer(false)
        .http1_only()
        .user_agent(concat!("sidekey/", env!("CARGO_PKG_VERSION")))
        .connect_timeout(CONNECT)
        .tcp_keepalive(KEEPALIVE)
        .pool_max_idle_per_host(1)
        .build()
        .map_err(|error| setup(&error))
}

fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let secs = headers.get(RETRY_AFTER)?.to_str().ok()?.trim().parse().ok()?;
    Some(Duration::from_secs(secs).min(MAX_RETRY_AFTER))
}

/// What lies at the bottom of `error`, which says more than what lies on top, and without the URL.
fn cause(error: &reqwest::Error) -> String {
    let mut cause: &dyn std::error::Error = error;
    while let Some(deeper) = cause.source() {
        cause = deeper;
    }
    match cause.to_string() {
        text if text.len() <= 200 => text,
        _ => "the connection failed".to_owned(),
    }
}
