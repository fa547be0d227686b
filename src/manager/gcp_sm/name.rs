//! From the path a person typed to the resource it names.
//!
//! `projects/{p}/secrets/{s}`, `projects/{p}/locations/{l}/secrets/{s}`, either with `/versions/{v}`, or a bare `{s}` in the
//! project of `gcp_project_id`. Every part is checked, because it becomes a part of a URL.
//! Source: Secret Manager, "Create a secret" (names), "Assign an alias to a secret version".

use std::fmt;

use crate::model::{SecretLocation, VersionSelector};

/// Longest secret id.
const MAX_SECRET: usize = 255;
/// Longest alias of a version.
const MAX_ALIAS: usize = 63;
/// Longest project id, domain included.
const MAX_PROJECT: usize = 253;
/// Longest region.
const MAX_REGION: usize = 32;

/// A secret, without a version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct SecretName {
    project: String,
    region: Option<String>,
    secret: String,
}

/// The version that a location asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Wanted {
    /// The one made last.
    Current,
    /// The newest enabled one before that.
    Previous,
    /// A number or an alias.
    Exactly(String),
}

/// Why a path cannot name a secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum NameError {
    /// None of the forms.
    #[error("secret_path must be projects/PROJECT/secrets/SECRET or, with gcp_project_id, the secret's name alone")]
    Form,
    /// A bare name and nothing that says where.
    #[error("secret_path is a secret's name alone; add gcp_project_id or write projects/PROJECT/secrets/SECRET")]
    NoProject,
    /// An impossible project.
    #[error("the project must be a project id or number")]
    Project,
    /// An impossible region.
    #[error("the location must be a region like europe-west3")]
    Region,
    /// Two regions.
    #[error("secret_path names another location than gcp_location")]
    TwoRegions,
    /// An impossible secret.
    #[error("the secret's name must be up to 255 letters, digits, `_` and `-`")]
    Secret,
    /// An impossible version.
    #[error("the version must be a number from 1 on or an alias")]
    Version,
    /// Two versions.
    #[error("secret_path names two versions at once; keep one")]
    TwoVersions,
}

// === impl SecretName ===

impl SecretName {
    /// Reads `location`; `project` and `region` are what `auth_config` says.
    ///
    /// # Errors
    /// [`NameError`].
    pub(super) fn parse(
        location: &SecretLocation,
        project: Option<&str>,
        region: Option<&str>,
    ) -> Result<(Self, Wanted), NameError> {
        let segments: Vec<&str> = location.path.trim_matches('/').split('/').collect();
        let (own_project, rest) = match segments.as_slice() {
            ["projects", project, rest @ ..] => (Some(*project), rest),
            rest => (None, rest),
        };
        let (own_region, rest) = match rest {
            ["locations", region, rest @ ..] if own_project.is_some() => (Some(*region), rest),
            rest => (None, rest),
        };
        let (secret, version) = match (own_project, rest) {
            (None, [secret]) | (Some(_), ["secrets", secret]) => (*secret, None),
            (Some(_), ["secrets", secret, "versions", version]) => (*secret, Some(*version)),
            _ => return Err(NameError::Form),
        };
        let project = own_project.or(project).ok_or(NameError::NoProject)?;
        if own_region.is_some() && region.is_some() && own_region != region {
            return Err(NameError::TwoRegions);
        }
        let region = own_region.or(region);
        if !is_project(project) {
            return Err(NameError::Project);
        }
        if !region.is_none_or(is_region) {
            return Err(NameError::Region);
        }
        if !is_secret(secret) {
            return Err(NameError::Secret);
        }
        let wanted = Wanted::of(&location.version, version)?;
        Ok((Self { project: project.into(), region: region.map(Into::into), secret: secret.into() }, wanted))
    }

    /// The region whose own endpoint keeps the secret; `None` = the global one.
    pub(super) fn region(&self) -> Option<&str> {
        self.region.as_deref()
    }

