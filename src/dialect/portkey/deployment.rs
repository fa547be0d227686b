//! Which Azure deployment serves a request.

use std::sync::Arc;

use crate::{
    dialect::PlanError,
    model::{Deployment, Entity},
};

/// Picks the deployment whose alias is `model`, else the default one. `None`: the entity needs none.
///
/// # Errors
/// [`PlanError::NoDeployment`].
pub(super) fn pick<'e>(entity: &'e Entity, model: Option<&str>) -> Result<Option<&'e Deployment>, PlanError> {
    if &*entity.provider != "azure-openai" {
        return Ok(None);
    }
    let by_alias = entity.deployments.iter().find(|deployment| model.is_some() && deployment.alias.as_deref() == model);
    let picked = by_alias.or_else(|| entity.deployments.iter().find(|deployment| deployment.is_default));
    // Without one the gateway would write `/deployments/undefined`.
    picked.map(Some).ok_or_else(|| PlanError::NoDeployment { slug: Arc::clone(&entity.slug) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dialect::portkey::sample::{self, Sample};

    #[test]
    fn alias_then_default_then_none() {
        let two = r#"[{"azure_deployment_name":"d4","alias":"gpt-4o","azure_api_version":"2024-10-21"},
            {"azure_deployment_name":"d3","alias":"gpt-3.5","is_default":true}]"#;
        let no_default = r#"[{"azure_deployment_name":"d4","alias":"gpt-4o"},{"azure_deployment_name":"d5"}]"#;
        for (deployments, model, expected) in [
            (two, Some("gpt-4o"), Some("d4")),
            (two, Some("gpt-3.5"), Some("d3")),
            (two, Some("other"), Some("d3")),
            (two, None, Some("d3")),
            (no_default, Some("gpt-4o"), Some("d4")),
            (no_default, Some("other"), None),
            (no_default, None, None),
            ("[]", Some("gpt-4o"), None),
        ] {
            let configurations = format!(r#"{{"azure_resource_name":"r","azure_deployment_config":{deployments}}}"#);
            let sample = Sample::new().integration("az", "azure-openai", Some("k"), &configurations);
            let picked =
                pick(&sample.entity("az"), model).map(|found| found.map(|found| found.deployment_id.to_string()));
            let expected = match expected {
                Some(id) => Ok(Some(id.to_owned())),
                None => Err(PlanError::NoDeployment { slug: "az".into() }),
            };
            assert_eq!(picked, expected, "{deployments} {model:?}");
        }
    }

    #[test]
    fn other_providers_need_none() {
        let sample = sample::openai();
        assert_eq!(pick(&sample.entity("openai-prod"), Some("gpt-4o")), Ok(None));
    }
}
