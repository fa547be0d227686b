//! Every address that a tenant can write, of every manager, against the rules of CONTRACT 8: refused when the snapshot is
//! loaded, and again at each connection, whatever a name leads to by then.
//!
//! Real: linking, admission, the managers with the clouds' libraries, names, TLS. [`Provider`] answers at every address there
//! is, so that a request which should not have been made is seen wherever it went.

use std::{collections::BTreeSet, fs, net::Ipv4Addr, sync::Arc};

use futures_util::future::join_all;
use serde_json::{Value, json};
use sidekey::{
    egress::{Policy, Settings},
    manager::{
        FailureClass, FetchError, Managers as _,
        registry::{Environment, Registry, RegistrySettings},
    },
    metric::Metrics,
    model::{LinkRules, Reference, link},
};

use crate::{
    harness,
    provider::{Answer, Provider, Received},
    vault,
};

/// An address that anybody may have.
const PUBLIC: Ipv4Addr = Ipv4Addr::new(20, 50, 1, 1);
/// Where an answer says to go on.
const ELSEWHERE: &str = "elsewhere.example";
/// The sidecar's own token at the cluster.
const JWT: &str = "eyJhbGciOiJub25lIn0.service-account-canary.sig";

/// A list in the configuration.
type Texts = &'static [&'static str];

/// Where a name leads, one after the other.
type Addresses<'a> = &'a [[u8; 4]];

/// A place in a reference that says where to connect, or has a part in it.
struct Place {
    name: &'static str,
    manager: &'static str,
    /// `auth_config` and `secret_path` with a text in this place.
    with: fn(&str) -> (Value, String),
    /// A text that is fine.
    good: &'static str,
    /// The host that is asked with the fine text, when that is one to reach.
    host: Option<&'static str>,
}

/// Of [`REFUSED_LABELS`], what is a tenant: its name becomes a part of a path and of no host.
const TENANTS: [&str; 2] = ["us-east-1.evil.example", "-"];

/// Places that take a whole address.
#[rustfmt::skip]
const ADDRESSES: [Place; 6] = [
    Place { name: "vault_addr by token", manager: "hashicorp_vault", good: "https://vault.example", host: Some("vault.example"),
        with: |addr| (json!({"vault_auth_type": "token", "vault_addr": addr, "vault_token": "s.canary"}), "secret/data/app".into()) },
    Place { name: "vault_addr by approle", manager: "hashicorp_vault", good: "https://vault.example", host: Some("vault.example"),
        with: |addr| (json!({"vault_auth_type": "approle", "vault_addr": addr, "vault_role_id": "role", "vault_secret_id": "canary"}), "secret/data/app".into()) },
    Place { name: "vault_addr by kubernetes", manager: "hashicorp_vault", good: "https://vault.opened.example", host: None,
        with: |addr| (json!({"vault_auth_type": "kubernetes", "vault_addr": addr, "vault_role": "gw"}), "secret/data/app".into()) },
    Place { name: "azure_vault_url by entra", manager: "azure_kv", good: "https://kv1.vault.azure.net", host: Some("kv1.vault.azure.net"),
        with: |addr| (entra(addr), "app".into()) },
    Place { name: "azure_vault_url by the machine", manager: "azure_kv", good: "https://kv1.vault.azure.net", host: None,
        with: |addr| (json!({"azure_auth_mode": "managed", "azure_vault_url": addr}), "app".into()) },
    Place { name: "a secret's own address", manager: "azure_kv", good: "https://kv1.vault.azure.net", host: None,
        with: |addr| (entra("https://kv1.vault.azure.net"), format!("{}/secrets/app", addr.trim_end_matches('/'))) },
];

