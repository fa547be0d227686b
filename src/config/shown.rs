//! What a message may show of a configuration.

use super::tree::Value;

/// Longest value shown in a message, in characters.
const SHOWN: usize = 80;
/// Parts of a key name that mark its value as not to be shown: people put the credential where its file's name belongs.
const PRIVATE: [&str; 8] = ["token", "secret", "password", "key", "jwt", "credential", "recipient", "identity"];

/// A value as its owner wrote it, or a word for it where it may be a credential.
pub fn show(key: &str, value: &Value) -> String {
    let last = key.rsplit('.').next().unwrap_or(key);
    let private = PRIVATE.iter().any(|part| last.contains(part));
    match value {
        Value::Null => "nothing".to_owned(),
        Value::Bool(flag) => flag.to_string(),
        Value::List(_) => "a list".to_owned(),
        Value::Map(_) => "a section".to_owned(),
        _ if private => "the value (not shown)".to_owned(),
        Value::Whole(number) => number.to_string(),
        Value::Float(number) => number.to_string(),
        // `user:password@host` and `?sig=…` are credentials in the clothes of an address.
        Value::Text(text) if text.contains(['@', '?']) => "the value (not shown)".to_owned(),
        Value::Text(text) => format!("{:?}", clean(text)),
    }
}

/// At most [`SHOWN`] characters on one line.
pub fn clean(text: &str) -> String {
    let mut shown: String = text.chars().take(SHOWN).map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect();
    if text.chars().nth(SHOWN).is_some() {
        shown.push('…');
    }
    shown
}
