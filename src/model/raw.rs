//! The wire shape of a snapshot, `schema_version` 1. Unknown fields are ignored.
//!
//! Nothing here judges: a value of the wrong shape becomes [`Given::Unusable`], so that one bad value is a fault of its
//! object and not the end of the document. Values stay in the caller's buffer until they are known to be needed; credentials
//! go from there into a [`SecretValue`] and nowhere else. Errors of the JSON parser are never shown: they quote values.

use std::{borrow::Cow, fmt};

use serde::{
    Deserialize, Deserializer,
    de::{Error, IgnoredAny, MapAccess, SeqAccess, Visitor},
};
use serde_json::{error::Category, value::RawValue};

use crate::secret::{
    SecretValue,
    json::{Kind, Literal},
};

/// The whole document. Later names (`mcp_integrations`, `vault_connections`, `secrets`) are unknown fields yet.
#[derive(Default, Deserialize)]
#[serde(default)]
pub(super) struct Document<'a> {
    pub(super) schema_version: Given<u64>,
    pub(super) version: Given<u64>,
    #[serde(borrow)]
    pub(super) generated_at: Given<Text<'a>>,
    pub(super) organisation_id: Given<Text<'a>>,
    pub(super) workspaces: Rows<'a>,
    pub(super) secret_references: Rows<'a>,
    pub(super) integrations: Rows<'a>,
    pub(super) virtual_keys: Rows<'a>,
    pub(super) configs: Rows<'a>,
    pub(super) api_keys: Rows<'a>,
}

/// `workspaces[]`.
#[derive(Default, Deserialize)]
#[serde(default)]
pub(super) struct Workspace<'a> {
    pub(super) id: Given<Text<'a>>,
    pub(super) slug: Given<Text<'a>>,
    pub(super) status: Given<Text<'a>>,
    #[serde(borrow)]
    pub(super) rate_limits: Given<Vec<&'a RawValue>>,
    /// An object, or a list of them.
    #[serde(borrow)]
    pub(super) usage_limits: Given<&'a RawValue>,
    #[serde(default)]
    pub(super) usage_reset_at: Given<Text<'a>>,
}

/// `secret_references[]`.
#[derive(Default, Deserialize)]
#[serde(default)]
pub(super) struct Reference<'a> {
    pub(super) id: Given<Text<'a>>,
    pub(super) slug: Given<Text<'a>>,
    pub(super) manager_type: Given<Text<'a>>,
    #[serde(borrow)]
    pub(super) auth_config: Given<Members<'a>>,
    pub(super) secret_path: Given<Text<'a>>,
    pub(super) secret_key: Given<Text<'a>>,
    pub(super) status: Given<Text<'a>>,
    pub(super) expires_at: Given<Text<'a>>,
    pub(super) ttl_secs: Given<u64>,
    pub(super) allow_all_workspaces: Given<bool>,
    pub(super) allowed_workspaces: Given<Vec<String>>,
    pub(super) allowed_providers: Given<Vec<String>>,
    pub(super) allowed_hosts: Given<Vec<String>>,
}

/// `integrations[]` and `virtual_keys[]`: one shape, each with fields the other does not use.
#[derive(Default, Deserialize)]
#[serde(default)]
pub(super) struct Entity<'a> {
    pub(super) id: Given<Text<'a>>,
    pub(super) slug: Given<Text<'a>>,
    /// The provider of an integration.
    pub(super) ai_provider_id: Given<Text<'a>>,
    /// The provider of a virtual key.
    pub(super) provider: Given<Text<'a>>,
    /// The provider of a virtual key, as the admin API's detail view spells it.
    pub(super) ai_provider_name: Given<Text<'a>>,
    /// Of a virtual key.
    pub(super) integration_id: Given<Text<'a>>,
    pub(super) workspace_id: Given<Text<'a>>,
    pub(super) status: Given<Text<'a>>,
    pub(super) expires_at: Given<Text<'a>>,
    #[serde(borrow)]
    pub(super) key: Given<&'a RawValue>,
    /// Of an integration.
    #[serde(borrow)]
    pub(super) configurations: Given<Members<'a>>,
    /// Of a virtual key.
    #[serde(borrow)]
    pub(super) model_config: Given<Members<'a>>,
    /// Of an integration.
    pub(super) allow_all_workspaces: Given<bool>,
    /// Of an integration.
    pub(super) allowed_workspaces: Given<Vec<String>>,
    #[serde(borrow)]
    pub(super) secret_mappings: Given<Vec<&'a RawValue>>,
    /// Of a virtual key.
    #[serde(borrow)]
    pub(super) rate_limits: Given<Vec<&'a RawValue>>,
    /// Of a virtual key: an object, or a list of them.
    #[serde(borrow)]
    pub(super) usage_limits: Given<&'a RawValue>,
    /// Of a virtual key.
    #[serde(default)]
    pub(super) usage_reset_at: Given<Text<'a>>,
}

