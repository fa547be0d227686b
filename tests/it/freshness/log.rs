//! What operators read when a secret cannot be read.

use std::sync::Mutex;

use super::*;

/// Lines of the resolver's log, as one subscriber for one thread.
#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl std::io::Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[tokio::test(start_paused = true)]
async fn each_failed_read_is_one_line_with_fixed_fields() {
    let lines = Lines::default();
    let writer = lines.clone();
    let subscriber = tracing_subscriber::fmt().json().flatten_event(true).with_writer(move || writer.clone()).finish();
    let _guard = tracing::subscriber::set_default(subscriber);
    // Another test's thread may have met these log lines first and found nobody interested; tracing remembers that.
    life().await;
    tracing::callsite::rebuild_interest_cache();
    lines.0.lock().unwrap().clear();

    life().await;
    let text = String::from_utf8(lines.0.lock().unwrap().clone()).unwrap();
    assert!(!text.contains("canary"), "{text}");
    let lines: Vec<serde_json::Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let [unavailable, gone, again] = &lines[..] else { panic!("{text}") };
    for (line, class, outcome, failures) in [
        (unavailable, "unavailable", "the last value stays in use", 1),
        (gone, "gone", "the last value is forgotten", 2),
    ] {
        assert_eq!(line["level"], "WARN");
        assert_eq!(line["message"], "Secret could not be read.");
        assert_eq!((&line["reference"], &line["manager"]), (&json!("openai"), &json!("hashicorp_vault")));
        assert_eq!((&line["class"], &line["outcome"]), (&json!(class), &json!(outcome)));
        assert_eq!((&line["failures"], &line["identity"]), (&json!(failures), &json!("fake")));
        assert!(line["error"].as_str().unwrap().contains("scripted"), "{line}");
    }
    assert_eq!(unavailable["elapsed_ms"], 40);
    assert_eq!(again["message"], "Secret is read again.");
}

/// A value, an outage, its removal, and a new value.
async fn life() {
    let rig = rig(
        NO_AHEAD,
        [
            Answer::text("sk-canary"),
            Answer::fail(FailureClass::Unavailable).after(Duration::from_millis(40)),
            Answer::fail(FailureClass::Gone),
            Answer::text("sk-canary-2"),
        ],
    );
    rig.get("openai").await;
    for _ in 0..3 {
        pass(secs(301)).await;
        rig.get("openai").await;
        rig.get("openai").await;
        settle().await;
    }
}
