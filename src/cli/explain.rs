//! `sidekey explain`: what would happen to a request. Nothing is fetched, nothing is sent, no secret is shown.

mod request;

use std::{
    io::{self, Read},
    path::Path,
    sync::Arc,
};

use bytes::Bytes;
use http::request::Parts;
use time::OffsetDateTime;
use uuid::Uuid;

use super::{
    Exit, Screen, load,
    screen::{Tone, printable},
    snapshot,
};
use crate::{
    app::chain,
    clients::{Clients, Denied},
    config::Config,
    dialect::{
        PlanError,
        portkey::{BodyScan, Description, FieldDescription, Mode, Place, Portkey, Route, ValueSource},
    },
    manager::registry::Registry,
    metric::Metrics,
    model::{EntityKind, Snapshot},
    proxy::Refusal,
    seal::opener::Opener,
};

/// Where the request comes from, in messages.
const STDIN: &str = "standard input";
/// What [`PlanError::DestinationNotAllowed`] leaves open: who may choose.
const DESTINATION: &str = "with a credential the stored entity decides, without one passthrough.allow_hosts";

/// What would happen.
enum Verdict {
    /// To the gateway, changed like this.
    Planned(Description),
    /// To the control plane, unchanged.
    Admin,
    /// Answered here.
    Refused(PlanError),
    /// The client is not let in.
    Denied(Denied),
}

/// A configuration, its snapshot, and the request to explain.
struct Question {
    config: Config,
    clients: Clients,
    snapshot: Snapshot,
    head: Parts,
    body: Bytes,
    /// Whether `body` is all of it, or as much as the sidecar would look at.
    complete: bool,
}

/// Explains the request on standard input under the configuration in `file`.
pub fn run(file: &Path) -> Exit {
    let question = match Question::read(file, &mut Screen::stderr()) {
        Ok(question) => question,
        Err(exit) => return exit,
    };
    let mut screen = Screen::stdout();
    let Parts { method, uri, .. } = &question.head;
    // A query may hold a key of the client's.
    let line = format!("{method} {}{}", printable(uri.path()), if uri.query().is_some() { "?…" } else { "" });
    screen.line(screen.tint(Tone::Strong, line));
    match question.judge() {
        Verdict::Planned(description) => describe(&mut screen, &description),
        Verdict::Admin => {
            row(&mut screen, "refused", "404 not_found: an admin path, and there is no control plane yet");
        }
        Verdict::Refused(error) => refuse(&mut screen, reasons(&error), error.into()),
        Verdict::Denied(denied) => refuse(&mut screen, vec![denied.to_string()], denied.into()),
    }
    Exit::Fine
}

// === impl Question ===

impl Question {
    /// Reads everything, or shows every problem on `screen`.
    fn read(file: &Path, screen: &mut Screen) -> Result<Self, Exit> {
        let config = load(file, screen)?;
        let name = file.display();
        let registry = Registry::new(config.managers.clone(), Arc::new(Metrics::new())).map_err(|message| {
            screen.line(format_args!("{name}: managers: {}", printable(&message)));
            Exit::Usage
        })?;
        let clients = Clients::new(config.clients.clone(), Arc::new(Metrics::new())).map_err(|error| {
            screen.line(format_args!("{name}: {}: {}", error.key(), printable(&chain(&error))));
            Exit::Usage
        })?;
        let Some(settings) = &config.snapshot else {
            screen.line(format_args!("{name}: snapshot.file: is not set, so that every request is answered 503"));
            return Err(Exit::Usage);
        };
        let opener = config.identity_file.clone().map(Opener::load).transpose().map_err(|error| {
            screen.line(format_args!("{name}: sealing.identity_file: {}", printable(&chain(&error))));
            Exit::Usage
        })?;
        let (snapshot, problems) = snapshot::link(settings, Some(&registry), opener.map(Arc::new).as_ref());
        screen.problems(&problems);
        let snapshot = snapshot.ok_or(Exit::Usage)?;
        let mut text = Vec::new();
        let limits = config.proxy.limits;
        let limit = limits.max_head_bytes + limits.model_peek_bytes;
        let stdin = io::stdin().lock().take(limit as u64);
        if let Err(error) = { stdin }.read_to_end(&mut text) {
            screen.line(format_args!("{STDIN}: cannot be read ({})", error.kind()));
            return Err(Exit::Failed);
        }
        let (head, body) = request::parse(&text).map_err(|error| {
            screen.line(format_args!("{STDIN}: {error}"));
            Exit::Usage
        })?;
        Ok(Self { config, clients, snapshot, head, body, complete: text.len() < limit })
    }

