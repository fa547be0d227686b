//! The snapshot a configuration names, linked as the sidecar links it.

use std::{path::Path, sync::Arc};

use crate::{
    config::{Place, Problem},
    feed::file,
    manager::registry::Registry,
    model::{self, Entity, EntityKind, LinkRules, Snapshot},
    seal::opener::Opener,
};

/// The snapshot of `settings`, and every problem of it. Without a `registry` only its shape is checked: faulty settings
/// would refuse references for faults that are reported already.
pub fn link(
    settings: &file::Settings,
    registry: Option<&Registry>,
    opener: Option<&Arc<Opener>>,
) -> (Option<Snapshot>, Vec<Problem>) {
    let file::Settings { path, strict, max_bytes, .. } = settings;
    let problem = |key: String, message: String| problem_of(path, key, message);
    let content = match file::read(path, *max_bytes) {
        Ok(content) => content,
        Err(error) => return (None, vec![problem(String::new(), error.problem(path).message)]),
    };
    let linked = match registry {
        Some(registry) => {
            let admit = |manager, auth: &_, location: Option<&_>| registry.admit(manager, auth, location);
            model::link(&content.bytes, &LinkRules { strict: *strict, admit: &admit, opener })
        }
        None => model::link(&content.bytes, &LinkRules { strict: *strict, opener, ..LinkRules::STRICT }),
    };
    match linked {
        Ok(snapshot) => {
            let aside = snapshot.set_aside.iter();
            let problems = aside.map(|fault| problem(fault.at.clone(), format!("{} (set aside)", fault.message)));
            let problems = problems.collect();
            (Some(snapshot), problems)
        }
        Err(refused) => (None, refused.problems.into_iter().map(|fault| problem(fault.at, fault.message)).collect()),
    }
}

/// Opens every sealed value of `snapshot`: what cannot be used of it.
pub fn unopened(settings: &file::Settings, snapshot: &Snapshot) -> Vec<Problem> {
    let references = snapshot.references.iter().filter_map(|reference| {
        let error = reference.auth.open().err()?;
        Some((format!("secret_references ({})", reference.slug), error.to_string()))
    });
    // What a virtual key inherits is told of the integration.
    let of_its_own = |entity: &&Arc<Entity>| entity.integration.as_ref().is_none_or(|parent| parent.open().is_ok());
    let entities = snapshot.entities().filter(of_its_own).filter_map(|entity| {
        let (field, reason) = entity.open().err()?;
        let list = match entity.kind {
            EntityKind::VirtualKey => "virtual_keys",
            EntityKind::Integration => "integrations",
        };
        Some((format!("{list}.{} ({})", field.name, entity.slug), reason.to_string()))
    });
    let problem = |(key, message)| problem_of(&settings.path, key, message);
    references.map(problem).chain(entities.map(problem)).collect()
}

/// What `snapshot` holds without effect: no problems, but worth a look.
pub fn ignored(settings: &file::Settings, snapshot: &Snapshot) -> Vec<Problem> {
    let ignored = snapshot.ignored.iter();
    ignored.map(|it| problem_of(&settings.path, it.at.clone(), format!("{} (ignored)", it.message))).collect()
}

fn problem_of(path: &Path, key: String, message: String) -> Problem {
    Problem { place: Place::File { file: path.display().to_string() }, key, message }
}