/// Places of which a part of a host's name, or a service's, is made.
#[rustfmt::skip]
const LABELS: [Place; 9] = [
    Place { name: "aws_region", manager: "aws_sm", good: "us-east-1", host: Some("secretsmanager.us-east-1.amazonaws.com"),
        with: |region| (access_key(region), "app".into()) },
    Place { name: "aws_region of the parameter store", manager: "aws_ssm", good: "us-east-1", host: Some("ssm.us-east-1.amazonaws.com"),
        with: |region| (access_key(region), "/app".into()) },
    Place { name: "aws_region of an assumed role", manager: "aws_sm", good: "us-east-1", host: Some("sts.us-east-1.amazonaws.com"),
        with: |region| (json!({"aws_auth_type": "assumedRole", "aws_role_arn": "arn:aws:iam::123456789012:role/gw", "aws_region": region}), "app".into()) },
    Place { name: "region of an ARN", manager: "aws_sm", good: "eu-west-1", host: Some("secretsmanager.eu-west-1.amazonaws.com"),
        with: |region| (access_key("us-east-1"), format!("arn:aws:secretsmanager:{region}:123456789012:secret:app")) },
    Place { name: "partition of an ARN", manager: "aws_sm", good: "aws", host: None,
        with: |partition| (access_key("us-east-1"), format!("arn:{partition}:secretsmanager:eu-west-1:123456789012:secret:app")) },
    Place { name: "region of a parameter's ARN", manager: "aws_ssm", good: "eu-west-1", host: Some("ssm.eu-west-1.amazonaws.com"),
        with: |region| (access_key("us-east-1"), format!("arn:aws:ssm:{region}:123456789012:parameter/app")) },
    Place { name: "azure_entra_tenant_id", manager: "azure_kv", good: "tenant-1", host: None,
        with: |tenant| { let mut auth = entra("https://kv1.vault.azure.net"); auth["azure_entra_tenant_id"] = json!(tenant); (auth, "app".into()) } },
    Place { name: "gcp_location", manager: "gcp_sm", good: "europe-west3", host: Some("secretmanager.europe-west3.rep.googleapis.com"),
        with: |region| (json!({"gcp_auth_type": "workloadIdentity", "gcp_project_id": "demo", "gcp_location": region}), "app".into()) },
    Place { name: "location in a path of Google's", manager: "gcp_sm", good: "europe-west3", host: Some("secretmanager.europe-west3.rep.googleapis.com"),
        with: |region| (json!({"gcp_auth_type": "workloadIdentity"}), format!("projects/demo/locations/{region}/secrets/app")) },
];

/// Addresses that no tenant may send the sidecar to, row by row of the policy.
#[rustfmt::skip]
const REFUSED_ADDRESSES: &[&str] = &[
    // scheme, user-info, fragment, query
    "http://vault.example", "ftp://vault.example", "file:///etc/passwd", "gopher://vault.example", "vault.example", "//vault.example", "",
    "https://user@vault.example", "https://user:pw@vault.example", "https://vault.example#@kv1.vault.azure.net", "https://",
    // ports
    "https://vault.example:22", "https://vault.example:25", "https://vault.example:445", "https://vault.example:3306",
    "https://vault.example:5432", "https://vault.example:6379", "https://vault.example:6443", "https://vault.example:9200",
    "https://vault.example:27017", "https://vault.example:99999",
    // metadata and platform addresses, in every spelling
    "https://169.254.169.254", "https://169.254.170.2", "https://169.254.170.23", "https://100.100.100.200", "https://168.63.129.16",
    "https://192.0.0.192", "https://[fd00:ec2::254]", "https://[fd00:ec2::23]", "https://2852039166", "https://0xa9fea9fe",
    "https://0251.0376.0251.0376", "https://169.254.43518", "https://169.16689662", "https://%31%36%39.254.169.254",
    "https://[::ffff:169.254.169.254]", "https://[::ffff:a9fe:a9fe]", "https://[64:ff9b::a9fe:a9fe]", "https://[2002:a9fe:a9fe::1]",
    "https://[::169.254.169.254]", "https://①⑥⑨.254.169.254", "https://169。254。169。254", "https://169.254.169.254.",
    // names
    "https://metadata", "https://metadata.google.internal", "https://METADATA.google.internal.", "https://metadata.azure.internal",
    "https://instance-data", "https://instance-data.ec2.internal", "https://kubernetes", "https://kubernetes.default.svc",
    "https://kubernetes.default.svc.cluster.local", "https://localhost", "https://vault.localhost", "https://xn--vult-5na.example",
    "https://169.254.169.254.nip.io", "https://a9fea9fe.sslip.io", "https://10.0.0.1.xip.io",
    // private and special ranges
    "https://127.0.0.1", "https://127.1", "https://0x7f.1", "https://017700000001", "https://[::1]", "https://0.0.0.0", "https://0",
    "https://10.0.0.1", "https://172.16.0.1", "https://172.31.255.255", "https://192.168.0.1", "https://100.64.0.1", "https://198.18.0.1",
    "https://198.19.255.255", "https://169.254.0.1", "https://224.0.0.1", "https://239.255.255.255", "https://240.0.0.1", "https://255.255.255.255",
    "https://192.0.2.1", "https://198.51.100.1", "https://203.0.113.1", "https://[fd00::1]", "https://[fc00::1]", "https://[fe80::1]",
    "https://[ff02::1]", "https://[2001:db8::1]", "https://[::ffff:10.0.0.1]", "https://[::]",
];

