//! Sealing and opening: what other tools write, what was moved, what was changed.

use super::*;
use crate::seal::{
    MAX_VALUE_BYTES,
    recipient::{NotARecipient, Recipients, SealError},
};

const PLACE: Place<'_> = Place { organisation: "org-1", object_id: "ref-1", field: "auth_config.vault_token" };

fn pair() -> (Identities, Recipients) {
    let identity = Identity::generate().unwrap();
    let recipients = Recipients::new(vec![identity.recipient()]).unwrap();
    (identity.into(), recipients)
}

#[test]
fn a_value_comes_back_as_it_was() {
    let (identities, recipients) = pair();
    for value in ["", "hvs.token", "line\nbreak \"quoted\" \\ \0 é 🔑", &"x".repeat(MAX_VALUE_BYTES)] {
        let sealed = recipients.seal(PLACE, value).unwrap();
        assert_eq!(identities.open(PLACE, &sealed).unwrap().expose_str(), Some(value));
    }
    assert_eq!(recipients.seal(PLACE, &"x".repeat(MAX_VALUE_BYTES + 1)), Err(SealError::TooLong));
}

#[test]
fn the_same_value_is_never_sealed_to_the_same_text() {
    let (_, recipients) = pair();
    assert_ne!(recipients.seal(PLACE, "value").unwrap(), recipients.seal(PLACE, "value").unwrap());
}

#[test]
fn every_recipient_opens_and_nobody_else() {
    let (one, other, stranger) = (Identity::generate(), Identity::generate(), Identity::generate());
    let (one, other, stranger) = (one.unwrap(), other.unwrap(), stranger.unwrap());
    let recipients = Recipients::new(vec![one.recipient(), other.recipient()]).unwrap();
    let sealed = recipients.seal(PLACE, "value").unwrap();
    for identity in [one, other] {
        assert_eq!(Identities::from(identity).open(PLACE, &sealed).unwrap().expose(), b"value");
    }
    assert_eq!(Identities::from(stranger).open(PLACE, &sealed).unwrap_err(), OpenError::NotForUs);
    assert_eq!(Recipients::new(Vec::new()), None);
}

#[test]
fn a_value_that_was_moved_is_not_opened() {
    let (identities, recipients) = pair();
    let sealed = recipients.seal(PLACE, "value").unwrap();
    let elsewhere = [
        Place { organisation: "org-2", ..PLACE },
        Place { object_id: "ref-2", ..PLACE },
        Place { field: "auth_config.vault_secret_id", ..PLACE },
    ];
    for place in elsewhere {
        assert_eq!(identities.open(place, &sealed).unwrap_err(), OpenError::Elsewhere, "{place:?}");
    }
}

#[test]
fn no_byte_can_be_changed() {
    let (identities, recipients) = pair();
    let sealed = STANDARD.decode(recipients.seal(PLACE, "value").unwrap()).unwrap();
    for at in 0..sealed.len() {
        let mut changed = sealed.clone();
        changed[at] ^= 1;
        assert!(identities.open(PLACE, &STANDARD.encode(&changed)).is_err(), "byte {at}");
        assert!(identities.open(PLACE, &STANDARD.encode(&sealed[..at])).is_err(), "cut at {at}");
    }
    let longer = [&sealed[..], b"x"].concat();
    assert!(identities.open(PLACE, &STANDARD.encode(longer)).is_err());
}

#[test]
fn what_the_age_tool_wrote_is_opened() {
    // Made with pyrage 1.3 (rage): two recipients and a stanza of grease.
    let identity = "# made for this test\nAGE-SECRET-KEY-12J9LYYTF2STNFXPCC4G4SHSZFXC7TVMGS4Z9PEKXR65EE9HKYQFQY3WKWF\n";
    let sealed = "YWdlLWVuY3J5cHRpb24ub3JnL3YxCi0+IFgyNTUxOSBVZXY1UjNrYzVQbjBwZnRkNldZaXJ2Q01ZKzhybFhzdE9WYU4yZjByNUc4C\
        jNzNVEvVktOWXpEQXBpZFZsbEdINndhbDV1M1JWU1dOblRSS2pmMEZFVjAKLT4gWDI1NTE5IEtrVlpFa2xFTzl5U1EwMTNnUlgvT0x6TzYzYkR\
        rMmVBclp1eFV0Uk8xQWMKV1k1SzN4QVBtZ1J6bVkzRmpXNDRPUlF0VVRXQ0cweGhhNjNOQ25KWnpodwotPiA4Ki1ncmVhc2UKWU9UNG5pM1Rwa\
        kE0aTJhRmNRbXdLZUxuNXhFSjRwcjZvWGUxMTFNUkgxUzJqVnlmaWJCdHhJVXJOamRFZ3YzUgpCU2hIa01FMzUyRDJlUURDaU1oZURpbWJ5VDB\
        pWEZoa0VVWTgrZkFTemcKLS0tIFBFWGNWN29DdVhQN0tGa295L2xSK3NmNW1MVmlFSFJCL1Q5NlNobUkrNUEKzLSvuujeg+eay44nt1J2ql5dg\
        X0WdlBy5aeWH5/tm7q//bdwWWd8RJKxOtpEtLVMRkH54nyovbndZ/BIbZYxCy3f3+sMDyNLrLM2czerELS/6JcWp8galCz0rCkRRzAuRJpyfUs\
        uI1XlVR3KRvnnqgkfkLPMTSFKvgi9kZJIzmHZ099FTTfdkHTaVBXTvQNXurwX";
    let identities = Identities::parse(identity).unwrap();
    let recipients: Vec<_> = identities.recipients().map(|recipient| recipient.to_string()).collect();
    assert_eq!(recipients, ["age1qk42aafh82ft543wgujtgudmn4t0223lan3v3spq26ffdmn0z3cqju5vlz"]);
    assert_eq!(identities.open(PLACE, sealed).unwrap().expose_str(), Some("hvs.café \"x\""));
}

#[test]
fn an_identity_survives_its_file() {
    let identity = Identity::generate().unwrap();
    let text = identity.expose().unwrap();
    let again = Identities::parse(&format!("\n# comment\n  {}  \n", *text)).unwrap();
    assert_eq!(again.recipients().collect::<Vec<_>>(), [identity.recipient()]);
    assert_eq!(identity.recipient().to_string().parse(), Ok(identity.recipient()));
    assert!(!format!("{identity:?} {again:?}").contains("SECRET"));
}

#[test]
fn keys_that_are_none_are_refused_without_being_quoted() {
    let identity = Identity::generate().unwrap();
    let secret = identity.expose().unwrap();
    let public = identity.recipient().to_string();
    assert_eq!(secret.parse::<Recipient>(), Err(NotARecipient::Private));
    assert_eq!(secret.to_lowercase().parse::<Recipient>(), Err(NotARecipient::Private));
    for text in ["", "age1", &public[..60], &public.to_uppercase(), &public.replace('1', "2")] {
        assert_eq!(text.parse::<Recipient>(), Err(NotARecipient::Other), "{text}");
    }
    assert_eq!(Identities::parse("").unwrap_err(), NotAnIdentity::Nothing);
    assert_eq!(Identities::parse("# none\n\n").unwrap_err(), NotAnIdentity::Nothing);
    let error = Identities::parse(&format!("{}\n{public}\n", *secret)).unwrap_err();
    assert_eq!(error, NotAnIdentity::Line(2));
    assert!(!error.to_string().contains(&public));
}
