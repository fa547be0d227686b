//! Any document and key: what is picked is what a JSON parser finds, and is never empty.

use serde_json::{Value, value::RawValue};
use sidekey::{
    resolve::pick::{Form, Wanted, pick},
    secret::SecretValue,
};

/// `input` is a byte that chooses the form, the key, a NUL, and the document.
pub fn check(input: &[u8]) {
    let Some((form, Ok(rest))) = input.split_first().map(|(form, rest)| (form, str::from_utf8(rest))) else { return };
    let (key, document) = rest.split_once('\0').unwrap_or(("", rest));
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
        // One newline at the end is an editor's.
        Value::String(text) => {
            let text = text.strip_suffix('\n').map_or(&**text, |text| text.strip_suffix('\r').unwrap_or(text));
            assert_eq!(text, picked);
        }
        Value::Number(_) => assert!(document.contains(picked)),
        other => assert_eq!(*other, serde_json::from_str::<Value>(picked).expect("JSON")),
    }
}