/// What is no label and would end or begin another host, path or service.
#[rustfmt::skip]
const REFUSED_LABELS: &[&str] = &[
    "evil.example/", "us-east-1.evil.example", "us-east-1.evil.example/", "@evil.example", "us-east-1@evil.example", "evil.example#", "evil.example?",
    "us-east-1#", "us-east-1\\", "us-east-1\\.evil.example", "../evil", "..", ".", "-", "a/../b", "%2e%2e", "us-east-1%2eevil", "us-east-1%00",
    "us east 1", "us-east-1\n", "us-east-1\r\nhost: evil.example", "127.0.0.1/", "[::1]", "us-east-1:443/", "①", "ⓔvil/",
];

/// Where a name may come to lead that led to a public address before.
#[rustfmt::skip]
const INSIDE: [[u8; 4]; 19] = [
    [127, 0, 0, 1], [127, 8, 8, 8], [10, 0, 0, 5], [172, 16, 0, 1], [172, 31, 255, 254], [192, 168, 0, 9], [100, 64, 0, 1], [198, 18, 0, 1],
    [169, 254, 169, 254], [169, 254, 170, 2], [169, 254, 170, 23], [169, 254, 1, 1], [100, 100, 100, 200], [168, 63, 129, 16],
    [192, 0, 0, 192], [192, 0, 2, 1], [203, 0, 113, 1], [224, 0, 0, 1], [0, 0, 0, 0],
];

fn entra(vault: &str) -> Value {
    json!({"azure_auth_mode": "entra", "azure_vault_url": vault, "azure_entra_tenant_id": "tenant-1",
        "azure_entra_client_id": "client-1", "azure_entra_client_secret": "canary~secret"})
}

fn access_key(region: &str) -> Value {
    json!({"aws_auth_type": "accessKey", "aws_access_key_id": "AKIACANARYCANARY0001", "aws_secret_access_key": "canary",
        "aws_region": region})
}

/// A registry with what `egress` opens, as a sidecar makes it.
fn registry(egress: Settings, change: impl FnOnce(&mut RegistrySettings)) -> Registry {
    let mut settings = vault::settings(Policy::new(egress));
    settings.extra_ca_files = vec![harness::folder().join("authority.pem")];
    settings.aws.environment =
        Environment::of(&[("AWS_ACCESS_KEY_ID", "AKIABASE"), ("AWS_SECRET_ACCESS_KEY", "base-canary")]);
    let token_file = harness::folder().join("service-account-token");
    fs::write(&token_file, JWT).unwrap();
    settings.vault.kubernetes_jwt_file = token_file;
    change(&mut settings);
    Registry::new(settings, Arc::new(Metrics::new())).unwrap()
}

fn nothing_opened() -> Settings {
    Settings::default()
}

fn opened(hosts: &[&str], nets: &[&str]) -> Settings {
    let allow_hosts = hosts.iter().map(|&host| host.to_owned()).collect();
    let allow_cidrs = nets.iter().map(|net| net.parse().unwrap()).collect();
    Settings { allow_hosts, allow_cidrs, proxy_url: None }
}

/// The reference with `text` in `place` as the snapshot would hold it, or why it is set aside.
fn load(registry: &Registry, place: &Place, text: &str) -> Result<Arc<Reference>, String> {
    let (auth_config, secret_path) = (place.with)(text);
    let document = json!({"schema_version": 1, "version": 1, "secret_references": [{
        "id": "r", "slug": "r", "manager_type": place.manager, "auth_config": auth_config, "secret_path": secret_path,
        "status": "active",
    }]});
    let admit = |manager, auth: &_, location: Option<&_>| registry.admit(manager, auth, location);
    let rules = LinkRules { strict: false, admit: &admit, opener: None };
    let snapshot = link(document.to_string().as_bytes(), &rules).map_err(|error| format!("{:?}", error.problems))?;
    snapshot.references.first().cloned().ok_or_else(|| format!("{:?}", snapshot.set_aside))
}

