//! The snapshot a configuration names, linked as the sidecar links it.

use std::sync::Arc;

use zeroize::Zeroizing;

use super::block_on;
use crate::{
    config::{Place, Problem},
    feed::{Source, file},
    manager::registry::Registry,
    model::{self, Entity, EntityKind, LinkRules, Snapshot},
    seal::opener::Opener,
};

/// The snapshot of `source`, and every problem of it. Without a `registry` only its shape is checked: faulty settings would
/// refuse references for faults that are reported already.
pub fn link(
    source: &Source,
    registry: Option<&Registry>,
    opener: Option<&Arc<Opener>>,
) -> (Option<Snapshot>, Vec<Problem>) {
    let problem = |key: String, message: String| problem_of(source, key, message);
    let (bytes, strict) = match read(source) {
        Ok(content) => content,
        Err(message) => return (None, vec![problem(String::new(), message)]),
    };
    let linked = match registry {
        Some(registry) => {
            let admit = |manager, auth: &_, location: Option<&_>| registry.admit(manager, auth, location);
            model::link(&bytes, &LinkRules { strict, admit: &admit, opener })
        }
        None => model::link(&bytes, &LinkRules { strict, opener, ..LinkRules::STRICT }),
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

/// The text of the snapshot as its source has it now, and whether it is strict.
pub fn read(source: &Source) -> Result<(Zeroizing<Vec<u8>>, bool), String> {
    match source {
        Source::File(settings) => {
            let content = file::read(&settings.path, settings.max_bytes);
            let content = content.map_err(|error| error.problem(&settings.path).message)?;
            Ok((content.bytes, settings.strict))
        }
        Source::ControlPlane(settings) => match block_on(settings.fetch()) {
            Ok(Ok(bytes)) => Ok((bytes, settings.strict)),
            Ok(Err(problem)) => Err(problem.message),
            Err(_) => Err("cannot be fetched".to_owned()),
        },
    }
}

/// Opens every sealed value of `snapshot`: what cannot be used of it.
pub fn unopened(source: &Source, snapshot: &Snapshot) -> Vec<Problem> {
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
    let problem = |(key, message)| problem_of(source, key, message);
    references.map(problem).chain(entities.map(problem)).collect()
}

/// What `snapshot` holds without effect: no problems, but worth a look.
pub fn ignored(source: &Source, snapshot: &Snapshot) -> Vec<Problem> {
    let ignored = snapshot.ignored.iter();
    ignored.map(|it| problem_of(source, it.at.clone(), format!("{} (ignored)", it.message))).collect()
}

fn problem_of(source: &Source, key: String, message: String) -> Problem {
    let file = match source {
        Source::File(settings) => settings.path.display().to_string(),
        Source::ControlPlane(settings) => settings.address.url.to_string(),
    };
    Problem { place: Place::File { file }, key, message }
}
