//! Answers in the shape of the real APIs, as far as the SDKs and the gateway read them.
//!
//! The text of every model is `pong`; a stream says `token-0`, `token-1`, `token-2`.

use bytes::Bytes;
use serde_json::{Value, json};

use super::{Answer, Received};

const TOKENS: [&str; 3] = ["token-0", "token-1", "token-2"];

/// What the host and path of a request call for.
pub fn ordinary(request: &Received) -> Answer {
    let body = request.json();
    let streamed = body["stream"] == true;
    let model = body["model"].as_str().unwrap_or("unnamed");
    let path = request.path();
    let ends = |end: &str| path.ends_with(end);
    match request.host.as_str() {
        host if host.starts_with("bedrock-runtime.") && ends("/converse") => Answer::json(200, &converse()),
        _ if ends("/messages/count_tokens") => Answer::json(200, &json!({"input_tokens": 3})),
        _ if ends("/messages") && streamed => sse(message_events(model)),
        _ if ends("/messages") => Answer::json(200, &message(model)),
        _ if ends("/chat/completions") && streamed => sse(chat_events(model)),
        _ if ends("/chat/completions") => Answer::json(200, &chat(model)),
        _ if ends("/embeddings") => Answer::json(200, &embeddings(model)),
        _ if ends("/audio/transcriptions") || ends("/audio/translations") => {
            Answer::json(200, &json!({"text": "pong"}))
        }
        _ if ends("/audio/speech") => Answer::whole(200, "audio/mpeg", &b"ID3pong"[..]),
        _ if ends("/images/generations") => {
            Answer::json(200, &json!({"created": 1, "data": [{"b64_json": "cG9uZw=="}]}))
        }
        _ if ends("/responses") => Answer::json(200, &response(model)),
        _ if ends("/files") && request.method == http::Method::POST => Answer::json(200, &file(request.body.len())),
        _ if ends("/files") => Answer::json(200, &json!({"object": "list", "data": [file(1)], "has_more": false})),
        _ if ends("/models") => Answer::json(
            200,
            &json!({"object": "list", "data": [{"id": "gpt-4o-mini", "object": "model", "created": 1, "owned_by": "openai"}]}),
        ),
        host => Answer::json(200, &json!({"host": host, "target": request.target})),
    }
}

fn chat(model: &str) -> Value {
    json!({
        "id": "chatcmpl-1", "object": "chat.completion", "created": 1, "model": model,
        "choices": [{"index": 0, "message": {"role": "assistant", "content": "pong"}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2},
    })
}

fn chat_events(model: &str) -> Vec<String> {
    let chunk = |delta: Value, reason: Value| {
        json!({"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": model,
               "choices": [{"index": 0, "delta": delta, "finish_reason": reason}]})
    };
    let tokens = TOKENS.map(|token| chunk(json!({"role": "assistant", "content": token}), Value::Null));
    let events = tokens.into_iter().chain([chunk(json!({}), json!("stop"))]).map(|event| format!("data: {event}\n\n"));
    events.chain(["data: [DONE]\n\n".to_owned()]).collect()
}

fn message(model: &str) -> Value {
    json!({
        "id": "msg_1", "type": "message", "role": "assistant", "model": model,
        "content": [{"type": "text", "text": "pong"}], "stop_reason": "end_turn", "stop_sequence": null,
        "usage": {"input_tokens": 1, "output_tokens": 1},
    })
}

fn message_events(model: &str) -> Vec<String> {
    let mut start = message(model);
    start["content"] = json!([]);
    let mut events = vec![
        json!({"type": "message_start", "message": start}),
        json!({"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}}),
    ];
    events.extend(TOKENS.map(
        |token| json!({"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": token}}),
    ));
    events.extend([
        json!({"type": "content_block_stop", "index": 0}),
        json!({"type": "message_delta", "delta": {"stop_reason": "end_turn", "stop_sequence": null}, "usage": {"output_tokens": 3}}),
        json!({"type": "message_stop"}),
    ]);
    let name = |event: &Value| event["type"].as_str().unwrap_or_default().to_owned();
    events.iter().map(|event| format!("event: {}\ndata: {event}\n\n", name(event))).collect()
}

fn converse() -> Value {
    json!({
        "output": {"message": {"role": "assistant", "content": [{"text": "pong"}]}}, "stopReason": "end_turn",
        "usage": {"inputTokens": 1, "outputTokens": 1, "totalTokens": 2}, "metrics": {"latencyMs": 1},
    })
}

fn embeddings(model: &str) -> Value {
    json!({
        "object": "list", "model": model, "data": [{"object": "embedding", "index": 0, "embedding": [0.25, 0.5]}],
        "usage": {"prompt_tokens": 1, "total_tokens": 1},
    })
}

fn response(model: &str) -> Value {
    json!({
        "id": "resp_1", "object": "response", "created_at": 1, "status": "completed", "model": model, "error": null,
        "output": [{"type": "message", "id": "msg_1", "status": "completed", "role": "assistant",
                    "content": [{"type": "output_text", "text": "pong", "annotations": []}]}],
        "parallel_tool_calls": true, "tool_choice": "auto", "tools": [], "temperature": 1.0, "top_p": 1.0,
        "usage": {"input_tokens": 1, "output_tokens": 1, "total_tokens": 2,
                  "input_tokens_details": {"cached_tokens": 0}, "output_tokens_details": {"reasoning_tokens": 0}},
    })
}

fn file(bytes: usize) -> Value {
    json!({"id": "file-1", "object": "file", "bytes": bytes, "created_at": 1, "filename": "batch.jsonl",
           "purpose": "batch", "status": "processed"})
}

fn sse(events: Vec<String>) -> Answer {
    Answer::events("text/event-stream", events.into_iter().map(Bytes::from).collect())
}