async fn fetch(registry: &Registry, reference: &Reference) -> Result<(), FetchError> {
    registry.manager(reference)?.fetch(&reference.location, None).await.map(drop)
}

fn is_refused(outcome: &Result<(), FetchError>) -> bool {
    let refusal = outcome.as_ref().err();
    refusal.is_some_and(|error| {
        error.class == FailureClass::Misconfigured && error.code.as_deref() == Some("address_refused")
    })
}

/// Whom the sidecar asked, identity services aside.
fn asked(provider: &Provider) -> Vec<Received> {
    let own = |host: &str| host.starts_with("login.microsoftonline.com") || host.starts_with("metadata-of-the-test");
    provider.take().into_iter().filter(|received| !own(&received.host)).collect()
}

/// Plays the identity services, which no reference names, and lets everything else end its connection with its answer, so that
/// each call looks its name up.
async fn internet() -> Provider {
    let provider = Provider::start().await;
    provider.script("*", |received| {
        let token = json!({"access_token": "token-canary", "expires_in": 3599, "token_type": "Bearer"});
        let login = json!({"auth": {"client_token": "s.login", "lease_duration": 3600, "renewable": false}});
        Some(match received.host.split(':').next().unwrap_or_default() {
            "login.microsoftonline.com" => Answer::json(200, &token),
            "metadata-of-the-test" => Answer::json(200, &token).header("metadata-flavor", "Google"),
            _ if received.path() == "/v1/auth/approle/login" => Answer::json(200, &login).header("connection", "close"),
            _ => Answer::json(404, &json!({"errors": []})).header("connection", "close"),
        })
    });
    for place in ADDRESSES.iter().chain(&LABELS) {
        place.host.into_iter().for_each(|host| provider.resolve(host, PUBLIC));
    }
    provider
}

/// The workload's identity service of Google, where the operator says it is.
fn with_metadata(settings: &mut RegistrySettings) {
    settings.gcp.environment = Environment::of(&[("GCE_METADATA_HOST", "metadata-of-the-test")]);
}

/// No row of the policy gets into a reference, by no place; the fine text does, or nothing would have been tested.
pub async fn no_address_of_a_tenant_is_loaded() {
    let provider = internet().await;
    let registry = registry(opened(&["vault.opened.example"], &[]), with_metadata);
    for (places, hostile) in [(&ADDRESSES[..], REFUSED_ADDRESSES), (&LABELS[..], REFUSED_LABELS)] {
        for place in places {
            let good = load(&registry, place, place.good);
            good.unwrap_or_else(|reason| panic!("{} with {:?}: {reason}", place.name, place.good));
            let long = format!("{}/{}", place.good, "a".repeat(2048));
            for text in hostile.iter().copied().chain([&*long]) {
                if place.name == "azure_entra_tenant_id" && TENANTS.contains(&text) {
                    continue;
                }
                let loaded = load(&registry, place, text);
                assert!(loaded.is_err(), "{} with {text:?} is loaded: {loaded:?}", place.name);
            }
        }
    }
    let received = provider.received();
    assert!(received.is_empty(), "loading asks nobody: {received:?}");
}

/// A name that led to a public address when the snapshot was loaded, and to another machine since, is left; and no answer leads
/// anywhere.
pub async fn no_name_leads_inside_later() {
    let provider = internet().await;
    let registry = registry(nothing_opened(), with_metadata);
    for place in ADDRESSES.iter().chain(&LABELS) {
        let Some(host) = place.host else { continue };
        let reference = load(&registry, place, place.good).unwrap();
        let outcome = fetch(&registry, &reference).await;
        assert!(!is_refused(&outcome), "{}: {outcome:?}", place.name);
        let seen = asked(&provider);
        assert!(!seen.is_empty() && seen.iter().all(|received| received.host == host), "{}: {seen:?}", place.name);
        assert!(seen.iter().all(|received| received.scheme == "https" && received.address.ip() == PUBLIC), "{seen:?}");
        for inside in INSIDE {
            provider.resolve(host, inside.into());
            let outcome = fetch(&registry, &reference).await;
            let seen = asked(&provider);
            assert!(is_refused(&outcome), "{} at {inside:?}: {outcome:?} {seen:?}", place.name);
            // What a task in the background had begun before may still have come to the public address.
            assert!(
                seen.iter().all(|received| received.address.ip() == PUBLIC),
                "{} at {inside:?}: {seen:?}",
                place.name
            );
        }
        provider.resolve(host, PUBLIC);
    }
}

