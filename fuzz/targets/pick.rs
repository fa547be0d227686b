//! Any document and key: what is picked is what a JSON parser finds, and is never empty.
#![no_main]

use libfuzzer_sys::fuzz_target;
use serde_json::{Value, value::RawValue};
use sidekey::{
    resolve::pick::{Form, Wanted, pick},
    secret::SecretValue,
};

fuzz_target!(|input: (&str, &str, u8)| {
    let (document, key, form) = input;
    let form = [Form::Text, Form::Structure, Form::JsonString][usize::from(form % 3)];
    let wanted = Wanted { key: (!key.is_empty()).then(|| key.into()), form };
    let Ok(credential) = pick(&SecretValue::from(document.to_owned()), false, &wanted) else { return };
    let picked = credential.expose();
    assert!(!picked.is_empty());
    if form != Form::Text || key.is_empty() {
        return;
    }
    let Ok(parsed) = serde_json::from_str::<Value>(document) else {
        // A lone surrogate is JSON (RFC 8259, 8.2) that no string can hold: it spoils its own value only.
        assert!(serde_json::from_str::<&RawValue>(document).is_ok(), "only JSON has keys");
        return;
    };
    let found = parsed
        .get(key)
        .or_else(|| key.split('.').try_fold(&parsed, |value, part| value.get(part)))
        .expect("the key is there");
    match found {
        Value::String(text) => assert_eq!(text, picked),
        Value::Number(_) => assert!(document.contains(picked)),
        other => assert_eq!(*other, serde_json::from_str::<Value>(picked).expect("JSON")),
    }
});
