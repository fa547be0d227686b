//! What is logged at the finest level, by us and by the libraries below.

use std::{io, sync::Mutex};

use super::*;

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
    let subscriber =
        tracing_subscriber::fmt().with_max_level(tracing::Level::TRACE).with_writer(move || writer.clone());
    // With one subscriber alone, tracing asks the thread that meets a log line first whether anybody wants it, and remembers
    // the answer for all threads. Other tests have threads without a subscriber; a second one makes it ask the subscribers.
    let _second = tracing::Dispatch::new(tracing::subscriber::NoSubscriber::new());
    let _guard = tracing::subscriber::set_default(subscriber.finish());
    for method in [Method::Token, Method::AppRole, Method::Kubernetes] {
        let server = Server::start().await;
        let jwt = server.folder().join("jwt");
        fs::write(&jwt, server::JWT).unwrap();
        server.put("app", &json!({"key": CANARY}).to_string());
        let manager = manager_with(auth(&server.url(), method), |settings| settings.vault.kubernetes_jwt_file = jwt);
        text(&manager, &at("secret/app")).await.unwrap();
        // Every way a failure could carry the answer's words or the proof along.
        let told = json!({"errors": [CANARY], "data": {"data": {"key": CANARY}}});
        for status in [200, 204, 302, 400, 403, 404, 412, 500, 503] {
            server.answer("/v1/secret/data/app", Reply::json(status, &told));
            let error = text(&manager, &at("secret/app")).await.unwrap_err();
            tracing::warn!(error = &error as &dyn std::error::Error, ?error, "fetch failed");
        }
        server.revoke_all();
        server.answer("/v1/auth/approle/login", Reply::json(400, &told));
        server.answer("/v1/auth/kubernetes/login", Reply::json(403, &told));
        server.answer("/v1/secret/data/app", Reply::unknown_token());
        let error = text(&manager, &at("secret/app")).await.unwrap_err();
        tracing::warn!(error = &error as &dyn std::error::Error, ?error, ?manager, "login failed");
        // Last, because it begins a cool-down.
        let manager = manager_with(auth(&server.url(), Method::Token), |_| {});
        server.answer("/v1/secret/data/app", Reply::json(429, &told));
        let error = text(&manager, &at("secret/app")).await.unwrap_err();
        tracing::warn!(error = &error as &dyn std::error::Error, ?error, "fetch failed");
    }
    let logged = String::from_utf8(lines.0.lock().unwrap().clone()).unwrap();
    for witness in ["rustify", "login at a secret manager failed", "fetch failed"] {
        assert!(logged.contains(witness), "{witness} was not captured");
    }
    for secret in ["canary", server::JWT, server::SECRET_ID, server::STATIC_TOKEN] {
        assert!(!logged.contains(secret), "{secret} in {}", logged.lines().find(|line| line.contains(secret)).unwrap());
    }
}
