//! Calls to the Parameter Store: JSON 1.1, signed with SigV4, at the region's endpoint or the operator's.
//!
//! Source: Systems Manager API; AWS partitions and endpoint rules of the service (`endpoint-rule-set`).

use std::{sync::Arc, time::Duration, time::SystemTime};

use aws_credential_types::Credentials;
use aws_sigv4::{
    http_request::{SignableBody, SignableRequest, SigningSettings, sign},
    sign::v4,
};
use http::{
    HeaderMap, HeaderName, HeaderValue, Method,
    header::{AUTHORIZATION, CONTENT_TYPE},
};
use serde::Serialize;
use url::Url;
use zeroize::Zeroizing;

use super::{answer, name::Asked};
use crate::{
    egress::{Answer, Bounds, Call, Reach, Transport},
    manager::{
        FailureClass, FetchError,
        aws::{Identities, Partition, Region},
    },
};

/// Largest answer, in bytes: ten values of 8 KiB, which JSON may write six times as long, and what is said about them.
const MAX_ANSWER: usize = 640 * 1024;

const TARGET: HeaderName = HeaderName::from_static("x-amz-target");
const JSON: HeaderValue = HeaderValue::from_static("application/x-amz-json-1.1");

/// Where the Parameter Store is.
#[derive(Debug)]
pub(super) struct Wire {
    transport: Arc<Transport>,
    reach: Reach,
    /// `managers.aws.endpoint_url`.
    endpoint: Option<Url>,
    use_fips: bool,
    use_dual_stack: bool,
    attempt_timeout: Duration,
}

/// One call, ready to be signed.
#[derive(Debug)]
pub(super) struct Request {
    target: HeaderValue,
    body: Vec<u8>,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct GetParameter {
    name: String,
    with_decryption: bool,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct GetParameters {
    names: Vec<String>,
    with_decryption: bool,
}

// === impl Request ===

impl Request {
    /// `GetParameter`.
    pub(super) fn one(asked: &Asked) -> Self {
        let body = GetParameter { name: asked.to_string(), with_decryption: true };
        Self::new("AmazonSSM.GetParameter", &body)
    }

    /// `GetParameters`, ten at most and none twice.
    pub(super) fn many<'a>(asked: impl IntoIterator<Item = &'a Asked>) -> Self {
        let names = asked.into_iter().map(ToString::to_string).collect();
        Self::new("AmazonSSM.GetParameters", &GetParameters { names, with_decryption: true })
    }

    fn new(target: &'static str, body: &impl Serialize) -> Self {
        // Text and a boolean always serialize.
        Self { target: HeaderValue::from_static(target), body: serde_json::to_vec(body).unwrap_or_default() }
    }
}

// === impl Wire ===

impl Wire {
    pub(super) fn new(identities: &Identities) -> Self {
        let settings = identities.settings();
        Self {
            transport: Arc::clone(identities.transport()),
            reach: identities.reach(),
            endpoint: settings.endpoint_url.clone(),
            use_fips: settings.use_fips,
            use_dual_stack: settings.use_dual_stack,
            attempt_timeout: identities.bounds().attempt_timeout,
        }
    }

    /// Signs `request` with `credentials` and sends it once.
    ///
    /// # Errors
    /// [`FetchError`], classed by code.
    pub(super) async fn send(
        &self,
        region: &Region,
        request: &Request,
        credentials: Credentials,
    ) -> Result<Answer, FetchError> {
        let misfit = |code| FetchError::new(FailureClass::Misconfigured).with_code(code);
        let url = match &self.endpoint {
            Some(endpoint) => endpoint.clone(),
            None => {
                Url::parse(&endpoint(region, self.use_fips, self.use_dual_stack)).map_err(|_| misfit("endpoint"))?
            }
        };
        let mut headers = HeaderMap::from_iter([(CONTENT_TYPE, JSON), (TARGET, request.target.clone())]);
        let signature = signature(&url, &headers, &request.body, region, credentials, SystemTime::now());
        headers.extend(signature.ok_or_else(|| misfit("signature"))?);
        let body = Zeroizing::new(request.body.clone());
        let call = Call { method: Method::POST, url, headers, body, reach: self.reach };
        let bounds = Bounds { timeout: self.attempt_timeout, max_body: MAX_ANSWER };
        answer::check(self.transport.send(call, bounds).await?)
    }
}

/// The header fields that sign a request; `None` when the keys cannot stand in a header.
fn signature(
    url: &Url,
    headers: &HeaderMap,
    body: &[u8],
    region: &Region,
    credentials: Credentials,
    time: SystemTime,
) -> Option<HeaderMap> {
    let identity = credentials.into();
    let params = v4::SigningParams::builder()
        .identity(&identity)
        .region(region.as_str())
        .name("ssm")
        .time(time)
        .settings(SigningSettings::default())
        .build()
        .ok()?;
    let signed = headers.iter().filter_map(|(name, value)| Some((name.as_str(), value.to_str().ok()?)));
    let request = SignableRequest::new("POST", url.as_str(), signed, SignableBody::Bytes(body)).ok()?;
    let (instructions, _) = sign(request, &params.into()).ok()?.into_parts();
    let (fields, _) = instructions.into_parts();
    let field = |name: &'static str, text: &str, sensitive: bool| {
        let mut value = HeaderValue::from_str(text).ok()?;
        value.set_sensitive(sensitive || name.eq_ignore_ascii_case(AUTHORIZATION.as_str()));
        Some((HeaderName::from_static(name), value))
    };
    fields.iter().map(|header| field(header.name(), header.value(), header.sensitive())).collect()
}

