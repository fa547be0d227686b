//! From a request to a plan: which entities, where their credentials go, what else changes.
//!
//! The order is the rule: what no request may do, then the config, then names, then the entities, then their binding.

use std::sync::Arc;

use http::{HeaderValue, request::Parts};
use time::OffsetDateTime;

use super::{
    BodyPeek, Settings, access,
    binding::Trust,
    config_mode::{self, Leaves},
    config_tree::{
        Tree,
        node::Node,
        render::{self, Sink, Template},
    },
    containment, deployment, endpoint, header_mode,
    inputs::Inputs,
    model_path, name,
    placement::Placement,
    plan::{Action, ConfigHeader, Mode, Plan},
    query::Query,
};
use crate::{
    dialect::PlanError,
    model::{Caller, Entity, Snapshot, StoredConfig},
    secret::Credential,
};

/// Everything a plan is made from.
pub(super) struct Request<'r> {
    /// The operator's decisions.
    pub(super) settings: &'r Settings,
    /// The head.
    pub(super) head: &'r Parts,
    /// What was seen of the body.
    pub(super) peek: &'r BodyPeek,
    /// What may be named.
    pub(super) snapshot: &'r Snapshot,
    /// By whom.
    pub(super) caller: &'r Caller,
    /// When.
    pub(super) now: OffsetDateTime,
    /// What has no room for the request, and what it would be answered with.
    pub(super) full: &'r [(Arc<Entity>, u16)],
}

/// What the body's and the query's `model` come to.
struct Models<'r> {
    body: Option<&'r str>,
    query: &'r Query,
}

/// A config that adds options to an entity named elsewhere.
struct Options<'r, 'c> {
    config: &'r Node<'c>,
    tree: &'r Tree<'c>,
    /// The header that takes the place of a stored config's name.
    inline: Option<HeaderValue>,
    trust: Trust,
}

// === impl Request ===

