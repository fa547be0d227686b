//! From the path a person typed to the parameter it names.
//!
//! A name is flat (`db-password`) or a hierarchy that begins with `/` (`/prod/db/password`); an ARN names a parameter of
//! another account that shares it. Names are compared with case.
//! Source: Systems Manager, "About requirements and constraints for parameter names"; API, `GetParameters`.

use std::fmt;

use crate::model::{SecretLocation, VersionSelector};

/// Longest name, in bytes, with the part that an ARN has before it.
const MAX_NAME: usize = 1011;

/// Deepest hierarchy.
const MAX_DEPTH: usize = 15;

/// Parameters that are secrets of Secrets Manager in truth, where other rules of the operator's hold.
const SECRETS_MANAGER: &str = "/aws/reference/secretsmanager";

/// A parameter, without a version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ParameterName(String);

/// The version that a location asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Wanted {
    /// The newest.
    Current,
    /// The one before that.
    Previous,
    /// A number or a label.
    Selected(String),
}

/// A parameter in a version, as the service is asked for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Asked {
    /// Name or ARN.
    pub(super) name: String,
    /// Number or label.
    pub(super) selector: Option<String>,
}

/// Why a path cannot name a parameter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum NameError {
    /// Letters that no name has.
    #[error("secret_path is no name of a parameter: up to 1011 letters, digits and `_.-/`")]
    Letters,
    /// A hierarchy without its root.
    #[error("secret_path is a hierarchy without its root; write it with a leading /")]
    Root,
    /// Empty parts or too many.
    #[error("secret_path must have up to 15 parts, none of them empty, and no / at its end")]
    Parts,
    /// An ARN of something else.
    #[error("secret_path is an ARN of something else than a parameter")]
    NoParameter,
    /// A secret of Secrets Manager.
    #[error("secret_path lies in AWS Secrets Manager; make it a reference of type aws_sm")]
    SecretsManager,
    /// An impossible version.
    #[error("the version must be a number from 1 on or a label")]
    Version,
    /// An impossible label.
    #[error("the label must not begin with a digit, aws or ssm")]
    Label,
}

// === impl ParameterName ===

impl ParameterName {
    /// Reads `location`. What an ARN says before its resource is not looked at here.
    ///
    /// # Errors
    /// [`NameError`].
    pub(super) fn parse(location: &SecretLocation) -> Result<(Self, Wanted), NameError> {
        let path = &*location.path;
        match path.strip_prefix("arn:") {
            None => check(path)?,
            Some(rest) => {
                let resource = rest.splitn(5, ':').nth(4).ok_or(NameError::NoParameter)?;
                let name = resource.strip_prefix("parameter").ok_or(NameError::NoParameter)?;
                if !name.starts_with('/') {
                    return Err(NameError::NoParameter);
                }
                // Both `db` and `/db` are written `parameter/db`.
                check(name)?;
            }
        }
        let wanted = match &location.version {
            VersionSelector::Current => Wanted::Current,
            VersionSelector::Previous => Wanted::Previous,
            VersionSelector::Pinned(number) => match number.parse::<u64>() {
                Ok(1..) => Wanted::Selected(number.to_string()),
                Ok(0) | Err(_) => return Err(NameError::Version),
            },
            VersionSelector::Stage(label) => {
                let lower = label.to_ascii_lowercase();
                if lower.starts_with(|first: char| first.is_ascii_digit())
                    || lower.starts_with("aws")
                    || lower.starts_with("ssm")
                {
                    return Err(NameError::Label);
                }
                Wanted::Selected(label.to_string())
            }
        };
        Ok((Self(path.to_owned()), wanted))
    }

    /// It, in its newest version.
    pub(super) fn current(&self) -> Asked {
        Asked { name: self.0.clone(), selector: None }
    }

    /// It, in the version that `selector` names.
    pub(super) fn selected(&self, selector: &str) -> Asked {
        Asked { name: self.0.clone(), selector: Some(selector.to_owned()) }
    }
}

// === impl Asked ===

/// As the service wants it: `name`, `name:3`, `name:label`.
impl fmt::Display for Asked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.selector {
            None => f.write_str(&self.name),
            Some(selector) => write!(f, "{}:{selector}", self.name),
        }
    }
}

