//! What is logged at the finest level, by us and by the SDK below.

use std::{io, sync::Mutex};

use super::*;

/// What a service says about a failure: no secret, and yet nothing that we repeat. The SDK's own trace does.
const PROSE: &str = "prose-of-aws";

/// Collects what a subscriber writes.
#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl io::Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn nothing_secret_is_logged_at_trace() {
    let lines = Lines::default();
    let writer = lines.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(tracing::Level::TRACE)
        .with_ansi(false)
        .with_writer(move || writer.clone());
    // See the test of the same name for Vault: with one subscriber alone, other threads decide what it sees.
    let _second = tracing::Dispatch::new(tracing::subscriber::NoSubscriber::new());
    let _guard = tracing::subscriber::set_default(subscriber.finish());
    for method in [Method::AccessKey, Method::AssumedRole, Method::ServiceRole] {
        let server = Server::start().await;
        server.put("app/key", &json!({"key": CANARY}).to_string());
        let manager = manager(&server, method);
        text(&manager, &at("app/key")).await.unwrap();
        // Every way a failure could carry the answer's words along.
        let told = json!({"__type": "AccessDeniedException", "Message": PROSE, "SecretString": CANARY});
        for status in [200, 204, 302, 400, 403, 404, 429, 500] {
            server.script("GetSecretValue", [Reply::json(status, &told)]);
            match text(&manager, &at("app/key")).await {
                Ok(value) => assert_eq!((status, value.as_str()), (200, CANARY)),
                Err(error) => {
                    tracing::warn!(error = &error as &dyn std::error::Error, ?error, "fetch failed");
                }
            }
        }
        server.end_sessions();
        server.forget(BASE_ID);
        for action in ["AssumeRole", "AssumeRoleWithWebIdentity"] {
            server.script(action, [Reply::query_error(403, "AccessDenied", PROSE)]);
        }
        server.script("GetSecretValue", [Reply::error(400, "ExpiredTokenException", PROSE)]);
        let error = text(&manager, &at("app/key")).await.unwrap_err();
        tracing::warn!(error = &error as &dyn std::error::Error, ?error, ?manager, "login failed");
    }
    let logged = String::from_utf8(lines.0.lock().unwrap().clone()).unwrap();
    for witness in [PROSE, "aws_smithy_runtime", "login at a secret manager failed", "fetch failed"] {
        assert!(logged.contains(witness), "{witness} was not captured");
    }
    for secret in ["sk-canary", "canary-", "canary/", server::EXTERNAL_ID, server::WEB_TOKEN] {
        assert!(!logged.contains(secret), "{secret} in {}", logged.lines().find(|line| line.contains(secret)).unwrap());
    }
    let ours = |line: &&str| line.contains(" sidekey::") && line.contains(PROSE);
    assert_eq!(logged.lines().find(ours), None);
}
