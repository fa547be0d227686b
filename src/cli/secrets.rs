//! `sidekey secrets`: the operator API of a running sidecar, from the same binary, since its image may have no shell.
//!
//! Address and token come from the sidecar's own configuration or from flags. Values are never asked for and never printed.

mod call;

use std::{net::SocketAddr, path::PathBuf};

use clap::{ArgGroup, Args, Subcommand};
use http::Method;
use serde::Deserialize;
use serde_json::json;

use self::call::{Call, Failure};
use super::{
    Exit, Screen, block_on, load,
    screen::{Tone, printable},
    table::Table,
};
use crate::{admin, app::chain};

/// What to ask, and whom.
#[derive(Debug, Args)]
pub struct Asked {
    #[command(subcommand)]
    operation: Operation,
    /// The configuration of the sidecar: where it listens, and its token file
    #[arg(long, value_name = "FILE", global = true)]
    config: Option<PathBuf>,
    /// Where its admin listener is, instead of what the configuration says [default: 127.0.0.1:8901]
    #[arg(long, value_name = "ADDRESS", global = true)]
    admin: Option<SocketAddr>,
    /// The file with the bearer token, instead of what the configuration says
    #[arg(long, value_name = "FILE", global = true)]
    token_file: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
enum Operation {
    /// What is remembered of each reference: state, age, version, outcome of the last read
    List,
    /// Fetch one reference past the cache and print what came of it. Never a value
    Test {
        /// Slug or id
        #[arg(value_name = "REF")]
        reference: String,
    },
    /// Read a secret again now, or all that are remembered
    #[command(group(ArgGroup::new("what").required(true)))]
    Refresh {
        /// Slug or id
        #[arg(value_name = "REF", group = "what")]
        reference: Option<String>,
        /// Everything that is remembered
        #[arg(long, group = "what")]
        all: bool,
    },
}

/// What is remembered of one reference.
#[derive(Debug, Deserialize)]
struct Status {
    reference: String,
    manager: String,
    state: String,
    age_secs: Option<u64>,
    version: Option<String>,
    last_outcome: Option<String>,
    #[serde(default)]
    unusable: Vec<Unusable>,
}

/// A mapping that finds no value in the document.
#[derive(Debug, Deserialize)]
struct Unusable {
    entity: Option<String>,
    field: Option<String>,
    reason: String,
}

#[derive(Debug, Deserialize)]
struct List {
    data: Vec<Status>,
}

#[derive(Debug, Deserialize)]
struct AllRead {
    read: usize,
    failed: Vec<Status>,
}

#[derive(Debug, Deserialize)]
struct Tested {
    reference: String,
    manager: String,
    identity: Option<String>,
    class: String,
    manager_code: Option<String>,
    version: Option<String>,
    latency_ms: f64,
    fingerprint: Option<String>,
    #[serde(default)]
    unusable: Vec<Unusable>,
}

/// Asks a running sidecar.
pub fn run(asked: Asked) -> Exit {
    let (operation, call) = match asked.resolve() {
        Ok(resolved) => resolved,
        Err(exit) => return exit,
    };
    let done = block_on(async {
        match operation {
            Operation::List => list(&call).await,
            Operation::Test { reference } => test(&call, &reference).await,
            Operation::Refresh { reference: Some(reference), .. } => refresh(&call, &reference).await,
            Operation::Refresh { reference: None, .. } => refresh_all(&call).await,
        }
    });
    match done {
        Ok(Ok(true)) => Exit::Fine,
        Ok(Ok(false)) => Exit::Failed,
        Ok(Err(failure)) => {
            Screen::stderr().line(printable(&chain(&failure)));
            Exit::Failed
        }
        Err(exit) => exit,
    }
}

// === impl Asked ===

impl Asked {
    /// The operation, and how to reach the sidecar.
    fn resolve(self) -> Result<(Operation, Call), Exit> {
        let mut screen = Screen::stderr();
        let Self { operation, config, admin, token_file } = self;
        let configured = match config {
            Some(file) => load(&file, &mut screen)?.admin,
            None => admin::Settings::default(),
        };
        let address = admin.unwrap_or_else(|| reachable(configured.listen));
        let mut refuse = |message: &str| {
            screen.line(message);
            Err(Exit::Usage)
        };
        if address.port() == 0 {
            return refuse("admin_listen leaves the port to the system; name the address with --admin");
        }
        let Some(file) = token_file.or(configured.token_file) else {
            return refuse("no token; name --config with admin_token_file set, or --token-file");
        };
        let token = admin::TokenFile::open(file).and_then(|file| file.read());
        match token {
            Ok(token) => Ok((operation, Call::new(address, token))),
            Err(error) => refuse(&printable(&chain(&error))),
        }
    }
}

/// Where a listener on `listen` answers from this machine.
fn reachable(mut listen: SocketAddr) -> SocketAddr {
    if listen.ip().is_unspecified() {
        listen.set_ip(match listen {
            SocketAddr::V4(_) => std::net::Ipv4Addr::LOCALHOST.into(),
            SocketAddr::V6(_) => std::net::Ipv6Addr::LOCALHOST.into(),
        });
    }
    listen
}

async fn list(call: &Call) -> Result<bool, Failure> {
    let List { data } = call.send(Method::GET, "/v1/secrets", None).await?;
    print(&data);
    Ok(true)
}

async fn refresh(call: &Call, reference: &str) -> Result<bool, Failure> {
    let body = json!({ "reference": reference });
    let read: Status = call.send(Method::POST, "/v1/secrets/refresh", Some(body)).await?;
    let fine = read.last_outcome.as_deref() == Some("ok");
    print(&[read]);
    Ok(fine)
}

async fn refresh_all(call: &Call) -> Result<bool, Failure> {
    let body = json!({ "all": true });
    let AllRead { read, failed } = call.send(Method::POST, "/v1/secrets/refresh", Some(body)).await?;
    let mut screen = Screen::stdout();
    if failed.is_empty() {
        screen.line(screen.tint(Tone::Good, format_args!("{read} read")));
    } else {
        print(&failed);
        screen.line(screen.tint(Tone::Bad, format_args!("{read} read, {} failed", failed.len())));
    }
    Ok(failed.is_empty())
}

async fn test(call: &Call, reference: &str) -> Result<bool, Failure> {
    let body = json!({ "reference": reference });
    let tested: Tested = call.send(Method::POST, "/v1/secrets/test", Some(body)).await?;
    let mut table = Table::new(["REFERENCE", "MANAGER", "IDENTITY", "CLASS", "VERSION", "LATENCY", "FINGERPRINT"]);
    let text = |text: Option<String>| printable(&text.unwrap_or_default());
    let fine = tested.class == "ok";
    let class = match tested.manager_code {
        Some(code) => format!("{} ({})", printable(&tested.class), printable(&code)),
        None => printable(&tested.class),
    };
    table.push([
        printable(&tested.reference),
        printable(&tested.manager),
        text(tested.identity),
        class,
        text(tested.version),
        format!("{:.1} ms", tested.latency_ms),
        text(tested.fingerprint),
    ]);
    show(&table.lines());
    explain(&tested.reference, &tested.unusable);
    Ok(fine)
}

fn print(rows: &[Status]) {
    let mut table = Table::new(["REFERENCE", "MANAGER", "STATE", "AGE", "VERSION", "LAST READ"]);
    for Status { reference, manager, state, age_secs, version, last_outcome, unusable: _ } in rows {
        let text = |text: &Option<String>| printable(text.as_deref().unwrap_or_default());
        let age = age_secs.map_or_else(String::new, |age| format!("{age} s"));
        table.push([
            printable(reference),
            printable(manager),
            printable(state),
            age,
            text(version),
            text(last_outcome),
        ]);
    }
    show(&table.lines());
    for Status { reference, unusable, .. } in rows {
        explain(reference, unusable);
    }
}

/// Says who of those that use `reference` finds no value in what was read.
fn explain(reference: &str, unusable: &[Unusable]) {
    let mut screen = Screen::stdout();
    for Unusable { entity, field, reason } in unusable {
        let whom = entity.as_ref().zip(field.as_ref());
        let whom = whom.map_or_else(String::new, |(entity, field)| format!(", {field} of @{entity}"));
        screen.line(screen.tint(Tone::Bad, printable(&format!("{reference}{whom}: {reason}"))));
    }
}

fn show(lines: &[String]) {
    let mut screen = Screen::stdout();
    for (at, line) in lines.iter().enumerate() {
        let line = if at == 0 { screen.tint(Tone::Faint, line) } else { line.clone() };
        screen.line(line);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_address_is_asked_on_this_machine() {
        for (listen, asked) in [
            ("0.0.0.0:8901", "127.0.0.1:8901"),
            ("[::]:8901", "[::1]:8901"),
            ("127.0.0.1:8901", "127.0.0.1:8901"),
            ("10.0.0.7:1", "10.0.0.7:1"),
        ] {
            assert_eq!(reachable(listen.parse().unwrap()), asked.parse().unwrap(), "{listen}");
        }
    }
}
