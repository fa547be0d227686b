//! Every row of the egress policy, with what opens it and what cannot be opened.

use super::*;

fn policy(hosts: &[&str], nets: &[&str]) -> Policy {
    Policy::new(Settings {
        allow_hosts: hosts.iter().map(|&host| host.to_owned()).collect(),
        allow_cidrs: nets.iter().map(|net| net.parse().unwrap()).collect(),
        proxy_url: None,
    })
}

fn verdict(policy: &Policy, url: &str) -> Result<Reach, String> {
    policy.reach(&Url::parse(url).unwrap()).map_err(|refused| refused.reason)
}

#[test]
fn nothing_opened_admits_public_https_only() {
    let policy = policy(&[], &[]);
    for url in [
        "https://vault.example.com",
        "https://vault.example.com:8200/",
        "https://1.1.1.1:8200",
        "https://[2606:4700::1111]",
    ] {
        assert_eq!(verdict(&policy, url), Ok(Reach::Admitted), "{url}");
    }
    #[rustfmt::skip]
    let refused = [
        // scheme, user-info, fragment
        ("http://vault.example.com", "plain http"), ("ftp://vault.example.com", "https"),
        ("https://user@vault.example.com", "user name"), ("https://:pw@vault.example.com", "user name"),
        ("https://vault.example.com/#x", "fragment"),
        // ports
        ("https://vault.example.com:22", "port 22"), ("https://vault.example.com:25", "port 25"),
        ("https://vault.example.com:445", "port 445"), ("https://vault.example.com:3306", "port 3306"),
        ("https://vault.example.com:5432", "port 5432"), ("https://vault.example.com:6379", "port 6379"),
        ("https://vault.example.com:6443", "port 6443"), ("https://vault.example.com:9200", "port 9200"),
        ("https://vault.example.com:27017", "port 27017"),
        // private addresses in every spelling
        ("https://127.0.0.1:8200", "loopback"), ("https://2130706433", "loopback"), ("https://0x7f000001", "loopback"),
        ("https://0x7f.1", "loopback"), ("https://017700000001", "loopback"), ("https://127.1", "loopback"),
        ("https://127.0.0.1.", "loopback"), ("https://%31%32%37.0.0.1", "loopback"), ("https://①②⑦.0.0.1", "loopback"),
        ("https://[::1]", "loopback"), ("https://[::ffff:127.0.0.1]", "loopback"), ("https://[::ffff:7f00:1]", "loopback"),
        ("https://10.0.0.1", "private"), ("https://192.168.0.1", "private"), ("https://[fd00::1]", "not globally routed"),
        ("https://localhost:8200", "loopback"), ("https://vault.localhost", "loopback"),
        // metadata
        ("https://169.254.169.254", "closed"), ("https://2852039166", "closed"), ("https://[::ffff:169.254.169.254]", "closed"),
        ("https://[64:ff9b::169.254.169.254]", "closed"), ("https://[fd00:ec2::254]", "closed"),
        ("https://metadata.google.internal", "closed"), ("https://metadata.google.internal.", "closed"),
        ("https://METADATA", "closed"), ("https://metadata.internal", "closed"), ("https://instance-data.ec2.internal", "closed"),
        ("https://kubernetes.default.svc", "closed"), ("https://kubernetes", "closed"), ("https://x.metadata.google.internal", "closed"),
        ("https://ⓜetadata.google.internal", "closed"),
        // names that spell addresses, look-alikes
        ("https://127.0.0.1.nip.io", "allow_hosts"), ("https://nip.io", "allow_hosts"), ("https://a9fea9fe.sslip.io.", "allow_hosts"),
        ("https://xn--vult-5na.example.com", "allow_hosts"), ("https://1.2.3.4..", "neither"), ("https://vault.0x..", "neither"),
    ];
    for (url, because) in refused {
        let reason = verdict(&policy, url).expect_err(url);
        assert!(reason.contains(because), "{url}: {reason}");
    }
    let long = format!("https://vault.example.com/{}", "a".repeat(MAX_URL_BYTES));
    assert!(verdict(&policy, &long).is_err());
}

