//! Logs: what is written, in which form, and what never is.
//!
//! One line for each event on standard error: JSON off a terminal, text on one. `RUST_LOG` stands above `log.level`.
//! Libraries that speak HTTP are held at `warn` unless `RUST_LOG` names them; the Vault client library is silent whatever
//! it says, because it prints requests and answers. Panic messages are left out: they quote what was worked on.

mod audit;
mod capture;
mod otlp;

pub use audit::{AuditFile, Writer as AuditWriter};
pub use capture::Capture;
pub use otlp::{Exporter, TracingSettings};
pub use tracing::Level;

use std::{backtrace::Backtrace, backtrace::BacktraceStatus, env, io, io::IsTerminal, panic};

use tracing::{Metadata, Subscriber, error};
use tracing_subscriber::{
    EnvFilter, Layer, Registry, filter::ParseError, filter::filter_fn, fmt, fmt::MakeWriter, layer::SubscriberExt,
};

/// Libraries that are of no interest below `warn`. Of those in the tree only h2 0.4 writes through `tracing` at all, and it
/// leaves header fields and payloads out of its frames; what libraries write through `log` (reqwest, rustls) is not collected.
const QUIET: [&str; 10] = ["axum", "h2", "hyper", "hyper_util", "mio", "notify", "reqwest", "rustls", "sqlx", "tokio"];
/// Libraries that print answers: rustify 0.7 and vaultrs 0.8 attach an error with the whole reply to their spans, at any
/// level. No setting opens them.
const SILENT: [&str; 3] = ["vaultrs", "rustify", "rustify_derive"];

/// `log.*`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// `level`: the least serious event that is written.
    pub level: Level,
    /// `format`; `None` = JSON, or text on a terminal.
    pub format: Option<Format>,
}

/// `log.format`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// One JSON object a line.
    Json,
    /// For people.
    Text,
}

