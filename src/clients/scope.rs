//! Which scope a request needs, by method and path.
//!
//! Families of Portkey's own resources have scopes of their own; everything else under `/v1/` ends at a model provider and
//! needs `completions.write`, reads included: with the key's credentials a provider's files are as good as its answers.
//! Source: the scopes of Portkey's public API-key documentation. Where none is listed for a path (`/v1/feedback`), the one
//! that applications have is asked for.

use http::Method;

use crate::model::Scope;

/// A family with one scope for each thing that is done to its members.
struct Family {
    create: Scope,
    read: Scope,
    update: Scope,
    delete: Scope,
    list: Scope,
}

const PROMPTS: Family = Family {
    create: Scope::PromptsCreate,
    read: Scope::PromptsRead,
    update: Scope::PromptsUpdate,
    delete: Scope::PromptsDelete,
    list: Scope::PromptsList,
};
const GUARDRAILS: Family = Family {
    create: Scope::GuardrailsCreate,
    read: Scope::GuardrailsRead,
    update: Scope::GuardrailsUpdate,
    delete: Scope::GuardrailsDelete,
    list: Scope::GuardrailsList,
};
const POLICIES: Family = Family {
    create: Scope::PoliciesCreate,
    read: Scope::PoliciesRead,
    update: Scope::PoliciesUpdate,
    delete: Scope::PoliciesDelete,
    list: Scope::PoliciesList,
};
const MCP_SERVERS: Family = Family {
    create: Scope::McpServersCreate,
    read: Scope::McpServersRead,
    update: Scope::McpServersUpdate,
    delete: Scope::McpServersDelete,
    list: Scope::McpServersList,
};
const AGENT_SERVERS: Family = Family {
    create: Scope::AgentServersCreate,
    read: Scope::AgentServersRead,
    update: Scope::AgentServersUpdate,
    delete: Scope::AgentServersDelete,
    list: Scope::AgentServersList,
};

/// The scope that a request to the gateway needs; `None` = any key will do, which is the gateway's greeting alone.
pub(super) fn needed(method: &Method, path: &str) -> Option<Scope> {
    let rest = path.strip_prefix("/v1/")?;
    let mut segments = rest.split('/').filter(|segment| !segment.is_empty());
    let family = segments.next().unwrap_or_default();
    let (item, action) = (segments.next(), segments.next());
    Some(match (family, item, action) {
        ("prompts", Some(_), Some("completions")) => Scope::CompletionsWrite,
        ("prompts", Some(_), Some("render")) => Scope::PromptsRender,
        ("prompts", Some(_), Some("makeDefault" | "publish")) => Scope::PromptsPublish,
        ("prompts", ..) => PROMPTS.needed(method, item),
        ("guardrails", Some(_), Some("invoke")) => Scope::GuardrailsInvoke,
        ("guardrails", ..) => GUARDRAILS.needed(method, item),
        // Kinds of policies stand between: /policies/usage-limits/{id}.
        ("policies", Some(_), policy) => POLICIES.needed(method, policy),
        ("policies", None, _) => POLICIES.needed(method, None),
        ("mcp-servers", ..) => MCP_SERVERS.needed(method, item),
        ("mcp", ..) => Scope::McpInvoke,
        ("agent-servers", ..) => AGENT_SERVERS.needed(method, item),
        ("agents", ..) => Scope::AgentsInvoke,
        ("logs", Some("exports"), _) => Scope::LogsExport,
        ("logs", None, _) if *method == Method::GET => Scope::LogsList,
        ("logs", Some(_), _) if *method == Method::GET => Scope::LogsView,
        ("logs", ..) => Scope::LogsWrite,
        ("audit-logs", ..) => Scope::AuditLogsList,
        ("analytics", ..) => Scope::AnalyticsView,
        _ => Scope::CompletionsWrite,
    })
}

/// Whether a request can use up a budget. Reading files, batches and logs does not: the work was paid for when it was done.
pub(super) fn spends(method: &Method, path: &str) -> bool {
    let family = path.strip_prefix("/v1/").and_then(|rest| rest.split('/').next()).unwrap_or_default();
    let reads = matches!(*method, Method::GET | Method::HEAD) && matches!(family, "files" | "batches");
    !reads && !matches!(family, "" | "logs" | "audit-logs" | "analytics")
}

