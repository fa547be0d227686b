//! `SIDEKEY_<KEY>`: the part of the environment that stands above the file.

use std::ffi::OsString;

use super::tree::{self, Node, Value};

/// What environment variables of ours begin with.
const PREFIX: &str = "SIDEKEY_";

/// One environment variable of ours.
#[derive(Debug)]
pub struct Override {
    /// Its name.
    pub name: String,
    /// The dotted key it sets.
    pub key: String,
    /// `None` when it is not UTF-8.
    pub text: Option<String>,
    /// Whether its key was asked for.
    pub asked: bool,
}

/// How the text of an environment variable becomes a value.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// It is the value.
    Text,
    /// It is a YAML scalar or flow list.
    Yaml,
    /// As YAML when it starts with `[`, else as text.
    TextOrList,
}

// === impl Form ===

impl Form {
    /// The value that `text` stands for.
    ///
    /// # Errors
    /// Why it stands for none.
    pub fn read(self, text: Option<&str>) -> Result<Value, &'static str> {
        let text = text.ok_or("is not UTF-8")?;
        let trimmed = text.trim();
        if trimmed.is_empty() {
            // Silently taking away, say, `tls.client_ca_file` would open a door.
            return Err("is empty; give a value, or unset the variable");
        }
        if self == Self::Text || (self == Self::TextOrList && !trimmed.starts_with('[')) {
            return Ok(Value::Text(text.to_owned()));
        }
        match tree::parse(trimmed) {
            Ok(Node { value: Value::Map(_), .. }) | Err(_) => Err("is not a YAML value or a list like [a, b]"),
            Ok(node) => Ok(node.value),
        }
    }
}

/// The variables of ours, without the links Kubernetes sets for a service that is called `sidekey`.
pub fn overrides(variables: impl IntoIterator<Item = (OsString, OsString)>) -> Vec<Override> {
    let mut overrides: Vec<_> = variables
        .into_iter()
        .filter_map(|(name, value)| {
            let name = name.to_string_lossy().into_owned();
            let rest = name.strip_prefix(PREFIX)?;
            if rest.starts_with("SERVICE_") || rest.starts_with("PORT") {
                return None;
            }
            // Only the canonical spelling names a key: two variables that differ in case cannot both win.
            let key = if rest.chars().any(char::is_lowercase) { rest.to_owned() } else { rest.to_lowercase() };
            let key = key.replace("__", ".");
            Some(Override { key, name, text: value.into_string().ok(), asked: false })
        })
        .collect();
    overrides.sort_by(|one, other| one.name.cmp(&other.name));
    overrides
}

/// The variable that sets `key`.
pub fn variable(key: &str) -> String {
    format!("{PREFIX}{}", key.replace('.', "__").to_uppercase())
}

/// Whether Kubernetes sets such a variable for a service of the namespace.
pub fn is_service_link(name: &str) -> bool {
    name.ends_with("_SERVICE_HOST")
        || name.contains("_SERVICE_PORT")
        || name.contains("_PORT_")
        || name.ends_with("_PORT")
}
