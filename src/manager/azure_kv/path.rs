//! From the path a person typed to a secret's name and version.
//!
//! `name`, `name/version`, or the secret's own address as the portal shows it. The library writes both into a URL without
//! escaping them, so nothing but what Key Vault itself allows gets there. Source: Key Vault's object identifiers.

use url::Url;

use crate::model::VersionSelector;

/// Longest name of a secret.
const MAX_NAME: usize = 127;

/// Digits of a version.
const VERSION_DIGITS: usize = 32;

/// A secret and the version wanted, fit to stand in a URL.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct SecretId {
    /// Letters, digits and `-`.
    pub(super) name: String,
    /// Which version.
    pub(super) wanted: Wanted,
}

/// The version that a location asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Wanted {
    /// The newest, whether enabled or not.
    Current,
    /// The newest usable one before the current.
    Previous,
    /// Exactly this one: 32 hexadecimal digits.
    Exactly(String),
}

/// Why a path names no secret of the vault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum PathError {
    /// Something else than a name, perhaps with a version.
    #[error("secret_path must be name, name/version, or https://vault/secrets/name")]
    Form,
    /// An address in another vault.
    #[error("secret_path lies in another vault than azure_vault_url")]
    OtherVault,
    /// A name that Key Vault does not allow.
    #[error("the name of a Key Vault secret has 1 to 127 letters, digits and `-`")]
    Name,
    /// No version of Key Vault.
    #[error("the version of a Key Vault secret has 32 hexadecimal digits")]
    Version,
    /// One in the path and one beside it.
    #[error("secret_path names two versions at once; keep one")]
    TwoVersions,
}

// === impl SecretId ===

impl SecretId {
    /// What `path` and `version` mean in the vault at `vault`.
    ///
    /// # Errors
    /// [`PathError`].
    pub(super) fn parse(path: &str, version: &VersionSelector, vault: &Url) -> Result<Self, PathError> {
        let typed = match path.get(..8) {
            Some(scheme) if scheme.eq_ignore_ascii_case("https://") => in_vault(path, vault)?,
            _ => path.to_owned(),
        };
        let (name, typed_version) = match typed.split_once('/') {
            Some((name, version)) => (name, Some(version)),
            None => (typed.as_str(), None),
        };
        if !is_name(name) {
            return Err(PathError::Name);
        }
        let exactly = |version: &str| match is_version(version) {
            true => Ok(Wanted::Exactly(version.to_owned())),
            false => Err(PathError::Version),
        };
        let wanted = match (typed_version, version) {
            (Some(version), VersionSelector::Current) => exactly(version)?,
            (Some(_), VersionSelector::Previous | VersionSelector::Pinned(_) | VersionSelector::Stage(_)) => {
                return Err(PathError::TwoVersions);
            }
            (None, VersionSelector::Current) => Wanted::Current,
            (None, VersionSelector::Previous) => Wanted::Previous,
            (None, VersionSelector::Pinned(version)) => exactly(version)?,
            (None, VersionSelector::Stage(_)) => return Err(PathError::Version),
        };
        Ok(Self { name: name.to_owned(), wanted })
    }
}

/// What stands after `/secrets/` in an address of `vault`.
fn in_vault(address: &str, vault: &Url) -> Result<String, PathError> {
    let url = Url::parse(address).map_err(|_| PathError::Form)?;
    if url.origin() != vault.origin() {
        return Err(PathError::OtherVault);
    }
    if !url.username().is_empty() || url.password().is_some() || url.query().is_some() || url.fragment().is_some() {
        return Err(PathError::Form);
    }
    let path = url.path().strip_prefix("/secrets/").ok_or(PathError::Form)?;
    Ok(path.strip_suffix('/').unwrap_or(path).to_owned())
}

fn is_name(text: &str) -> bool {
    (1..=MAX_NAME).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
}

