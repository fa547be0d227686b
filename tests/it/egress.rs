//! The way out for managers, on real sockets: names that change their mind, certificates that change, sizes and times.

use std::{
    fs, io,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::Path,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response};
use http_body_util::Full;
use hyper::{body::Incoming, service::service_fn};
use hyper_util::rt::TokioIo;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::{ServerConfig, crypto::aws_lc_rs, pki_types::PrivateKeyDer};
use sidekey::egress::{Answer, Bounds, Call, Lookup, Policy, Reach, SendError, Settings, Transport};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    net::TcpListener,
};
use tokio_rustls::TlsAcceptor;
use url::Url;
use zeroize::Zeroizing;

const BOUNDS: Bounds = Bounds { timeout: Duration::from_secs(5), max_body: 1000 };

/// Answers every look-up with the next of its answers, the last one for ever.
#[derive(Debug)]
struct Script(Mutex<Vec<Vec<IpAddr>>>);

#[async_trait]
impl Lookup for Script {
    async fn lookup(&self, _: &str) -> io::Result<Vec<IpAddr>> {
        let mut answers = self.0.lock().unwrap();
        Ok(if answers.len() > 1 { answers.remove(0) } else { answers[0].clone() })
    }
}

/// A server that answers `/size/N` with N bytes, `/away` with a redirect, `/never` not at all, and counts connections.
struct Server {
    address: SocketAddr,
    connections: Arc<AtomicUsize>,
    /// What the next connection is served with.
    tls: Arc<Mutex<Option<Arc<ServerConfig>>>>,
}

impl Server {
    async fn start(tls: Option<Arc<ServerConfig>>) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let (connections, tls) = (Arc::new(AtomicUsize::new(0)), Arc::new(Mutex::new(tls)));
        let (counter, config) = (Arc::clone(&connections), Arc::clone(&tls));
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                counter.fetch_add(1, Ordering::SeqCst);
                let config = config.lock().unwrap().clone();
                tokio::spawn(async move {
                    match config {
                        None => serve(stream).await,
                        Some(config) => {
                            if let Ok(stream) = TlsAcceptor::from(config).accept(stream).await {
                                serve(stream).await;
                            }
                        }
                    }
                });
            }
        });
        Self { address, connections, tls }
    }

    fn url(&self, host: &str, path: &str) -> Url {
        let scheme = if self.tls.lock().unwrap().is_some() { "https" } else { "http" };
        Url::parse(&format!("{scheme}://{host}:{}{path}", self.address.port())).unwrap()
    }

    fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }
}

async fn serve(stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static) {
    let answer = async |request: Request<Incoming>| {
        let path = request.uri().path();
        if path == "/never" {
            std::future::pending::<()>().await;
        }
        if path == "/away" {
            return Response::builder().status(302).header("location", "/size/7").body(Full::default());
        }
        let size = path.strip_prefix("/size/").map_or(0, |size| size.parse().unwrap());
        // The target as the server saw it, for the proxy's test.
        Response::builder().header("x-target", request.uri().to_string()).body(Full::new(Bytes::from(vec![b'x'; size])))
    };
    drop(hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service_fn(answer)).await);
}

fn policy(hosts: &[&str], nets: &[&str]) -> Policy {
    let allow_hosts = hosts.iter().map(|&host| host.to_owned()).collect();
    let allow_cidrs = nets.iter().map(|net| net.parse().unwrap()).collect();
    Policy::new(Settings { allow_hosts, allow_cidrs, proxy_url: None })
}

fn transport(policy: Policy, ca_file: Option<&Path>, answers: &[&[&str]]) -> Transport {
    let parse = |answer: &&[&str]| answer.iter().map(|address| address.parse().unwrap()).collect();
    let script = Arc::new(Script(Mutex::new(answers.iter().map(parse).collect())));
    let ca_files = ca_file.into_iter().map(Path::to_owned).collect();
    Transport::with_lookup(policy, ca_files, Duration::from_secs(2), script).unwrap()
}

