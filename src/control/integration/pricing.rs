//! `pricing_adjustments`: factors on what a provider's tokens cost, for budgets and for show.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Number;

/// Names of the factors that are plain numbers, as Portkey has them.
const FACTORS: [&str; 19] = [
    "default",
    "request_token",
    "response_token",
    "cache_read_input_token",
    "cache_write_input_token",
    "cache_read_audio_input_token",
    "request_audio_token",
    "response_audio_token",
    "reasoning_token",
    "prediction_accepted_token",
    "prediction_rejected_token",
    "request_image_token",
    "response_image_token",
    "request_text_token",
    "response_text_token",
    "cache_read_image_input_token",
    "cache_read_text_input_token",
    "cache_write_text_input_token",
    "cache_write_image_input_token",
];

/// Most `additional_units`.
const MAX_UNITS: usize = 100;

/// Factors on prices.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pricing {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    multiplier: Option<BTreeMap<String, Factor>>,
}

/// A factor, or several by name.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
enum Factor {
    One(Option<Number>),
    Named(BTreeMap<String, Option<Number>>),
}

// === impl Pricing ===

impl Pricing {
    /// What it has to be.
    pub(super) const EXPECTED: &str =
        "must be an object with a multiplier whose factors are numbers from 0 under the names of Portkey, or null";

    /// Whether every factor is one that there is, and none is below 0.
    pub(super) fn is_valid(&self) -> bool {
        let fits =
            |number: &Option<Number>| number.as_ref().and_then(Number::as_f64).is_none_or(|number| number >= 0.0);
        self.multiplier.iter().flatten().all(|(name, factor)| match (name.as_str(), factor) {
            ("image" | "additional_units", Factor::One(None)) => true,
            ("image", Factor::Named(named)) => named.iter().all(|(name, number)| name == "default" && fits(number)),
            ("additional_units", Factor::Named(named)) => named.len() <= MAX_UNITS && named.values().all(fits),
            (name, Factor::One(number)) => FACTORS.contains(&name) && fits(number),
            (_, Factor::Named(_)) => false,
        })
    }
}
