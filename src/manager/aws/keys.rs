//! Access keys on their way: from where they were issued, through a [`Session`](crate::manager::session::Session), into a
//! signature.
//!
//! A session keeps one line of text for each login. Here that is access key id, secret key and session token with tabs
//! between them, none of which can hold one, in a single buffer that is wiped. The SDK wipes its own form too.

use std::time::SystemTime;

use aws_credential_types::Credentials;
use zeroize::Zeroizing;

use crate::manager::session::{Grant, Lease, Token};

const SEPARATOR: &str = "\t";

/// A login's outcome; `expires` = when AWS ends it, `None` for keys without an end.
pub(super) fn grant(id: &str, secret: &str, session: Option<&str>, expires: Option<SystemTime>) -> Grant {
    let fields = [id, secret, session.unwrap_or_default()];
    let mut line = Zeroizing::new(Vec::with_capacity(fields.iter().map(|field| field.len() + 1).sum()));
    for field in fields {
        line.extend_from_slice(field.as_bytes());
        line.extend_from_slice(SEPARATOR.as_bytes());
    }
    let lease = expires.map_or(Lease::Endless, |end| {
        let rest = end.duration_since(SystemTime::now()).unwrap_or_default();
        // Renewing such a session is logging in anew. What is over already is tried all the same: clocks differ.
        Lease::of_seconds(rest.as_secs().max(1), false)
    });
    Grant { token: line.into(), lease }
}

/// The keys that `token` carries.
pub(super) fn credentials(token: &Token) -> Credentials {
    let line = token.header().to_str().unwrap_or_default();
    let mut fields = line.split(SEPARATOR).map(str::to_owned);
    let mut field = || fields.next().filter(|field| !field.is_empty());
    let (id, secret) = (field().unwrap_or_default(), field().unwrap_or_default());
    fixed(id, secret, field())
}

/// Keys as the SDK wants them. Their end is the session's to watch.
pub(super) fn fixed(id: String, secret: String, session: Option<String>) -> Credentials {
    Credentials::new(id, secret, session, None, "sidekey")
}

/// An access key id for people: enough to find it in IAM, not all of it.
pub(super) fn shortened(id: &str) -> String {
    match (id.get(..4), id.len().checked_sub(4).and_then(|at| id.get(at..))) {
        (Some(start), Some(end)) if id.len() > 8 => format!("{start}…{end}"),
        _ => "…".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn keys_travel_whole() {
        for session in [None, Some("FwoGZXIvYXdzE//+=")] {
            let grant = grant("AKIAROOT", "wJalrXUtnFEMI/K7MDENG+b", session, None);
            let token = Token::new(&grant.token).unwrap();
            assert_eq!(
                credentials(&token),
                fixed("AKIAROOT".into(), "wJalrXUtnFEMI/K7MDENG+b".into(), session.map(Into::into))
            );
            assert!(token.header().is_sensitive());
        }
    }

    #[test]
    fn what_no_key_can_hold_is_no_token() {
        for (id, secret) in [("AKIA\n", "s"), ("AKIA", "a\0b")] {
            assert!(Token::new(&grant(id, secret, None, None).token).is_none(), "{id:?} {secret:?}");
        }
    }

    #[test]
    fn a_lease_ends_when_aws_says_so() {
        let now = SystemTime::now();
        let rest = |expires| match grant("A", "s", None, expires).lease {
            Lease::Ends { after, renewable: false } => Some(after.as_secs()),
            Lease::Endless => None,
            lease => panic!("{lease:?}"),
        };
        assert_eq!(rest(None), None);
        assert_eq!(rest(now.checked_sub(Duration::from_secs(9))), Some(1));
        assert!(rest(Some(now + Duration::from_secs(3600))).is_some_and(|secs| secs.abs_diff(3600) <= 1));
    }

    #[test]
    fn a_shown_id_is_not_the_whole_id() {
        let rows = [("AKIAIOSFODNN7EXAMPLE", "AKIA…MPLE"), ("AKIA1234", "…"), ("", "…"), ("ÄÖÜäöüßé", "ÄÖ…ßé")];
        for (id, shown) in rows {
            assert_eq!(shortened(id), shown, "{id}");
        }
    }
}
