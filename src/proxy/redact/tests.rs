//! Values found in any form and across any chunk border, and replies that stay as they are.

use std::sync::Arc;

use proptest::prelude::*;

use super::*;
use crate::secret::{Credential, SecretValue};

fn redactor(values: &[&str]) -> Redactor {
    let credentials =
        values.iter().map(|value| Arc::new(Credential::text(SecretValue::from((*value).to_owned())))).collect();
    Redactor::new(Injected { credentials }, &Counter::default()).unwrap()
}

fn run(redactor: &Redactor, pieces: &[&[u8]]) -> Vec<u8> {
    let mut search = Search::new(redactor);
    let mut out: Vec<u8> =
        pieces.iter().flat_map(|piece| search.feed(Bytes::copy_from_slice(piece)).to_vec()).collect();
    out.extend_from_slice(&search.finish());
    out
}

#[test]
fn a_value_is_found_in_every_spelling() {
    struct Case {
        value: &'static str,
        text: &'static str,
        out: &'static str,
    }
    let cases = [
        Case { value: "sk-secret", text: r#"{"e":"Bearer sk-secret"}"#, out: r#"{"e":"Bearer [redacted]"}"# },
        Case { value: "a\"b\\c", text: r#"{"e":"a\"b\\c"}"#, out: r#"{"e":"[redacted]"}"# },
        Case { value: "a\"b\\c", text: r#"{"e":"{\"k\":\"a\\\"b\\\\c\"}"}"#, out: r#"{"e":"{\"k\":\"[redacted]\"}"}"# },
        Case { value: "line1\nline2", text: "line1\nline2 line1\\nline2", out: "[redacted] [redacted]" },
        Case { value: "a+b/c==", text: "?k=a%2Bb%2Fc%3D%3D&l=a%2bb%2fc%3d%3d", out: "?k=[redacted]&l=[redacted]" },
        Case { value: "a b(c)", text: "a+b%28c%29 a%20b(c)", out: "[redacted] [redacted]" },
        Case { value: "p/q/r", text: r"p\/q\/r", out: "[redacted]" },
        Case { value: "clé-clé", text: r"cl\u00e9-cl\u00e9", out: "[redacted]" },
        Case { value: "abc", text: "abc is too short to search", out: "abc is too short to search" },
        Case { value: "sk-secret", text: "sk-secre t sk-secre", out: "sk-secre t sk-secre" },
    ];
    for Case { value, text, out } in cases {
        let shown = String::from_utf8(run(&redactor(&[value]), &[text.as_bytes()])).unwrap();
        assert_eq!(shown, out, "{value:?} in {text}");
    }
}

#[test]
fn keys_inside_a_json_credential_are_found() {
    let key = "-----BEGIN PRIVATE KEY-----\nMIIEvQIBADANBg\n-----END PRIVATE KEY-----\n";
    let json = serde_json::json!({ "type": "service_account", "private_key": key }).to_string();
    let credential = Arc::new(Credential::structured(SecretValue::from(json)));
    let redactor = Redactor::new(Injected { credentials: vec![credential] }, &Counter::default()).unwrap();
    let echoed = serde_json::json!({ "error": key, "type": "service_account" }).to_string();
    let shown = String::from_utf8(run(&redactor, &[echoed.as_bytes()])).unwrap();
    assert_eq!(shown, r#"{"error":"[redacted]","type":"service_account"}"#);
}

#[test]
fn the_longer_of_two_values_wins_across_a_border() {
    let redactor = redactor(&["token-1", "token-1-long"]);
    let cases: [(&[&[u8]], &str); 4] = [
        (&[b"<token-1", b"-long>"], "<[redacted]>"),
        (&[b"<token-1", b"-lo", b">"], "<[redacted]-lo>"),
        (&[b"<token-1"], "<[redacted]"),
        (&[b"<tok", b"", b"en-", b"1>"], "<[redacted]>"),
    ];
    for (pieces, out) in cases {
        assert_eq!(String::from_utf8(run(&redactor, pieces)).unwrap(), out, "{pieces:?}");
    }
}

#[test]
fn what_was_found_is_counted_and_nothing_is_kept_longer_than_needed() {
    let redactor = redactor(&["sk-secret"]);
    let mut search = Search::new(&redactor);
    assert_eq!(search.feed(Bytes::from_static(b"data: 1\n\n")), "data: 1\n\n");
    assert_eq!(search.feed(Bytes::from_static(b"data: sk-")), "data: ");
    assert_eq!(search.feed(Bytes::from_static(b"secret\n")), "[redacted]\n");
    assert_eq!(search.finish(), "");
    assert_eq!(redactor.found.get(), 1);
}

#[test]
fn beyond_the_limit_only_what_began_before_is_found() {
    let redactor = redactor(&["sk-secret"]);
    let filler = vec![b'.'; LIMIT - 3];
    let out = run(&redactor, &[&filler, b"sk-", b"secret", b" sk-secret"]);
    assert!(out.ends_with(b"...[redacted] sk-secret"), "{}", String::from_utf8_lossy(&out[LIMIT - 10..]));
}

#[test]
fn headers_are_replaced_and_others_stay_the_same() {
    let redactor = redactor(&["sk-secret", "a/b+c"]);
    let mut headers = HeaderMap::new();
    headers.append("x-echo", HeaderValue::from_static("Bearer sk-secret, sk-secret"));
    headers.append("x-echo", HeaderValue::from_static("https://h/?k=a%2Fb%2Bc"));
    headers.append("set-cookie", HeaderValue::from_static("a=1"));
    headers.append("set-cookie", HeaderValue::from_static("b=2"));
    redactor.headers(&mut headers);
    let lines: Vec<_> = headers.iter().map(|(name, value)| format!("{name}: {}", value.to_str().unwrap())).collect();
    assert_eq!(
        lines,
        [
            "x-echo: Bearer [redacted], [redacted]",
            "x-echo: https://h/?k=[redacted]",
            "set-cookie: a=1",
            "set-cookie: b=2"
        ]
    );
    assert_eq!(redactor.found.get(), 3);
}

proptest! {
    #[test]
    fn pieces_do_not_matter(
        words in prop::collection::vec(prop_oneof!["[ab]{0,6}", Just("abba".to_owned()), Just("abab-key".to_owned())], 0..12),
        cuts in prop::collection::vec(0usize..100, 0..8),
    ) {
        let redactor = redactor(&["abba", "abab-key"]);
        let text = words.concat();
        let whole = run(&redactor, &[text.as_bytes()]);
        let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(text.len())).collect();
        cuts.extend([0, text.len()]);
        cuts.sort_unstable();
        let pieces: Vec<&[u8]> = cuts.windows(2).map(|cut| &text.as_bytes()[cut[0]..cut[1]]).collect();
        let split = run(&redactor, &pieces);
        prop_assert_eq!(&split, &whole);
        for value in ["abba", "abab-key"] {
            prop_assert!(memchr::memmem::find(&whole, value.as_bytes()).is_none());
        }
    }
}