fn check(name: &str) -> Result<(), NameError> {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'-' | b'/');
    if name.is_empty() || name.len() > MAX_NAME || !name.bytes().all(fits) {
        return Err(NameError::Letters);
    }
    let parts = match name.strip_prefix('/') {
        Some(parts) => parts,
        None if name.contains('/') => return Err(NameError::Root),
        None => name,
    };
    if parts.split('/').any(str::is_empty) || parts.split('/').count() > MAX_DEPTH {
        return Err(NameError::Parts);
    }
    let is_below =
        |prefix: &str| name.to_ascii_lowercase().strip_prefix(prefix).is_some_and(|rest| rest.starts_with('/'));
    if is_below(SECRETS_MANAGER) {
        return Err(NameError::SecretsManager);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(path: &str, version: VersionSelector) -> Result<(ParameterName, Wanted), NameError> {
        ParameterName::parse(&SecretLocation { path: path.into(), version })
    }

    #[test]
    fn names_are_taken_as_they_are() {
        use VersionSelector::{Current, Pinned, Previous, Stage};
        let arn = "arn:aws:ssm:us-east-1:123456789012:parameter/prod/db";
        #[rustfmt::skip]
        let rows = [
            // path, selector, as it is asked for
            ("db-password", Current, "db-password"),
            ("/prod/db/password", Current, "/prod/db/password"),
            ("/aws/service/ami-amazon-linux-latest/x", Current, "/aws/service/ami-amazon-linux-latest/x"),
            ("/prod/db", Pinned("3".into()), "/prod/db:3"),
            ("a_b.c-D", Stage("live".into()), "a_b.c-D:live"),
            (arn, Current, arn),
            (arn, Pinned("12".into()), "arn:aws:ssm:us-east-1:123456789012:parameter/prod/db:12"),
            ("/prod/db", Previous, "previous"),
        ];
        for (path, selector, expected) in rows {
            let (name, wanted) = parse(path, selector).expect(path);
            let asked = match wanted {
                Wanted::Current => name.current().to_string(),
                Wanted::Selected(selector) => name.selected(&selector).to_string(),
                Wanted::Previous => "previous".to_owned(),
            };
            assert_eq!(asked, expected, "{path}");
        }
    }

    #[test]
    fn what_names_no_parameter_is_refused() {
        use VersionSelector::{Current, Pinned, Stage};
        let (long, deep) = ("a".repeat(1012), "/a".repeat(16));
        #[rustfmt::skip]
        let rows = [
            ("", Current, NameError::Letters), ("a b", Current, NameError::Letters), ("a,b", Current, NameError::Letters),
            ("a\"}", Current, NameError::Letters), ("é", Current, NameError::Letters), (&long, Current, NameError::Letters),
            ("prod/db", Current, NameError::Root),
            ("/", Current, NameError::Parts), ("/a//b", Current, NameError::Parts), ("/a/", Current, NameError::Parts),
            (&deep, Current, NameError::Parts),
            ("arn:aws:ssm:us-east-1:123456789012:document/x", Current, NameError::NoParameter),
            ("arn:aws:ssm:us-east-1:123456789012:parameterx", Current, NameError::NoParameter),
            ("arn:aws:ssm", Current, NameError::NoParameter),
            ("arn:aws:ssm:us-east-1:123456789012:parameter/a b", Current, NameError::Letters),
            ("/aws/reference/secretsmanager/db", Current, NameError::SecretsManager),
            ("/AWS/reference/SecretsManager/db", Current, NameError::SecretsManager),
            ("arn:aws:ssm:us-east-1:123456789012:parameter/aws/reference/secretsmanager/db", Current, NameError::SecretsManager),
            ("/a", Stage("1a".into()), NameError::Label), ("/a", Stage("AWSCURRENT".into()), NameError::Label),
            ("/a", Stage("ssm-x".into()), NameError::Label),
            ("/a", Pinned("0".into()), NameError::Version), ("/a", Pinned("first".into()), NameError::Version),
        ];
        for (path, selector, expected) in rows {
            assert_eq!(parse(path, selector).map(drop), Err(expected), "{path}");
        }
    }
}
