//! Models that would leave their place in the URL.
//!
//! Some providers have the model in the path, and the gateway writes it there as it stands, whatever its type: with
//! `../../../x` the request reaches another account, another project or another path than that of the entity's base URL
//! (measured). So where the model becomes path, it is one that stays where it is put.
//!
//! Source: gateway 1.15.2 `getEndpoint` in `src/providers/*/api.ts`; <https://url.spec.whatwg.org/#path-state>.

use percent_encoding::percent_decode_str;

use super::BodyPeek;
use crate::{dialect::PlanError, model::Entity};

/// Providers with the model in the path, unescaped.
const PROVIDERS: [&str; 12] = [
    "ai21",
    "bytez",
    "fireworks-ai",
    "google",
    "huggingface",
    "palm",
    "predibase",
    "segmind",
    "siliconflow",
    "stability-ai",
    "vertex-ai",
    "workers-ai",
];

/// Checks the model that a request brings to `entity`, and the one in its body.
///
/// # Errors
/// [`PlanError::DestinationNotAllowed`], [`PlanError::InvalidBody`] for a model that cannot be looked at, and
/// [`PlanError::BodyTooLarge`] for one that may lie too far behind, where the entity's base URL holds more than a host.
pub(super) fn check(entity: &Entity, model: Option<&str>, peek: &BodyPeek) -> Result<(), PlanError> {
    if !PROVIDERS.contains(&&*entity.provider) {
        return Ok(());
    }
    if peek.unreadable {
        return Err(PlanError::InvalidBody { reason: "its \"model\" is no text, or too long".to_owned() });
    }
    let has_base = ["custom_host", "huggingface_base_url", "workers_ai_account_id"];
    if peek.truncated && has_base.iter().any(|field| entity.field(field).is_some()) {
        return Err(PlanError::BodyTooLarge);
    }
    let in_body = peek.model.as_ref().map(|field| &*field.value);
    if model.into_iter().chain(in_body).all(stays) {
        Ok(())
    } else {
        Err(PlanError::DestinationNotAllowed { input: "model".to_owned() })
    }
}

/// Whether a URL parser finds nothing in `model` but path segments that go down.
fn stays(model: &str) -> bool {
    let plain = |char: char| !char.is_ascii_control() && !matches!(char, '\\' | '?' | '#');
    let decoded = percent_decode_str(model).decode_utf8_lossy();
    model.chars().all(plain) && !decoded.split('/').any(|segment| matches!(segment, "." | ".."))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dialect::portkey::sample::{self, Sample, chat, plan};

    #[test]
    fn models_that_stay() {
        for (model, expected) in [
            ("@cf/meta/llama-3.1-8b-instruct", true),
            ("gemini-2.0-flash", true),
            ("anthropic.claude-3@20240229", true),
            ("stable-diffusion/v1.5..2", true),
            ("a%2Fb:c", true),
            ("modèle", true),
            ("", true),
            ("..", false),
            ("../../../user/tokens", false),
            ("a/./b", false),
            ("a/%2e%2E/b", false),
            ("a/.%2e", false),
            ("..%2Fx", false),
            ("..\\..\\x", false),
            (".\t./x", false),
            ("x?key=", false),
            ("x#", false),
        ] {
            assert_eq!(stays(model), expected, "{model:?}");
            // A URL library agrees about what was let through.
            let url = url::Url::parse(&format!("https://host.example/base/{model}/end")).unwrap();
            if expected {
                let path = url.path();
                assert!(path.starts_with("/base/") && path.ends_with("/end"), "{path}");
                assert_eq!(path.matches('/').count(), model.matches('/').count() + 3, "{path}");
            }
        }
    }

    #[test]
    fn a_request_is_refused_where_the_model_becomes_path() {
        let snapshot = Sample::new()
            .integration("workers", "workers-ai", Some("sk"), r#"{"workers_ai_account_id":"ours"}"#)
            .integration("google", "google", Some("sk"), "{}")
            .integration("tenant", "google", Some("sk"), r#"{"custom_host":"https://llm.corp.example/tenant-a"}"#)
            .integration("openai", "openai", Some("sk"), "{}")
            .link();
        let not_allowed = Some(PlanError::DestinationNotAllowed { input: "model".to_owned() });
        let unreadable = Some(PlanError::InvalidBody { reason: "its \"model\" is no text, or too long".to_owned() });
        let text = |model: &str| sample::model(model);
        for (slug, peek, expected) in [
            ("workers", text("@workers/@cf/meta/llama"), None),
            ("workers", text("@workers/../../x"), not_allowed),
            ("workers", BodyPeek { unreadable: true, ..BodyPeek::default() }, unreadable),
            ("workers", BodyPeek { truncated: true, ..text("llama") }, Some(PlanError::BodyTooLarge)),
            ("tenant", BodyPeek { truncated: true, ..BodyPeek::default() }, Some(PlanError::BodyTooLarge)),
            ("google", BodyPeek { truncated: true, ..BodyPeek::default() }, None),
            ("openai", BodyPeek { truncated: true, ..text("../x") }, None),
            ("openai", BodyPeek { unreadable: true, ..BodyPeek::default() }, None),
        ] {
            for (name, value) in [
                ("x-portkey-provider", format!("@{slug}")),
                ("x-portkey-config", format!(r#"{{"provider":"@{slug}"}}"#)),
            ] {
                let found = plan(&snapshot, &chat(&[(name, &value)]), &peek).err();
                assert_eq!(found, expected, "{slug} {value} {peek:?}");
            }
        }
        for model in [r#""../../x""#, r#"["../../x"]"#, "null"] {
            let config = format!(r#"{{"provider":"@workers","override_params":{{"model":{model}}}}}"#);
            let found = plan(&snapshot, &chat(&[("x-portkey-config", &config)]), &BodyPeek::default());
            assert!(found.is_err(), "{model}");
        }
    }
}
