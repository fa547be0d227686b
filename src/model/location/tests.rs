//! Every form of `secret_path`, and the property that a location never climbs.

use proptest::prelude::*;

use super::*;
use ManagerType::{AwsSm, AwsSsm, AzureKv, File, GcpSm, HashicorpVault as Vault};

fn pinned(version: &str) -> VersionSelector {
    VersionSelector::Pinned(version.into())
}

fn stage(label: &str) -> VersionSelector {
    VersionSelector::Stage(label.into())
}

#[test]
fn paths_and_versions_are_told_apart() {
    use VersionSelector::{Current, Previous};
    #[rustfmt::skip]
    let cases = [
        // manager, written                                     path                                version
        (Vault,   "secret/data/openai",                         "secret/data/openai",               Current),
        (Vault,   "secret/data/openai?version=3",               "secret/data/openai",               pinned("3")),
        (Vault,   "secret/data/what?now?version=12",            "secret/data/what?now",             pinned("12")),
        (Vault,   "/v1/secret/data/a b/",                       "/v1/secret/data/a b/",             Current),
        (Vault,   "secret/..data/a...b",                        "secret/..data/a...b",              Current),
        (AwsSm,   "prod/openai?stage=AWSCURRENT",               "prod/openai",                      Current),
        (AwsSm,   "prod/openai?stage=AWSPREVIOUS",              "prod/openai",                      Previous),
        (AwsSm,   "prod/openai?stage=blue",                     "prod/openai",                      stage("blue")),
        (AwsSm,   "prod/openai?version=5e1f-AB",                "prod/openai",                      pinned("5e1f-AB")),
        (AwsSm,   "arn:aws:secretsmanager:eu-west-1:1:secret:a-b", "arn:aws:secretsmanager:eu-west-1:1:secret:a-b", Current),
        (AwsSsm,  "/prod/openai",                               "/prod/openai",                     Current),
        (AwsSsm,  "/prod/openai:7",                             "/prod/openai",                     pinned("7")),
        (AwsSsm,  "/prod/openai:blue",                          "/prod/openai",                     stage("blue")),
        (AwsSsm,  "arn:aws:ssm:eu-west-1:1:parameter/prod/key", "arn:aws:ssm:eu-west-1:1:parameter/prod/key", Current),
        (AwsSsm,  "arn:aws:ssm:eu-west-1:1:parameter/prod/key:9", "arn:aws:ssm:eu-west-1:1:parameter/prod/key", pinned("9")),
        (AzureKv, "openai-api-key?version=0123abcd",            "openai-api-key",                   pinned("0123abcd")),
        (GcpSm,   "projects/p/secrets/s?version=4",             "projects/p/secrets/s",             pinned("4")),
        (GcpSm,   "projects/p/secrets/s?version=latest",        "projects/p/secrets/s",             Current),
        (File,    "openai/api-key",                             "openai/api-key",                   Current),
        (File,    "%2e%2e%2e",                                  "%2e%2e%2e",                        Current),
    ];
    for (manager, written, path, version) in cases {
        let location =
            SecretLocation::parse(manager, written, None).unwrap_or_else(|error| panic!("{written}: {error}"));
        assert_eq!((&*location.path, &location.version), (path, &version), "{manager:?} {written}");
    }
}

