//! The cloud behind TLS on loopback, under the names of Azure.

use std::{
    convert::Infallible,
    fs, io,
    net::{IpAddr, Ipv4Addr},
    path::{Path, PathBuf},
    sync::Arc,
};

use async_trait::async_trait;
use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt as _, Full};
use hyper::{body::Incoming, service::service_fn};
use hyper_util::rt::TokioIo;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::{ServerConfig, crypto::aws_lc_rs, pki_types::PrivateKeyDer};
use sidekey::egress::Lookup;
use tempfile::TempDir;
use tokio::{net::TcpListener, task::AbortHandle};
use tokio_rustls::TlsAcceptor;

use super::cloud::{Asked, Cloud};

/// Names that the server's certificate holds.
const NAMES: [&str; 6] = [
    "login.microsoftonline.com",
    "*.vault.azure.net",
    "*.vault.azure.cn",
    "*.vault.usgovcloudapi.net",
    "*.vault.lab",
    "kv.opened.example",
];

/// A running server; stops when dropped.
pub struct Server {
    pub cloud: Arc<Cloud>,
    port: u16,
    folder: TempDir,
    task: AbortHandle,
}

/// A name server that leads every name to loopback.
#[derive(Debug)]
pub struct Loopback;

#[async_trait]
impl Lookup for Loopback {
    async fn lookup(&self, _: &str) -> io::Result<Vec<IpAddr>> {
        Ok(vec![Ipv4Addr::LOCALHOST.into()])
    }
}

impl Server {
    pub async fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (config, authority) = certificates();
        fs::write(folder.path().join("ca.pem"), authority).unwrap();
        let cloud = Arc::new(Cloud::default());
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let serving = Arc::clone(&cloud);
        let task = tokio::spawn(async move {
            let acceptor = TlsAcceptor::from(config);
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let (acceptor, cloud) = (acceptor.clone(), Arc::clone(&serving));
                tokio::spawn(async move {
                    let Ok(stream) = acceptor.accept(stream).await else { return };
                    let service = service_fn(move |request| serve(Arc::clone(&cloud), request));
                    let connection = hyper::server::conn::http1::Builder::new();
                    drop(connection.serve_connection(TokioIo::new(stream), service).await);
                });
            }
        });
        Self { cloud, port, folder, task: task.abort_handle() }
    }

    /// The server under a name.
    pub fn url(&self, name: &str) -> String {
        format!("https://{name}:{}", self.port)
    }

    pub fn ca_file(&self) -> PathBuf {
        self.folder().join("ca.pem")
    }

    pub fn folder(&self) -> &Path {
        self.folder.path()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn certificates() -> (Arc<ServerConfig>, String) {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let ca_key = KeyPair::generate().unwrap();
    let ca = params.self_signed(&ca_key).unwrap();
    let issuer = Issuer::new(params, ca_key);
    let key = KeyPair::generate().unwrap();
    let leaf = CertificateParams::new(NAMES.map(str::to_owned)).unwrap().signed_by(&key, &issuer).unwrap();
    let config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![leaf.der().clone()], PrivateKeyDer::Pkcs8(key.serialize_der().into()))
        .unwrap();
    (Arc::new(config), ca.pem())
}

async fn serve(cloud: Arc<Cloud>, request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    let (head, body) = request.into_parts();
    let body = body.collect().await.unwrap().to_bytes();
    let headers = head.headers.iter().map(|(name, value)| (name.to_string(), value.to_str().unwrap().to_owned()));
    let headers: std::collections::HashMap<String, String> = headers.collect();
    let asked = Asked {
        host: headers["host"].split(':').next().unwrap().to_owned(),
        method: head.method.to_string(),
        target: head.uri.to_string(),
        headers,
        body: String::from_utf8(body.to_vec()).unwrap(),
    };
    let reply = cloud.answer(&asked);
    if reply.never {
        std::future::pending::<()>().await;
    }
    let mut response = Response::builder().status(reply.status);
    for (name, value) in reply.headers {
        response = response.header(name, value);
    }
    Ok(response.body(Full::new(Bytes::from(reply.body))).unwrap())
}