    /// The resource of its versions.
    pub(super) fn versions(&self) -> String {
        format!("{self}/versions")
    }

    /// The resource of one version: a number, an alias, or `latest`.
    pub(super) fn version(&self, version: &str) -> String {
        format!("{self}/versions/{version}")
    }
}

impl fmt::Display for SecretName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "projects/{}", self.project)?;
        if let Some(region) = &self.region {
            write!(f, "/locations/{region}")?;
        }
        write!(f, "/secrets/{}", self.secret)
    }
}

// === impl Wanted ===

impl Wanted {
    /// What `selector` and the version at the end of a path come to.
    fn of(selector: &VersionSelector, in_path: Option<&str>) -> Result<Self, NameError> {
        match (selector, in_path) {
            (VersionSelector::Current, None | Some("latest")) => Ok(Self::Current),
            (VersionSelector::Previous, None | Some("latest")) => Ok(Self::Previous),
            (VersionSelector::Current, Some(version)) => Self::exactly(version),
            (VersionSelector::Pinned(version), None) => Self::exactly(version),
            (VersionSelector::Previous | VersionSelector::Pinned(_), Some(_)) => Err(NameError::TwoVersions),
            (VersionSelector::Stage(_), _) => Err(NameError::Version),
        }
    }

    fn exactly(version: &str) -> Result<Self, NameError> {
        let is_number = version.len() <= 18 && !version.starts_with('0') && all(version, |byte| byte.is_ascii_digit());
        if is_number || is_alias(version) { Ok(Self::Exactly(version.into())) } else { Err(NameError::Version) }
    }
}

/// `my-project-1`, `123456`, `example.com:my-project`.
fn is_project(text: &str) -> bool {
    text.len() <= MAX_PROJECT
        && text.starts_with(|char: char| char.is_ascii_alphanumeric())
        && all(text, |byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b':'))
}

