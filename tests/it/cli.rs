//! The commands as a shell sees them: output, and exit status 0, 64 or 1.

use std::{
    fs,
    io::Write,
    path::Path,
    process::{Command, Output, Stdio},
};

use tempfile::TempDir;

/// A secret that must not be seen.
const CANARY: &str = "sk-canary-77aa01";

/// What a command printed, and how it ended.
#[derive(Debug)]
struct Ran {
    status: i32,
    out: String,
    err: String,
}

/// Runs the binary in `folder` without an environment of ours.
fn sidekey(folder: &Path, arguments: &[&str], variables: &[(&str, &str)]) -> Ran {
    sidekey_reading(folder, arguments, variables, "")
}

/// As [`sidekey`], with `input` on standard input.
fn sidekey_reading(folder: &Path, arguments: &[&str], variables: &[(&str, &str)], input: &str) -> Ran {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sidekey"));
    command.args(arguments).current_dir(folder).env_clear().envs(variables.iter().copied());
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    // A command that reads nothing may have closed it.
    let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
    let Output { status, stdout, stderr } = child.wait_with_output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    Ran { status: status.code().unwrap(), out: text(stdout), err: text(stderr) }
}

/// A folder with a file secret, a snapshot that names it, and a configuration.
fn folder(configuration: &str, snapshot: &str) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir(folder.path().join("secrets")).unwrap();
    fs::write(folder.path().join("secrets/openai"), CANARY).unwrap();
    fs::write(folder.path().join("sidecar.yaml"), configuration).unwrap();
    fs::write(folder.path().join("snapshot.json"), snapshot).unwrap();
    folder
}

/// The fingerprint of [`CANARY`] under the key `0123456789abcdef`.
const FINGERPRINT: &str = "0c054ca0e4ad8156";
const CONFIGURATION: &str = "snapshot: {file: snapshot.json}\nmanagers: {file: {root: secrets}}\n";

/// A snapshot whose references name these files, each mapped by an integration of the same slug.
fn snapshot(files: &[(&str, &str)]) -> String {
    let reference = |(slug, file): &(&str, &str)| {
        serde_json::json!({
            "id": format!("ref-{slug}"), "slug": slug, "manager_type": "file", "auth_config": {}, "secret_path": file,
            "status": "active", "allow_all_workspaces": true,
        })
    };
    let integration = |(slug, _): &(&str, &str)| {
        serde_json::json!({
            "id": format!("int-{slug}"), "slug": slug, "ai_provider_id": "openai", "status": "active",
            "allow_all_workspaces": true, "configurations": {},
            "secret_mappings": [{"target_field": "key", "secret_reference_id": slug}],
        })
    };
    serde_json::json!({
        "schema_version": 1, "version": 1, "organisation_id": "org",
        "secret_references": files.iter().map(reference).collect::<Vec<_>>(),
        "integrations": files.iter().map(integration).collect::<Vec<_>>(),
    })
    .to_string()
}

#[test]
fn usage() {
    let here = tempfile::tempdir().unwrap();
    for (arguments, status, shown) in [
        (&["--version"][..], 0, concat!("sidekey ", env!("CARGO_PKG_VERSION"))),
        (&["--help"], 0, "check"),
        (&[], 64, "Usage"),
        (&["chekc"], 64, "similar"),
        (&["keygen"], 64, "--kind <KIND>"),
        (&["keygen", "--kind", "password", "--out", "x"], 64, "identity, signing, api-key-hash"),
        (&["hash-key", "--hash-file", "none"], 1, "none cannot be used (no such file)"),
        (&["control-plane", "--config", "none.yaml"], 64, "none.yaml: cannot be read"),
        (&["secrets", "list"], 64, "no token"),
        (&["check"], 64, "--config <FILE>"),
        (&["check", "--config", "none.yaml"], 64, "none.yaml: cannot be read"),
    ] {
        let ran = sidekey(here.path(), arguments, &[]);
        assert_eq!(ran.status, status, "{arguments:?}: {ran:?}");
        assert!(ran.out.contains(shown) || ran.err.contains(shown), "{arguments:?}: {ran:?}");
    }
}