/// `secret_mappings[]`.
#[derive(Default, Deserialize)]
#[serde(default)]
pub(super) struct Mapping<'a> {
    #[serde(borrow)]
    pub(super) target_field: Given<Text<'a>>,
    pub(super) secret_reference_id: Given<Text<'a>>,
    pub(super) secret_key: Given<Text<'a>>,
    pub(super) value_format: Given<Text<'a>>,
}

/// `configs[]`.
#[derive(Default, Deserialize)]
#[serde(default)]
pub(super) struct Config<'a> {
    pub(super) id: Given<Text<'a>>,
    pub(super) slug: Given<Text<'a>>,
    pub(super) workspace_id: Given<Text<'a>>,
    pub(super) status: Given<Text<'a>>,
    pub(super) expires_at: Given<Text<'a>>,
    #[serde(borrow)]
    pub(super) config: Given<&'a RawValue>,
}

/// `api_keys[]`.
#[derive(Default, Deserialize)]
#[serde(default)]
pub(super) struct ApiKey<'a> {
    pub(super) id: Given<Text<'a>>,
    pub(super) workspace_id: Given<Text<'a>>,
    pub(super) scopes: Given<Vec<String>>,
    pub(super) status: Given<Text<'a>>,
    pub(super) expires_at: Given<Text<'a>>,
    #[serde(borrow)]
    pub(super) defaults: Given<&'a RawValue>,
    #[serde(borrow)]
    pub(super) hashes: Given<Vec<&'a RawValue>>,
    #[serde(borrow)]
    pub(super) rate_limits: Given<Vec<&'a RawValue>>,
    /// An object, or a list of them.
    #[serde(borrow)]
    pub(super) usage_limits: Given<&'a RawValue>,
    #[serde(default)]
    pub(super) usage_reset_at: Given<Text<'a>>,
}

/// `hashes[]` of an API key.
#[derive(Default, Deserialize)]
#[serde(default)]
pub(super) struct KeyHash<'a> {
    #[serde(borrow)]
    pub(super) kid: Given<Text<'a>>,
    pub(super) hmac_sha256: Given<Text<'a>>,
    pub(super) expires_at: Given<Text<'a>>,
}

/// `defaults` of an API key.
#[derive(Default, Deserialize)]
#[serde(default)]
pub(super) struct Defaults<'a> {
    pub(super) metadata: Given<serde_json::Map<String, serde_json::Value>>,
    #[serde(borrow)]
    pub(super) config_id: Given<Text<'a>>,
    /// As gateways of the second line spell it.
    pub(super) config_slug: Given<Text<'a>>,
    pub(super) allow_config_override: Given<bool>,
}

/// `rate_limits[]`.
#[derive(Default, Deserialize)]
#[serde(default)]
pub(super) struct RateLimit<'a> {
    #[serde(borrow, rename = "type")]
    pub(super) counts: Given<Text<'a>>,
    pub(super) unit: Given<Text<'a>>,
    pub(super) value: Given<u64>,
}