#[test]
fn what_cannot_be_meant_is_refused() {
    use LocationError::*;
    let is = |expected: LocationError| move |error: &LocationError| *error == expected;
    let selector = || |error: &LocationError| matches!(error, Selector { .. });
    let value = || |error: &LocationError| matches!(error, Value { .. });
    let unversioned = || |error: &LocationError| matches!(error, Unversioned { .. });
    type Check = Box<dyn Fn(&LocationError) -> bool>;
    #[rustfmt::skip]
    let cases: Vec<(ManagerType, &str, Option<u8>, Check)> = vec![
        // manager, written                            KV version   refused as
        (Vault,   "",                                  None,        Box::new(is(Empty))),
        (Vault,   "//",                                None,        Box::new(is(Empty))),
        (Vault,   "?version=3",                        None,        Box::new(is(Empty))),
        (Vault,   "secret/../sys/raw",                 None,        Box::new(is(Climbs))),
        (Vault,   "..",                                None,        Box::new(is(Climbs))),
        (Vault,   "secret/%2e%2E/sys",                 None,        Box::new(is(Climbs))),
        (Vault,   "secret/.%2e/sys",                   None,        Box::new(is(Climbs))),
        (Vault,   "secret%2f..%2fsys",                 None,        Box::new(is(Climbs))),
        (Vault,   "secret/%252e%252e/sys",             None,        Box::new(is(Climbs))),
        (Vault,   "secret/..%5c../sys",                None,        Box::new(is(Climbs))),
        (Vault,   "secret\\..\\sys",                   None,        Box::new(is(Climbs))),
        (Vault,   "secret/..?version=1",               None,        Box::new(is(Climbs))),
        (Vault,   "secret/a\nb",                       None,        Box::new(is(Control))),
        (Vault,   "secret/a\0",                        None,        Box::new(is(Control))),
        (Vault,   "secret/a\u{7f}",                    None,        Box::new(is(Control))),
        (Vault,   "secret/a\u{85}",                    None,        Box::new(is(Control))),
        (Vault,   "secret/data/a#key",                 None,        Box::new(is(Fragment))),
        (Vault,   "secret/a?",                         None,        Box::new(selector())),
        (Vault,   "secret/a?now",                      None,        Box::new(selector())),
        (Vault,   "secret/a?stage=AWSCURRENT",         None,        Box::new(selector())),
        (Vault,   "secret/a?Version=1",                None,        Box::new(selector())),
        (Vault,   "secret/a?version=",                 None,        Box::new(value())),
        (Vault,   "secret/a?version=0",                None,        Box::new(value())),
        (Vault,   "secret/a?version=-1",               None,        Box::new(value())),
        (Vault,   "secret/a?version=01",               None,        Box::new(value())),
        (Vault,   "secret/a?version=latest",           None,        Box::new(value())),
        (Vault,   "secret/a?version=1?version=2",      None,        Box::new(is(TwoVersions))),
        (Vault,   "secret/a?version=1&version=2",      None,        Box::new(is(TwoVersions))),
        (Vault,   "secret/a?version=1",                Some(1),     Box::new(unversioned())),
        (AwsSm,   "a?stage=blue&version=5",            None,        Box::new(is(TwoVersions))),
        (AwsSm,   "a?version=5?stage=blue",            None,        Box::new(is(TwoVersions))),
        (AwsSm,   "a?stage=",                          None,        Box::new(value())),
        (AwsSm,   "a?version=a/b",                     None,        Box::new(value())),
        (AwsSsm,  "a?version=1",                       None,        Box::new(selector())),
        (AwsSsm,  "a:1:2",                             None,        Box::new(is(TwoVersions))),
        (AwsSsm,  "a:",                                None,        Box::new(value())),
        (AwsSsm,  "a:b c",                             None,        Box::new(value())),
        (AzureKv, "a?stage=x",                         None,        Box::new(selector())),
        (File,    "a?version=1",                       None,        Box::new(unversioned())),
        (File,    "/etc/passwd",                       None,        Box::new(is(Absolute))),
        (File,    "a/../../b",                         None,        Box::new(is(Climbs))),
    ];
    for (manager, written, kv_version, is_expected) in cases {
        let error = SecretLocation::parse(manager, written, kv_version).expect_err(written);
        assert!(is_expected(&error), "{manager:?} {written:?}: {error:?}");
    }
}

#[test]
fn the_limit_is_in_bytes() {
    let fits = "é".repeat(MAX_PATH_BYTES / 2);
    assert!(SecretLocation::parse(Vault, &fits, None).is_ok());
    assert_eq!(SecretLocation::parse(Vault, &format!("{fits}a"), None), Err(LocationError::TooLong));
}

#[test]
fn a_pinned_version_is_fine_where_the_kv_version_is_two_or_unknown() {
    for kv_version in [None, Some(2)] {
        assert!(SecretLocation::parse(Vault, "secret/a?version=1", kv_version).is_ok());
    }
}

proptest! {
    /// Whatever is accepted holds what the type promises, and its path means the same when parsed again.
    #[test]
    fn what_is_accepted_keeps_its_promises(written in r"[a-z0-9%.\\/?=&:# \t\n-]{0,40}", manager in 0..6_usize) {
        let manager = ManagerType::ALL[manager];
        if let Ok(location) = SecretLocation::parse(manager, &written, None) {
            let path = &*location.path;
            prop_assert!(written.starts_with(path));
            prop_assert!(!path.is_empty() && path.len() <= MAX_PATH_BYTES);
            prop_assert!(!path.chars().any(char::is_control));
            let decoded = percent_decode_str(path).decode_utf8_lossy().into_owned();
            prop_assert!(!decoded.split(['/', '\\']).any(|segment| segment == ".."), "{}", decoded);
            if !path.contains(['?', ':']) {
                let again = SecretLocation::parse(manager, path, None);
                prop_assert_eq!(again.map(|again| again.version), Ok(VersionSelector::Current));
            }
        }
    }

    #[test]
    fn nothing_makes_it_panic(written in any::<String>(), manager in 0..6_usize) {
        let _ = SecretLocation::parse(ManagerType::ALL[manager], &written, Some(2));
    }
}