/// Whether a model works for the answer, so that it uses tokens even where it does not say so. What is not known here does.
pub(super) fn generates(method: &Method, path: &str) -> bool {
    const FREE: [&str; 15] = [
        "",
        "analytics",
        "assistants",
        "audit-logs",
        "batches",
        "feedback",
        "files",
        "fine_tuning",
        "guardrails",
        "logs",
        "models",
        "moderations",
        "policies",
        "uploads",
        "vector_stores",
    ];
    let mut segments = path.strip_prefix("/v1/").unwrap_or_default().split('/').filter(|segment| !segment.is_empty());
    let family = segments.next().unwrap_or_default();
    let last = segments.next_back().unwrap_or_default();
    let stored = family == "prompts" && last != "completions";
    let is_free = FREE.contains(&family) || stored || matches!(last, "cancel" | "count_tokens" | "input_tokens");
    *method == Method::POST && !is_free
}

/// Whether what an answer says was used is charged. What reads back files does not say anything: whoever could write them would
/// spend the budgets of all who share a virtual key.
pub(super) fn charged(method: &Method, path: &str) -> bool {
    const STORED: [&str; 8] =
        ["batches", "containers", "content", "files", "fine_tuning", "results", "uploads", "vector_stores"];
    !matches!(*method, Method::GET | Method::HEAD) || !path.split('/').any(|segment| STORED.contains(&segment))
}

// === impl Family ===

