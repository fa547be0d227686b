//! The `x-portkey-*` headers of a request, found in one pass.
//!
//! The gateway joins the lines of a repeated header with `, `: two halves that are harmless alone may make one guardrail
//! list or one config. So what decides anything may stand only once.

use http::{HeaderMap, HeaderName, HeaderValue};

use super::steering::{self, Steering};
use crate::dialect::PlanError;

/// Start of the names that are meant for the gateway.
pub(super) const PREFIX: &str = "x-portkey-";
/// The config.
pub(super) const CONFIG: HeaderName = HeaderName::from_static("x-portkey-config");
/// The provider, or `@slug`.
pub(super) const PROVIDER: HeaderName = HeaderName::from_static("x-portkey-provider");
/// Names of client headers to copy upstream.
pub(super) const FORWARD_HEADERS: HeaderName = HeaderName::from_static("x-portkey-forward-headers");
/// Guardrails for every target.
pub(super) const INPUT_GUARDRAILS: HeaderName = HeaderName::from_static("x-portkey-default-input-guardrails");
/// Guardrails for every target.
pub(super) const OUTPUT_GUARDRAILS: HeaderName = HeaderName::from_static("x-portkey-default-output-guardrails");

/// What a request says to the gateway. Empty values count as absent, as they do there.
#[derive(Debug, Default)]
pub(super) struct Inputs<'h> {
    /// `x-portkey-config`.
    pub(super) config: Option<&'h str>,
    /// `x-portkey-provider`.
    pub(super) provider: Option<&'h str>,
    /// `x-portkey-virtual-key`.
    pub(super) virtual_key: Option<&'h str>,
    /// `x-portkey-forward-headers`.
    pub(super) forward_headers: Option<&'h str>,
    /// `x-portkey-default-input-guardrails`.
    pub(super) input_guardrails: Option<&'h str>,
    /// `x-portkey-default-output-guardrails`.
    pub(super) output_guardrails: Option<&'h str>,
    /// What steers, in the order of the headers.
    pub(super) steering: Vec<(&'static Steering, &'h str)>,
}

// === impl Inputs ===

impl<'h> Inputs<'h> {
    /// Reads the head.
    ///
    /// # Errors
    /// [`PlanError::InvalidConfig`] for a deciding header that stands twice or is not text.
    pub(super) fn read(headers: &'h HeaderMap) -> Result<Self, PlanError> {
        let mut inputs = Self::default();
        for (name, value) in headers {
            let Some(rest) = name.as_str().strip_prefix(PREFIX) else { continue };
            let slot = match rest {
                "config" => &mut inputs.config,
                "provider" => &mut inputs.provider,
                "virtual-key" => &mut inputs.virtual_key,
                "forward-headers" => &mut inputs.forward_headers,
                "default-input-guardrails" => &mut inputs.input_guardrails,
                "default-output-guardrails" => &mut inputs.output_guardrails,
                "api-key" | "metadata" | "trace-id" | "strict-open-ai-compliance" | "request-timeout" => continue,
                _ => {
                    let Some(steering) = steering::of_header(name.as_str()) else { continue };
                    if inputs.steering.iter().any(|(other, _)| *other == steering) {
                        return Err(doubled(name));
                    }
                    let text = text(name, value)?;
                    if !text.is_empty() {
                        inputs.steering.push((steering, text));
                    }
                    continue;
                }
            };
            if slot.is_some() {
                return Err(doubled(name));
            }
            *slot = Some(text(name, value)?);
        }
        for slot in [
            &mut inputs.config,
            &mut inputs.provider,
            &mut inputs.virtual_key,
            &mut inputs.forward_headers,
            &mut inputs.input_guardrails,
            &mut inputs.output_guardrails,
        ] {
            *slot = slot.filter(|text| !text.is_empty());
        }
        Ok(inputs)
    }
}

fn text<'h>(name: &HeaderName, value: &'h HeaderValue) -> Result<&'h str, PlanError> {
    let text = std::str::from_utf8(value.as_bytes());
    text.map(str::trim_ascii).map_err(|_| PlanError::InvalidConfig { reason: format!("{name} is not UTF-8") })
}

fn doubled(name: &HeaderName) -> PlanError {
    PlanError::InvalidConfig { reason: format!("{name} stands more than once") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(lines: &[(&'static str, &'static str)]) -> HeaderMap {
        lines
            .iter()
            .map(|&(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)))
            .collect::<Vec<_>>()
            .into_iter()
            .fold(HeaderMap::new(), |mut map, (name, value)| {
                map.append(name, value);
                map
            })
    }

    #[test]
    fn deciding_headers_stand_once() {
        for name in [
            "x-portkey-config",
            "x-portkey-provider",
            "x-portkey-virtual-key",
            "x-portkey-forward-headers",
            "x-portkey-default-input-guardrails",
            "x-portkey-default-output-guardrails",
            "x-portkey-custom-host",
            "x-portkey-aws-region",
        ] {
            for second in ["b", "a", ""] {
                let map = headers(&[(name, "a"), (name, second)]);
                let expected = PlanError::InvalidConfig { reason: format!("{name} stands more than once") };
                assert_eq!(Inputs::read(&map).unwrap_err(), expected);
            }
        }
    }

    #[test]
    fn empty_counts_as_absent() {
        let map = headers(&[("x-portkey-config", ""), ("x-portkey-provider", " "), ("x-portkey-custom-host", "")]);
        let inputs = Inputs::read(&map).unwrap();
        assert_eq!((inputs.config, inputs.provider, inputs.steering.len()), (None, None, 0));
    }

    #[test]
    fn text_has_to_be_text() {
        let mut map = HeaderMap::new();
        map.insert("x-portkey-virtual-key", HeaderValue::from_bytes(b"\xff").unwrap());
        assert!(matches!(Inputs::read(&map), Err(PlanError::InvalidConfig { .. })));
    }
}
