//! Workload identity federation: a credentials file that says which token file to read and what to exchange it for.
//!
//! Only tokens from a file: programs are not started, other addresses and other clouds' metadata are not asked. The file is the
//! operator's and holds no secret; it may still not send a token anywhere but to Google.
//! Source: AIP-4117.

use std::path::PathBuf;

use url::{Host, Url};
use zeroize::Zeroizing;

use super::{STS_URL, text};
use crate::secret::json::Literal;

/// Where service accounts are impersonated.
const IMPERSONATION_HOST: &str = "iamcredentials.googleapis.com";

/// How long an impersonated token holds unless the file says otherwise, and what it may say, seconds.
const LIFETIME_SECS: u64 = 3600;
const MAX_LIFETIME_SECS: u64 = 43_200;

/// A credentials file of type `external_account`.
#[derive(Debug)]
pub(super) struct Federation {
    /// `//iam.googleapis.com/projects/…/providers/…`.
    pub(super) audience: String,
    /// What kind of token the file holds.
    pub(super) token_type: String,
    /// Where the token is.
    pub(super) token_file: PathBuf,
    /// Whose token is wanted in the end; `None` = the federated identity's own.
    pub(super) impersonation_url: Option<Url>,
    /// How long that one shall hold.
    pub(super) lifetime_secs: u64,
    /// The token is this member of a JSON object; `None` = the file is the token.
    member: Option<String>,
}

// === impl Federation ===

impl Federation {
    /// Reads the content of a credentials file.
    ///
    /// # Errors
    /// A code for the log.
    pub(super) fn parse(json: Literal<'_>) -> Result<Self, &'static str> {
        if text(json, "universe_domain").is_some_and(|domain| domain != "googleapis.com") {
            return Err("federation_universe");
        }
        if text(json, "token_url").is_some_and(|url| url != STS_URL) {
            return Err("federation_token_url");
        }
        let source = json.member("credential_source").ok_or("federation_source")?;
        let token_file = text(source, "file").filter(|path| !path.is_empty()).ok_or("federation_source")?;
        let member = match source.member("format") {
            Some(format) if text(format, "type").as_deref() == Some("json") => {
                Some(text(format, "subject_token_field_name").ok_or("federation_format")?)
            }
            Some(format) if text(format, "type").is_none_or(|kind| kind == "text") => None,
            Some(_) => return Err("federation_format"),
            None => None,
        };
        let impersonation_url = match text(json, "service_account_impersonation_url") {
            Some(url) => Some(impersonation_url(&url).ok_or("federation_impersonation_url")?),
            None => None,
        };
        Ok(Self {
            audience: text(json, "audience").ok_or("federation_audience")?,
            token_type: text(json, "subject_token_type").ok_or("federation_token_type")?,
            token_file: token_file.into(),
            impersonation_url,
            lifetime_secs: lifetime_secs(json),
            member,
        })
    }

    /// The token in the content of the token file.
    ///
    /// # Errors
    /// A code for the log.
    pub(super) fn subject(&self, content: &[u8]) -> Result<Zeroizing<String>, &'static str> {
        let content = std::str::from_utf8(content).map_err(|_| "token_file_not_text")?;
        let copy = |text: &str| Zeroizing::new(text.trim().to_owned());
        let token = match &self.member {
            None => copy(content),
            Some(member) => {
                let text = Literal::parse(content).and_then(|json| json.member(member)?.decode());
                copy(text.as_deref().and_then(|text| std::str::from_utf8(text).ok()).ok_or("token_file_member")?)
            }
        };
        if token.is_empty() { Err("token_file_empty") } else { Ok(token) }
    }
}

/// `service_account_impersonation.token_lifetime_seconds`.
fn lifetime_secs(json: Literal<'_>) -> u64 {
    let stated = json.member("service_account_impersonation");
    let stated = stated.and_then(|stated| stated.member("token_lifetime_seconds"));
    let stated = stated.and_then(|stated| String::from_utf8(stated.compact_ascii()).ok()?.parse().ok());
    stated.unwrap_or(LIFETIME_SECS).clamp(600, MAX_LIFETIME_SECS)
}