#[test]
fn keygen_writes_for_the_owner_alone_and_never_again() {
    use std::os::unix::fs::PermissionsExt as _;
    let here = tempfile::tempdir().unwrap();
    for (kind, private, public) in [
        ("identity", "AGE-SECRET-KEY-1", "age1"),
        ("signing", "-----BEGIN PRIVATE KEY-----", "-----BEGIN PUBLIC KEY-----"),
        ("api-key-hash", "k1 ", "There is no public part"),
    ] {
        let arguments = ["keygen", "--kind", kind, "--out", kind];
        let ran = sidekey(here.path(), &arguments, &[]);
        assert_eq!(ran.status, 0, "{ran:?}");
        let file = here.path().join(kind);
        let content = std::fs::read_to_string(&file).unwrap();
        assert!(content.contains(private) && ran.out.starts_with(public), "{kind}: {}", ran.out);
        assert!(!ran.out.contains(private), "{kind} prints its private part");
        assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600, "{kind}");
        let again = sidekey(here.path(), &arguments, &[]);
        assert_eq!(again.status, 64, "{again:?}");
        assert_eq!(std::fs::read_to_string(&file).unwrap(), content, "{kind} was overwritten");
    }
}

#[test]
fn check_opens_every_sealed_value() {
    let folder = folder(&format!("{CONFIGURATION}sealing: {{identity_file: identity}}\n"), "");
    for name in ["identity", "other"] {
        assert_eq!(sidekey(folder.path(), &["keygen", "--kind", "identity", "--out", name], &[]).status, 0);
    }
    let identity = fs::read_to_string(folder.path().join("identity")).unwrap();
    let identities = sidekey::seal::identity::Identities::parse(&identity).unwrap();
    let recipients = sidekey::seal::recipient::Recipients::new(identities.recipients().collect()).unwrap();
    let place = sidekey::seal::Place { organisation: "org", object_id: "vk", field: "key" };
    let key = serde_json::json!({"$sealed": recipients.seal(place, CANARY).unwrap()});
    let snapshot = serde_json::json!({
        "schema_version": 1, "version": 1, "organisation_id": "org",
        "virtual_keys": [{"id": "vk", "slug": "openai", "provider": "openai", "status": "active", "key": key}],
    });
    fs::write(folder.path().join("snapshot.json"), snapshot.to_string()).unwrap();
    let check = |identity| {
        sidekey(folder.path(), &["check", "--config", "sidecar.yaml"], &[("SIDEKEY_SEALING__IDENTITY_FILE", identity)])
    };
    let ran = check("identity");
    assert_eq!((ran.status, ran.out.as_str()), (0, "no problems; 0 references and 1 entity\n"), "{ran:?}");
    let ran = check("other");
    assert_eq!(ran.status, 64, "{ran:?}");
    assert!(ran.out.contains("virtual_keys.api_key (openai): is sealed to others; reseal it"), "{ran:?}");
    assert!(!ran.out.contains(CANARY));
}

#[test]
fn reseal_writes_a_copy_that_others_open() {
    let folder = folder(&format!("{CONFIGURATION}sealing: {{identity_file: old}}\n"), "");
    for name in ["old", "new"] {
        assert_eq!(sidekey(folder.path(), &["keygen", "--kind", "identity", "--out", name], &[]).status, 0);
    }
    let identities = |name: &str| {
        let text = fs::read_to_string(folder.path().join(name)).unwrap();
        sidekey::seal::identity::Identities::parse(&text).unwrap()
    };
    let old = sidekey::seal::recipient::Recipients::new(identities("old").recipients().collect()).unwrap();
    let place = sidekey::seal::Place { organisation: "org", object_id: "vk", field: "key" };
    let key = |id: &str| {
        let sealed = serde_json::json!({"$sealed": old.seal(place, CANARY).unwrap()});
        serde_json::json!({"id": id, "slug": id, "provider": "openai", "status": "active", "key": sealed})
    };
    let write = |keys: Vec<serde_json::Value>| {
        let snapshot =
            serde_json::json!({"schema_version": 1, "version": 1, "organisation_id": "org", "virtual_keys": keys});
        fs::write(folder.path().join("snapshot.json"), snapshot.to_string()).unwrap();
    };
    write(vec![key("vk")]);
    let recipient = identities("new").recipients().next().unwrap().to_string();
    let reseal = |out: &str| {
        let arguments = ["reseal", "--config", "sidecar.yaml", "--recipient", &recipient, "--out", out];
        sidekey(folder.path(), &arguments, &[])
    };
    let ran = reseal("copy.json");
    assert_eq!((ran.status, ran.out.as_str()), (0, "virtual_keys (vk): 1 sealed again\n"), "{ran:?}");
    let copy: serde_json::Value = serde_json::from_slice(&fs::read(folder.path().join("copy.json")).unwrap()).unwrap();
    let sealed = copy["virtual_keys"][0]["key"]["$sealed"].as_str().unwrap();
    assert_eq!(identities("new").open(place, sealed).unwrap().expose(), CANARY.as_bytes());
    assert!(identities("old").open(place, sealed).is_err());
    assert_eq!(reseal("copy.json").status, 1, "overwritten");
    write(vec![key("moved")]);
    let ran = reseal("other.json");
    assert_eq!(ran.status, 1, "{ran:?}");
    assert!(ran.out.contains("virtual_keys (moved): key was sealed for another place"), "{ran:?}");
    let ran = sidekey(folder.path(), &["reseal", "--config", "sidecar.yaml"], &[]);
    assert_eq!(ran.status, 64, "{ran:?}");
}

