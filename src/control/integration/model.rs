//! `/integrations/{slug}/models`: which models of a provider may be used, and models of one's own.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Number;

/// The models of an integration.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Models {
    /// Whether a model that is not listed may be used.
    pub allow_all: bool,
    /// What was set, by the slug of the model.
    pub listed: BTreeMap<String, Model>,
}

/// What was set for a model.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Model {
    /// Whether it may be used.
    pub enabled: bool,
    /// Whether the provider's catalogue does not have it.
    pub is_custom: Option<bool>,
    /// Whether it was made from another.
    pub is_finetune: Option<bool>,
    /// From which.
    pub base_model_slug: Option<String>,
    /// Where it is served.
    pub custom_host: Option<String>,
    /// What it costs.
    pub pricing_config: Option<PricingConfig>,
}

/// What a model costs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PricingConfig {
    #[serde(rename = "type")]
    kind: PricingKind,
    #[serde(skip_serializing_if = "Option::is_none")]
    pay_as_you_go: Option<PayAsYouGo>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum PricingKind {
    Static,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct PayAsYouGo {
    #[serde(skip_serializing_if = "Option::is_none")]
    request_token: Option<Price>,
    #[serde(skip_serializing_if = "Option::is_none")]
    response_token: Option<Price>,
}

/// Of one token.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Price {
    price: Number,
}

// === impl Models ===

impl Default for Models {
    fn default() -> Self {
        Self { allow_all: true, listed: BTreeMap::new() }
    }
}