async fn get(transport: &Transport, url: Url, reach: Reach) -> Result<Answer, SendError> {
    let call = Call { method: Method::GET, url, headers: HeaderMap::new(), body: Zeroizing::default(), reach };
    transport.send(call, BOUNDS).await
}

fn refused(outcome: Result<Answer, SendError>) -> String {
    match outcome {
        Err(SendError::Refused(refused)) => refused.reason,
        other => panic!("it should have been refused: {other:?}"),
    }
}

/// A certificate authority and what it issues.
struct Authority {
    key: KeyPair,
    params: CertificateParams,
    pem: String,
}

impl Authority {
    fn new() -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let pem = params.self_signed(&key).unwrap().pem();
        Self { key, params, pem }
    }

    fn server(&self, name: &str) -> Arc<ServerConfig> {
        let issuer = Issuer::from_params(&self.params, &self.key);
        let key = KeyPair::generate().unwrap();
        let leaf = CertificateParams::new([name.to_owned()]).unwrap().signed_by(&key, &issuer).unwrap();
        let config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![leaf.der().clone()], PrivateKeyDer::try_from(key.serialize_der()).unwrap());
        Arc::new(config.unwrap())
    }
}

#[tokio::test]
async fn a_name_is_judged_by_the_address_it_has_now() {
    let server = Server::start(None).await;
    type Row<'a> = (&'a [&'a str], &'a [&'a str], &'a [&'a str], Reach, Option<&'a str>);
    #[rustfmt::skip]
    let rows: [Row<'_>; 8] = [
        // opened hosts, opened networks, addresses of the name, least reach, why refused
        (&["vault.test"], &[], &["127.0.0.1"], Reach::Admitted, None),
        (&[".test"], &[], &["127.0.0.1"], Reach::Opened, None),
        (&[], &["127.0.0.0/8"], &["127.0.0.1"], Reach::Admitted, None),
        (&[], &["127.0.0.0/8"], &["127.0.0.1"], Reach::Opened, None),
        (&[], &["10.0.0.0/8"], &["127.0.0.1"], Reach::Admitted, Some("loopback")),
        (&[], &["10.0.0.0/8"], &["1.1.1.1"], Reach::Admitted, Some("not opened")), // plain http to a public address
        (&[], &["127.0.0.0/8"], &["127.0.0.1", "169.254.169.254"], Reach::Admitted, Some("metadata")),
        (&["vault.test"], &[], &["127.0.0.1", "fe80::1"], Reach::Admitted, Some("link-local")),
    ];
    let mut expected_connections = 0;
    for (hosts, nets, addresses, reach, because) in rows {
        let transport = transport(policy(hosts, nets), None, &[addresses]);
        let outcome = get(&transport, server.url("vault.test", "/size/7"), reach).await;
        match because {
            None => {
                assert_eq!(outcome.unwrap().body.len(), 7, "{addresses:?}");
                expected_connections += 1;
            }
            Some(because) => {
                let reason = refused(outcome);
                assert!(reason.contains(because), "{reason}");
            }
        }
        assert_eq!(server.connections(), expected_connections, "{addresses:?}");
    }
}

#[tokio::test]
async fn a_name_that_turns_away_later_is_refused_then() {
    let server = Server::start(None).await;
    let answers: &[&[&str]] = &[&["127.0.0.1"], &["169.254.169.254"], &["10.0.0.1"]];
    let transport = transport(policy(&[], &["127.0.0.0/8"]), None, answers);
    // The pool keeps the checked connection; a new one has to be checked anew, so two at once are needed to open it.
    let slow = get(&transport, server.url("vault.test", "/never"), Reach::Admitted);
    let quick = async {
        while server.connections() == 0 {
            tokio::task::yield_now().await;
        }
        for because in ["metadata", "private"] {
            let reason = refused(get(&transport, server.url("vault.test", "/size/7"), Reach::Admitted).await);
            assert!(reason.contains(because), "{reason}");
        }
    };
    tokio::select! {
        outcome = slow => panic!("{outcome:?}"),
        () = quick => {}
    }
    assert_eq!(server.connections(), 1);
}

#[tokio::test]
async fn literal_addresses_are_judged_although_nobody_resolves_them() {
    let server = Server::start(None).await;
    let closed = transport(policy(&[], &[]), None, &[&["1.1.1.1"]]);
    let open = transport(policy(&[], &["127.0.0.0/8"]), None, &[&["1.1.1.1"]]);
    for host in ["127.0.0.1", "2130706433", "0x7f.1", "[::ffff:127.0.0.1]"] {
        refused(get(&closed, server.url(host, "/size/1"), Reach::Admitted).await);
        assert_eq!(server.connections(), 0, "{host}");
    }
    get(&open, server.url("127.0.0.1", "/size/1"), Reach::Opened).await.unwrap();
    refused(get(&open, Url::parse("http://169.254.169.254/latest/meta-data/").unwrap(), Reach::Admitted).await);
    refused(get(&open, Url::parse("https://1.1.1.1/").unwrap(), Reach::Opened).await);
}

#[tokio::test]
async fn size_and_time_are_bounded_and_redirects_stay() {
    let server = Server::start(None).await;
    let transport = transport(policy(&["vault.test"], &[]), None, &[&["127.0.0.1"]]);
    let fetch = async |path: &str, timeout: Duration| {
        let url = server.url("vault.test", path);
        let body = Zeroizing::default();
        let call = Call { method: Method::GET, url, headers: HeaderMap::new(), body, reach: Reach::Admitted };
        transport.send(call, Bounds { timeout, ..BOUNDS }).await
    };
    let long = Duration::from_secs(5);
    assert_eq!(fetch("/size/1000", long).await.unwrap().body.len(), 1000);
    assert!(matches!(fetch("/size/1001", long).await, Err(SendError::TooLarge(1000))));
    assert!(matches!(fetch("/never", Duration::from_millis(50)).await, Err(SendError::Timeout)));
    let away = fetch("/away", long).await.unwrap();
    assert_eq!((away.status.as_u16(), away.headers["location"].to_str().unwrap()), (302, "/size/7"));
}

#[tokio::test]
async fn an_answer_that_comes_byte_by_byte_is_put_together() {
    for (size, fits) in [(0, true), (1, true), (1000, true), (1001, false)] {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let transport = transport(policy(&["vault.test"], &[]), None, &[&["127.0.0.1"]]);
        let url = Url::parse(&format!("http://vault.test:{port}/")).unwrap();
        let serve = async {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = Vec::new();
            while !request.ends_with(b"\r\n\r\n") {
                stream.read_buf(&mut request).await.unwrap();
            }
            let letters = (0..size).map(|at| char::from(b'a' + (at % 26) as u8));
            let chunks: String = letters.map(|letter| format!("1\r\n{letter}\r\n")).collect();
            let answer = format!("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n{chunks}0\r\n\r\n");
            stream.write_all(answer.as_bytes()).await.unwrap();
            stream
        };
        let (outcome, _stream) = tokio::join!(get(&transport, url, Reach::Admitted), serve);
        match outcome {
            Ok(answer) => {
                let expected: Vec<u8> = (0..size).map(|at| b'a' + (at % 26) as u8).collect();
                assert!(fits && *answer.body == expected, "{size}");
            }
            Err(SendError::TooLarge(1000)) => assert!(!fits, "{size}"),
            Err(error) => panic!("{size}: {error}"),
        }
    }
}

#[tokio::test]
async fn a_private_authority_is_trusted_and_can_be_replaced() {
    let folder = tempfile::tempdir().unwrap();
    let ca_file = folder.path().join("ca.pem");
    let (first, second) = (Authority::new(), Authority::new());
    let server = Server::start(Some(first.server("vault.test"))).await;
    fs::write(&ca_file, &first.pem).unwrap();
    let transport = transport(policy(&["vault.test"], &[]), Some(&ca_file), &[&["127.0.0.1"]]);
    let fetch = async || get(&transport, server.url("vault.test", "/size/7"), Reach::Admitted).await;

    let stranger = self::transport(policy(&["vault.test"], &[]), None, &[&["127.0.0.1"]]);
    let outcome = get(&stranger, server.url("vault.test", "/size/7"), Reach::Admitted).await;
    assert!(matches!(outcome, Err(SendError::Tls(_))), "an unknown authority: {outcome:?}");
    let outcome = get(&transport, server.url("127.0.0.1", "/"), Reach::Admitted).await;
    assert!(matches!(outcome, Err(SendError::Refused(_))), "{outcome:?}");
    fetch().await.unwrap();

    // The server's authority changes; its connections end with it.
    let server = Server::start(Some(second.server("vault.test"))).await;
    let fetch = async || get(&transport, server.url("vault.test", "/size/7"), Reach::Admitted).await;
    assert!(matches!(fetch().await, Err(SendError::Tls(_))));
    fs::write(&ca_file, "-----BEGIN CERTIFICATE-----\nnot yet").unwrap();
    assert!(matches!(fetch().await, Err(SendError::Tls(_))), "a broken file changes nothing");
    fs::write(&ca_file, &second.pem).unwrap();
    assert_eq!(fetch().await.unwrap().body.len(), 7, "the new authority is read when the old one fails");
}

#[tokio::test]
async fn a_certificate_is_for_its_name() {
    let folder = tempfile::tempdir().unwrap();
    let ca_file = folder.path().join("ca.pem");
    let authority = Authority::new();
    fs::write(&ca_file, &authority.pem).unwrap();
    let server = Server::start(Some(authority.server("other.test"))).await;
    let transport = transport(policy(&[".test"], &[]), Some(&ca_file), &[&["127.0.0.1"]]);
    let outcome = get(&transport, server.url("vault.test", "/"), Reach::Admitted).await;
    assert!(matches!(outcome, Err(SendError::Tls(_))), "{outcome:?}");
    get(&transport, server.url("other.test", "/"), Reach::Admitted).await.unwrap();
}

#[tokio::test]
async fn a_proxy_is_used_for_what_the_policy_admits() {
    let proxy = Server::start(None).await;
    let settings = Settings {
        allow_hosts: vec!["vault.test".to_owned()],
        allow_cidrs: vec!["10.0.0.0/8".parse().unwrap()],
        proxy_url: Some(proxy.url("proxy.local", "")),
    };
    // The proxy's own name may be private: the operator wrote it.
    let transport = transport(Policy::new(settings), None, &[&["127.0.0.1"]]);
    let answer = get(&transport, Url::parse("http://vault.test:8200/size/3").unwrap(), Reach::Opened).await.unwrap();
    assert_eq!(answer.headers["x-target"], "http://vault.test:8200/size/3");
    for url in ["http://other.test/", "http://169.254.169.254/", "http://192.168.0.1/"] {
        refused(get(&transport, Url::parse(url).unwrap(), Reach::Admitted).await);
    }
    assert_eq!(proxy.connections(), 1);
}

#[tokio::test]
async fn unusable_authorities_are_told_at_start() {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, content: &str| {
        let path = folder.path().join(name);
        fs::write(&path, content).unwrap();
        path
    };
    let authority = Authority::new();
    let broken = format!("-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n", "AAAA");
    for path in [folder.path().join("absent"), file("empty", ""), file("text", "hello"), file("broken", &broken)] {
        let outcome = Transport::new(policy(&[], &[]), vec![path.clone()], Duration::from_secs(1));
        let error = outcome.expect_err(path.to_str().unwrap());
        assert!(error.to_string().contains(path.to_str().unwrap()), "{error}");
    }
    let bundle = file("bundle", &format!("# ours\n{}\n{}", authority.pem, Authority::new().pem));
    Transport::new(policy(&[], &[]), vec![bundle], Duration::from_secs(1)).unwrap();
}