#[test]
fn check_passes_what_is_fine() {
    let folder = folder(CONFIGURATION, &snapshot(&[("openai", "openai"), ("other", "openai")]));
    let ran = sidekey(folder.path(), &["check", "--config", "sidecar.yaml"], &[]);
    assert_eq!((ran.status, ran.out.as_str()), (0, "no problems; 2 references and 2 entities\n"), "{ran:?}");
}

#[test]
fn check_prints_every_problem_of_both_files_at_once() {
    let broken = snapshot(&[("openai", "../openai")]).replace("\"key\"", "\"configurations.custom_host\"");
    let folder = folder(&format!("{CONFIGURATION}cache: {{ttl: {CANARY}}}\nlog: {{level: loud}}\n"), &broken);
    let ran =
        sidekey(folder.path(), &["check", "--config", "sidecar.yaml", "--resolve"], &[("SIDEKEY_LISTEN", "8900")]);
    assert_eq!(ran.status, 64, "{ran:?}");
    for part in [
        "SIDEKEY_LISTEN: listen: \"8900\" names no address; write 127.0.0.1:8900\n",
        "sidecar.yaml:3: cache.ttl: is not a key; did you mean cache.ttl_secs?\n",
        "sidecar.yaml:4: log.level: \"loud\" is not known; use info, error, warn, debug or trace\n",
        "snapshot.json: secret_references[0].secret_path (openai): ",
        "snapshot.json: integrations[0].secret_mappings[0].target_field (openai): ",
        "6 problems\n",
        "nothing was fetched\n",
    ] {
        assert!(ran.out.contains(part), "{part}\n{}", ran.out);
    }
    assert!(!ran.out.contains(CANARY) && ran.err.is_empty(), "{ran:?}");
}

#[test]
fn check_names_what_is_set_aside() {
    let lenient = CONFIGURATION.replace("{file: snapshot.json}", "{file: snapshot.json, strict: false}");
    let folder = folder(&lenient, &snapshot(&[("good", "openai"), ("bad", "../openai")]));
    let ran = sidekey(folder.path(), &["check", "--config", "sidecar.yaml"], &[]);
    assert_eq!(ran.status, 64, "{ran:?}");
    assert!(
        ran.out.contains("secret_references[1].secret_path (bad): ") && ran.out.contains("(set aside)"),
        "{}",
        ran.out
    );
    assert!(ran.out.contains("; 1 reference and 2 entities"), "{}", ran.out);
}

// Without a manager nobody reads the managers' authorities.
#[cfg(any(feature = "aws", feature = "azure", feature = "gcp", feature = "vault"))]
#[test]
fn check_reads_every_file_that_is_named() {
    let more = "tls: {cert_file: snapshot.json, key_file: snapshot.json}\nfingerprint_key_file: short\n\
                egress: {extra_ca_files: [short]}\nupstream: {url: 'https://gateway.example', ca_file: short}\n";
    let folder = folder(&format!("{CONFIGURATION}{more}"), &snapshot(&[("openai", "openai")]));
    fs::write(folder.path().join("short"), "short").unwrap();
    let ran = sidekey(folder.path(), &["check", "--config", "sidecar.yaml"], &[]);
    assert_eq!(ran.status, 64, "{ran:?}");
    for part in [
        "sidecar.yaml: upstream: TLS cannot be set up: short holds no usable PEM certificate\n",
        "sidecar.yaml: tls: snapshot.json holds no usable PEM certificate\n",
        "sidecar.yaml: managers: ",
        "sidecar.yaml: fingerprint_key_file: holds fewer than 16 bytes",
        "4 problems",
    ] {
        assert!(ran.out.contains(part), "{part}\n{}", ran.out);
    }
}

