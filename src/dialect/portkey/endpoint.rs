//! Which of the gateway's readers gets a request.
//!
//! Routes with a handler of their own build the upstream request from what the dialect gives them. Every other route is a
//! proxy route: the client's headers are passed on raw and beat the provider's. Source: gateway 1.15.2 `src/index.ts`.

use http::{Method, request::Parts};

/// The reader of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Endpoint {
    /// A handler that sends inference requests to the base URL.
    Inference,
    /// Files, batches, fine-tuning: some providers ignore a custom host there and reach storage hosts.
    Storage,
    /// The WebSocket route; it ignores a custom host and takes one target only.
    Realtime,
    /// Everything else: headers are passed on raw.
    Proxy,
}

/// Decides by method and path, as the gateway's router does.
pub(super) fn of(head: &Parts) -> Endpoint {
    let path = head.uri.path().strip_prefix("/v1/").unwrap_or_default();
    let mut segments = path.split('/');
    let first = segments.next().unwrap_or_default();
    let rest = (segments.next(), segments.next(), segments.next());
    // The router answers a HEAD with the handler of GET.
    let get = matches!(head.method, Method::GET | Method::HEAD);
    let (post, delete) = (head.method == Method::POST, head.method == Method::DELETE);
    match (first, rest) {
        ("realtime", (None, ..)) if get => Endpoint::Realtime,
        ("chat", (Some("completions"), None, _)) if post => Endpoint::Inference,
        ("completions" | "embeddings" | "messages", (None, ..)) if post => Endpoint::Inference,
        ("messages", (Some("count_tokens"), None, _)) if post => Endpoint::Inference,
        ("images", (Some("generations" | "edits"), None, _)) if post => Endpoint::Inference,
        ("audio", (Some("speech" | "transcriptions" | "translations"), None, _)) if post => Endpoint::Inference,
        ("prompts", (Some(_), ..)) if post => Endpoint::Inference,
        ("responses", (None, ..)) if post => Endpoint::Inference,
        ("responses", (Some(_), None, _)) if get || delete => Endpoint::Inference,
        ("responses", (Some(_), Some("input_items"), None)) if get => Endpoint::Inference,
        ("files", (None, ..)) if get || post => Endpoint::Storage,
        ("files", (Some(_), None, _)) if get || delete => Endpoint::Storage,
        ("files", (Some(_), Some("content"), None)) if get => Endpoint::Storage,
        ("batches", (None, ..)) if get || post => Endpoint::Storage,
        ("batches", (Some(_), None, _)) if get => Endpoint::Storage,
        ("batches", (Some(_), Some("cancel"), None)) if post => Endpoint::Storage,
        ("batches", (Some(_), Some(_), _)) if get && path.ends_with("/output") => Endpoint::Storage,
        ("fine_tuning", (Some("jobs"), _, None)) => Endpoint::Storage,
        ("fine_tuning", (Some("jobs"), Some(_), Some(_))) if path.split('/').count() == 4 => Endpoint::Storage,
        _ => Endpoint::Proxy,
    }
}

#[cfg(test)]
mod tests {
    use http::Request;

    use super::*;

    #[test]
    fn follows_the_gateways_routes() {
        use Endpoint::{Inference, Proxy, Realtime, Storage};
        for (method, path, expected) in [
            ("POST", "/v1/chat/completions", Inference),
            ("POST", "/v1/chat/completions?x=1", Inference),
            ("POST", "/v1/chat/completions/", Proxy),
            ("GET", "/v1/chat/completions", Proxy),
            ("POST", "/v1/embeddings", Inference),
            ("POST", "/v1/messages/count_tokens", Inference),
            ("POST", "/v1/messages/batches", Proxy),
            ("POST", "/v1/audio/transcriptions", Inference),
            ("POST", "/v1/responses", Inference),
            ("GET", "/v1/responses/r1/input_items", Inference),
            ("POST", "/v1/responses/r1/cancel", Proxy),
            ("POST", "/v1/files", Storage),
            ("GET", "/v1/files/f1/content", Storage),
            ("HEAD", "/v1/files/f1", Storage),
            ("HEAD", "/v1/realtime", Realtime),
            ("GET", "/v1/batches/b1/output", Storage),
            ("POST", "/v1/batches/b1/cancel", Storage),
            ("GET", "/v1/fine_tuning/jobs", Storage),
            ("POST", "/v1/fine_tuning/jobs/j1/cancel", Storage),
            ("POST", "/v1/fine_tuning/jobs/j1/cancel/x", Proxy),
            ("GET", "/v1/realtime?model=x", Realtime),
            ("GET", "/v1/models", Proxy),
            ("POST", "/v1/proxy/chat/completions", Proxy),
            ("GET", "/", Proxy),
        ] {
            let (head, ()) = Request::builder().method(method).uri(path).body(()).unwrap().into_parts();
            assert_eq!(of(&head), expected, "{method} {path}");
        }
    }
}