/// `https://iamcredentials.googleapis.com/v1/projects/-/serviceAccounts/{email}:generateAccessToken`, and nothing else.
fn impersonation_url(text: &str) -> Option<Url> {
    let url = Url::parse(text).ok()?;
    let account = url.path().strip_prefix("/v1/projects/-/serviceAccounts/")?.strip_suffix(":generateAccessToken")?;
    let is_google = url.scheme() == "https"
        && url.host() == Some(Host::Domain(IMPERSONATION_HOST))
        && url.port().is_none()
        && url.username().is_empty()
        && url.password().is_none()
        && url.query().is_none()
        && url.fragment().is_none();
    (is_google && !account.is_empty() && !account.contains('/')).then_some(url)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn file(change: Value) -> String {
        let mut file = json!({
            "type": "external_account",
            "audience": "//iam.googleapis.com/projects/1/locations/global/workloadIdentityPools/p/providers/k",
            "subject_token_type": "urn:ietf:params:oauth:token-type:jwt",
            "token_url": "https://sts.googleapis.com/v1/token",
            "credential_source": {"file": "/var/run/token"},
        });
        for (name, value) in change.as_object().unwrap() {
            file[name] = value.clone();
        }
        file.to_string()
    }

    fn parse(change: Value) -> Result<Federation, &'static str> {
        Federation::parse(Literal::parse(&file(change)).unwrap())
    }

    #[test]
    fn tokens_go_to_google_only() {
        let email = "https://iamcredentials.googleapis.com/v1/projects/-/serviceAccounts/gw@p.iam.gserviceaccount.com";
        let good = parse(json!({"service_account_impersonation_url": format!("{email}:generateAccessToken")})).unwrap();
        assert!(good.impersonation_url.is_some());
        #[rustfmt::skip]
        let rows = [
            (json!({"token_url": "https://sts.evil.example/v1/token"}), "federation_token_url"),
            (json!({"universe_domain": "evil.example"}), "federation_universe"),
            (json!({"service_account_impersonation_url": "https://evil.example/v1/projects/-/serviceAccounts/a:generateAccessToken"}), "federation_impersonation_url"),
            (json!({"service_account_impersonation_url": "http://iamcredentials.googleapis.com/v1/projects/-/serviceAccounts/a:generateAccessToken"}), "federation_impersonation_url"),
            (json!({"service_account_impersonation_url": "https://iamcredentials.googleapis.com:444/v1/projects/-/serviceAccounts/a:generateAccessToken"}), "federation_impersonation_url"),
            (json!({"service_account_impersonation_url": "https://x@iamcredentials.googleapis.com/v1/projects/-/serviceAccounts/a:generateAccessToken"}), "federation_impersonation_url"),
            (json!({"service_account_impersonation_url": format!("{email}:signJwt")}), "federation_impersonation_url"),
            (json!({"service_account_impersonation_url": format!("{email}:generateAccessToken?x")}), "federation_impersonation_url"),
            (json!({"credential_source": {"url": "http://169.254.169.254/token"}}), "federation_source"),
            (json!({"credential_source": {"executable": {"command": "/bin/true"}}}), "federation_source"),
            (json!({"credential_source": {"file": ""}}), "federation_source"),
            (json!({"credential_source": {"file": "/t", "format": {"type": "xml"}}}), "federation_format"),
            (json!({"credential_source": {"file": "/t", "format": {"type": "json"}}}), "federation_format"),
            (json!({"audience": null}), "federation_audience"),
            (json!({"subject_token_type": 1}), "federation_token_type"),
        ];
        for (change, code) in rows {
            assert_eq!(parse(change.clone()).map(drop), Err(code), "{change}");
        }
    }

    #[test]
    fn a_token_is_the_file_or_a_member_of_it() {
        let json = json!({"file": "/t", "format": {"type": "json", "subject_token_field_name": "id_token"}});
        let text = json!({"file": "/t", "format": {"type": "text"}});
        #[rustfmt::skip]
        let rows = [
            // source, content, token or code
            (text.clone(), "a.b.c\n", Ok("a.b.c")),
            (text, " \n", Err("token_file_empty")),
            (json.clone(), r#"{"id_token": "a.b.c"}"#, Ok("a.b.c")),
            (json.clone(), r#"{"token": "a.b.c"}"#, Err("token_file_member")),
            (json, "a.b.c", Err("token_file_member")),
        ];
        for (source, content, expected) in rows {
            let federation = parse(json!({"credential_source": source})).unwrap();
            let found = federation.subject(content.as_bytes());
            assert_eq!(found.as_ref().map(|token| token.as_str()).map_err(|code| *code), expected, "{content}");
        }
        assert_eq!(parse(json!({})).unwrap().subject(b"\xff").map(drop), Err("token_file_not_text"));
    }

    #[test]
    fn lifetimes_are_bounded() {
        #[rustfmt::skip]
        let rows = [
            (json!({}), 3600), (json!({"token_lifetime_seconds": 7200}), 7200), (json!({"token_lifetime_seconds": 1}), 600),
            (json!({"token_lifetime_seconds": 99_999_999}), 43_200), (json!({"token_lifetime_seconds": "soon"}), 3600),
        ];
        for (stated, expected) in rows {
            let found = parse(json!({"service_account_impersonation": stated.clone()})).unwrap().lifetime_secs;
            assert_eq!(found, expected, "{stated}");
        }
    }
}
