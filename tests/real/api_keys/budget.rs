//! The body with usage limits: a hundred dollars, an alert at eighty.

use http::Method;
use serde_json::json;

use super::{App, BODIES, SDKS, Stage};
use crate::provider::Answer;

/// Each answer says that it used as many tokens as cost forty dollars: it is told at eighty, and spent at a hundred and twenty.
/// A reset has it start anew.
pub async fn is_spent_and_reset() {
    let mut stage = Stage::start().await;
    stage.provider.script("api.openai.com", |request| {
        let usage = json!({"prompt_tokens": 0, "completion_tokens": 4_000_000, "total_tokens": 4_000_000});
        let message = json!({"role": "assistant", "content": "pong"});
        request.path().ends_with("/chat/completions").then(|| {
            Answer::json(
                200,
                &json!({"id": "chatcmpl-1", "object": "chat.completion", "created": 1, "model": "gpt-4o-2024-08-06",
                    "choices": [{"index": 0, "message": message, "finish_reason": "stop"}], "usage": usage}),
            )
        })
    });
    let keys = stage.run(BODIES).await;
    let key = &keys[2];
    for round in 0..2 {
        for (at, (app, sdk)) in
            [(App::Python, "portkey"), (App::Node, "openai"), (App::Node, "portkey")].into_iter().enumerate()
        {
            let told = stage.sidekey.log().matches("A budget has reached its alert threshold.").count();
            assert_eq!(told, round + usize::from(at == 2), "before request {at} of round {round}");
            let said = stage.ask(app, sdk, "chat", &key.secret, None).await;
            assert_eq!(said["text"], "pong", "{app:?} {sdk}: {said}");
        }
        for (app, sdk, call) in SDKS {
            let said = stage.ask(app, sdk, call, &key.secret, None).await;
            let (status, code) = (json!(412), json!("budget_exhausted"));
            assert_eq!((&said["status"], &said["code"]), (&status, &code), "{app:?} {sdk}: {said}");
        }
        let asked = stage.provider.take().len();
        assert_eq!(asked, 3, "no SDK repeats what was refused, and nothing of it is sent");
        assert_eq!(stage.sidekey.metric("sidekey_usage_alerts_total{counts=\"cost\"}").await, round as u64 + 1);
        // The control plane hears of it.
        let path = format!("/api-keys/{}", key.id);
        let read = stage
            .until(async || {
                let read = stage.admin(Method::GET, &path, &json!({})).await;
                (read["status"] == "exhausted").then_some(read)
            })
            .await;
        assert_eq!((&read["usage"][0]["used"], &read["usage"][0]["requests"]), (&json!(120.0), &json!(3)), "{read}");
        stage.admin(Method::PUT, &path, &json!({"reset_usage": true})).await;
        // An upload needs room in the budget, and uses nothing of it.
        stage
            .until(async || {
                let reply = stage.post("/v1/files", &key.secret, "@openai").await;
                (reply.status != 412).then_some(())
            })
            .await;
        stage.provider.take();
    }
}
