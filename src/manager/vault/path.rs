//! From the path a person typed to the requests it may mean.
//!
//! A path begins with its mount. `secret/data/foo` is the API's own form and is taken as it is; `secret/foo` gets the `data`
//! of KV version 2 where the mount is one. A leading `/v1/` and outer slashes are dropped, so that a pasted URL works.
//! Which part is the mount is asked of the server; where it does not tell, the likely forms are tried in turn.
//! Source: Vault's HTTP API, KV version 1 and 2.

use std::fmt;

/// First segments that are no secrets engine of anybody's: reading them could hand out the login's own token.
const RESERVED: [&str; 4] = ["auth", "sys", "identity", "cubbyhole"];

/// A secret's path, tidied: no outer slashes, no `/v1/`, at least a mount and a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct SecretPath(String);

/// Version of a key-value engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kv {
    /// One value, no versions.
    V1,
    /// Versions and metadata.
    V2,
}

/// One request that a path may mean.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// `GET {mount}/data/{path}`; the answer must have the shape of version 2.
    V2 {
        /// Mount without slashes at its ends.
        mount: String,
        /// Rest of the path.
        path: String,
    },
    /// `GET {mount}/{path}`; the answer is the map.
    V1 {
        /// Mount, or the first segment where it is not known.
        mount: String,
        /// Rest of the path.
        path: String,
    },
    /// `GET {mount}/{path}`, and only the answer tells the version.
    Either {
        /// First segment.
        mount: String,
        /// Rest of the path.
        path: String,
    },
}

/// Why a path cannot name a secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum PathError {
    /// No name below the mount.
    #[error("secret_path must name a mount and a secret, like secret/data/app")]
    TooShort,
    /// Empty or dot segment.
    #[error("secret_path must not hold empty, . or .. segments")]
    Segment,
    /// One of the server's own paths.
    #[error("secret_path must lie in a key-value engine, not below auth, sys, identity or cubbyhole")]
    Reserved,
}

// === impl SecretPath ===

impl SecretPath {
    /// Tidies and checks `typed`.
    ///
    /// # Errors
    /// [`PathError`].
    pub(super) fn parse(typed: &str) -> Result<Self, PathError> {
        let path = typed.trim_matches('/');
        // An engine mounted at `v1` is written `/v1/v1/…`.
        let path = path.strip_prefix("v1/").unwrap_or(path).trim_matches('/');
        if path.split('/').any(|segment| matches!(segment, "" | "." | "..")) {
            return Err(if path.is_empty() { PathError::TooShort } else { PathError::Segment });
        }
        match path.split_once('/') {
            None => Err(PathError::TooShort),
            Some((first, _)) if RESERVED.contains(&first) => Err(PathError::Reserved),
            Some(_) => Ok(Self(path.to_owned())),
        }
    }

    /// The tidied path.
    pub(super) fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether any segment is one of the server's own names: in a namespace written into the path these are not the first.
    pub(super) fn mentions_reserved(&self) -> bool {
        self.0.split('/').any(|segment| RESERVED.contains(&segment))
    }

    /// The request for a known mount (`prefix` without slashes at its ends); `None` when the path does not lie in it.
    pub(super) fn in_mount(&self, prefix: &str, version: Kv) -> Option<Form> {
        let path = self.0.strip_prefix(prefix)?.strip_prefix('/')?;
        let mount = prefix.to_owned();
        Some(match version {
            Kv::V1 => Form::V1 { mount, path: path.to_owned() },
            Kv::V2 => Form::V2 { mount, path: path.strip_prefix("data/").unwrap_or(path).to_owned() },
        })
    }

    /// The requests to try when the server does not tell the mount, likeliest first. `version` = what the reference says.
    pub(super) fn guesses(&self, version: Option<Kv>) -> Vec<Form> {
        let (first, rest) = self.0.split_once('/').unwrap_or((&self.0, ""));
        let as_typed = |make: fn(String, String) -> Form| make(first.to_owned(), rest.to_owned());
        let v1 = |mount, path| Form::V1 { mount, path };
        let either = |mount, path| Form::Either { mount, path };
        if version == Some(Kv::V1) {
            return vec![as_typed(v1)];
        }
        if let Some(path) = rest.strip_prefix("data/") {
            return vec![match version {
                Some(_) => Form::V2 { mount: first.to_owned(), path: path.to_owned() },
                None => as_typed(either),
            }];
        }
        let mut forms = vec![Form::V2 { mount: first.to_owned(), path: rest.to_owned() }];
        if version.is_none() {
            forms.push(as_typed(either));
        }
        // A mount of two segments; deeper ones need `sys/internal/ui/mounts` or the API's own form.
        if let Some((second, path)) = rest.split_once('/') {
            let path = path.strip_prefix("data/").unwrap_or(path);
            forms.push(Form::V2 { mount: format!("{first}/{second}"), path: path.to_owned() });
        }
        forms
    }
}

