//! What gateway 1.15.2 knows about each provider: its host and how it sends the plain key.
//!
//! Source: `src/globals.ts` `VALID_PROVIDERS`, `src/providers/*/api.ts`.

use self::{
    Host::{Computed, Custom, Fixed},
    Key::{Bearer, Optional, Other},
};

/// One provider.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Provider {
    /// The gateway's id.
    pub(super) id: &'static str,
    /// The host of its base URL.
    pub(super) host: Host,
    /// How the plain key is sent.
    pub(super) key: Key,
}

/// The host of a provider's base URL.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Host {
    /// Always this one.
    Fixed(&'static str),
    /// Made of fields of the entity (resource name, region, URL).
    Computed,
    /// There is none: the entity has to store a custom host.
    Custom,
}

/// How a provider receives the plain key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Key {
    /// `Authorization: Bearer`, as a request carries it, so that proxy routes pass it on as it stands.
    Bearer,
    /// Another header or scheme, which the gateway writes. On proxy routes a raw `Authorization` would travel beside it.
    Other,
    /// In the URL's query, on routes with a handler only. On proxy routes this header carries it.
    Query {
        /// The provider's own header.
        header: &'static str,
    },
    /// Never sent, or only if there is one.
    Optional,
}

const GOOGLE_KEY: Key = Key::Query { header: "x-goog-api-key" };

/// Every provider the gateway accepts, by id.
#[rustfmt::skip]
static PROVIDERS: [Provider; 75] = [
    row("302ai", Fixed("api.302.ai"), Bearer),
    row("ai21", Fixed("api.ai21.com"), Bearer),
    row("aibadgr", Fixed("aibadgr.com"), Bearer),
    row("anthropic", Fixed("api.anthropic.com"), Other),
    row("anyscale", Fixed("api.endpoints.anyscale.com"), Bearer),
    row("azure-ai", Computed, Other),
    row("azure-openai", Computed, Other),
    row("bedrock", Computed, Bearer),
    row("bytez", Fixed("api.bytez.com"), Other),
    row("cerebras", Fixed("api.cerebras.ai"), Bearer),
    row("cohere", Fixed("api.cohere.ai"), Bearer),
    row("cometapi", Fixed("api.cometapi.com"), Bearer),
    row("cortex", Computed, Bearer),
    row("dashscope", Fixed("dashscope-intl.aliyuncs.com"), Bearer),
    row("databricks", Computed, Bearer), // 2.x only
    row("deepbricks", Fixed("api.deepbricks.ai"), Bearer),
    row("deepinfra", Fixed("api.deepinfra.com"), Bearer),
    row("deepseek", Fixed("api.deepseek.com"), Bearer),
    row("featherless-ai", Fixed("api.featherless.ai"), Bearer),
    row("fireworks-ai", Fixed("api.fireworks.ai"), Bearer),
    row("github", Fixed("models.inference.ai.azure.com"), Bearer),
    row("google", Fixed("generativelanguage.googleapis.com"), GOOGLE_KEY),
    row("groq", Fixed("api.groq.com"), Bearer),
    row("huggingface", Computed, Bearer),
    row("hyperbolic", Fixed("api.hyperbolic.xyz"), Bearer),
    row("inference-net", Fixed("api.inference.net"), Bearer),
    row("iointelligence", Fixed("api.intelligence.io.solutions"), Bearer),
    row("jina", Fixed("api.jina.ai"), Bearer),
    row("kluster-ai", Fixed("api.kluster.ai"), Bearer),
    row("krutrim", Fixed("cloud.olakrutrim.com"), Bearer),
    row("lambda", Fixed("api.lambdalabs.com"), Bearer),
    row("lemonfox-ai", Fixed("api.lemonfox.ai"), Bearer),
    row("lepton", Fixed("api.lepton.ai"), Bearer),
    row("lingyi", Fixed("api.lingyiwanwu.com"), Bearer),
    row("matterai", Fixed("api.matterai.so"), Bearer),
    row("meshy", Fixed("api.meshy.ai"), Bearer),
    row("milvus", Custom, Bearer),
    row("mistral-ai", Fixed("api.mistral.ai"), Bearer),
    row("modal", Fixed("api.modal.com"), Optional),
    row("monsterapi", Fixed("llm.monsterapi.ai"), Bearer),
    row("moonshot", Fixed("api.moonshot.cn"), Bearer),
    row("ncompass", Fixed("api.ncompass.tech"), Bearer),
    row("nebius", Fixed("api.studio.nebius.ai"), Bearer),
    row("nextbit", Fixed("api.nextbit256.com"), Bearer),
    row("nomic", Fixed("api-atlas.nomic.ai"), Bearer),
    row("novita-ai", Fixed("api.novita.ai"), Bearer),
    row("nscale", Fixed("inference.api.nscale.com"), Bearer),
    row("ollama", Custom, Optional),
    row("openai", Fixed("api.openai.com"), Bearer),
    row("openrouter", Fixed("openrouter.ai"), Bearer),
    row("oracle", Computed, Other),
    row("ovhcloud", Fixed("oai.endpoints.kepler.ai.cloud.ovh.net"), Bearer),
    row("palm", Fixed("generativelanguage.googleapis.com"), GOOGLE_KEY),
    row("perplexity-ai", Fixed("api.perplexity.ai"), Bearer),
    row("portkey", Custom, Bearer),
    row("predibase", Fixed("serving.app.predibase.com"), Bearer),
    row("qdrant", Custom, Other),
    row("recraft-ai", Fixed("external.api.recraft.ai"), Bearer),
    row("reka-ai", Fixed("api.reka.ai"), Other),
    row("replicate", Fixed("api.replicate.com"), Bearer),
    row("sagemaker", Computed, Bearer),
    row("sambanova", Fixed("api.sambanova.ai"), Bearer),
    row("segmind", Fixed("api.segmind.com"), Other),
    row("siliconflow", Fixed("api.siliconflow.cn"), Bearer),
    row("stability-ai", Fixed("api.stability.ai"), Bearer),
    row("together-ai", Fixed("api.together.xyz"), Bearer),
    row("tripo3d", Fixed("api.tripo3d.ai"), Bearer),
    row("triton", Custom, Optional),
    row("upstage", Fixed("api.upstage.ai"), Bearer),
    row("vertex-ai", Computed, Bearer),
    row("voyage", Fixed("api.voyageai.com"), Bearer),
    row("workers-ai", Fixed("api.cloudflare.com"), Bearer),
    row("x-ai", Fixed("api.x.ai"), Bearer),
    row("z-ai", Fixed("api.z.ai"), Bearer),
    row("zhipu", Fixed("open.bigmodel.cn"), Bearer),
];

const fn row(id: &'static str, host: Host, key: Key) -> Provider {
    Provider { id, host, key }
}

/// The provider with this id; `None` for one the gateway does not have.
pub(super) fn named(id: &str) -> Option<&'static Provider> {
    let at = PROVIDERS.binary_search_by(|provider| provider.id.cmp(id)).ok()?;
    PROVIDERS.get(at)
}

/// How `provider` receives the plain key; one that is not known needs it as a bearer token.
pub(super) fn key(provider: &str) -> Key {
    named(provider).map_or(Bearer, |provider| provider.key)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_is_found_and_its_host_is_a_name() {
        for provider in &PROVIDERS {
            assert_eq!(named(provider.id), Some(provider), "{}: rows are sorted by id", provider.id);
            if let Fixed(name) = provider.host {
                assert_eq!(url::Host::parse(name), Ok(url::Host::Domain(name.to_owned())), "{}", provider.id);
            }
        }
        assert_eq!(named("nobody"), None);
    }
}