/// `RUST_LOG` cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("RUST_LOG is not a log filter; write it like info or info,sidekey::resolve=debug")]
pub struct BadFilter(#[source] ParseError);

// === impl Settings ===

impl Default for Settings {
    fn default() -> Self {
        Self { level: Level::INFO, format: None }
    }
}

/// Starts logging for the process, and logs panics from here on. A second call changes nothing.
///
/// # Errors
/// [`BadFilter`] when `RUST_LOG` cannot be read.
pub fn start(settings: Settings) -> Result<(), BadFilter> {
    let format = settings.format.unwrap_or(if io::stderr().is_terminal() { Format::Text } else { Format::Json });
    let over = env::var("RUST_LOG").ok().filter(|text| !text.trim().is_empty());
    let subscriber = subscriber(settings.level, over.as_deref(), format, io::stderr)?;
    // Fails only when a subscriber is there already, as in a test.
    let _ = tracing::subscriber::set_global_default(subscriber);
    panic::set_hook(Box::new(log_panic));
    Ok(())
}

/// What [`start`] writes, to any writer: `over` is the text of `RUST_LOG`.
///
/// # Errors
/// [`BadFilter`] when `over` cannot be read.
pub fn subscriber<W>(
    level: Level,
    over: Option<&str>,
    format: Format,
    writer: W,
) -> Result<Box<dyn Subscriber + Send + Sync>, BadFilter>
where
    W: for<'w> MakeWriter<'w> + Send + Sync + 'static,
{
    let lines: Box<dyn Layer<_> + Send + Sync> = match format {
        Format::Json => Box::new(
            fmt::layer().json().flatten_event(true).with_current_span(true).with_span_list(false).with_writer(writer),
        ),
        Format::Text => Box::new(fmt::layer().with_ansi(io::stderr().is_terminal()).with_writer(writer)),
    };
    let filter = filter(level, over)?;
    Ok(Box::new(Registry::default().with(filter).with(filter_fn(is_printable)).with(lines)))
}

/// The caps of [`QUIET`], then `level`, then `over`: a later directive replaces an earlier one for the same target.
fn filter(level: Level, over: Option<&str>) -> Result<EnvFilter, BadFilter> {
    let mut directives: Vec<String> = QUIET.iter().map(|name| format!("{name}=warn")).collect();
    directives.push(level.to_string());
    directives.extend(over.map(str::to_owned));
    EnvFilter::builder().parse(directives.join(",")).map_err(BadFilter)
}

fn is_printable(metadata: &Metadata<'_>) -> bool {
    let library = metadata.target().split("::").next().unwrap_or_default();
    !SILENT.contains(&library)
}

fn log_panic(panic: &panic::PanicHookInfo<'_>) {
    let location = panic.location().map(ToString::to_string);
    let backtrace = Backtrace::capture();
    let backtrace = (backtrace.status() == BacktraceStatus::Captured).then(|| backtrace.to_string());
    error!(location, backtrace, "A task panicked; its message is left out, because it may quote a secret.");
}

#[cfg(test)]
mod tests {
    use tracing::{debug, debug_span, info, subscriber::with_default, trace, warn};

    use super::*;

    fn lines(level: Level, over: Option<&str>, format: Format, events: impl FnOnce()) -> String {
        let capture = Capture::default();
        with_default(subscriber(level, over, format, capture.clone()).unwrap(), events);
        capture.text()
    }

    #[test]
    fn the_environment_stands_above_the_level() {
        struct Case {
            level: Level,
            over: Option<&'static str>,
            seen: &'static [&'static str],
        }
        let cases = [
            Case { level: Level::INFO, over: None, seen: &["ours-info", "hyper-warn"] },
            Case { level: Level::WARN, over: None, seen: &["hyper-warn"] },
            Case { level: Level::TRACE, over: None, seen: &["ours-debug", "ours-info", "hyper-warn"] },
            Case { level: Level::INFO, over: Some("debug"), seen: &["ours-debug", "ours-info", "hyper-warn"] },
            Case { level: Level::TRACE, over: Some("warn"), seen: &["hyper-warn"] },
            Case { level: Level::INFO, over: Some("warn,hyper=debug"), seen: &["hyper-debug", "hyper-warn"] },
            Case {
                level: Level::INFO,
                over: Some("hyper::proto=debug"),
                seen: &["ours-info", "hyper-debug", "hyper-warn"],
            },
        ];
        for Case { level, over, seen } in cases {
            let text = lines(level, over, Format::Text, || {
                debug!(target: "sidekey::resolve", "ours-debug");
                info!(target: "sidekey::resolve", "ours-info");
                debug!(target: "hyper::proto", "hyper-debug");
                warn!(target: "hyper::proto", "hyper-warn");
            });
            let all = ["ours-debug", "ours-info", "hyper-debug", "hyper-warn"];
            let found: Vec<_> = all.into_iter().filter(|event| text.contains(event)).collect();
            assert_eq!(found, seen, "{level} {over:?}");
        }
    }

    #[test]
    fn no_setting_opens_a_library_that_prints_secrets() {
        for over in ["trace", "vaultrs=trace", "vaultrs::api=trace,rustify::client=trace", "[{token}]=trace"] {
            let text = lines(Level::TRACE, Some(over), Format::Json, || {
                let span = debug_span!(target: "vaultrs", "read", token = "hvs.canary");
                let _entered = span.enter();
                trace!(target: "vaultrs::api", body = "hvs.canary", "Sent.");
                trace!(target: "rustify::client", body = "hvs.canary", "Sent.");
                warn!(target: "sidekey::manager", "Ours.");
            });
            assert!(!text.contains("canary"), "{over}: {text}");
            assert!(text.contains("Ours."), "{over}: {text}");
        }
    }

    #[test]
    fn json_lines_hold_the_fields_on_top() {
        let text = lines(Level::INFO, None, Format::Json, || info!(request_id = "r-1", elapsed_ms = 3, "Done.\n"));
        let line: serde_json::Value = serde_json::from_str(text.trim_end()).unwrap();
        assert_eq!(line["message"], "Done.\n");
        assert_eq!((line["request_id"].as_str(), line["elapsed_ms"].as_u64()), (Some("r-1"), Some(3)));
        assert_eq!(text.lines().count(), 1);
    }

    #[test]
    fn a_panic_is_logged_by_its_place_alone() {
        let before = panic::take_hook();
        panic::set_hook(Box::new(log_panic));
        let text = lines(Level::INFO, None, Format::Json, || {
            let slicing = panic::catch_unwind(|| ["sk-canaré"].concat()[..9].len());
            assert!(slicing.is_err(), "in the middle of a letter");
        });
        panic::set_hook(before);
        assert!(text.contains("A task panicked") && text.contains("telemetry.rs:"), "{text}");
        assert!(!text.contains("sk-canar"), "{text}");
    }

    #[test]
    fn a_filter_that_cannot_be_read_is_refused() {
        assert!(subscriber(Level::INFO, Some("sidekey=loud"), Format::Text, io::sink).is_err());
    }
}