impl Request<'_> {
    /// Makes the plan.
    ///
    /// # Errors
    /// [`PlanError`]: nothing is fetched and nothing is sent.
    pub(super) fn plan(&self) -> Result<Plan, PlanError> {
        if let Some(fault) = self.peek.fault {
            return Err(PlanError::InvalidBody { reason: fault.to_owned() });
        }
        let inputs = Inputs::read(&self.head.headers)?;
        containment::guardrail_headers(&inputs, self.settings)?;
        let query = Query::read(self.head.uri.query());
        let models = Models { body: self.peek.model.as_ref().map(|field| &*field.value), query: &query };
        let mut plan = match inputs.config {
            None => self.by_name(&inputs, &models, None)?,
            Some(text) if text.starts_with("pc-") => {
                let stored = self.stored_config(text)?;
                self.with_config(&inputs, &models, &Node::of(&stored.config), Some(stored))?
            }
            Some(text) => {
                let config = Node::parse(text).ok_or_else(|| PlanError::InvalidConfig {
                    reason: "x-portkey-config is JSON or the name of a stored config".to_owned(),
                })?;
                self.with_config(&inputs, &models, &config, None)?
            }
        };
        plan.body_edit = self.peek.model.as_ref().and_then(name::strip_body);
        plan.query = query.into_stripped();
        Ok(plan)
    }

    fn stored_config(&self, slug: &str) -> Result<&StoredConfig, PlanError> {
        let stored = self.snapshot.config(slug, self.caller).map_err(|hidden| PlanError::EntityNotFound {
            slugs: vec![slug.to_owned()],
            reasons: vec![hidden.to_string()],
        })?;
        if !stored.lifespan.usable_at(self.now) {
            return Err(PlanError::EntityInactive { slug: Arc::clone(&stored.slug) });
        }
        match &stored.fault {
            None => Ok(stored),
            Some(reason) => {
                Err(PlanError::Misconfigured { slug: Arc::clone(&stored.slug), reason: Arc::clone(reason) })
            }
        }
    }

    /// A config is there; whether it decides is for it to say.
    fn with_config(
        &self,
        inputs: &Inputs<'_>,
        models: &Models<'_>,
        config: &Node<'_>,
        stored: Option<&StoredConfig>,
    ) -> Result<Plan, PlanError> {
        containment::checks(config, self.settings)?;
        let mut tree = Tree::read(config)?;
        if !self.full.is_empty() {
            tree.without(&|slug| self.status_of(slug));
        }
        let trust = if stored.is_some() && self.settings.trust_stored_configs { Trust::Stored } else { Trust::Request };
        if tree.is_authoritative() {
            let literals = stored.map(|_| config_mode::literals(&tree)).unwrap_or_default();
            if !literals.is_empty() || tree.leaves().iter().any(|(_, leaf)| leaf.slug.is_some()) {
                return self.with_leaves_of_ours(inputs, models, &tree, literals, trust);
            }
            let inline = stored.map(|_| stored_header(|sink| render::node(config, sink))).transpose()?;
            let config = (trust == Trust::Request).then_some(config);
            return self.unmatched(inputs, config, Some(&tree), inline);
        }
        // The gateway would take every provider option from headers, so only the general ones travel.
        let inline = stored.map(|_| stored_header(|sink| config_mode::general(&tree, sink))).transpose()?;
        self.by_name(inputs, models, Some(Options { config, tree: &tree, inline, trust }))
    }

    /// The config decides, and a leaf of it names an entity or holds a credential of the snapshot.
    fn with_leaves_of_ours(
        &self,
        inputs: &Inputs<'_>,
        models: &Models<'_>,
        tree: &Tree<'_>,
        literals: Vec<Arc<Credential>>,
        trust: Trust,
    ) -> Result<Plan, PlanError> {
        let leaves = tree.leaves();
        let slugs: Vec<&str> = leaves.iter().filter_map(|(_, leaf)| leaf.slug).collect();
        let mut found = self.entities(&slugs)?.into_iter();
        let mut entities: Vec<Arc<Entity>> = Vec::new();
        let mut placements = Vec::with_capacity(slugs.len());
        let mut places = Vec::with_capacity(leaves.len());
        for (target, leaf) in &leaves {
            let Some(entity) = leaf.slug.and_then(|_| found.next()) else {
                if target.text("provider") == Some("bedrock") {
                    containment::file_id(self.head, self.settings)?;
                }
                places.push(None);
                continue;
            };
            let index = entities.iter().position(|other| Arc::ptr_eq(other, entity)).unwrap_or_else(|| {
                entities.push(Arc::clone(entity));
                entities.len() - 1
            });
            places.push(Some(placements.len()));
            placements.push(self.place(index, entity, leaf.model.or_else(|| models.for_deployment()))?);
        }
        let rebuild = Leaves { entities: &entities, placements: &mut placements, places: &places, literals, trust };
        let rebuilt = config_mode::rebuild(self.head, inputs, endpoint::of(self.head), tree, rebuild)?;
        Ok(Plan::config(entities, placements, rebuilt))
    }

    /// Names outside of a config count; a config only adds options.
    fn by_name(
        &self,
        inputs: &Inputs<'_>,
        models: &Models<'_>,
        options: Option<Options<'_, '_>>,
    ) -> Result<Plan, PlanError> {
        let Some(slug) = name::of_request(inputs.provider, inputs.virtual_key, models.body, models.query) else {
            return match options {
                Some(Options { config, tree, inline, .. }) => self.unmatched(inputs, Some(config), Some(tree), inline),
                None => self.unmatched(inputs, None, None, None),
            };
        };
        let entity = *self.entities(&[slug])?.first().ok_or(PlanError::NoEntity)?;
        let endpoint = endpoint::of(self.head);
        let model = options.as_ref().and_then(Options::model).or_else(|| models.for_deployment());
        let mut placement = self.place(0, entity, model)?;
        let stands = options.as_ref().is_none_or(|options| config_mode::may_stand(options.config));
        if stands && header_mode::fits(&placement, entity, endpoint) {
            let mappings = header_mode::bind(self.head, inputs, endpoint, entity, &mut placement)?;
            let inline = options.and_then(|options| options.inline);
            return Ok(Plan {
                mappings,
                entities: vec![Arc::clone(entity)],
                mode: Mode::Header,
                body_edit: None,
                query: None,
                action: Action::Headers { placement, config: inline.map_or(ConfigHeader::Keep, ConfigHeader::Replace) },
            });
        }
        let entities = vec![Arc::clone(entity)];
        let mut placements = vec![placement];
        let empty = Node::Map(Vec::new());
        let alone = Tree::read(&empty)?;
        let (tree, trust) = match &options {
            Some(options) => (options.tree, options.trust),
            None => (&alone, Trust::Request),
        };
        let leaves = Leaves {
            entities: &entities,
            placements: &mut placements,
            places: &[Some(0)],
            literals: Vec::new(),
            trust,
        };
        let rebuilt = config_mode::rebuild(self.head, inputs, endpoint, tree, leaves)?;
        Ok(Plan::config(entities, placements, rebuilt))
    }

    /// Nothing of ours is injected.
    fn unmatched(
        &self,
        inputs: &Inputs<'_>,
        config: Option<&Node<'_>>,
        tree: Option<&Tree<'_>>,
        inline: Option<HeaderValue>,
    ) -> Result<Plan, PlanError> {
        if self.settings.reject_unmatched && self.head.uri.path() != "/" {
            return Err(if self.peek.truncated { PlanError::BodyTooLarge } else { PlanError::NoEntity });
        }
        containment::unmatched(self.head, inputs, config, tree, self.settings)?;
        let drop_provider = inputs.provider.is_some_and(|provider| name::in_provider(provider).is_some());
        let config = inline.map_or(ConfigHeader::Keep, ConfigHeader::Replace);
        Ok(Plan {
            mappings: Vec::new(),
            entities: Vec::new(),
            mode: Mode::Unmatched,
            body_edit: None,
            query: None,
            action: Action::Pass { config, drop_provider },
        })
    }

    /// What a target that names `slug` would be answered with, if that has no room.
    fn status_of(&self, slug: &str) -> Option<u16> {
        let named = self.snapshot.entity(slug, self.caller).ok()?;
        self.full.iter().find(|(entity, _)| Arc::ptr_eq(entity, named)).map(|(_, status)| *status)
    }

    /// Finds every slug, or reports all that name nothing usable.
    fn entities(&self, slugs: &[&str]) -> Result<Vec<&Arc<Entity>>, PlanError> {
        let mut found = Vec::with_capacity(slugs.len());
        let mut unknown: Vec<(&str, String)> = Vec::new();
        for slug in slugs {
            match self.snapshot.entity(slug, self.caller) {
                Ok(entity) => found.push(entity),
                Err(_) if unknown.iter().any(|(other, _)| other == slug) => {}
                Err(hidden) => unknown.push((slug, hidden.to_string())),
            }
        }
        if unknown.is_empty() {
            return Ok(found);
        }
        let (slugs, reasons) = unknown.into_iter().map(|(slug, reason)| (slug.to_owned(), reason)).unzip();
        Err(PlanError::EntityNotFound { slugs, reasons })
    }

    fn place(&self, index: usize, entity: &Arc<Entity>, model: Option<&str>) -> Result<Placement, PlanError> {
        let slug = || Arc::clone(&entity.slug);
        if !entity.lifespan.usable_at(self.now) {
            return Err(PlanError::EntityInactive { slug: slug() });
        }
        if let Some(reason) = &entity.fault {
            return Err(PlanError::Misconfigured { slug: slug(), reason: Arc::clone(reason) });
        }
        entity.open().map_err(|(spec, reason)| {
            let reason = format!("its {} {reason}", spec.name).into();
            PlanError::Misconfigured { slug: slug(), reason }
        })?;
        let misconfigured = |reason: &'static str| PlanError::Misconfigured { slug: slug(), reason: reason.into() };
        if header_mode::provider_value(&entity.provider).is_none() {
            return Err(misconfigured("the provider is no header text"));
        }
        let access = access::of(entity).map_err(misconfigured)?;
        model_path::check(entity, model, self.peek)?;
        let deployment = deployment::pick(entity, model)?;
        Ok(Placement::new(index, entity, access, deployment))
    }
}

// === impl Options ===

impl<'c> Options<'_, 'c> {
    /// The model it asks for.
    fn model(&self) -> Option<&'c str> {
        self.tree.leaves().first().and_then(|(_, leaf)| leaf.model)
    }
}

// === impl Models ===

impl<'r> Models<'r> {
    /// The model by which a deployment is picked.
    fn for_deployment(&self) -> Option<&'r str> {
        self.body.and_then(name::model_for_provider).or_else(|| self.query.model().and_then(name::model_for_provider))
    }
}

/// A stored config that holds no credential, as a header.
fn stored_header(write: impl Fn(&mut dyn Sink)) -> Result<HeaderValue, PlanError> {
    let template = Template::render(write);
    let filled = template.fill(|_, _| Ok::<(), std::convert::Infallible>(()));
    filled
        .ok()
        .flatten()
        .ok_or_else(|| PlanError::InvalidConfig { reason: "the stored config is no header text".to_owned() })
}
