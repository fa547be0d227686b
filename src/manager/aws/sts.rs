//! Roles assumed at the regional endpoints of STS, over [`SdkHttp`]. Each call is one attempt; a session repeats it.

use std::{sync::Arc, time::SystemTime};

use aws_credential_types::Credentials;
use aws_sdk_sts::{
    Client,
    config::{
        BehaviorVersion, Builder, Config, IdentityCache, Region as SdkRegion, StalledStreamProtectionConfig,
        retry::RetryConfig,
    },
    types::Credentials as Issued,
};

use super::{failure, http::SdkHttp, keys, place::Region};
use crate::{
    egress::{Reach, Transport},
    manager::{FetchError, Settings, registry::AwsSettings, session::Grant},
};

/// STS. One client for all regions and identities.
#[derive(Debug)]
pub(super) struct Sts(Client);

// === impl Sts ===

impl Sts {
    pub(super) fn new(settings: &AwsSettings, bounds: &Settings, transport: &Arc<Transport>) -> Self {
        let endpoint = settings.sts_endpoint_url.as_ref();
        // The operator's own address is not judged; a regional one follows from a reference.
        let reach = if endpoint.is_some() { Reach::Fixed } else { Reach::Admitted };
        let mut config = Config::builder()
            .behavior_version(BehaviorVersion::latest())
            .http_client(SdkHttp::new(transport, reach, bounds.attempt_timeout))
            .retry_config(RetryConfig::disabled())
            .stalled_stream_protection(StalledStreamProtectionConfig::disabled())
            .use_fips(settings.use_fips)
            .use_dual_stack(settings.use_dual_stack);
        config.set_endpoint_url(endpoint.map(|url| url.as_str().to_owned()));
        Self(Client::from_conf(config.build()))
    }

    /// `AssumeRole` by `base`. The session lasts an hour, the default of AWS and its maximum for a role that assumes a role.
    ///
    /// # Errors
    /// [`FetchError`], classed.
    pub(super) async fn assume_role(
        &self,
        base: Credentials,
        region: &Region,
        role: &str,
        session_name: &str,
        external_id: Option<&str>,
    ) -> Result<Grant, FetchError> {
        let request = self.0.assume_role().role_arn(role).role_session_name(session_name);
        let request = request.set_external_id(external_id.map(str::to_owned)).customize();
        let answer = request.config_override(at(region).credentials_provider(base)).send().await;
        issued(answer.map_err(failure::of_sdk)?.credentials)
    }

    /// `AssumeRoleWithWebIdentity`, which nobody signs.
    ///
    /// # Errors
    /// [`FetchError`], classed.
    pub(super) async fn assume_role_with_web_identity(
        &self,
        region: &Region,
        role: &str,
        session_name: &str,
        token: &str,
    ) -> Result<Grant, FetchError> {
        let request = self.0.assume_role_with_web_identity().role_arn(role).role_session_name(session_name);
        let answer = request.web_identity_token(token).customize().config_override(at(region)).send().await;
        issued(answer.map_err(failure::of_sdk)?.credentials)
    }
}

fn at(region: &Region) -> Builder {
    Config::builder().region(SdkRegion::new(region.as_str().to_owned())).identity_cache(IdentityCache::no_cache())
}

fn issued(credentials: Option<Issued>) -> Result<Grant, FetchError> {
    let issued = credentials.ok_or_else(|| failure::malformed("no_credentials_issued"))?;
    let expires = SystemTime::try_from(*issued.expiration()).map_err(|_| failure::malformed("expiration"))?;
    Ok(keys::grant(issued.access_key_id(), issued.secret_access_key(), Some(issued.session_token()), Some(expires)))
}
