//! Which certificate authorities managers trust: the system's and those the operator adds, re-read when a file changes.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
};

use rustls::{
    ClientConfig, RootCertStore,
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, pem::PemObject as _},
};

/// Largest CA file that is read, in bytes. The public web's whole bundle has a fifth of it.
const MAX_CA_BYTES: u64 = 1024 * 1024;

/// No TLS configuration can be made.
#[derive(Debug, thiserror::Error)]
pub enum TrustError {
    /// A file of certificate authorities cannot be used.
    #[error("the CA file {} {problem}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Why not, for people.
        problem: &'static str,
        /// What the system said.
        #[source]
        source: Option<io::Error>,
    },
    /// The TLS library refuses the configuration.
    #[error("the TLS configuration cannot be used")]
    Tls(#[from] rustls::Error),
    /// The HTTP library refuses the configuration, `egress.proxy_url` included.
    #[error("the HTTP client cannot be made")]
    Client(#[from] reqwest::Error),
}

/// The operator's own authorities, as last read.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Authorities {
    /// Content of each file, to notice a change.
    contents: Vec<Vec<u8>>,
    certificates: Vec<CertificateDer<'static>>,
}

// === impl Authorities ===

impl Authorities {
    /// Reads `files`; blocks.
    pub(super) fn read(files: &[PathBuf]) -> Result<Self, TrustError> {
        let mut contents = Vec::with_capacity(files.len());
        let mut certificates = Vec::new();
        for path in files {
            let (content, mut found) = read_file(path)?;
            contents.push(content);
            certificates.append(&mut found);
        }
        Ok(Self { contents, certificates })
    }

    /// A TLS configuration that trusts the system's authorities and these; blocks.
    ///
    /// One provider, named here and not taken from the process default, which a test or an embedder may not have set.
    pub(super) fn tls(&self) -> Result<ClientConfig, rustls::Error> {
        let mut roots = RootCertStore::empty();
        let native = rustls_native_certs::load_native_certs();
        if !native.errors.is_empty() {
            tracing::debug!(errors = native.errors.len(), "some of the system's CA certificates cannot be read");
        }
        let (_, unusable) = roots.add_parsable_certificates(native.certs);
        if unusable > 0 {
            tracing::debug!(unusable, "some of the system's CA certificates cannot be used");
        }
        for certificate in &self.certificates {
            roots.add(certificate.clone())?;
        }
        if roots.is_empty() {
            tracing::warn!(
                "no CA certificates: no manager can be reached over https until egress.extra_ca_files names some"
            );
        }
        let mut config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_no_client_auth();
        // A preconfigured TLS configuration is used as it is, this list included.
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(config)
    }
}

fn read_file(path: &Path) -> Result<(Vec<u8>, Vec<CertificateDer<'static>>), TrustError> {
    let fail = |problem, source| TrustError::File { path: path.to_owned(), problem, source };
    let size = fs::metadata(path).map_err(|source| fail("cannot be read", Some(source)))?.len();
    if size > MAX_CA_BYTES {
        return Err(fail("is larger than 1 MiB", None));
    }
    let content = fs::read(path).map_err(|source| fail("cannot be read", Some(source)))?;
    let certificates: Vec<_> =
        CertificateDer::pem_slice_iter(&content).collect::<Result<_, _>>().map_err(|_| fail("is not PEM", None))?;
    let mut probe = RootCertStore::empty();
    if certificates.is_empty() || certificates.iter().any(|certificate| probe.add(certificate.clone()).is_err()) {
        return Err(fail("holds no usable certificate, or one that is not", None));
    }
    Ok((content, certificates))
}
