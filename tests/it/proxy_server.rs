//! Listening, limits, TLS and the end.

use std::{
    net::{Ipv6Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::{
    ClientConfig, RootCertStore,
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
};
use sidekey::proxy::{Address, Stage, TlsSettings};
use tokio::{io::AsyncWriteExt, net::TcpStream};
use tokio_rustls::{TlsConnector, client::TlsStream};

use crate::harness::{Raw, Setup, Wire, World, pass, within};

const GET: &str = "GET /v1/models HTTP/1.1\r\nhost: s\r\n\r\n";
const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";

/// An authority, and what it has signed for `localhost`.
struct Authority {
    pem: String,
    issuer: CertifiedIssuer<'static, KeyPair>,
}

// === impl Authority ===

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        Self { pem: issuer.pem(), issuer }
    }

    /// Certificate and key, PEM.
    fn sign(&self) -> (String, String) {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(["localhost".to_owned()]).unwrap();
        (params.signed_by(&key, &self.issuer).unwrap().pem(), key.serialize_pem())
    }
}

async fn tls_client(
    world: &World,
    trusted: &str,
    identity: Option<(String, String)>,
    alpn: &[u8],
) -> std::io::Result<Wire<TlsStream<TcpStream>>> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(trusted.as_bytes()).unwrap()).unwrap();
    let builder = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots);
    let mut config = match identity {
        None => builder.with_no_client_auth(),
        Some((certificate, key)) => {
            let chain = vec![CertificateDer::from_pem_slice(certificate.as_bytes()).unwrap()];
            builder.with_client_auth_cert(chain, PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap()).unwrap()
        }
    };
    config.alpn_protocols = vec![alpn.to_vec()];
    let stream = TcpStream::connect(world.address).await?;
    let connecting = TlsConnector::from(Arc::new(config)).connect("localhost".try_into().unwrap(), stream);
    within(connecting).await.map(Wire::new)
}

#[tokio::test]
async fn it_listens_on_several_addresses_and_on_ipv6() {
    let setup = Setup {
        proxy: Box::new(|settings| settings.listen.push(SocketAddr::from((Ipv6Addr::LOCALHOST, 0)).into())),
        ..Setup::default()
    };
    let world = World::start(setup).await;
    assert_eq!(world.addresses.len(), 2);
    for address in world.addresses.clone() {
        let mut client = Wire::connect(address).await;
        client.send(GET).await;
        assert!(client.head().await.starts_with("HTTP/1.1 200"), "{address}");
    }
}

/// One proxy behind another: the first is the gateway's client on a socket, the second listens on it.
#[tokio::test]
async fn it_listens_on_a_unix_socket_and_reaches_a_gateway_by_one() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("sidekey.sock");
    let listening = path.clone();
    let mut behind = World::start(Setup {
        proxy: Box::new(move |settings| settings.listen.push(Address::Unix(listening))),
        ..Setup::default()
    })
    .await;
    let url = format!("unix:{}", path.display()).parse().unwrap();
    let front =
        World::start(Setup { proxy: Box::new(move |settings| settings.upstream.url = url), ..Setup::default() }).await;
    for _ in 0..2 {
        let mut client = front.wire().await;
        client.send(GET).await;
        assert!(client.head().await.starts_with("HTTP/1.1 200"));
    }
    assert_eq!(front.access().len(), 4, "each passed both: {:?}", front.access());
    drop(front);
    behind.shutdown.drain();
    within(&mut behind.served).await.unwrap();
    assert!(!path.exists(), "a socket goes with its listener");
}

