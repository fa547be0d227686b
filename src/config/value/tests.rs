//! Every refusal says what to write instead.

use super::*;

struct Case {
    text: &'static str,
    /// What comes out, or a part of the refusal.
    expected: Result<&'static str, &'static str>,
}

fn check<T: ToString>(parse: impl Fn(&str) -> Result<T, String>, cases: &[Case]) {
    for Case { text, expected } in cases {
        match (parse(text), expected) {
            (Ok(value), Ok(expected)) => assert_eq!(value.to_string(), *expected, "{text:?}"),
            (Err(refusal), Err(part)) => assert!(refusal.contains(part), "{text:?}: {refusal}"),
            (Ok(value), Err(part)) => panic!("{text:?} became {}, expected: {part}", value.to_string()),
            (Err(refusal), Ok(_)) => panic!("{text:?} was refused: {refusal}"),
        }
    }
}

#[test]
fn listen_addresses() {
    check(
        listen_address,
        &[
            Case { text: "127.0.0.1:8900", expected: Ok("127.0.0.1:8900") },
            Case { text: "[::1]:0", expected: Ok("[::1]:0") },
            Case { text: "localhost:8900", expected: Err("write 127.0.0.1:8900") },
            Case { text: ":8900", expected: Err("write 0.0.0.0:8900 or '[::]:8900'") },
            Case { text: "*:8900", expected: Err("write 0.0.0.0:8900") },
            Case { text: "8900", expected: Err("write 127.0.0.1:8900") },
            Case { text: "127.0.0.1", expected: Err("has no port") },
            Case { text: "127.0.0.1:70000", expected: Err("write it like") },
            Case { text: "::1:8900", expected: Err("write it like") },
            Case { text: "", expected: Err("has no port") },
        ],
    );
}

#[test]
fn unix_sockets() {
    let long = format!("unix:/{}", "a".repeat(107));
    assert!(listen_place(&long).unwrap_err().contains("107 bytes"));
    check(
        listen_place,
        &[
            Case { text: "127.0.0.1:8900", expected: Ok("127.0.0.1:8900") },
            Case { text: "unix:/run/sidekey.sock", expected: Ok("unix:/run/sidekey.sock") },
            Case { text: "unix:sidekey.sock", expected: Err("absolute path") },
            Case { text: "unix:/", expected: Err("absolute path") },
            Case { text: "sidekey", expected: Err("has no port") },
        ],
    );
    check(
        upstream_url,
        &[
            Case { text: "http://127.0.0.1:8787", expected: Ok("http://127.0.0.1:8787/") },
            Case { text: "unix:/run/gateway.sock", expected: Ok("unix:/run/gateway.sock") },
            Case { text: "unix:gateway.sock", expected: Err("absolute path") },
        ],
    );
}

#[test]
fn base_urls() {
    check(
        base_url,
        &[
            Case { text: "http://127.0.0.1:8787", expected: Ok("http://127.0.0.1:8787/") },
            Case { text: "https://Gateway.Example/", expected: Ok("https://gateway.example/") },
            Case { text: "https://[::1]:8787", expected: Ok("https://[::1]:8787/") },
            Case { text: "127.0.0.1:8787", expected: Err("is not a URL") },
            Case { text: "gateway:8787", expected: Err("neither http nor https") },
            Case { text: "ftp://gateway", expected: Err("neither http nor https") },
            Case { text: "https://user:pass@gateway", expected: Err("user name or password") },
            Case { text: "https://gateway/v1", expected: Err("more than scheme, host and port") },
            Case { text: "https://gateway?a=b", expected: Err("more than scheme, host and port") },
            Case { text: "https://gateway#a", expected: Err("more than scheme, host and port") },
        ],
    );
}

#[test]
fn proxy_urls() {
    check(
        proxy_url,
        &[
            Case { text: "http://proxy.example:3128", expected: Ok("http://proxy.example:3128/") },
            Case { text: "https://proxy.example", expected: Err("is not http") },
            Case { text: "http://user:pass@proxy.example", expected: Err("user name or password") },
        ],
    );
}

#[test]
fn loopback_is_told_by_the_host() {
    for (url, loopback) in [
        ("http://127.0.0.1", true),
        ("http://127.255.0.9", true),
        ("http://2130706433", true),
        ("http://[::1]", true),
        ("http://[::ffff:127.0.0.1]", true),
        ("http://localhost", true),
        ("http://a.localhost", true),
        ("http://localhost.evil.example", false),
        ("http://127.0.0.1.evil.example", false),
        ("http://10.0.0.1", false),
        ("http://[::]", false),
        ("http://0.0.0.0", false),
    ] {
        assert_eq!(is_loopback(&Url::parse(url).unwrap()), loopback, "{url}");
    }
    assert!(is_loopback(&default_upstream()));
}