/// Whether `text` has the form of a version.
pub(super) fn is_version(text: &str) -> bool {
    text.len() == VERSION_DIGITS && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

#[cfg(test)]
mod tests {
    use super::*;

    const V1: &str = "0123456789abcdef0123456789ABCDEF";

    fn parse(path: &str, version: &VersionSelector) -> Result<(String, Wanted), PathError> {
        let vault = Url::parse("https://kv1.vault.azure.net").unwrap();
        SecretId::parse(path, version, &vault).map(|id| (id.name, id.wanted))
    }

    #[test]
    fn a_path_names_a_secret_and_perhaps_a_version() {
        use PathError::{Form, Name, OtherVault, TwoVersions, Version};
        use VersionSelector::{Current, Pinned, Previous, Stage};
        let exactly = || Wanted::Exactly(V1.to_owned());
        let long = "n".repeat(127);
        let too_long = "n".repeat(128);
        #[rustfmt::skip]
        let rows = [
            // typed, version beside it, name and version
            ("app-key", Current, Ok(("app-key", Wanted::Current))),
            ("1app", Current, Ok(("1app", Wanted::Current))),
            ("app", Previous, Ok(("app", Wanted::Previous))),
            ("app", Pinned(V1.into()), Ok(("app", exactly()))),
            ("app/V1", Current, Ok(("app", exactly()))),
            ("https://kv1.vault.azure.net/secrets/app", Current, Ok(("app", Wanted::Current))),
            ("https://kv1.vault.azure.net/secrets/app/", Current, Ok(("app", Wanted::Current))),
            ("HTTPS://Kv1.VAULT.azure.net:443/secrets/app/V1", Current, Ok(("app", exactly()))),
            ("https://kv1.vault.azure.net/secrets/app", Pinned(V1.into()), Ok(("app", exactly()))),
            (&*long, Current, Ok((&*long, Wanted::Current))),
            (&*too_long, Current, Err(Name)),
            ("", Current, Err(Name)), ("a b", Current, Err(Name)), ("a_b", Current, Err(Name)), ("a.b", Current, Err(Name)),
            ("schlüssel", Current, Err(Name)), ("..", Current, Err(Name)), ("%2e%2e", Current, Err(Name)),
            ("/app", Current, Err(Name)), ("../keys/x", Current, Err(Name)), ("app{secret-version}", Current, Err(Name)),
            ("app/", Current, Err(Version)), ("app/latest", Current, Err(Version)), ("secrets/app", Current, Err(Version)),
            ("app/V1/backup", Current, Err(Version)), ("app/../../keys/x", Current, Err(Version)),
            ("app", Pinned("1".into()), Err(Version)), ("app", Stage("AWSCURRENT".into()), Err(Version)),
            ("app/V1", Pinned(V1.into()), Err(TwoVersions)), ("app/V1", Previous, Err(TwoVersions)),
            ("https://kv2.vault.azure.net/secrets/app", Current, Err(OtherVault)),
            ("https://kv1.vault.azure.net:8443/secrets/app", Current, Err(OtherVault)),
            ("https://kv1.vault.azure.net.evil.example/secrets/app", Current, Err(OtherVault)),
            ("http://kv1.vault.azure.net/secrets/app", Current, Err(Name)),
            ("https://kv1.vault.azure.net/keys/app", Current, Err(Form)),
            ("https://kv1.vault.azure.net/secrets/", Current, Err(Name)),
            ("https://kv1.vault.azure.net/secrets/a/../../keys/b", Current, Err(Form)),
            ("https://user@kv1.vault.azure.net/secrets/app", Current, Err(Form)),
            ("https://kv1.vault.azure.net/secrets/app#V1", Current, Err(Form)),
            ("https://", Current, Err(Form)),
        ];
        for (typed, version, expected) in rows {
            let found = parse(&typed.replace("V1", V1), &version);
            let expected = expected.map(|(name, wanted)| (name.to_owned(), wanted));
            assert_eq!(found, expected, "{typed} {version:?}");
        }
    }

    proptest::proptest! {
        #[test]
        fn whatever_is_typed_stays_one_segment_each(typed in "(https://kv1\\.vault\\.azure\\.net/secrets/)?[a-z0-9A-F./%?#{}-]{0,40}") {
            if let Ok((name, wanted)) = parse(&typed, &VersionSelector::Current) {
                proptest::prop_assert!(is_name(&name));
                let version = if let Wanted::Exactly(version) = wanted { version } else { "0".repeat(VERSION_DIGITS) };
                proptest::prop_assert!(is_version(&version));
            }
        }
    }
}
