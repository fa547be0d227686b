//! Tells a webhook of the operator that a budget has reached its threshold, or its end: one POST for each crossing.
//!
//! Signed as Standard Webhooks has it (`webhook-id`, `webhook-timestamp`, `webhook-signature: v1,` and the base64 of HMAC-SHA-256 over
//! `ID.TIMESTAMP.BODY`); a repeated delivery has the id of the first. What cannot be delivered is tried [`ATTEMPTS`] times and then
//! given up, logged and counted; nobody waits for it. Where it goes is judged by `egress.*`.

use std::{
    fmt,
    fs::File,
    io::{self, Read},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use hmac::{Hmac, KeyInit, Mac};
use http::{HeaderMap, HeaderValue, Method, header::CONTENT_TYPE};
use serde_json::json;
use sha2::Sha256;
use time::{OffsetDateTime, format_description::well_known::Rfc3339};
use tokio::sync::mpsc;
use tracing::{debug, warn};
use url::Url;
use uuid::Uuid;
use zeroize::Zeroizing;

use crate::{
    egress::{Bounds, Call, Reach, Transport},
    metric::{Metrics, OutcomeLabels},
};

/// Alerts that wait; more are given up.
const QUEUE: usize = 1000;
/// Times a delivery is tried.
const ATTEMPTS: u32 = 5;
/// Before the second attempt; twice as long before each that follows.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const BOUNDS: Bounds = Bounds { timeout: Duration::from_secs(10), max_body: 64 << 10 };
/// Fewest and most bytes of a secret.
const SECRET_BYTES: std::ops::RangeInclusive<usize> = 16..=4096;
/// What secrets in base64 begin with.
const ENCODED: &str = "whsec_";

/// `limits.alerts.*`.
#[derive(Clone, Debug)]
pub struct AlertSettings {
    /// `limits.alerts.webhook_url`.
    pub webhook_url: Url,
    /// `limits.alerts.secret_file`.
    pub secret_file: PathBuf,
}

/// Why alerts cannot be sent. Never what stands in the file.
#[derive(Debug, thiserror::Error)]
pub enum AlertError {
    /// It cannot be read.
    #[error("{} cannot be read", file.display())]
    Read {
        /// Which.
        file: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It is no secret.
    #[error("{} holds no secret of 16 to 4096 bytes, as it is or as whsec_ and base64", file.display())]
    Secret {
        /// Which.
        file: PathBuf,
    },
}

/// A line that was crossed.
#[derive(Clone, Debug, PartialEq)]
pub struct Alert {
    /// [`crate::model::Account::name`].
    pub account: Box<str>,
    /// `cost` or `tokens`.
    pub counts: &'static str,
    /// `threshold` or `exhausted`.
    pub event: &'static str,
    /// Dollars or tokens.
    pub used: f64,
    /// In the same unit; `None` = there is only a threshold.
    pub limit: Option<f64>,
    /// In the same unit.
    pub alert_threshold: Option<f64>,
    /// When.
    pub at: OffsetDateTime,
}

/// Alerts on their way.
pub struct Alerts {
    settings: AlertSettings,
    queue: mpsc::Sender<Alert>,
    waiting: Mutex<Option<mpsc::Receiver<Alert>>>,
    metrics: Arc<Metrics>,
}

// === impl Alerts ===

impl Alerts {
    /// By `settings`; nothing is sent yet.
    ///
    /// # Errors
    /// [`AlertError`] when the secret cannot be used.
    pub fn new(settings: AlertSettings, metrics: Arc<Metrics>) -> Result<Self, AlertError> {
        secret(&settings.secret_file)?;
        let (queue, waiting) = mpsc::channel(QUEUE);
        Ok(Self { settings, queue, waiting: Mutex::new(Some(waiting)), metrics })
    }

    /// Has `alert` delivered some time.
    pub fn raise(&self, alert: Alert) {
        if self.queue.try_send(alert).is_err() {
            self.count("dropped");
        }
    }

    /// Delivers one after the other, until it is dropped.
    pub async fn deliver(&self, transport: &Transport) {
        let Some(mut waiting) = self.waiting.lock().unwrap_or_else(PoisonError::into_inner).take() else { return };
        while let Some(alert) = waiting.recv().await {
            self.post(transport, &alert).await;
        }
    }

    async fn post(&self, transport: &Transport, alert: &Alert) {
        let id = format!("msg_{}", Uuid::now_v7().simple());
        let body = alert.body();
        let mut pause = FIRST_PAUSE;
        for attempt in 1..=ATTEMPTS {
            let error = match self.attempt(transport, &id, &body).await {
                Ok(()) => return self.count("delivered"),
                Err(error) => error,
            };
            debug!(account = &*alert.account, attempt, error, "An alert was not delivered.");
            if attempt == ATTEMPTS {
                warn!(account = &*alert.account, event = alert.event, error, "An alert is given up.");
                return self.count("failed");
            }
            tokio::time::sleep(pause).await;
            pause *= 2;
        }
    }

    async fn attempt(&self, transport: &Transport, id: &str, body: &str) -> Result<(), String> {
        // Read anew, so that a rotated secret takes effect.
        let secret = secret(&self.settings.secret_file).map_err(|error| error.to_string())?;
        let timestamp = OffsetDateTime::now_utc().unix_timestamp();
        let signature = sign(&secret, id, timestamp, body);
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        headers.insert("webhook-timestamp", HeaderValue::from(timestamp));
        for (name, value) in [("webhook-id", id), ("webhook-signature", &signature)] {
            headers.insert(name, HeaderValue::from_str(value).map_err(|error| error.to_string())?);
        }
        let call = Call {
            method: Method::POST,
            url: self.settings.webhook_url.clone(),
            headers,
            body: Zeroizing::new(body.as_bytes().to_vec()),
            reach: Reach::Admitted,
        };
        let answer = transport.send(call, BOUNDS).await.map_err(|error| error.to_string())?;
        if answer.status.is_success() { Ok(()) } else { Err(format!("status {}", answer.status.as_u16())) }
    }

    fn count(&self, outcome: &'static str) {
        self.metrics.usage_notifications.get_or_create(&OutcomeLabels { outcome }).inc();
    }
}

impl fmt::Debug for Alerts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Alerts").field("settings", &self.settings).finish_non_exhaustive()
    }
}

