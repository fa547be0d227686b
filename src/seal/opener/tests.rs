//! Opening when it is needed: once, remembered, named when it fails, tried again with new identities.

use std::fs;

use super::*;
use crate::seal::{identity::Identity, recipient::Recipients};

fn pair() -> (Identity, Recipients) {
    let identity = Identity::generate().unwrap();
    let recipients = Recipients::new(vec![identity.recipient()]).unwrap();
    (identity, recipients)
}

fn sealed(opener: &Arc<Opener>, recipients: &Recipients, belongs: &str, stands: &str) -> Arc<Sealed> {
    let place = Place { organisation: "o", object_id: belongs, field: "key" };
    let text = recipients.seal(place, "canary-value").unwrap();
    Arc::new(Sealed::new(opener, &"o".into(), &stands.into(), "key", text.as_bytes()).unwrap())
}

fn text(value: SecretValue) -> Result<Credential, &'static str> {
    Ok(Credential::text(value))
}

#[test]
fn a_value_is_opened_once_and_remembered() {
    let (identity, recipients) = pair();
    let opener = Arc::new(Opener::new(identity.into()));
    let sealed = sealed(&opener, &recipients, "a", "a");
    let first = sealed.credential(text).unwrap();
    assert_eq!(first.expose(), "canary-value");
    assert!(Arc::ptr_eq(&first, &sealed.credential(text).unwrap()), "opened a second time");
    assert!(opener.unopened().is_empty());
    let shown = format!("{opener:?} {sealed:?} {first:?}");
    assert!(!shown.contains("canary") && shown.contains("age1"), "{shown}");
}

#[test]
fn what_cannot_be_used_is_named_while_a_snapshot_holds_it() {
    let (identity, recipients) = pair();
    let (_, strangers) = pair();
    let opener = Arc::new(Opener::new(identity.into()));
    let refuse: Form = |_| Err("must be text");
    let cases = [
        (sealed(&opener, &strangers, "a", "a"), text as Form, Unusable::Unopened(OpenError::NotForUs)),
        (sealed(&opener, &recipients, "a", "b"), text, Unusable::Unopened(OpenError::Elsewhere)),
        (sealed(&opener, &recipients, "c", "c"), refuse, Unusable::Unfit("must be text")),
    ];
    for (sealed, form, reason) in &cases {
        for _ in 0..2 {
            assert_eq!(sealed.credential(*form).unwrap_err(), *reason);
        }
    }
    let named: Vec<_> = opener.unopened();
    let expected = ["a", "b", "c"].map(|object| format!("key of {object}"));
    assert_eq!(named.iter().map(|(at, _)| at.clone()).collect::<Vec<_>>(), expected);
    assert_eq!(named.iter().map(|(_, reason)| *reason).collect::<Vec<_>>(), cases.each_ref().map(|case| case.2));
    drop(cases);
    assert!(opener.unopened().is_empty(), "no snapshot holds them any more");
}

#[test]
fn a_copy_elsewhere_is_not_found_in_the_memo() {
    let (identity, recipients) = pair();
    let opener = Arc::new(Opener::new(identity.into()));
    let text_of = recipients.seal(Place { organisation: "o", object_id: "a", field: "key" }, "v").unwrap();
    let at =
        |object: &str| Arc::new(Sealed::new(&opener, &"o".into(), &object.into(), "key", text_of.as_bytes()).unwrap());
    assert!(at("a").credential(text).is_ok());
    assert_eq!(at("b").credential(text).unwrap_err(), Unusable::Unopened(OpenError::Elsewhere));
}

#[test]
fn a_new_identity_is_read_from_the_file_and_everything_is_tried_again() {
    let (old, _) = pair();
    let (new, recipients) = pair();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("identity");
    let write = |identities: &[&Identity]| {
        let lines: Vec<_> = identities.iter().map(|identity| identity.expose().unwrap().to_string()).collect();
        fs::write(&file, format!("# made by a test\n{}\n", lines.join("\n"))).unwrap();
    };
    assert!(matches!(Opener::load(file.clone()), Err(IdentityFileError::Read { .. })));
    fs::write(&file, "age1canary\n").unwrap();
    let error = Opener::load(file.clone()).unwrap_err();
    assert!(matches!(error, IdentityFileError::Content { .. }) && !error.to_string().contains("canary"), "{error}");

    write(&[&old]);
    let opener = Arc::new(Opener::load(file.clone()).unwrap());
    let sealed = sealed(&opener, &recipients, "a", "a");
    assert_eq!(sealed.credential(text).unwrap_err(), Unusable::Unopened(OpenError::NotForUs));
    fs::write(&file, "nothing of use").unwrap();
    opener.refresh();
    assert_eq!(opener.recipients(), [old.recipient().to_string()], "the last good ones stay");
    write(&[&old, &new]);
    opener.refresh();
    assert!(opener.unopened().is_empty());
    assert_eq!(sealed.credential(text).unwrap().expose(), "canary-value");
}

#[test]
fn what_is_no_age_file_is_no_sealed_value() {
    let (identity, recipients) = pair();
    let opener = Arc::new(Opener::new(identity.into()));
    let good = recipients.seal(Place { organisation: "o", object_id: "a", field: "key" }, "v").unwrap();
    let cut = &good[..40];
    for text in ["", "YWdl", "not base64", cut] {
        assert!(Sealed::new(&opener, &"o".into(), &"a".into(), "key", text.as_bytes()).is_none(), "{text}");
    }
}