impl Family {
    fn needed(&self, method: &Method, item: Option<&str>) -> Scope {
        match (method, item) {
            (&Method::GET | &Method::HEAD | &Method::OPTIONS, None) => self.list,
            (&Method::GET | &Method::HEAD | &Method::OPTIONS, Some(_)) => self.read,
            (&Method::DELETE, _) => self.delete,
            (&Method::PUT | &Method::PATCH, _) => self.update,
            _ => self.create,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_scope_has_its_paths_and_no_path_is_without() {
        use Scope::*;
        #[rustfmt::skip]
        let cases = [
            ("POST", "/v1/chat/completions", CompletionsWrite),
            ("GET", "/v1/models", CompletionsWrite),
            ("GET", "/v1/files/f1/content", CompletionsWrite),
            ("GET", "/v1/realtime", CompletionsWrite),
            ("POST", "/v1/feedback", CompletionsWrite),
            ("POST", "/v1/proxy/anything", CompletionsWrite),
            ("POST", "/v1/prompts/p/completions", CompletionsWrite),
            ("GET", "/v1/", CompletionsWrite),
            ("POST", "/v1/prompts/p/render", PromptsRender),
            ("PUT", "/v1/prompts/p/makeDefault", PromptsPublish),
            ("POST", "/v1/prompts", PromptsCreate),
            ("GET", "/v1/prompts", PromptsList),
            ("GET", "/v1/prompts/", PromptsList),
            ("GET", "/v1/prompts/p", PromptsRead),
            ("HEAD", "/v1/prompts/p", PromptsRead),
            ("PUT", "/v1/prompts/p", PromptsUpdate),
            ("PATCH", "/v1/prompts/p", PromptsUpdate),
            ("DELETE", "/v1/prompts/p", PromptsDelete),
            ("POST", "/v1/guardrails", GuardrailsCreate),
            ("GET", "/v1/guardrails", GuardrailsList),
            ("GET", "/v1/guardrails/g", GuardrailsRead),
            ("PUT", "/v1/guardrails/g", GuardrailsUpdate),
            ("DELETE", "/v1/guardrails/g", GuardrailsDelete),
            ("POST", "/v1/guardrails/g/invoke", GuardrailsInvoke),
            ("POST", "/v1/policies/usage-limits", PoliciesCreate),
            ("GET", "/v1/policies/usage-limits", PoliciesList),
            ("GET", "/v1/policies/usage-limits/p", PoliciesRead),
            ("PUT", "/v1/policies/rate-limits/p", PoliciesUpdate),
            ("DELETE", "/v1/policies/rate-limits/p", PoliciesDelete),
            ("GET", "/v1/policies", PoliciesList),
            ("POST", "/v1/logs/exports", LogsExport),
            ("GET", "/v1/logs/exports/e/download", LogsExport),
            ("GET", "/v1/logs", LogsList),
            ("GET", "/v1/logs/l", LogsView),
            ("POST", "/v1/logs", LogsWrite),
            ("GET", "/v1/analytics/graphs/requests", AnalyticsView),
            ("POST", "/v1/mcp/server", McpInvoke),
            ("POST", "/v1/mcp-servers", McpServersCreate),
            ("GET", "/v1/mcp-servers", McpServersList),
            ("GET", "/v1/mcp-servers/s", McpServersRead),
            ("PUT", "/v1/mcp-servers/s", McpServersUpdate),
            ("DELETE", "/v1/mcp-servers/s", McpServersDelete),
            ("POST", "/v1/agents/a", AgentsInvoke),
            ("POST", "/v1/agent-servers", AgentServersCreate),
            ("GET", "/v1/agent-servers", AgentServersList),
            ("GET", "/v1/agent-servers/s", AgentServersRead),
            ("PUT", "/v1/agent-servers/s", AgentServersUpdate),
            ("DELETE", "/v1/agent-servers/s", AgentServersDelete),
            ("GET", "/v1/audit-logs", AuditLogsList),
        ];
        for (method, path, scope) in cases {
            assert_eq!(needed(&method.parse().unwrap(), path), Some(scope), "{method} {path}");
        }
        for (method, path, expected) in [
            ("POST", "/v1/chat/completions", true),
            ("GET", "/v1/realtime", true),
            ("POST", "/v1/files", true),
            ("POST", "/v1/batches", true),
            ("GET", "/v1/files/f/content", false),
            ("GET", "/v1/batches", false),
            ("GET", "/v1/logs/l", false),
            ("GET", "/", false),
        ] {
            assert_eq!(spends(&method.parse().unwrap(), path), expected, "{method} {path}");
        }
        for (method, path, expected) in [
            ("POST", "/v1/chat/completions", true),
            ("POST", "/v1/embeddings", true),
            ("POST", "/v1/messages", true),
            ("POST", "/v1/proxy/model/m/invoke", true),
            ("POST", "/v1/prompts/p/completions", true),
            ("POST", "/v1/something/new", true),
            ("POST", "/v1/messages/count_tokens", false),
            ("POST", "/v1/responses/input_tokens", false),
            ("POST", "/v1/responses/r/cancel", false),
            ("POST", "/v1/prompts/p/render", false),
            ("POST", "/v1/files", false),
            ("POST", "/v1/batches", false),
            ("GET", "/v1/models", false),
            ("GET", "/v1/responses/r", false),
            ("GET", "/", false),
        ] {
            assert_eq!(generates(&method.parse().unwrap(), path), expected, "{method} {path}");
        }
        for (method, path, expected) in [
            ("POST", "/v1/chat/completions", true),
            ("POST", "/v1/files", true),
            ("GET", "/v1/responses/r", true),
            ("GET", "/v1/proxy/v1/responses/r", true),
            ("GET", "/v1/files/f/content", false),
            ("HEAD", "/v1/files/f/content", false),
            ("GET", "/v1/batches/b/output", false),
            ("GET", "/v1/proxy/v1beta/files/f", false),
            ("GET", "/v1/proxy/v1/messages/batches/b/results", false),
            ("GET", "/v1/videos/v/content", false),
            ("GET", "/v1/vector_stores/v/files/f/content", false),
        ] {
            assert_eq!(charged(&method.parse().unwrap(), path), expected, "{method} {path}");
        }
        assert_eq!(needed(&Method::GET, "/"), None);
        for scope in Scope::ALL {
            assert!(cases.iter().any(|(_, _, listed)| listed == scope), "{scope:?} is never asked for");
        }
    }
}