// === impl Alert ===

impl Alert {
    fn body(&self) -> String {
        let (kind, id) = self.account.split_once('/').unwrap_or(("", &self.account));
        json!({
            "type": format!("usage.{}", self.event),
            "timestamp": self.at.format(&Rfc3339).unwrap_or_default(),
            "data": {
                "account": {"type": kind, "id": id},
                "counts": self.counts, "used": self.used, "limit": self.limit, "alert_threshold": self.alert_threshold,
            },
        })
        .to_string()
    }
}

fn sign(secret: &[u8], id: &str, timestamp: i64, body: &str) -> String {
    // HMAC takes keys of any length.
    let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(secret) else { return String::new() };
    mac.update(format!("{id}.{timestamp}.{body}").as_bytes());
    format!("v1,{}", STANDARD.encode(mac.finalize().into_bytes()))
}

fn secret(file: &Path) -> Result<Zeroizing<Vec<u8>>, AlertError> {
    let mut text = Zeroizing::new(String::with_capacity(*SECRET_BYTES.end() * 2));
    File::open(file)
        .and_then(|open| open.take(*SECRET_BYTES.end() as u64 * 2).read_to_string(&mut text))
        .map_err(|source| AlertError::Read { file: file.to_owned(), source })?;
    let text = text.trim();
    let secret = match text.strip_prefix(ENCODED) {
        Some(encoded) => STANDARD.decode(encoded).unwrap_or_default(),
        None => text.as_bytes().to_vec(),
    };
    let secret = Zeroizing::new(secret);
    let fits = SECRET_BYTES.contains(&secret.len());
    if fits { Ok(secret) } else { Err(AlertError::Secret { file: file.to_owned() }) }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of the Standard Webhooks specification.
    #[test]
    fn signatures_are_those_of_the_specification() {
        let secret = STANDARD.decode("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").unwrap();
        let signature = sign(&secret, "msg_p5jXN8AQM9LWM0D4loKWxJek", 1_614_265_330, r#"{"test": 2432232314}"#);
        assert_eq!(signature, "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
    }

    #[test]
    fn a_secret_is_long_enough_and_never_shown() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("secret");
        for (text, bytes) in [
            ("0123456789abcdef\n", Some(16)),
            ("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", Some(24)),
            ("short", None),
            ("whsec_short", None),
            ("", None),
        ] {
            std::fs::write(&file, text).unwrap();
            let read = secret(&file);
            assert_eq!(read.as_ref().ok().map(|secret| secret.len()), bytes, "{text}");
            assert!(read.is_ok() || text.is_empty() || !read.unwrap_err().to_string().contains("short"));
        }
    }

    #[test]
    fn a_body_says_whose_budget_it_is() {
        let at = OffsetDateTime::UNIX_EPOCH;
        let (used, limit, alert_threshold) = (80.5, Some(100.0), Some(80.0));
        let alert =
            Alert { account: "api_key/k".into(), counts: "cost", event: "threshold", used, limit, alert_threshold, at };
        let body: serde_json::Value = serde_json::from_str(&alert.body()).unwrap();
        let expected = json!({"type": "usage.threshold", "timestamp": "1970-01-01T00:00:00Z", "data": {
            "account": {"type": "api_key", "id": "k"}, "counts": "cost", "used": 80.5, "limit": 100.0, "alert_threshold": 80.0}});
        assert_eq!(body, expected);
    }
}
