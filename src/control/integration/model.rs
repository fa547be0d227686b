//! `/integrations/{slug}/models`: which models of a provider may be used, and models of one's own.

use std::{collections::BTreeMap, sync::Arc};

use axum::extract::{Path, State};
use serde::{Deserialize, Serialize};
use serde_json::{Number, Value, json};

use super::{find, save};
use crate::control::{
    Answer, Caller, Control, Refusal, Verb,
    answer::without_nulls,
    fields::{Body as Posted, Fields, Given, Length},
    query::Query,
    store::{Action, Change},
};

/// Most models of one integration.
const MAX_MODELS: usize = 1000;
/// Longest slug of a model, in characters.
const MAX_SLUG: usize = 255;

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

// === impl Model ===

impl Model {
    fn take(&mut self, fields: &mut Fields<'_>) {
        const PRICING: &str = "must have type: static and prices that are numbers from 0";
        let enabled = fields.flag("enabled");
        self.enabled = fields.require("enabled", enabled).unwrap_or_default();
        fields.flag("is_custom").set(&mut self.is_custom);
        fields.flag("is_finetune").set(&mut self.is_finetune);
        fields.text("base_model_slug", Length(0, MAX_SLUG)).set(&mut self.base_model_slug);
        if let Given::Value(mut given) = fields.object("configurations") {
            given.text("custom_host", Length(0, 1024)).set(&mut self.custom_host);
            fields.absorb(given);
        }
        fields.typed("pricing_config", PRICING).set(&mut self.pricing_config);
        if self.pricing_config.as_ref().is_some_and(|pricing| !pricing.is_valid()) {
            fields.fault("pricing_config", PRICING);
        }
    }

    fn shown(&self, slug: &str) -> Value {
        without_nulls(json!({
            "slug": slug,
            "name": slug,
            "enabled": self.enabled,
            "is_custom": self.is_custom,
            "is_finetune": self.is_finetune,
            "base_model_slug": self.base_model_slug,
            "configurations": self.custom_host.as_ref().map(|host| json!({ "custom_host": host })),
            "pricing_config": self.pricing_config,
        }))
    }
}

// === impl PricingConfig ===

impl PricingConfig {
    fn is_valid(&self) -> bool {
        let prices = self.pay_as_you_go.iter().flat_map(|prices| [&prices.request_token, &prices.response_token]);
        prices.flatten().filter_map(|price| price.price.as_f64()).all(|price| price >= 0.0)
    }
}

/// `GET /integrations/{name}/models`.
///
/// # Errors
/// [`Refusal`].
pub async fn list(
    State(control): State<Arc<Control>>,
    caller: Caller,
    Path(name): Path<String>,
    query: Query,
) -> Result<Answer, Refusal> {
    let mut tenant = caller.tenant(&control).await?;
    let (_, body) = find(&mut tenant, &caller, Verb::Read, &name, &query).await?;
    let rows: Vec<Value> = body.models.listed.iter().map(|(slug, model)| model.shown(slug)).collect();
    Ok(Answer::of(json!({
        "object": "list", "total": rows.len(), "models": rows, "allow_all_models": body.models.allow_all,
    })))
}

/// `PUT /integrations/{name}/models`. Models that are not named keep what they have.
///
/// # Errors
/// [`Refusal`].
pub async fn update(
    State(control): State<Arc<Control>>,
    caller: Caller,
    Path(name): Path<String>,
    query: Query,
    posted: Posted,
) -> Result<Answer, Refusal> {
    let mut fields = posted.fields()?;
    let mut write = caller.write(&control).await?;
    let (mut object, mut body) = find(&mut write, &caller, Verb::Update, &name, &query).await?;
    caller.owns(&object)?;
    fields.flag("allow_all_models").replace(&mut body.models.allow_all);
    for mut row in fields.objects("models").value().unwrap_or_default() {
        let slug = row.text("slug", Length(1, MAX_SLUG));
        let slug = row.require("slug", slug).unwrap_or_default();
        let mut model = body.models.listed.remove(&slug).unwrap_or_default();
        model.take(&mut row);
        body.models.listed.insert(slug, model);
        fields.absorb(row);
    }
    if body.models.listed.len() > MAX_MODELS {
        fields.fault("models", format_args!("must be {MAX_MODELS} at most"));
    }
    save(write, &mut object, &body, Action::Updated, &fields).await
}

/// `DELETE /integrations/{name}/models`: custom ones, named in `?slugs=` by commas, or in the body as `models`.
///
/// # Errors
/// [`Refusal`].
pub async fn delete(
    State(control): State<Arc<Control>>,
    caller: Caller,
    Path(name): Path<String>,
    query: Query,
    posted: Posted,
) -> Result<Answer, Refusal> {
    let mut fields = posted.optional_fields()?;
    let mut write = caller.write(&control).await?;
    // Models are a part of the integration: who may change it may remove them.
    let (mut object, mut body) = find(&mut write, &caller, Verb::Update, &name, &query).await?;
    caller.owns(&object)?;
    let mut slugs = fields.texts("models").value().unwrap_or_default();
    slugs.extend(query.get("slugs").unwrap_or_default().split(',').map(str::trim).map(str::to_owned));
    slugs.retain(|slug| !slug.is_empty());
    fields.finish()?;
    if slugs.is_empty() {
        return Err(Refusal::invalid("slugs: must name one model at least"));
    }
    for slug in &slugs {
        if body.models.listed.get(slug).is_none_or(|model| model.is_custom != Some(true)) {
            return Err(Refusal::invalid("slugs: names a model that is not a custom one of this integration"));
        }
    }
    body.models.listed.retain(|slug, _| !slugs.contains(slug));
    object.write(&body)?;
    write.update(&mut object).await?;
    write.commit(Change::of(Action::Updated, &object, vec!["models".to_owned()])).await?;
    Ok(Answer::done())
}