#[test]
fn an_opened_network_or_host_permits_http_and_any_port() {
    let nets = policy(&[], &["10.0.0.0/8", "127.0.0.0/8"]);
    let hosts = policy(&["vault.corp", ".internal.example", "LOCALHOST.", "172.16.0.9"], &[]);
    #[rustfmt::skip]
    let rows = [
        // url, with networks opened, with hosts opened
        ("http://10.1.2.3:8200", Some(Reach::Opened), None),
        ("https://10.1.2.3", Some(Reach::Admitted), None),
        ("https://10.1.2.3:6379", Some(Reach::Opened), None),
        ("http://[::ffff:10.1.2.3]", Some(Reach::Opened), None),
        ("http://192.168.1.1", None, None),
        ("http://172.16.0.9", None, Some(Reach::Opened)),
        ("http://vault.corp:22", Some(Reach::Opened), Some(Reach::Opened)), // a name: the address decides at connect time
        ("http://a.internal.example", Some(Reach::Opened), Some(Reach::Opened)),
        ("http://internal.example", Some(Reach::Opened), None),
        ("http://evil-internal.example", Some(Reach::Opened), None),
        ("http://vault.corp.evil.example", Some(Reach::Opened), None),
        ("http://localhost:8200", Some(Reach::Opened), Some(Reach::Opened)),
        ("https://VAULT.corp.", Some(Reach::Admitted), Some(Reach::Admitted)),
        ("https://169.254.169.254", None, None),
        ("https://metadata.internal.example", None, None),
    ];
    for (url, by_net, by_host) in rows {
        assert_eq!(verdict(&nets, url).ok(), by_net, "{url} with networks");
        assert_eq!(verdict(&hosts, url).ok(), by_host, "{url} with hosts");
    }
}

#[test]
fn resolved_addresses_are_judged_by_what_is_opened() {
    let policy = policy(&["vault.corp"], &["10.0.0.0/8"]);
    #[rustfmt::skip]
    let rows = [
        // host, address, may be connected to, counts as opened
        ("vault.example.com", "1.1.1.1", true, false),
        ("vault.example.com", "10.9.9.9", true, true),
        ("vault.example.com", "192.168.1.1", false, false),
        ("vault.example.com", "::ffff:10.9.9.9", true, true),
        ("vault.example.com", "64:ff9b::a09:909", false, false),
        ("vault.corp", "192.168.1.1", true, true),
        ("VAULT.corp.", "192.168.1.1", true, true),
        ("vault.corp", "1.1.1.1", true, true),
        ("vault.corp", "169.254.169.254", false, false),
        ("vault.corp", "fe80::1", false, false),
        ("vault.corp", "0.0.0.0", false, false),
    ];
    for (host, address, admitted, opened) in rows {
        let address = address.parse().unwrap();
        assert_eq!(policy.check_address(host, address).is_ok(), admitted, "{host} {address}");
        assert_eq!(policy.check_opened(host, address).is_ok(), opened, "{host} {address}");
    }
}

#[test]
fn metadata_cannot_be_opened() {
    let everything =
        policy(&["169.254.169.254", "metadata.google.internal", ".internal", "kubernetes"], &["0.0.0.0/0", "::/0"]);
    for url in [
        "https://169.254.169.254",
        "http://metadata.google.internal",
        "https://[fd00:ec2::254]",
        "https://kubernetes",
        "http://0.0.0.0",
    ] {
        assert!(verdict(&everything, url).is_err(), "{url}");
    }
}

#[test]
fn own_identity_goes_only_where_the_operator_opened() {
    let open = policy(&[], &["10.0.0.0/8"]);
    let closed = policy(&[], &[]);
    #[rustfmt::skip]
    let rows = [
        ("https://10.0.0.1", Some(Reach::Opened), false),
        ("https://1.1.1.1", None, false),
        ("https://vault.example.com", Some(Reach::Opened), false), // decided by the address
        ("https://192.168.0.1", None, false),
    ];
    for (url, opened, without) in rows {
        let url = Url::parse(url).unwrap();
        assert_eq!(open.reach_opened(&url).ok(), opened, "{url}");
        assert_eq!(closed.reach_opened(&url).is_ok(), without, "{url}");
    }
    let proxied = Policy::new(Settings { proxy_url: Some(Url::parse("http://proxy:3128").unwrap()), ..open.settings });
    assert!(
        proxied.reach_opened(&Url::parse("https://vault.example.com").unwrap()).is_err(),
        "no address is seen behind a proxy"
    );
}

proptest::proptest! {
    #[test]
    fn no_spelling_of_a_private_address_is_admitted(a in 0u8.., b in 0u8.., c in 0u8.., spelling in 0usize..6) {
        let address = std::net::Ipv4Addr::new(10, a, b, c);
        let number = u32::from(address);
        let host = match spelling {
            0 => address.to_string(),
            1 => number.to_string(),
            2 => format!("{number:#x}"),
            3 => format!("0{number:o}"),
            4 => format!("10.{}", number & 0x00ff_ffff),
            _ => format!("[::ffff:{:x}:{:x}]", number >> 16, number & 0xffff),
        };
        let url = Url::parse(&format!("https://{host}/")).unwrap();
        proptest::prop_assert!(policy(&[], &[]).check_url(&url).is_err(), "{}", url);
    }
}