/// Redirects, whatever their kind, and the headers by which Vault names other nodes, are not followed.
pub async fn no_answer_leads_elsewhere() {
    let provider = internet().await;
    for status in [301, 302, 303, 307, 308, 472, 473] {
        provider.script("*", move |received| {
            let is_own = received.host.starts_with("login.") || received.host.starts_with("metadata-of");
            (!is_own).then(|| {
                let to = format!("https://{ELSEWHERE}{}", received.target);
                let answer = Answer::json(status, &json!({"errors": [], "nextLink": to}));
                let answer = answer.header("location", &to).header("x-vault-forward", &to);
                answer.header("content-location", &to).header("refresh", &format!("0; url={to}"))
            })
        });
        let registry = registry(nothing_opened(), with_metadata);
        let places = ADDRESSES.iter().chain(&LABELS).filter_map(|place| Some((place, place.host?)));
        let read = async |(place, _): (&Place, _)| {
            let reference = load(&registry, place, place.good).unwrap();
            let outcome = fetch(&registry, &reference).await;
            assert!(outcome.is_err(), "{} {status}", place.name);
        };
        join_all(places.clone().map(read)).await;
        let seen: BTreeSet<String> = asked(&provider).into_iter().map(|received| received.host).collect();
        let hosts: BTreeSet<String> = places.map(|(_, host)| host.to_owned()).collect();
        assert_eq!(seen, hosts, "{status}");
    }
}

/// What the operator opens is open, and nothing beside it.
pub async fn the_allow_list_opens_what_it_says() {
    let provider = internet().await;
    for port in [8200, 5432, 22] {
        provider.listen(port).await;
    }
    let (inside, other) = ([10, 1, 0, 5], [10, 2, 0, 5]);
    let (metadata, public) = ([169, 254, 169, 254], PUBLIC.octets());
    // Nothing goes on behind a read of this one, so that what is seen is the row's own.
    let place = &ADDRESSES[1];
    #[rustfmt::skip]
    let rows: &[(Texts, Texts, &str, [u8; 4], bool)] = &[
        // hosts, networks, address, where its name leads, reached
        (&[], &[], "https://vault.corp", inside, false),
        (&[], &[], "http://vault.corp", public, false),
        (&[], &["10.1.0.0/16"], "https://vault.corp", inside, true),
        (&[], &["10.1.0.0/16"], "http://vault.corp:8200", inside, true),
        (&[], &["10.1.0.0/16"], "https://vault.corp:5432", inside, true),
        (&[], &["10.1.0.0/16"], "http://10.1.0.5:8200", inside, true),
        (&[], &["10.1.0.0/16"], "https://vault.corp", public, true),
        // opened is the network, so neither http nor another port elsewhere
        (&[], &["10.1.0.0/16"], "http://vault.corp:8200", public, false),
        (&[], &["10.1.0.0/16"], "https://vault.corp:5432", public, false),
        (&[], &["10.1.0.0/16"], "https://vault.corp", other, false),
        (&[], &["10.1.0.0/16"], "http://10.2.0.5:8200", other, false),
        (&[], &["10.1.0.5/32"], "https://10.1.0.6", inside, false),
        (&["vault.corp"], &[], "https://vault.corp", inside, true),
        (&["vault.corp"], &[], "http://VAULT.corp.:8200", other, true),
        (&["vault.corp"], &[], "https://vault.corp:22", other, true),
        (&["vault.corp"], &[], "https://sub.vault.corp", inside, false),
        (&["vault.corp"], &[], "https://xvault.corp", inside, false),
        (&["vault.corp"], &[], "https://vault.corp.evil.example", inside, false),
        (&["vault.corp"], &[], "http://vault.corp.evil.example", public, false),
        (&[".lab.example"], &[], "https://a.lab.example", inside, true),
        (&[".lab.example"], &[], "https://lab.example", inside, false),
        (&[".lab.example"], &[], "https://evil-lab.example", inside, false),
        (&["10.1.0.5"], &[], "http://10.1.0.5:8200", inside, true),
        (&["10.1.0.5"], &[], "http://10.1.0.6:8200", inside, false),
        // closed whatever is opened
        (&["vault.corp"], &["0.0.0.0/0"], "https://vault.corp", metadata, false),
        (&["169.254.169.254"], &["0.0.0.0/0"], "http://169.254.169.254", metadata, false),
        (&["metadata.google.internal"], &["0.0.0.0/0"], "http://metadata.google.internal", metadata, false),
        (&["kubernetes"], &["0.0.0.0/0"], "https://kubernetes", inside, false),
    ];
    for (hosts, nets, address, leads, reached) in rows {
        let told = format!("{hosts:?} {nets:?} {address} at {leads:?}");
        let url = url::Url::parse(address).unwrap();
        let host = url.host_str().unwrap().trim_end_matches('.').to_owned();
        provider.resolve(&host, (*leads).into());
        let registry = registry(opened(hosts, nets), |_| {});
        let outcome = match load(&registry, place, address) {
            Ok(reference) => fetch(&registry, &reference).await,
            Err(_) => Err(FetchError::new(FailureClass::Misconfigured).with_code("address_refused")),
        };
        let seen = asked(&provider);
        assert_eq!((!is_refused(&outcome), !seen.is_empty()), (*reached, *reached), "{told}: {outcome:?} {seen:?}");
    }
}

