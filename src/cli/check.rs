//! `sidekey check`: every problem of configuration and snapshot, and whether references resolve.

mod probe;

use std::{env, path::Path, sync::Arc};

use super::{Exit, Screen, block_on, screen::Tone, snapshot};
use crate::{
    admin::TokenFile,
    app::chain,
    clients::Clients,
    config::{Config, Inspected, Place, Problem},
    manager::registry::Registry,
    metric::Metrics,
    model::Snapshot,
    proxy::{TlsSettings, Upstream},
    resolve::{self, Resolver},
    seal::opener::Opener,
    secret::fingerprint::Fingerprints,
};

/// What was found.
struct Examined {
    problems: Vec<Problem>,
    /// What has no effect, and is no problem either.
    ignored: Vec<Problem>,
    /// `None` when there is none, or none that can be used.
    snapshot: Option<Snapshot>,
    /// What references are fetched with; `None` while the configuration has a problem.
    means: Option<Means>,
}

/// What references are fetched with.
struct Means {
    registry: Arc<Registry>,
    opener: Option<Arc<Opener>>,
    cache: resolve::Settings,
    metrics: Arc<Metrics>,
    fingerprints: Fingerprints,
}

/// Checks the configuration in `file` and the snapshot it names; with `resolve`, fetches every reference once.
pub fn run(file: &Path, resolve: bool) -> Exit {
    let mut screen = Screen::stdout();
    let examined = Examined::of(file);
    examined.print(&mut screen);
    let exit = if examined.problems.is_empty() { Exit::Fine } else { Exit::Usage };
    let Examined { snapshot: Some(snapshot), means: Some(means), .. } = examined else {
        if resolve {
            screen.line("nothing was fetched");
        }
        return exit;
    };
    if !resolve {
        return exit;
    }
    let Means { registry, opener: _, cache, metrics, fingerprints } = means;
    let probed = block_on(async {
        let resolver = Resolver::new(cache, Arc::clone(&registry) as _, metrics);
        probe::all(&snapshot, &resolver, &fingerprints).await
    });
    match probed {
        Ok(probed) => {
            probed.print(&mut screen);
            if probed.failed > 0 { Exit::Failed } else { exit }
        }
        Err(failed) => failed,
    }
}

// === impl Examined ===

impl Examined {
    fn of(file: &Path) -> Self {
        let Inspected { config, mut problems } = match Config::inspect(file, env::vars_os()) {
            Ok(inspected) => inspected,
            Err(invalid) => {
                return Self { problems: invalid.problems, ignored: Vec::new(), snapshot: None, means: None };
            }
        };
        let of_file = |(key, message): (&str, String)| {
            let place = Place::File { file: file.display().to_string() };
            Problem { place, key: key.to_owned(), message }
        };
        let means = if problems.is_empty() {
            let (means, found) = Means::build(&config);
            problems.extend(found.into_iter().map(of_file));
            means
        } else {
            None
        };
        let registry = means.as_ref().map(|means| means.registry.as_ref());
        let mut ignored = Vec::new();
        let snapshot = match &config.snapshot {
            Some(settings) => {
                let opener = means.as_ref().and_then(|means| means.opener.as_ref());
                let (snapshot, found) = snapshot::link(settings, registry, opener);
                problems.extend(found);
                problems.extend(snapshot.iter().flat_map(|snapshot| snapshot::unopened(settings, snapshot)));
                ignored.extend(snapshot.iter().flat_map(|snapshot| snapshot::ignored(settings, snapshot)));
                snapshot
            }
            // It is named, and what is wrong with it is said.
            None if problems.iter().any(|problem| problem.key.starts_with("snapshot.")) => None,
            None => {
                let message = "is not set, so that every request would be answered 503; name a snapshot".to_owned();
                problems.push(of_file(("snapshot.file", message)));
                None
            }
        };
        if let (Some(snapshot), Some(name)) = (&snapshot, &config.clients.workspace())
            && snapshot.workspace_id(name).is_none()
        {
            let message = format!("`{name}` is no workspace of the snapshot; name one by its id or slug");
            problems.push(of_file(("workspace", message)));
        }
        Self { problems, ignored, snapshot, means }
    }

    fn print(&self, screen: &mut Screen) {
        screen.problems(&self.problems);
        screen.problems(&self.ignored);
        let objects = self.snapshot.as_ref().map_or_else(String::new, |snapshot| {
            let entities = snapshot.entities().count();
            format!("; {} and {}", count(snapshot.references.len(), "reference"), count(entities, "entity"))
        });
        let (tone, verdict) = match self.problems.len() {
            0 => (Tone::Good, "no problems".to_owned()),
            problems => (Tone::Bad, count(problems, "problem")),
        };
        screen.line(format_args!("{}{objects}", screen.tint(tone, verdict)));
    }
}

// === impl Means ===

impl Means {
    /// Builds every room that reads files, and reports each one that cannot be built by the key that stops it.
    fn build(config: &Config) -> (Option<Self>, Vec<(&'static str, String)>) {
        let metrics = Arc::new(Metrics::new());
        let mut problems = Vec::new();
        if let Err(error) = Upstream::new(&config.proxy.upstream) {
            problems.push(("upstream", chain(&error)));
        }
        if let Some(Err(error)) = config.proxy.tls.as_ref().map(TlsSettings::check) {
            problems.push(("tls", chain(&error)));
        }
        if let Err(error) = Clients::new(config.clients.clone(), Arc::clone(&metrics)) {
            problems.push((error.key(), chain(&error)));
        }
        if let Some(Err(error)) = config.admin.token_file.clone().map(TokenFile::open) {
            problems.push(("admin_token_file", chain(&error)));
        }
        let registry = Registry::new(config.managers.clone(), Arc::clone(&metrics));
        let registry = registry.map_err(|message| problems.push(("managers", message))).ok();
        let fingerprints = Fingerprints::new(config.fingerprint_key_file.as_deref());
        let fingerprints = fingerprints.map_err(|error| problems.push(("fingerprint_key_file", chain(&error)))).ok();
        let opener = config.identity_file.clone().map(Opener::load).transpose();
        let opener = opener.map_err(|error| problems.push(("sealing.identity_file", chain(&error)))).ok();
        let means = registry.zip(fingerprints).zip(opener).map(|((registry, fingerprints), opener)| Self {
            registry: Arc::new(registry),
            opener: opener.map(Arc::new),
            cache: config.cache,
            metrics,
            fingerprints,
        });
        (means, problems)
    }
}

/// `1 reference`, `2 references`, `2 entities`.
fn count(number: usize, noun: &str) -> String {
    match (number, noun.strip_suffix('y')) {
        (1, _) => format!("1 {noun}"),
        (_, Some(stem)) => format!("{number} {stem}ies"),
        (_, None) => format!("{number} {noun}s"),
    }
}