#[test]
fn check_shows_what_has_no_effect_and_passes() {
    let text = snapshot(&[("openai", "openai")])
        .replace("\"configurations\":{}", &format!(r#""configurations":{{"custom_hots":"https://{CANARY}"}}"#));
    let folder = folder(CONFIGURATION, &text);
    let ran = sidekey(folder.path(), &["check", "--config", "sidecar.yaml"], &[]);
    let said = "snapshot.json: integrations[0].configurations (openai): \
                `custom_hots` is no field of the provider `openai` (ignored)\n\
                no problems; 1 reference and 1 entity\n";
    assert_eq!((ran.status, ran.out.as_str()), (0, said), "{ran:?}");
}

#[test]
fn check_looks_for_the_workspace_in_the_snapshot() {
    let text = snapshot(&[("openai", "openai")])
        .replace("\"schema_version\":1,", r#""schema_version":1,"workspaces":[{"id":"w1","slug":"ws-a"}],"#);
    for (workspace, status, part) in [
        ("w1", 0, "no problems"),
        ("ws-a", 0, "no problems"),
        ("ws-b", 64, "sidecar.yaml: workspace: `ws-b` is no workspace of the snapshot; name one by its id or slug\n"),
    ] {
        let folder = folder(&format!("{CONFIGURATION}workspace: {workspace}\n"), &text);
        let ran = sidekey(folder.path(), &["check", "--config", "sidecar.yaml"], &[]);
        assert_eq!(ran.status, status, "{ran:?}");
        assert!(ran.out.contains(part), "{ran:?}");
    }
}

#[test]
fn check_wants_a_snapshot() {
    for (configuration, part) in [
        ("", "sidecar.yaml: snapshot.file: is not set"),
        ("snapshot: {file: none.json}", "none.json: does not exist"),
        ("snapshot: {file: secrets}", "secrets: is no regular file"),
    ] {
        let folder = folder(configuration, "");
        let ran = sidekey(folder.path(), &["check", "--config", "sidecar.yaml"], &[]);
        assert_eq!(ran.status, 64, "{ran:?}");
        assert!(ran.out.contains(part), "{ran:?}");
    }
}

#[cfg(feature = "vault")]
#[test]
fn the_example_has_no_problems() {
    let ran = sidekey(Path::new(env!("CARGO_MANIFEST_DIR")), &["check", "--config", "config/sidecar.yaml"], &[]);
    assert_eq!(ran.status, 0, "{ran:?}");
    assert!(ran.out.starts_with("no problems; "), "{ran:?}");
}

#[test]
fn explain_tells_what_would_happen() {
    struct Case {
        request: String,
        /// Parts of the output, in order.
        shown: &'static [&'static str],
    }
    let folder = folder(CONFIGURATION, &snapshot(&[("openai", "openai")]));
    let cases = [
        Case {
            request: format!(
                "POST /v1/chat/completions?key={CANARY} HTTP/1.1\nx-portkey-provider: @openai\nauthorization: Bearer {CANARY}\n\
                 content-type: application/json\n\n{{\"model\": \"gpt-4o\"}}"
            ),
            shown: &[
                "POST /v1/chat/completions?…\n",
                "mode     header",
                "entity   openai, integration of provider openai",
                "sets     x-portkey-provider  openai",
                "authorization       the secret of reference openai",
                "removes  x-portkey-provider, authorization",
                "changes  the query",
            ],
        },
        Case {
            request: "POST /v1/chat/completions\ncontent-type: application/json\n\n{\"model\": \"@openai/gpt-4o\"}"
                .to_owned(),
            shown: &["mode     header", "changes  model in the body"],
        },
        Case {
            request: "POST /v1/chat/completions\nx-portkey-provider: @nobody\n\n".to_owned(),
            shown: &["refused  400 entity_not_found", "because  ", "nobody: no such name"],
        },
        Case {
            request: format!("POST /v1/models\nx-portkey-provider: @openai\nx-portkey-custom-host: http://{CANARY}\n"),
            shown: &[
                "refused  403 destination_not_allowed",
                "because  ",
                "x-portkey-custom-host",
                "the stored entity decides",
            ],
        },
        Case { request: "GET /v1/models".to_owned(), shown: &["mode     unmatched"] },
        Case { request: "GET /log/stream".to_owned(), shown: &["refused  404 not_found"] },
        Case { request: "GET /v1/virtual-keys".to_owned(), shown: &["refused  404 not_found", "admin path"] },
    ];
    for Case { request, shown } in cases {
        let ran = sidekey_reading(folder.path(), &["explain", "--config", "sidecar.yaml"], &[], &request);
        assert_eq!((ran.status, ran.err.as_str()), (0, ""), "{request}: {ran:?}");
        let mut rest = ran.out.as_str();
        for part in shown {
            let Some((_, after)) = rest.split_once(part) else { panic!("{request}: no {part:?} in {}", ran.out) };
            rest = after;
        }
        assert!(!ran.out.contains(CANARY), "{request}: {ran:?}");
    }
}

#[test]
fn explain_wants_a_request_and_a_snapshot() {
    let folder = folder(CONFIGURATION, &snapshot(&[("openai", "openai")]));
    let here = folder.path();
    let ran = sidekey_reading(here, &["explain", "--config", "sidecar.yaml"], &[], "");
    assert_eq!((ran.status, ran.out.as_str()), (64, ""), "{ran:?}");
    assert!(ran.err.starts_with("standard input: is empty"), "{ran:?}");
    fs::write(here.join("snapshot.json"), "{").unwrap();
    let ran = sidekey_reading(here, &["explain", "--config", "sidecar.yaml"], &[], "GET /v1/models");
    assert_eq!((ran.status, ran.out.as_str()), (64, ""), "{ran:?}");
    assert!(ran.err.starts_with("snapshot.json: "), "{ran:?}");
}

#[test]
fn check_fetches_every_reference_and_shows_no_value() {
    let folder = folder(CONFIGURATION, &snapshot(&[("good", "openai"), ("same", "openai"), ("absent", "nothing")]));
    fs::write(folder.path().join("key"), "0123456789abcdef").unwrap();
    let variables = [("SIDEKEY_FINGERPRINT_KEY_FILE", "key")];
    let ran = sidekey(folder.path(), &["check", "--config", "sidecar.yaml", "--resolve"], &variables);
    assert_eq!(ran.status, 1, "{ran:?}");
    let rows: Vec<Vec<&str>> =
        ran.out.lines().map(|line| line.split("  ").filter(|cell| !cell.is_empty()).collect()).collect();
    assert_eq!(rows[0], ["no problems; 3 references and 3 entities"]);
    assert_eq!(
        rows[1].iter().map(|cell| cell.trim()).collect::<Vec<_>>(),
        ["REFERENCE", "MANAGER", "IDENTITY", "CLASS", "VERSION", "LATENCY", "FINGERPRINT"]
    );
    let cell = |row: usize, column: usize| rows[row][column].trim();
    assert_eq!((cell(2, 0), cell(2, 1), cell(2, 3)), ("good", "file", "ok"), "{}", ran.out);
    // HMAC-SHA-256 under the key of the file, as openssl prints it.
    assert_eq!((cell(2, 6), cell(3, 6)), (FINGERPRINT, FINGERPRINT), "{}", ran.out);
    assert_eq!((cell(4, 0), cell(4, 4), cell(4, 6)), ("absent", "-", "-"), "{}", ran.out);
    assert!(cell(4, 3).starts_with("gone"), "{}", ran.out);
    assert_eq!(rows[5], ["2 of 3 references fetched"]);
    assert!(!ran.out.contains(CANARY) && ran.err.is_empty(), "{ran:?}");

    fs::write(folder.path().join("snapshot.json"), snapshot(&[("good", "openai")])).unwrap();
    let ran = sidekey(folder.path(), &["check", "--config", "sidecar.yaml", "--resolve"], &[]);
    assert_eq!(ran.status, 0, "{ran:?}");
    assert!(ran.out.ends_with("1 reference fetched\n") && !ran.out.contains(FINGERPRINT), "{ran:?}");
}
