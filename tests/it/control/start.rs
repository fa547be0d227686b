//! Starting, stopping and starting again; who gets in.

use std::{fs, os::unix::fs::PermissionsExt as _};

use http::Method;
use serde_json::Value;
use sidekey::{
    app::ControlPlane,
    control::store::{Location, Store, StoreError},
};

use super::stage::{Stage, config, refusal};
use crate::harness::Call;

const RECIPIENT: &str = "age1qk42aafh82ft543wgujtgudmn4t0223lan3v3spq26ffdmn0z3cqju5vlz";

#[tokio::test]
async fn the_first_start_makes_files_for_its_owner_alone() {
    let stage = Stage::start().await;
    let on_sqlite = ["control.db", "api-key-hash", "signing-key.pem"];
    let made = if stage.folder.path().join("control.db").exists() { &on_sqlite[..] } else { &[] };
    for name in made.iter().chain(&["bootstrap-key"]) {
        let mode = fs::metadata(stage.folder.path().join(name)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{name}");
    }
    assert!(!stage.log.text().contains(stage.owner.trim()), "the OWNER key is in the log");
    assert!(stage.log.text().contains("bootstrap-key"), "the log does not say where the OWNER key is");
}

#[tokio::test]
async fn a_second_start_finds_what_the_first_made() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("bootstrap-key"), "an-owner-key-that-somebody-chose-1\n").unwrap();
    for _ in 0..2 {
        let control = ControlPlane::start(config(folder.path(), RECIPIENT, "")).await.unwrap();
        let call = Call::to(control.address(), Method::GET, "/v1/secret-references");
        let reply = call.header("authorization", "Bearer an-owner-key-that-somebody-chose-1").send().await;
        assert_eq!(reply.status, 200, "{}", reply.text());
        assert_eq!(control.control().store().organisations().await.unwrap().len(), 1);
        control.stop().await;
    }
}

#[tokio::test]
async fn an_owner_key_that_can_be_guessed_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("bootstrap-key"), "secret\n").unwrap();
    let error = ControlPlane::start(config(folder.path(), RECIPIENT, "")).await.unwrap_err();
    assert!(error.is_configuration(), "{error:?}");
    assert!(!format!("{error:?}").contains("secret\""));
}

#[tokio::test]
async fn a_newer_schema_is_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let location = Location::File(folder.path().join("control.db"));
    Store::open(&location).await.unwrap().close().await;
    let newer = "INSERT INTO schema_steps (step, at) VALUES (99, 0)";
    let url = format!("sqlite:{}", folder.path().join("control.db").display());
    let pool = sqlx::SqlitePool::connect(&url).await.unwrap();
    sqlx::query(newer).execute(&pool).await.unwrap();
    pool.close().await;
    let error = Store::open(&location).await.unwrap_err();
    assert!(matches!(error, StoreError::Newer { found: 99, .. }), "{error:?}");
    assert!(error.to_string().contains("run the newer sidekey"), "{error}");
}

#[tokio::test]
async fn several_first_starts_at_once_make_one_schema() {
    let folder = tempfile::tempdir().unwrap();
    let location = Location::File(folder.path().join("control.db"));
    let starts = (0..8).map(|_| {
        let location = location.clone();
        tokio::spawn(async move { Store::open(&location).await?.epoch().await })
    });
    let mut epochs = Vec::new();
    for start in starts.collect::<Vec<_>>() {
        epochs.push(start.await.unwrap().unwrap());
    }
    assert!(epochs.iter().all(|epoch| *epoch == epochs[0]), "{epochs:?}");
}

#[tokio::test]
async fn only_a_known_key_gets_in() {
    let stage = Stage::start().await;
    let address = stage.control.address();
    let get = || Call::to(address, Method::GET, "/v1/secret-references");
    let owner = &stage.owner;
    struct Case<'a> {
        name: &'a str,
        headers: Vec<(&'a str, String)>,
        status: u16,
    }
    let cases = [
        Case { name: "nothing", headers: vec![], status: 401 },
        Case { name: "empty", headers: vec![("x-portkey-api-key", String::new())], status: 401 },
        Case { name: "unknown", headers: vec![("x-portkey-api-key", "sk-sidekey-x".to_owned())], status: 401 },
        Case { name: "longer", headers: vec![("x-portkey-api-key", format!("{owner}x"))], status: 401 },
        Case { name: "basic", headers: vec![("authorization", format!("Basic {owner}"))], status: 401 },
        Case { name: "own header", headers: vec![("x-portkey-api-key", owner.clone())], status: 200 },
        Case { name: "bearer", headers: vec![("authorization", format!("bearer {owner}"))], status: 200 },
        Case {
            name: "an empty own header beside a bearer",
            headers: vec![("x-portkey-api-key", String::new()), ("authorization", format!("Bearer {owner}"))],
            status: 200,
        },
        Case {
            name: "a wrong own header beside a right bearer",
            headers: vec![("x-portkey-api-key", "x".to_owned()), ("authorization", format!("Bearer {owner}"))],
            status: 401,
        },
    ];
    for Case { name, headers, status } in cases {
        let call = headers.iter().fold(get(), |call, (name, value)| call.header(name, value));
        let reply = call.send().await;
        assert_eq!(reply.status, status, "{name}: {}", reply.text());
        if status == 401 {
            assert_eq!(refusal(&reply), (401, "AB05".to_owned(), "Unauthorised Request".to_owned()), "{name}");
        }
    }
}

#[tokio::test]
async fn what_is_not_served_is_answered_in_the_same_shape() {
    let stage = Stage::start().await;
    let cases = [
        (Method::GET, "/v1/nothing", 404, "AB02"),
        (Method::GET, "/", 404, "AB02"),
        (Method::GET, "/v1/v1/secret-references", 404, "AB02"),
        (Method::PATCH, "/v1/secret-references", 405, "AB02"),
        (Method::GET, "/secret-references/none", 404, "AB08"),
        (Method::GET, "/v1/secret-references/%2e%2e", 404, "AB08"),
        (Method::PUT, "/secret-references/none", 400, "AB01"),
        (Method::GET, "/secret-references/a%00b", 400, "AB01"),
        (Method::GET, "/v1/secret-references?search=%00", 400, "AB01"),
    ];
    for (method, target, status, code) in cases {
        let reply = stage.send(method, target, Value::Null).await;
        let (found, found_code, _) = refusal(&reply);
        assert_eq!((found, found_code.as_str()), (status, code), "{target}");
        assert!(reply.header("x-portkey-request-id").is_some(), "{target}");
    }
    for (target, key) in [("/healthz", "alive"), ("/readyz", "ready")] {
        let reply = Call::to(stage.control.address(), Method::GET, target).send().await;
        assert_eq!((reply.status, &reply.json()[key]), (200, &Value::Bool(true)), "{target}");
    }
}

#[tokio::test]
async fn the_hash_file_is_read_again() {
    let stage = Stage::start().await;
    let control = stage.control.control();
    let file = stage.folder.path().join("api-key-hash");
    let old = fs::read_to_string(&file).unwrap();
    let settings = config(stage.folder.path(), RECIPIENT, "").control;
    let new = "k2 AgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgI=\n";
    // (content, whether it can be used, whether the OWNER gets in)
    let cases = [(format!("{new}{old}"), true, 200), ("rubbish".to_owned(), false, 200), (new.to_owned(), true, 401)];
    for (content, usable, status) in cases {
        fs::write(&file, content).unwrap();
        assert_eq!(control.refresh_hashes(&settings).is_ok(), usable);
        assert_eq!(stage.send(Method::GET, "/secret-references", Value::Null).await.status, status);
    }
}