    /// The first half of the life of a request, as the proxy leads it.
    fn judge(&self) -> Verdict {
        let dialect = Portkey::new(self.config.dialect.clone());
        match dialect.route(&self.head) {
            Ok(Route::Gateway) => {}
            Ok(Route::Admin) => return Verdict::Admin,
            Err(error) => return Verdict::Refused(error),
        }
        let mut scan = BodyScan::new(&dialect.peek_kind(&self.head));
        scan.feed(&self.body);
        let peek = scan.finish(self.complete);
        let mut head = self.head.clone();
        let now = OffsetDateTime::now_utc();
        let client = match self.clients.authenticate(&mut head, &self.snapshot) {
            Ok(client) => client,
            Err(denied) => return Verdict::Denied(denied),
        };
        match dialect.plan(&head, &peek, &self.snapshot, &client.caller, now) {
            Ok(plan) => Verdict::Planned(plan.describe(&head)),
            Err(error) => Verdict::Refused(error),
        }
    }
}

fn describe(screen: &mut Screen, description: &Description) {
    let mode = match description.mode {
        Mode::Unmatched => "unmatched: nothing of ours is set, the request keeps its own credentials",
        Mode::Header => "header: one target, its fields become request headers",
        Mode::Config => "config: every leaf of ours in x-portkey-config is rebuilt",
    };
    row(screen, "mode", mode);
    for target in &description.targets {
        let kind = match target.kind {
            EntityKind::VirtualKey => "virtual key",
            EntityKind::Integration => "integration",
        };
        row(screen, "entity", &format!("{}, {kind} of provider {}", target.entity, target.provider));
        let provider = match description.mode {
            Mode::Unmatched => None,
            Mode::Header => Some("x-portkey-provider"),
            Mode::Config => Some("provider (config)"),
        };
        let provider = provider.map(|name| (name.to_owned(), target.provider.to_string()));
        let sets: Vec<_> = provider.into_iter().chain(target.fields.iter().map(value_of)).collect();
        let width = sets.iter().map(|(name, _)| name.chars().count()).max().unwrap_or(0);
        for (at, (name, source)) in sets.iter().enumerate() {
            row(screen, if at == 0 { "sets" } else { "" }, &format!("{name:width$}  {source}"));
        }
    }
    if !description.removed.is_empty() {
        let names: Vec<&str> = description.removed.iter().map(http::HeaderName::as_str).collect();
        row(screen, "removes", &names.join(", "));
    }
    let changes = [(description.body_changes, "model in the body"), (description.query_changes, "the query")];
    for (_, what) in changes.iter().filter(|(changes, _)| *changes) {
        row(screen, "changes", what);
    }
}

/// Where a field goes, and what goes there.
fn value_of(field: &FieldDescription) -> (String, String) {
    let name = match &field.place {
        Place::Header(name) => name.to_string(),
        Place::Config => format!("{} (config)", field.name),
        Place::CustomHeaders => format!("{} (their own names)", field.name),
    };
    let source = match &field.source {
        ValueSource::Plain(text) => text.clone(),
        ValueSource::Stored => "a credential of the snapshot".to_owned(),
        ValueSource::Reference(slug) => format!("the secret of reference {slug}"),
    };
    (name, source)
}

fn reasons(error: &PlanError) -> Vec<String> {
    let mut why = vec![error.to_string()];
    match error {
        PlanError::EntityNotFound { slugs, reasons } => {
            why.extend(slugs.iter().zip(reasons).map(|(slug, reason)| format!("{slug}: {reason}")));
        }
        PlanError::DestinationNotAllowed { .. } => why.push(DESTINATION.to_owned()),
        PlanError::NotFound
        | PlanError::EntityInactive { .. }
        | PlanError::Misconfigured { .. }
        | PlanError::InvalidConfig { .. }
        | PlanError::InvalidBody { .. }
        | PlanError::NoEntity
        | PlanError::BodyTooLarge
        | PlanError::NoDeployment { .. } => {}
    }
    why
}

fn refuse(screen: &mut Screen, why: Vec<String>, refusal: Refusal) {
    let status = refusal.respond(Uuid::nil()).status();
    let verdict = screen.tint(Tone::Bad, format_args!("{} {}", status.as_u16(), refusal.code()));
    screen.line(format_args!("  {:8} {verdict}", "refused"));
    for (at, why) in why.iter().enumerate() {
        row(screen, if at == 0 { "because" } else { "" }, why);
    }
}

fn row(screen: &mut Screen, name: &str, text: &str) {
    let name = screen.tint(Tone::Faint, format_args!("{name:8}"));
    screen.line(format_args!("  {name} {}", printable(text)));
}