fn is_region(text: &str) -> bool {
    text.len() <= MAX_REGION
        && text.starts_with(|char: char| char.is_ascii_lowercase())
        && !text.ends_with('-')
        && all(text, |byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
}

fn is_secret(text: &str) -> bool {
    text.len() <= MAX_SECRET && all(text, |byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-'))
}

fn is_alias(text: &str) -> bool {
    text.len() <= MAX_ALIAS
        && text.starts_with(|char: char| char.is_ascii_alphabetic())
        && all(text, |byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-'))
}

fn all(text: &str, fits: impl Fn(u8) -> bool) -> bool {
    !text.is_empty() && text.bytes().all(fits)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(path: &str, version: VersionSelector) -> SecretLocation {
        SecretLocation { path: path.into(), version }
    }

    #[test]
    fn typed_paths_name_resources() {
        use VersionSelector::{Current, Pinned, Previous};
        let exactly = |version: &str| Wanted::Exactly(version.to_owned());
        let pinned = |version: &str| Pinned(version.into());
        #[rustfmt::skip]
        let rows = [
            // path, selector, gcp_project_id, gcp_location, resource, version
            ("projects/p-1/secrets/s", Current, None, None, "projects/p-1/secrets/s", Wanted::Current),
            ("/projects/p-1/secrets/s/", Current, None, None, "projects/p-1/secrets/s", Wanted::Current),
            ("projects/123/secrets/S_s-1", pinned("4"), None, None, "projects/123/secrets/S_s-1", exactly("4")),
            ("projects/example.com:p/secrets/s", pinned("live"), None, None, "projects/example.com:p/secrets/s", exactly("live")),
            ("projects/p/secrets/s/versions/7", Current, None, None, "projects/p/secrets/s", exactly("7")),
            ("projects/p/secrets/s/versions/latest", Current, None, None, "projects/p/secrets/s", Wanted::Current),
            ("projects/p/secrets/s/versions/latest", Previous, None, None, "projects/p/secrets/s", Wanted::Previous),
            ("projects/p/secrets/s", Previous, Some("other"), None, "projects/p/secrets/s", Wanted::Previous),
            ("s", Current, Some("p"), None, "projects/p/secrets/s", Wanted::Current),
            ("projects", Current, Some("p"), None, "projects/p/secrets/projects", Wanted::Current),
            ("s", pinned("1"), Some("p"), Some("europe-west3"), "projects/p/locations/europe-west3/secrets/s", exactly("1")),
            ("projects/p/locations/us-east1/secrets/s", Current, None, None, "projects/p/locations/us-east1/secrets/s", Wanted::Current),
            ("projects/p/locations/us-east1/secrets/s/versions/2", Current, None, Some("us-east1"), "projects/p/locations/us-east1/secrets/s", exactly("2")),
        ];
        for (path, selector, project, region, resource, wanted) in rows {
            let (name, found) = SecretName::parse(&at(path, selector), project, region).expect(path);
            assert_eq!((name.to_string().as_str(), found), (resource, wanted), "{path}");
        }
    }

    #[test]
    fn what_names_no_secret_is_refused() {
        use VersionSelector::{Current, Pinned, Previous, Stage};
        let long = "s".repeat(256);
        #[rustfmt::skip]
        let rows = [
            ("s", Current, None, NameError::NoProject),
            ("", Current, None, NameError::Secret), // with a project: an empty name
            ("projects/p", Current, None, NameError::Form),
            ("projects/p/secrets", Current, None, NameError::Form),
            ("projects/p/secrets/s/versions", Current, None, NameError::Form),
            ("projects/p/secrets/s/t", Current, None, NameError::Form),
            ("team/s", Current, Some("p"), NameError::Form),
            ("locations/l/secrets/s", Current, Some("p"), NameError::Form),
            ("projects//secrets/s", Current, None, NameError::Project),
            ("projects/../secrets/s", Current, None, NameError::Project),
            ("projects/a%2fb/secrets/s", Current, None, NameError::Project),
            ("s", Current, Some(".."), NameError::Project),
            ("projects/p/locations/evil.example/secrets/s", Current, None, NameError::Region),
            ("projects/p/locations/-a/secrets/s", Current, None, NameError::Region),
            ("projects/p/secrets/s:access", Current, None, NameError::Secret),
            ("projects/p/secrets/s?x", Current, None, NameError::Secret),
            ("projects/p/secrets/é", Current, None, NameError::Secret),
            (long.as_str(), Current, Some("p"), NameError::Secret),
            ("projects/p/secrets/s", Pinned("0".into()), None, NameError::Version),
            ("projects/p/secrets/s", Pinned("1.5".into()), None, NameError::Version),
            ("projects/p/secrets/s", Stage("AWSPENDING".into()), None, NameError::Version),
            ("projects/p/secrets/s/versions/3:destroy", Current, None, NameError::Version),
            ("projects/p/secrets/s/versions/3", Pinned("3".into()), None, NameError::TwoVersions),
            ("projects/p/secrets/s/versions/3", Previous, None, NameError::TwoVersions),
        ];
        for (path, selector, project, expected) in rows {
            let project = if path.is_empty() { Some("p") } else { project };
            assert_eq!(SecretName::parse(&at(path, selector), project, None), Err(expected), "{path}");
        }
        let elsewhere = at("projects/p/locations/us-east1/secrets/s", Current);
        assert_eq!(SecretName::parse(&elsewhere, None, Some("us-east4")), Err(NameError::TwoRegions));
    }

    proptest! {
        #[test]
        fn a_name_is_one_clean_url_path(path in "[a-z0-9A-Z/%.:_?#-]{0,40}", project in "[a-z.:/-]{0,8}") {
            let location = at(&path, VersionSelector::Current);
            if let Ok((name, _)) = SecretName::parse(&location, Some(&project), None) {
                let mut url = url::Url::parse("https://secretmanager.googleapis.com").unwrap();
                let path = format!("/v1/{name}");
                url.set_path(&path);
                prop_assert_eq!(url.path(), path);
                prop_assert!(url.query().is_none() && url.fragment().is_none());
            }
        }
    }
}