/// The service-account token of the sidecar goes where the operator said, whatever a reference says and a name leads to.
pub async fn the_own_token_goes_to_no_foreign_address() {
    let provider = internet().await;
    let place = &ADDRESSES[2];
    let (inside, other, public) = ([10, 1, 0, 5], [10, 2, 0, 5], PUBLIC.octets());
    #[rustfmt::skip]
    let rows: &[(Texts, Texts, Texts, &str, Addresses<'_>, bool)] = &[
        // hosts, networks, kubernetes_allow_addrs, vault_addr, where it leads one after the other, the last one is shown the token
        (&[], &[], &[], "https://vault.evil.example", &[public], false),
        (&[], &[], &[], "https://8.8.8.8", &[public], false),
        (&[], &["10.1.0.0/16"], &[], "https://vault.corp", &[inside], true),
        (&[], &["10.1.0.0/16"], &[], "https://vault.corp", &[public], false),
        (&[], &["10.1.0.0/16"], &[], "https://vault.corp", &[other], false),
        (&[], &["10.1.0.0/16"], &[], "https://vault.corp", &[inside, public], false),
        (&[], &["10.1.0.0/16"], &[], "https://8.8.8.8", &[public], false),
        (&["vault.corp"], &[], &[], "https://vault.corp", &[inside], true),
        (&["vault.corp"], &[], &[], "https://vault.corp.evil.example", &[public], false),
        (&["vault.corp"], &[], &[], "https://vault.corp@evil.example", &[public], false),
        (&[], &[], &["https://vault.corp"], "https://vault.corp", &[public], true),
        (&[], &[], &["https://vault.corp"], "https://vault.corp:8443", &[public], false),
        (&[], &[], &["https://vault.corp"], "https://other.corp", &[public], false),
        (&[], &[], &["https://vault.corp"], "https://vault.corp", &[inside], false),
        (&[], &["10.1.0.0/16"], &["https://vault.corp"], "https://other.corp", &[inside], false),
    ];
    for (hosts, nets, addrs, address, leads, shown) in rows {
        let told = format!("{hosts:?} {nets:?} {addrs:?} {address} at {leads:?}");
        let host = url::Url::parse(address).unwrap().host_str().unwrap().to_owned();
        let mut told_last = false;
        for at in *leads {
            provider.resolve(&host, (*at).into());
            let registry = registry(opened(hosts, nets), |settings| {
                settings.vault.kubernetes_allow_addrs = addrs.iter().map(ToString::to_string).collect();
            });
            if let Ok(reference) = load(&registry, place, address) {
                let outcome = fetch(&registry, &reference).await;
                assert!(outcome.is_err(), "nobody takes the token here: {told}");
            }
            told_last = provider.take().iter().any(|received| received.contains(JWT));
        }
        assert_eq!(told_last, *shown, "{told}");
    }
}