#[test]
fn host_patterns() {
    check(
        host_pattern,
        &[
            Case { text: "vault.example", expected: Ok("vault.example") },
            Case { text: "Vault", expected: Ok("vault") },
            Case { text: ".svc.cluster.local", expected: Ok(".svc.cluster.local") },
            Case { text: "10.0.0.1", expected: Ok("10.0.0.1") },
            Case { text: "https://vault.example:8200/v1", expected: Err("write the host alone: vault.example") },
            Case { text: "https://me:sk-1@vault", expected: Err("holds a user name; write the host alone") },
            Case { text: "*.example", expected: Err("write .example") },
            Case { text: "vault:8200", expected: Err("write the host alone: vault") },
            Case { text: ".", expected: Err("is not a host") },
            Case { text: "", expected: Err("is not a host") },
            Case { text: "a..b", expected: Err("is not a host") },
            Case { text: "a b", expected: Err("is not a host") },
            Case { text: "::1", expected: Err("holds a port") },
        ],
    );
}

#[test]
fn networks() {
    check(
        network,
        &[
            Case { text: "10.20.0.0/16", expected: Ok("10.20.0.0/16") },
            Case { text: "fd00::/8", expected: Ok("fd00::/8") },
            Case { text: "10.0.0.1", expected: Err("write 10.0.0.1/32") },
            Case { text: "10.1.2.3/8", expected: Err("write 10.0.0.0/8") },
            Case { text: "169.254.0.0/16", expected: Err("never opened") },
            Case { text: "169.254.169.254/32", expected: Err("never opened") },
            Case { text: "fe80::/10", expected: Err("never opened") },
            Case { text: "10.0.0.0/33", expected: Err("is not a network") },
            Case { text: "vault", expected: Err("is not a network") },
        ],
    );
}

#[test]
fn mounts_names_prefixes_and_checks() {
    check(
        mount,
        &[
            Case { text: "approle", expected: Ok("approle") },
            Case { text: "/team/kubernetes/", expected: Ok("team/kubernetes") },
            Case { text: "", expected: Err("is not a mount") },
            Case { text: "a/../b", expected: Err("is not a mount") },
            Case { text: "a?b", expected: Err("is not a mount") },
        ],
    );
    check(
        name,
        &[
            Case { text: "ws-team-a", expected: Ok("ws-team-a") },
            Case { text: "", expected: Err("is not an id") },
            Case { text: "a b", expected: Err("is not an id") },
        ],
    );
    check(
        path_prefix,
        &[
            Case { text: "secret/data/team-a/", expected: Ok("secret/data/team-a/") },
            Case { text: "", expected: Err("beginning of a secret path") },
            Case { text: "secret/../x", expected: Err("beginning of a secret path") },
        ],
    );
    check(
        check_id,
        &[
            Case { text: "default.contains", expected: Ok("default.contains") },
            Case { text: "acme.check", expected: Ok("acme.check") },
            Case { text: "default.log", expected: Err("opens a connection") },
            Case { text: "default.webhook", expected: Err("opens a connection") },
            Case { text: "portkey.moderateContent", expected: Err("opens a connection") },
            Case { text: "contains", expected: Err("is not the id of a check") },
            Case { text: "default.", expected: Err("is not the id of a check") },
            Case { text: "default.*", expected: Err("is not the id of a check") },
        ],
    );
}

#[test]
fn files_and_directories_must_be_there() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("ca.pem");
    std::fs::write(&file, "x").unwrap();
    let (file, folder) = (file.to_str().unwrap(), folder.path().to_str().unwrap());
    assert!(readable_file(file).is_ok());
    assert!(directory(folder).is_ok());
    for (refusal, part) in [
        (readable_file(folder), "is a directory"),
        (readable_file("/nowhere/ca.pem"), "cannot be read (no such file)"),
        (readable_file(""), "is empty"),
        (directory(file), "is a file"),
        (directory("/nowhere"), "cannot be read"),
        (path("a\0b"), "NUL"),
    ] {
        let refusal = refusal.unwrap_err();
        assert!(refusal.contains(part), "{refusal}");
    }
}