/// The service's address in `region`. Only the region, one label of `[a-z0-9-]`, is anybody's choice.
fn endpoint(region: &Region, use_fips: bool, use_dual_stack: bool) -> String {
    let partition = region.partition();
    // In GovCloud the ordinary endpoints are the ones with FIPS cryptography.
    let host = match (use_fips, use_dual_stack, partition) {
        (true, false, Partition::GovCloud) | (false, _, _) => "ssm",
        (true, _, _) => "ssm-fips",
    };
    let (plain, dual_stack) = match partition {
        Partition::Commercial | Partition::GovCloud => ("amazonaws.com", "api.aws"),
        Partition::China => ("amazonaws.com.cn", "api.amazonwebservices.com.cn"),
        Partition::EuropeanSovereign => ("amazonaws.eu", "api.amazonwebservices.eu"),
        Partition::Iso => ("c2s.ic.gov", "api.aws.ic.gov"),
        Partition::IsoB => ("sc2s.sgov.gov", "api.aws.scloud"),
        Partition::IsoE => ("cloud.adc-e.uk", "api.cloud-aws.adc-e.uk"),
        Partition::IsoF => ("csp.hci.ic.gov", "api.aws.hci.ic.gov"),
    };
    format!("https://{host}.{region}.{}", if use_dual_stack { dual_stack } else { plain })
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use super::*;

    #[test]
    fn every_cloud_has_its_own_names() {
        #[rustfmt::skip]
        let rows = [
            // region, FIPS, dual stack, host
            ("us-east-1", false, false, "ssm.us-east-1.amazonaws.com"),
            ("us-east-1", true, false, "ssm-fips.us-east-1.amazonaws.com"),
            ("eu-central-1", false, true, "ssm.eu-central-1.api.aws"),
            ("ca-central-1", true, true, "ssm-fips.ca-central-1.api.aws"),
            ("cn-north-1", false, false, "ssm.cn-north-1.amazonaws.com.cn"),
            ("cn-northwest-1", false, true, "ssm.cn-northwest-1.api.amazonwebservices.com.cn"),
            ("us-gov-west-1", false, false, "ssm.us-gov-west-1.amazonaws.com"),
            ("us-gov-west-1", true, false, "ssm.us-gov-west-1.amazonaws.com"),
            ("us-gov-west-1", true, true, "ssm-fips.us-gov-west-1.api.aws"),
            ("eusc-de-east-1", false, false, "ssm.eusc-de-east-1.amazonaws.eu"),
            ("us-iso-east-1", false, false, "ssm.us-iso-east-1.c2s.ic.gov"),
            ("us-isob-east-1", true, false, "ssm-fips.us-isob-east-1.sc2s.sgov.gov"),
        ];
        for (region, fips, dual_stack, host) in rows {
            let url = endpoint(&Region::new(region).unwrap(), fips, dual_stack);
            assert_eq!(url, format!("https://{host}"), "{region} {fips} {dual_stack}");
        }
    }

    #[test]
    fn a_request_is_signed_whole() {
        let request = Request::one(&Asked { name: "/prod/db".to_owned(), selector: Some("3".to_owned()) });
        assert_eq!(request.body, br#"{"Name":"/prod/db:3","WithDecryption":true}"#);
        let url = Url::parse("https://ssm.us-east-1.amazonaws.com").unwrap();
        let headers = HeaderMap::from_iter([(CONTENT_TYPE, JSON), (TARGET, request.target.clone())]);
        let keys = Credentials::new("AKIDEXAMPLE", "secret", Some("session".to_owned()), None, "test");
        let at = UNIX_EPOCH + Duration::from_secs(1_440_938_160);
        let signed = signature(&url, &headers, &request.body, &Region::new("us-east-1").unwrap(), keys, at).unwrap();
        let authorization = signed[AUTHORIZATION].to_str().unwrap();
        let scope = "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20150830/us-east-1/ssm/aws4_request, \
                     SignedHeaders=content-type;host;x-amz-date;x-amz-security-token;x-amz-target, Signature=";
        assert!(authorization.starts_with(scope), "{authorization}");
        assert!(signed[AUTHORIZATION].is_sensitive() && signed["x-amz-security-token"].is_sensitive());
        assert_eq!(signed["x-amz-date"], "20150830T123600Z");
    }
}
