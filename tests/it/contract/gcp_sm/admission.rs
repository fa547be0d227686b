//! Which references are admitted, and what the others are told.

use sidekey::manager::registry::Ambient;

use super::*;

#[test]
fn what_cannot_be_read_is_refused_at_load() {
    let key = |json: &str| GcpMethod::ServiceAccountKey { key: json.to_owned().into() };
    let good = || key(&server::key_file());
    let no_project = |method| GcpAuth { project: None, location: None, method };
    let in_region = |method| GcpAuth { project: None, location: Some("us-east1".into()), method };
    let stage = versioned(SECRET, VersionSelector::Stage("AWSCURRENT".into()));
    #[rustfmt::skip]
    let rows = [
        // auth, location, what the reason says
        (auth(Method::Key), Some(at("found")), None),
        (auth(Method::Key), None, None),
        (no_project(good()), Some(at("found")), Some("gcp_project_id")),
        (auth(Method::Key), Some(at("projects/p/secrets/a.b")), Some("letters, digits")),
        (auth(Method::Key), Some(pinned(SECRET, "1.5")), Some("number from 1 on or an alias")),
        (auth(Method::Key), Some(stage), Some("number from 1 on or an alias")),
        (auth(Method::Key), Some(pinned("projects/p/secrets/s/versions/1", "2")), Some("two versions")),
        (in_region(good()), Some(at("projects/p/locations/us-east4/secrets/s")), Some("another location")),
        (no_project(key("{}")), None, Some("service_account")),
        (no_project(key(r#"{"type":"service_account"}"#)), None, Some("client_email")),
        (no_project(key("{}")), Some(at("a")), Some("gcp_project_id or write projects/PROJECT/secrets/SECRET; gcp_service_account_json must")),
    ];
    let registry = registry(GcpSettings::default());
    for (auth, location, expected) in rows {
        let verdict = registry.admit(ManagerType::GcpSm, &AuthConfig::Gcp(auth), location.as_ref());
        match (expected, verdict) {
            (None, Ok(())) => {}
            (Some(text), Err(reason)) if reason.contains(text) => {}
            (expected, verdict) => panic!("{location:?} should say {expected:?} and says {verdict:?}"),
        }
    }
}

#[test]
fn a_key_that_cannot_sign_makes_no_manager() {
    let json = json!({"type": "service_account", "client_email": "a@b",
        "private_key": "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"});
    let method = GcpMethod::ServiceAccountKey { key: json.to_string().into() };
    let auth = AuthConfig::Gcp(GcpAuth { project: None, location: None, method });
    let error = registry(GcpSettings::default()).manager(&reference("gcp", ManagerType::GcpSm, auth, at(SECRET)));
    assert_eq!(error.unwrap_err().class, FailureClass::Misconfigured);
}

#[test]
fn the_own_identity_is_the_operators_to_lend() {
    let paths = |paths: &[&str]| paths.iter().map(|path| (*path).to_owned()).collect();
    #[rustfmt::skip]
    let rows = [
        // ambient, ambient_paths, path, what the reason says
        (true, paths(&[]), "found", None),
        (false, paths(&[]), "found", Some("managers.gcp_sm.ambient is off")),
        (true, paths(&["projects/p"]), "found", None),
        (true, paths(&["projects/p/secrets/found"]), SECRET, None),
        (true, paths(&["projects/p/secrets/found"]), "projects/p/secrets/found/versions/2", None),
        (true, paths(&["projects/p/secrets/fo"]), SECRET, Some("managers.gcp_sm.ambient_paths")),
        (true, paths(&["projects/other"]), "found", Some("managers.gcp_sm.ambient_paths")),
        // A bare name is another secret in every project.
        (true, paths(&["found"]), "found", Some("managers.gcp_sm.ambient_paths")),
    ];
    for (allowed, paths, path, expected) in rows {
        let ambient = Ambient { allowed, paths };
        let registry = registry(GcpSettings { ambient, ..GcpSettings::default() });
        let verdict = |method| registry.admit(ManagerType::GcpSm, &AuthConfig::Gcp(auth(method)), Some(&at(path)));
        assert_eq!(verdict(Method::Key), Ok(()), "a key is the reference's own");
        let reason = verdict(Method::Workload).err();
        assert_eq!(reason.is_some(), expected.is_some(), "{path} {reason:?}");
        assert!(reason.unwrap_or_default().contains(expected.unwrap_or_default()), "{path}");
    }
}
