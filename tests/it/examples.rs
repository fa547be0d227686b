//! The commented examples of `config/` are what the code does: every key, default and range.

use std::{fs, path::Path};

use sidekey::{
    config::{Config, ControlPlaneConfig, Key},
    feed::Source,
};

/// Text of a file of the repository.
fn text(name: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(name)).unwrap()
}

/// Each key of a YAML text with the comment above it, or above the keys directly before it.
fn commented_keys(text: &str) -> Vec<(String, String)> {
    let mut keys = Vec::new();
    let mut path: Vec<(usize, String)> = Vec::new();
    let mut comment = String::new();
    let mut in_comment = false;
    for line in text.lines() {
        let trimmed = line.trim_start();
        let indent = line.len() - trimmed.len();
        if trimmed.is_empty() {
            comment.clear();
        } else if let Some(words) = trimmed.strip_prefix('#') {
            if !in_comment {
                comment.clear();
            }
            in_comment = true;
            comment.push_str(words);
        } else if !trimmed.starts_with("- ") {
            if !in_comment && path.last().is_some_and(|(last, _)| *last != indent) {
                comment.clear();
            }
            in_comment = false;
            let (name, _) = trimmed.split_once(':').unwrap_or_else(|| panic!("{line:?} is no key"));
            path.retain(|(outer, _)| *outer < indent);
            path.push((indent, name.to_owned()));
            let names: Vec<_> = path.iter().map(|(_, name)| name.as_str()).collect();
            keys.push((names.join("."), comment.clone()));
        }
    }
    keys
}

#[test]
fn the_full_example_is_the_defaults() {
    let default = Config::parse("default", "", []).unwrap();
    let full = Config::parse("sidecar-full.yaml", &text("config/sidecar-full.yaml"), []).unwrap();
    assert_eq!(format!("{full:#?}"), format!("{default:#?}"));
}

#[test]
fn the_full_example_of_a_control_plane_is_the_defaults() {
    let default = ControlPlaneConfig::parse("default", "", []).unwrap();
    let file = "config/control-plane-full.yaml";
    let full = ControlPlaneConfig::parse(file, &text(file), []).unwrap();
    assert_eq!(format!("{full:#?}"), format!("{default:#?}"));
}

#[test]
fn the_full_examples_hold_every_key_with_its_range() {
    assert_eq!(undocumented("config/sidecar-full.yaml", Config::keys()), [""; 0]);
    assert_eq!(undocumented("config/control-plane-full.yaml", ControlPlaneConfig::keys()), [""; 0]);
}

/// What `file` does not say of `keys`.
fn undocumented(file: &str, keys: Vec<Key>) -> Vec<String> {
    let documented = commented_keys(&text(file));
    let mut missing = Vec::new();
    for Key { name, range, .. } in keys.into_iter().filter(|key| key.built) {
        match documented.iter().find(|(key, _)| key == name) {
            None => missing.push(format!("{name} is not there")),
            Some((_, comment)) if comment.is_empty() => missing.push(format!("{name} has no comment")),
            Some((_, comment)) if range.contains(" to ") && !comment.contains(&range) => {
                missing.push(format!("{name} does not say {range}"));
            }
            Some((_, comment)) => {
                // `pass or reject`: every word stands in the comment or is the shown default.
                let words = range
                    .split([' ', ','])
                    .filter(|word| !range.contains(" to ") && *word != "or" && *word != "true or false");
                let unsaid = words.filter(|word| !matches!(*word, "" | "true" | "false") && !comment.contains(word));
                missing.extend(unsaid.map(|word| format!("{name} does not say {word}")));
            }
        }
    }
    missing
}

#[test]
fn the_small_example_is_a_configuration() {
    let config = Config::parse("sidecar.yaml", &text("config/sidecar.yaml"), []).unwrap();
    let Some(Source::File(settings)) = config.snapshot else { panic!("{:?}", config.snapshot) };
    assert_eq!(settings.path, Path::new("config/snapshot.example.json"));
}

#[test]
fn the_small_example_is_a_control_plane() {
    let file = "config/control-plane.yaml";
    let config = ControlPlaneConfig::parse(file, &text(file), []).unwrap();
    assert!(config.control.recipients.is_some() && config.control.make_key_files);
}

#[test]
fn the_reader_of_comments_sees_what_is_missing() {
    let keys = commented_keys("# One.\n# Two.\na: 1\n\nb:\n  # Three.\n  c: 2\n  d: 3\ne: 4\n");
    let keys: Vec<_> = keys.iter().map(|(key, comment)| (key.as_str(), comment.as_str())).collect();
    assert_eq!(keys, [("a", " One. Two."), ("b", ""), ("b.c", " Three."), ("b.d", " Three."), ("e", "")]);
}
