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
    // See the same test of Vault: a second subscriber makes tracing ask every time.
    let _second = tracing::Dispatch::new(tracing::subscriber::NoSubscriber::new());
    let _guard = tracing::subscriber::set_default(subscriber.finish());
    let server = Server::start().await;
    server.cloud.put("app", CANARY);
    let manager = manager(&server);
    text(&manager, &at("app")).await.unwrap();
    // Every way a failure could carry the answer's words or the proof along.
    let told =
        json!({"value": CANARY, "error": {"code": CANARY, "innererror": {"code": format!("{CANARY} {CANARY}")}}});
    for status in [204, 302, 400, 401, 403, 404, 409, 429, 500, 503] {
        server.cloud.script("/secrets/app/", [Reply::json(status, &told)]);
        let error = text(&manager, &at("app")).await.unwrap_err();
        let error = FetchError { code: None, ..error };
        tracing::warn!(error = &error as &dyn std::error::Error, ?error, "fetch failed");
    }
    server.cloud.heal();
    server.cloud.script("/secrets/app/versions", [Reply::json(200, &json!({"value": CANARY}))]);
    let error = text(&manager, &previous("app")).await.unwrap_err();
    tracing::warn!(error = &error as &dyn std::error::Error, ?error, ?manager, "fetch failed");
    let refused = manager_with(&server, entra_with(&server.url(VAULT), "another-canary"), |_| {});
    let error = text(&refused, &at("app")).await.unwrap_err();
    tracing::warn!(error = &error as &dyn std::error::Error, ?error, manager = ?refused, "login failed");
    let logged = String::from_utf8(lines.0.lock().unwrap().clone()).unwrap();
    for witness in ["typespec_client_core", "login at a secret manager failed", "fetch failed"] {
        assert!(logged.contains(witness), "{witness} was not captured");
    }
    for secret in ["canary", "eyJ"] {
        assert!(!logged.contains(secret), "{secret} in {}", logged.lines().find(|line| line.contains(secret)).unwrap());
    }
}