/// `usage_limits`.
#[derive(Default, Deserialize)]
#[serde(default)]
pub(super) struct UsageLimit<'a> {
    #[serde(borrow, rename = "type")]
    pub(super) counts: Given<Text<'a>>,
    pub(super) credit_limit: Given<f64>,
    pub(super) alert_threshold: Given<f64>,
    pub(super) periodic_reset: Given<Text<'a>>,
    pub(super) periodic_reset_days: Given<u64>,
    pub(super) next_usage_reset_at: Given<Text<'a>>,
}

/// One value of the document.
#[derive(Default)]
pub(super) enum Given<T> {
    /// Not there, or null.
    #[default]
    Absent,
    /// There, of the right shape.
    Value(T),
    /// There, of another shape.
    Unusable,
}

/// A list of the document itself, its rows unread. Found in the one pass that finds the end of the document: the lists are most
/// of it.
#[derive(Default)]
pub(super) struct Rows<'a>(pub(super) Given<Vec<&'a RawValue>>);

/// A text, borrowed where it holds no escape.
pub(super) type Text<'a> = Cow<'a, str>;

/// What one value of the document may be read as.
pub(super) trait Value<'de>: Sized {
    /// Reads JSON. `None`: it is of another shape.
    fn read(raw: &'de RawValue) -> Option<Self>;
}

/// The members of an object in document order, values unread, repeated names kept.
pub(super) struct Members<'a>(Vec<(Cow<'a, str>, &'a RawValue)>);

/// A credential: clear text, or sealed to the data plane's key.
pub(super) enum RawSecret<'a> {
    Clear(SecretValue),
    /// What stands behind `$sealed`.
    Sealed(Literal<'a>),
}

/// A member name, borrowed where it holds no escape.
struct Name<'a>(Cow<'a, str>);

/// Reads one row of a list. `None` when it is no object or repeats a name.
pub(super) fn row<'a, T: Deserialize<'a>>(raw: &'a RawValue) -> Option<T> {
    // The derived code would read an array as a struct, too.
    if !raw.get().starts_with('{') {
        return None;
    }
    serde_json::from_str(raw.get()).ok()
}

// === impl Document ===

impl<'a> Document<'a> {
    /// The document, or why it is none: where it stops being one, and nothing that stands there.
    pub(super) fn parse(json: &'a [u8]) -> Result<Self, String> {
        if json.trim_ascii_start().first() != Some(&b'{') {
            return Err("is no JSON object; begin it with `{`".to_owned());
        }
        serde_json::from_slice(json).map_err(|error| {
            let (line, column) = (error.line(), error.column());
            match error.classify() {
                Category::Data => format!("names a list twice, see line {line}, column {column}; remove one"),
                Category::Eof => format!("is no JSON: it ends too early, in line {line}; close what is open"),
                Category::Io | Category::Syntax => format!(
                    "is no JSON: see line {line}, column {column}; check commas, quotes and brackets there and just before"
                ),
            }
        })
    }
}

// === impl Given ===

impl Given<Text<'_>> {
    /// Whether nothing is given, or an empty text, which counts as nothing.
    pub(super) fn is_blank(&self) -> bool {
        match self {
            Self::Absent => true,
            Self::Value(text) => text.is_empty(),
            Self::Unusable => false,
        }
    }
}

impl<'de, T: Value<'de>> Deserialize<'de> for Given<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let raw = <&'de RawValue>::deserialize(deserializer)?;
        if raw.get() == "null" {
            return Ok(Self::Absent);
        }
        Ok(T::read(raw).map_or(Self::Unusable, Self::Value))
    }
}

// === impl Value ===

impl<'de: 'a, 'a> Value<'de> for &'a RawValue {
    fn read(raw: &'de RawValue) -> Option<Self> {
        Some(raw)
    }
}

impl<'de: 'a, 'a> Value<'de> for Text<'a> {
    fn read(raw: &'de RawValue) -> Option<Self> {
        let text = raw.get().strip_prefix('"')?.strip_suffix('"')?;
        match memchr::memchr(b'\\', text.as_bytes()) {
            None => Some(Cow::Borrowed(text)),
            Some(_) => serde_json::from_str(raw.get()).ok().map(Cow::Owned),
        }
    }
}