impl fmt::Display for SecretPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(form: &Form) -> String {
        match form {
            Form::V2 { mount, path } => format!("2 {mount}/data/{path}"),
            Form::V1 { mount, path } => format!("1 {mount}/{path}"),
            Form::Either { mount, path } => format!("? {mount}/{path}"),
        }
    }

    #[test]
    fn typed_paths_in_a_known_mount() {
        #[rustfmt::skip]
        let rows = [
            // typed, mount, request on KV v2, request on KV v1
            ("secret/data/foo/bar", "secret", "secret/data/foo/bar", "secret/data/foo/bar"),
            ("secret/foo/bar", "secret", "secret/data/foo/bar", "secret/foo/bar"),
            ("/v1/secret/data/foo", "secret", "secret/data/foo", "secret/data/foo"),
            ("v1/secret/data/foo", "secret", "secret/data/foo", "secret/data/foo"),
            ("/secret/foo/", "secret", "secret/data/foo", "secret/foo"),
            ("kv/team/a", "kv/team", "kv/team/data/a", "kv/team/a"),
            ("kv/team/data/a", "kv/team", "kv/team/data/a", "kv/team/data/a"),
            ("secret/secret", "secret", "secret/data/secret", "secret/secret"),
            ("secret/data", "secret", "secret/data/data", "secret/data"),
            ("secret/data/data", "secret", "secret/data/data", "secret/data/data"),
            ("/v1/v1/foo", "v1", "v1/data/foo", "v1/foo"),
            ("secret/foo#key", "secret", "secret/data/foo#key", "secret/foo#key"),
            ("team1/kv/foo", "team1/kv", "team1/kv/data/foo", "team1/kv/foo"),
        ];
        for (typed, mount, v2, v1) in rows {
            let path = SecretPath::parse(typed).unwrap();
            assert_eq!(path.in_mount(mount, Kv::V2).as_ref().map(shown), Some(format!("2 {v2}")), "{typed}");
            assert_eq!(path.in_mount(mount, Kv::V1).as_ref().map(shown), Some(format!("1 {v1}")), "{typed}");
        }
        assert_eq!(SecretPath::parse("secrets/foo").unwrap().in_mount("secret", Kv::V1), None);
    }

    #[test]
    fn typed_paths_in_an_unknown_mount() {
        #[rustfmt::skip]
        let rows: [(&str, Option<Kv>, &[&str]); 9] = [
            ("secret/data/foo", None, &["? secret/data/foo"]),
            ("secret/data/foo", Some(Kv::V2), &["2 secret/data/foo"]),
            ("secret/data/foo", Some(Kv::V1), &["1 secret/data/foo"]),
            ("secret/foo", None, &["2 secret/data/foo", "? secret/foo"]),
            ("secret/foo", Some(Kv::V2), &["2 secret/data/foo"]),
            ("secret/foo", Some(Kv::V1), &["1 secret/foo"]),
            ("kv/team/a", None, &["2 kv/data/team/a", "? kv/team/a", "2 kv/team/data/a"]),
            ("kv/team/a", Some(Kv::V2), &["2 kv/data/team/a", "2 kv/team/data/a"]),
            ("kv/team/data/a", Some(Kv::V2), &["2 kv/data/team/data/a", "2 kv/team/data/a"]),
        ];
        for (typed, version, forms) in rows {
            let guesses = SecretPath::parse(typed).unwrap().guesses(version);
            assert_eq!(guesses.iter().map(shown).collect::<Vec<_>>(), forms, "{typed} {version:?}");
        }
    }

    #[test]
    fn paths_that_name_no_secret_are_refused() {
        #[rustfmt::skip]
        let rows = [
            ("", PathError::TooShort), ("/", PathError::TooShort), ("secret", PathError::TooShort), ("/v1/secret/", PathError::TooShort),
            ("secret//foo", PathError::Segment), ("secret/../sys/mounts", PathError::Segment), ("secret/./foo", PathError::Segment),
            ("auth/token/lookup-self", PathError::Reserved), ("/v1/sys/mounts", PathError::Reserved),
            ("identity/entity/id/x", PathError::Reserved), ("cubbyhole/x", PathError::Reserved), ("v1/auth/token/lookup-self", PathError::Reserved),
        ];
        for (typed, error) in rows {
            assert_eq!(SecretPath::parse(typed), Err(error), "{typed}");
        }
        assert!(SecretPath::parse("team1/auth/token/lookup-self").unwrap().mentions_reserved());
        assert!(!SecretPath::parse("secret/authors").unwrap().mentions_reserved());
    }

    proptest::proptest! {
        #[test]
        fn a_parsed_path_never_leaves_its_mount(typed in "[a-z./]{0,24}") {
            if let Ok(path) = SecretPath::parse(&typed) {
                proptest::prop_assert!(!path.as_str().split('/').any(|segment| matches!(segment, "" | "." | "..")));
                proptest::prop_assert!(!path.as_str().starts_with("sys/") && !path.as_str().starts_with("auth/"));
                proptest::prop_assert!(!path.guesses(None).is_empty());
            }
        }
    }
}
