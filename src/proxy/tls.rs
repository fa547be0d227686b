//! TLS towards clients and towards the gateway, built from files and built again when they change.
//!
//! A change is found by content, looked at every [`POLL`], because certificates are replaced through symlinks as often as in
//! place. Files that do not fit together (a certificate whose key has not arrived yet) leave the last good ones in force.

use std::{
    fmt,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use arc_swap::ArcSwap;
use rustls::{
    ClientConfig, RootCertStore, ServerConfig,
    crypto::{CryptoProvider, aws_lc_rs},
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    server::WebPkiClientVerifier,
};
use sha2::{Digest, Sha256};
use tracing::{info, warn};
use zeroize::Zeroizing;

use super::settings::TlsSettings;

/// How often the files are looked at.
pub const POLL: Duration = Duration::from_secs(5);

/// Something built from files.
pub struct Reloaded<T> {
    files: Vec<PathBuf>,
    build: Build<T>,
    seen: Mutex<[u8; 32]>,
    current: ArcSwap<T>,
}

/// Why TLS cannot be set up. Names files, never their content.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read.
    #[error("cannot read {}", file.display())]
    Read {
        /// Which one.
        file: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A file holds no PEM of the kind that is wanted.
    #[error("{} holds no usable PEM {wanted}", file.display())]
    Pem {
        /// Which one.
        file: PathBuf,
        /// `certificate` or `private key`.
        wanted: &'static str,
    },
    /// The pieces do not fit together, or are not supported.
    #[error("the certificates cannot be used")]
    Unusable(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// The content of one file; wiped, since one of them is a private key.
type Content = Zeroizing<Vec<u8>>;
type Build<T> = Box<dyn Fn(&[Content]) -> Result<T, TlsError> + Send + Sync>;

// === impl Reloaded ===

impl<T> Reloaded<T> {
    /// The latest that could be built.
    pub fn current(&self) -> Arc<T> {
        self.current.load_full()
    }

    /// Reads the files and builds anew if they changed; logs what became of it.
    pub fn refresh(&self) {
        let files = self.files.as_slice();
        let built = read(files).and_then(|content| {
            let digest = digest(&content);
            let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
            if *seen == digest {
                return Ok(None);
            }
            // Remembered even if it cannot be used, so that one fault is logged once.
            *seen = digest;
            (self.build)(&content).map(Some)
        });
        match built {
            Ok(None) => {}
            Ok(Some(built)) => {
                self.current.store(Arc::new(built));
                info!(?files, "Certificates were reloaded.");
            }
            Err(error) => {
                warn!(?files, error = %Chain(&error), "Certificates changed and cannot be used, the last ones stay.");
            }
        }
    }

    fn load(files: Vec<PathBuf>, build: Build<T>) -> Result<Self, TlsError> {
        let content = read(&files)?;
        let current = ArcSwap::from_pointee(build(&content)?);
        Ok(Self { files, build, seen: Mutex::new(digest(&content)), current })
    }
}

impl TlsSettings {
    /// Whether its files can be used as they are now.
    ///
    /// # Errors
    /// [`TlsError`] when one cannot.
    pub fn check(&self) -> Result<(), TlsError> {
        Reloaded::server(self).map(drop)
    }
}

impl Reloaded<ServerConfig> {
    /// What clients see: `tls.*`. Offers HTTP/2 and HTTP/1.1.
    ///
    /// # Errors
    /// [`TlsError`] when a file cannot be read or used.
    pub fn server(settings: &TlsSettings) -> Result<Self, TlsError> {
        let TlsSettings { cert_file, key_file, client_ca_file } = settings.clone();
        let mut files = vec![cert_file.clone(), key_file.clone()];
        files.extend(client_ca_file.clone());
        let build = move |content: &[Content]| {
            let chain = certificates(&content[0], &cert_file)?;
            let key = PrivateKeyDer::from_pem_slice(&content[1])
                .map_err(|_| TlsError::Pem { file: key_file.clone(), wanted: "private key" })?;
            let provider = provider();
            let builder = ServerConfig::builder_with_provider(provider.clone())
                .with_safe_default_protocol_versions()
                .map_err(unusable)?;
            let builder = match &client_ca_file {
                None => builder.with_no_client_auth(),
                Some(file) => {
                    let mut roots = RootCertStore::empty();
                    add(&mut roots, certificates(&content[2], file)?)?;
                    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider)
                        .build()
                        .map_err(unusable)?;
                    builder.with_client_cert_verifier(verifier)
                }
            };
            let mut config = builder.with_single_cert(chain, key).map_err(unusable)?;
            config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
            Ok(config)
        };
        Self::load(files, Box::new(build))
    }
}

impl Reloaded<ClientConfig> {
    /// How the gateway is trusted: the system's roots and `ca_file`. Offers HTTP/1.1 only.
    ///
    /// # Errors
    /// [`TlsError`] when the file cannot be read or used.
    pub fn client(ca_file: Option<PathBuf>) -> Result<Self, TlsError> {
        let files: Vec<PathBuf> = ca_file.into_iter().collect();
        let names = files.clone();
        let build = move |content: &[Content]| {
            let mut roots = RootCertStore::empty();
            // One unreadable system certificate must not take the others with it.
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
            for (pem, file) in content.iter().zip(&names) {
                add(&mut roots, certificates(pem, file)?)?;
            }
            let mut config = ClientConfig::builder_with_provider(provider())
                .with_safe_default_protocol_versions()
                .map_err(unusable)?
                .with_root_certificates(roots)
                .with_no_client_auth();
            config.alpn_protocols = vec![b"http/1.1".to_vec()];
            Ok(config)
        };
        Self::load(files, Box::new(build))
    }
}

impl<T> fmt::Debug for Reloaded<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reloaded").field("files", &self.files).finish_non_exhaustive()
    }
}

/// Prints an error with its causes on one line.
pub struct Chain<'a>(pub &'a (dyn std::error::Error + 'static));

impl fmt::Display for Chain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)?;
        let mut cause = self.0.source();
        while let Some(error) = cause {
            write!(f, ": {error}")?;
            cause = error.source();
        }
        Ok(())
    }
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(aws_lc_rs::default_provider())
}

fn read(files: &[PathBuf]) -> Result<Vec<Content>, TlsError> {
    files
        .iter()
        .map(|file| {
            let content = std::fs::read(file).map_err(|source| TlsError::Read { file: file.clone(), source })?;
            Ok(Zeroizing::new(content))
        })
        .collect()
}

fn digest(content: &[Content]) -> [u8; 32] {
    let mut hash = Sha256::new();
    for file in content {
        hash.update((file.len() as u64).to_le_bytes());
        hash.update(file);
    }
    hash.finalize().into()
}

fn certificates(pem: &[u8], file: &std::path::Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    match chain {
        Ok(chain) if !chain.is_empty() => Ok(chain),
        Ok(_) | Err(_) => Err(TlsError::Pem { file: file.to_owned(), wanted: "certificate" }),
    }
}

fn add(roots: &mut RootCertStore, certificates: Vec<CertificateDer<'static>>) -> Result<(), TlsError> {
    certificates.into_iter().try_for_each(|certificate| roots.add(certificate).map_err(unusable))
}

fn unusable(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> TlsError {
    TlsError::Unusable(error.into())
}