#[tokio::test]
async fn a_head_that_does_not_end_is_answered_408() {
    let soon = Duration::from_millis(20);
    let setup = Setup { proxy: Box::new(move |settings| settings.limits.head_timeout = soon), ..Setup::default() };
    let world = World::start(setup).await;
    let mut client = world.wire().await;
    client.send("GET /v1/models HTT").await;
    let reply = client.rest().await;
    assert!(reply.starts_with("HTTP/1.1 408 Request Timeout\r\n"), "{reply}");
    assert!(
        reply.contains("x-sidekey-error: request_timeout\r\n") && reply.contains("connection: close\r\n"),
        "{reply}"
    );
    assert!(reply.contains(r#""code":"request_timeout""#), "{reply}");

    // Not the first request of a connection either.
    let mut client = world.wire().await;
    client.send(GET).await;
    client.head().await;
    client.send("GET /").await;
    assert!(client.rest().await.contains("HTTP/1.1 408 "));
    let codes: Vec<_> = world.access().iter().map(|line| line["code"].clone()).collect();
    assert_eq!(codes, ["request_timeout", "ok", "request_timeout"]);
}

#[tokio::test]
async fn a_body_that_does_not_come_is_answered_408_while_it_is_looked_into() {
    let soon = Duration::from_millis(20);
    let setup = Setup { proxy: Box::new(move |settings| settings.limits.head_timeout = soon), ..Setup::default() };
    let world = World::start(setup).await;
    let mut client = world.wire().await;
    client
        .send("POST /v1/embeddings HTTP/1.1\r\nhost: s\r\ncontent-type: application/json\r\ncontent-length: 9\r\n\r\n{\"a\"")
        .await;
    let head = client.head().await;
    assert!(head.starts_with("HTTP/1.1 408") && head.contains("x-sidekey-error: request_timeout"), "{head}");
    assert!(world.gateway.seen().is_empty());
}

#[tokio::test]
async fn too_many_connections_hear_it() {
    let setup = Setup { proxy: Box::new(|settings| settings.limits.max_connections = 1), ..Setup::default() };
    let world = World::start(setup).await;
    let mut first = world.wire().await;
    first.send(GET).await;
    first.head().await;
    let mut second = world.wire().await;
    second.send(GET).await;
    let head = second.head().await;
    assert!(head.starts_with("HTTP/1.1 503"), "{head}");
    for line in ["x-sidekey-error: overloaded", "retry-after: 1", "connection: close"] {
        assert!(head.contains(line), "{line}: {head}");
    }
    second.rest().await;
    // HTTP/2 could keep the place, and does not get it.
    let mut second = world.wire().await;
    second.send("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await;
    assert_eq!(second.rest().await, "");
    drop(first);
    within(async {
        while world.metrics.connections.get() > 0 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    let mut third = world.wire().await;
    third.send(GET).await;
    assert!(third.head().await.starts_with("HTTP/1.1 200"));
}

#[tokio::test]
async fn nonsense_is_refused_and_the_next_client_is_served() {
    let world = World::start(Setup::default()).await;
    for nonsense in
        ["\x16\x03\x01\x02\0\x01\0", "GET\r\n\r\n", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\nnonsense", "\r\n\r\n\r\n"]
    {
        let mut client = world.wire().await;
        client.send(nonsense).await;
        client.stream.shutdown().await.unwrap();
        let reply = client.rest().await;
        assert!(!reply.contains(" 200 "), "{nonsense:?}: {reply}");
    }
    assert_eq!(world.get("/v1/models").send().await.status, 200);
}

#[tokio::test]
async fn two_ways_of_saying_how_long_a_body_is_do_not_smuggle_a_request() {
    let raw = Raw::bind().await;
    let world = World::start(Setup { upstream: Some(raw.address), ..Setup::default() }).await;
    let mut client = world.wire().await;
    client
        .send(
            "POST /v1/files HTTP/1.1\r\nhost: s\r\ncontent-type: text/plain\r\ncontent-length: 4\r\n\
             transfer-encoding: chunked\r\n\r\n0\r\n\r\nGET /v1/smuggled HTTP/1.1\r\nhost: s\r\n\r\n",
        )
        .await;
    let mut gateway = raw.accept().await;
    let head = gateway.head().await;
    assert!(head.starts_with("POST /v1/files") && !head.contains("content-length: 4"), "{head}");
    gateway.send(OK).await;
    assert!(
        client.rest().await.ends_with("ok"),
        "the connection is closed after a request that can be read in two ways"
    );
}

#[tokio::test]
async fn what_runs_is_finished_before_the_end() {
    let raw = Raw::bind().await;
    let world = World::start(Setup { upstream: Some(raw.address), ..Setup::default() }).await;
    let mut idle = world.wire().await;
    idle.send(GET).await;
    let mut gateway = raw.accept().await;
    gateway.head().await;
    gateway.send(OK).await;
    idle.until("ok").await;

    let mut busy = world.wire().await;
    busy.send(GET).await;
    gateway.head().await;
    world.shutdown.drain();
    assert_eq!(idle.rest().await, "", "idle connections are closed");
    assert!(TcpStream::connect(world.address).await.is_err(), "nothing is accepted any more");
    assert!(!world.served.is_finished(), "a request is running");
    gateway.send(OK).await;
    let reply = busy.rest().await;
    assert!(reply.starts_with("HTTP/1.1 200") && reply.ends_with("ok"), "{reply}");
    assert!(reply.contains("connection: close"), "{reply}");
    within(world.served).await.unwrap();
}

#[tokio::test]
async fn accepting_goes_on_until_balancers_have_noticed() {
    let setup = Setup {
        proxy: Box::new(|settings| settings.limits.drain_delay = Duration::from_secs(3600)),
        ..Setup::default()
    };
    let world = World::start(setup).await;
    world.shutdown.drain();
    within(world.shutdown.reached(Stage::Draining)).await;
    assert_eq!(world.get("/v1/models").send().await.status, 200);
    world.shutdown.cut();
    within(world.served).await.unwrap();
}

#[tokio::test]
async fn what_does_not_finish_is_cut() {
    struct Case {
        name: &'static str,
        drain: Duration,
        second_signal: bool,
    }
    let cases = [
        Case { name: "after drain_secs", drain: Duration::from_millis(20), second_signal: false },
        Case { name: "at the second signal", drain: Duration::from_secs(3600), second_signal: true },
    ];
    for Case { name, drain, second_signal } in cases {
        let raw = Raw::bind().await;
        let setup = Setup {
            upstream: Some(raw.address),
            proxy: Box::new(move |settings| settings.limits.drain = drain),
            ..Setup::default()
        };
        let world = World::start(setup).await;
        let mut client = world.wire().await;
        client.send(GET).await;
        let mut gateway = raw.accept().await;
        gateway.head().await;
        world.shutdown.drain();
        if second_signal {
            world.shutdown.cut();
        }
        within(world.served).await.unwrap();
        assert_eq!(client.rest().await, "", "{name}");
        assert_eq!(gateway.rest().await, "", "{name}");
    }
}

#[tokio::test]
async fn http2_is_drained_as_well() {
    let world = World::start(Setup::default()).await;
    let reply = world.get("/v1/models").send_http2().await;
    assert_eq!(reply.status, 200);
    world.shutdown.drain();
    within(world.served).await.unwrap();
}

#[tokio::test]
async fn certificates_are_reloaded_and_bad_ones_change_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let write = |(certificate, key): (String, String)| {
        std::fs::write(path("cert.pem"), certificate).unwrap();
        std::fs::write(path("key.pem"), key).unwrap();
    };
    let (first, second) = (Authority::new(), Authority::new());
    write(first.sign());
    let tls = TlsSettings { cert_file: path("cert.pem"), key_file: path("key.pem"), client_ca_file: None };
    let world = World::start(Setup { proxy: Box::new(|settings| settings.tls = Some(tls)), ..Setup::default() }).await;
    let mut client = tls_client(&world, &first.pem, None, b"http/1.1").await.unwrap();
    client.send(GET).await;
    assert!(client.head().await.starts_with("HTTP/1.1 200"));
    let client = tls_client(&world, &first.pem, None, b"h2").await.unwrap();
    assert_eq!(client.stream.get_ref().1.alpn_protocol(), Some(b"h2".as_slice()));

    // A certificate without its key leaves the first ones in force.
    std::fs::write(path("cert.pem"), second.sign().0).unwrap();
    pass(Duration::from_secs(6)).await;
    world.logged("cannot be used").await;
    tls_client(&world, &first.pem, None, b"http/1.1").await.unwrap();

    write(second.sign());
    pass(Duration::from_secs(6)).await;
    world.logged("were reloaded").await;
    tls_client(&world, &second.pem, None, b"http/1.1").await.unwrap();
    assert!(tls_client(&world, &first.pem, None, b"http/1.1").await.is_err());
}

#[tokio::test]
async fn clients_show_a_certificate_where_one_is_asked_for() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let (server, clients) = (Authority::new(), Authority::new());
    let (certificate, key) = server.sign();
    std::fs::write(path("cert.pem"), certificate).unwrap();
    std::fs::write(path("key.pem"), key).unwrap();
    std::fs::write(path("ca.pem"), &clients.pem).unwrap();
    let tls =
        TlsSettings { cert_file: path("cert.pem"), key_file: path("key.pem"), client_ca_file: Some(path("ca.pem")) };
    let world = World::start(Setup { proxy: Box::new(|settings| settings.tls = Some(tls)), ..Setup::default() }).await;
    for (identity, served) in [(None, false), (Some(server.sign()), false), (Some(clients.sign()), true)] {
        let reply = match tls_client(&world, &server.pem, identity, b"http/1.1").await {
            Ok(mut client) => {
                let _ = client.stream.write_all(GET.as_bytes()).await;
                client.head_or_end().await
            }
            Err(_) => String::new(),
        };
        assert_eq!(reply.starts_with("HTTP/1.1 200"), served, "{reply}");
    }
    assert_eq!(world.gateway.seen().len(), 1);
}

#[tokio::test]
async fn the_gateway_is_verified_by_its_own_authority() {
    let folder = tempfile::tempdir().unwrap();
    let (gateway, other) = (Authority::new(), Authority::new());
    let listener = Raw::bind().await;
    for (trusted, status) in [(&gateway, "200"), (&other, "502")] {
        let ca_file = folder.path().join("ca.pem");
        std::fs::write(&ca_file, &trusted.pem).unwrap();
        let url = format!("https://localhost:{}", listener.address.port()).parse().unwrap();
        let setup = Setup {
            proxy: Box::new(move |settings| {
                settings.upstream.url = url;
                settings.upstream.ca_file = Some(ca_file);
            }),
            ..Setup::default()
        };
        let world = World::start(setup).await;
        let mut client = world.wire().await;
        client.send(GET).await;
        let (certificate, key) = gateway.sign();
        let stream = listener.accept().await.stream;
        if let Ok(stream) = accept_tls(stream, &certificate, &key).await {
            let mut gateway = Wire::new(stream);
            gateway.head().await;
            gateway.send(OK).await;
            assert!(client.head().await.contains(status));
        } else {
            assert!(client.head().await.contains(status));
        }
    }
}

async fn accept_tls(
    stream: TcpStream,
    certificate: &str,
    key: &str,
) -> std::io::Result<tokio_rustls::server::TlsStream<TcpStream>> {
    let chain = vec![CertificateDer::from_pem_slice(certificate.as_bytes()).unwrap()];
    let config = rustls::ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(chain, PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap())
        .unwrap();
    within(tokio_rustls::TlsAcceptor::from(Arc::new(config)).accept(stream)).await
}