/// What the parser reads.
macro_rules! parsed {
    ($($value:ty),*) => {$(
        impl<'de: 'a, 'a> Value<'de> for $value {
            fn read(raw: &'de RawValue) -> Option<Self> {
                serde_json::from_str(raw.get()).ok()
            }
        }
    )*};
}

parsed!(bool, u64, f64, Vec<String>, Vec<&'a RawValue>, Members<'a>, serde_json::Map<String, serde_json::Value>);

// === impl Rows ===

impl<'de: 'a, 'a> Deserialize<'de> for Rows<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Collect;

        /// What is no list is passed over.
        macro_rules! unusable {
            ($($visit:ident: $value:ty),*) => {$(
                fn $visit<E: Error>(self, _: $value) -> Result<Self::Value, E> {
                    Ok(Given::Unusable)
                }
            )*};
        }

        impl<'de> Visitor<'de> for Collect {
            type Value = Given<Vec<&'de RawValue>>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
                let mut rows = Vec::new();
                while let Some(row) = list.next_element()? {
                    rows.push(row);
                }
                Ok(Given::Value(rows))
            }

            fn visit_unit<E: Error>(self) -> Result<Self::Value, E> {
                Ok(Given::Absent)
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
                Ok(Given::Unusable)
            }

            unusable!(visit_bool: bool, visit_i64: i64, visit_u64: u64, visit_f64: f64, visit_str: &str);
        }

        deserializer.deserialize_any(Collect).map(Self)
    }
}

// === impl Members ===

impl<'a> Members<'a> {
    /// No members.
    pub(super) const fn none() -> Self {
        Self(Vec::new())
    }

    /// Members that were read before, each with the JSON of its value.
    pub(super) fn of(members: impl Iterator<Item = (&'a str, &'a str)>) -> Option<Self> {
        let read = |(name, json)| Some((Cow::Borrowed(name), serde_json::from_str::<&RawValue>(json).ok()?));
        members.map(read).collect::<Option<_>>().map(Self)
    }

    /// The first member with this name.
    pub(super) fn get(&self, name: &str) -> Option<&'a RawValue> {
        self.0.iter().find(|(member, _)| member == name).map(|(_, value)| *value)
    }

    /// All members, in document order.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&str, &'a RawValue)> {
        self.0.iter().map(|(name, value)| (&**name, *value))
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Members<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Collect;

        impl<'de> Visitor<'de> for Collect {
            type Value = Vec<(Cow<'de, str>, &'de RawValue)>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut members = Vec::new();
                while let Some((Name(name), value)) = map.next_entry()? {
                    members.push((name, value));
                }
                Ok(members)
            }
        }

        deserializer.deserialize_map(Collect).map(Members)
    }
}

// === impl RawSecret ===

impl RawSecret<'_> {
    /// What is wrong with a sealed value where nobody can open it.
    pub(super) const SEALED: &'static str =
        "is sealed to the data plane, which has no identity to open it with; set sealing.identity_file";
}

impl<'a> RawSecret<'a> {
    /// Reads a credential straight into its wiped buffer. `None`: it is neither text nor sealed.
    pub(super) fn read(raw: &'a RawValue) -> Option<Self> {
        let literal = Literal::from(raw);
        match literal.kind() {
            Kind::String => literal.decode().map(|text| Self::Clear(text.into())),
            Kind::Object => literal.member("$sealed").map(Self::Sealed),
            Kind::Null | Kind::Array | Kind::Scalar => None,
        }
    }
}

// === impl Name ===

impl<'de: 'a, 'a> Deserialize<'de> for Name<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Borrow;

        impl<'de> Visitor<'de> for Borrow {
            type Value = Cow<'de, str>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string")
            }

            fn visit_borrowed_str<E: Error>(self, text: &'de str) -> Result<Self::Value, E> {
                Ok(Cow::Borrowed(text))
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Self::Value, E> {
                Ok(Cow::Owned(text.to_owned()))
            }
        }

        deserializer.deserialize_str(Borrow).map(Name)
    }
}
