//! Which paths are served, and which spellings of them are refused.
//!
//! The gateway reads one path in three ways: its router decodes it once, its proxy route appends the undecoded path to the
//! provider's host, and some providers cut it out of the whole URL and decode it into a host. A path is served only if all
//! three readings agree and none of them reaches a host, so every level of percent-encoding is checked, down to the one
//! where decoding changes nothing any more. Nothing is rewritten: what is forwarded is what was checked.
//!
//! Source: gateway 1.15.2 `src/index.ts`, `src/handlers/services/providerContext.ts`, `src/providers/*/api.ts`.

use http::{Method, Uri};
use memchr::memchr_iter;
use percent_encoding::percent_decode;

use super::Route;
use crate::dialect::PlanError;

#[cfg(test)]
mod tests;

/// First segments that belong to the control plane, with `/v1` before them and without.
const ADMIN: [&str; 8] = [
    "admin",
    "api-keys",
    "configs",
    "integrations",
    "mcp-integrations",
    "providers",
    "secret-references",
    "virtual-keys",
];

/// The control plane's feed. It is for sidecars; through us nobody reaches it.
const FEED: &str = "snapshot";

/// How often a path may be percent-encoded on top of itself. Clients that encode an id the gateway has already encoded
/// need two levels; the bound keeps `%25252525…` from costing a pass per three bytes.
const MAX_ENCODINGS: usize = 8;

/// Decides where a request goes by its method and path. Scheme and authority of an absolute form are not looked at: what
/// is forwarded is [`Uri::path_and_query`], to the configured upstream only.
///
/// # Errors
/// [`PlanError::NotFound`] for what is not served, [`PlanError::DestinationNotAllowed`] for a spelling that could name a host.
pub(super) fn route(method: &Method, uri: &Uri) -> Result<Route, PlanError> {
    if matches!(*method, Method::CONNECT | Method::TRACE) {
        return Err(PlanError::NotFound);
    }
    let path = uri.path();
    if path == "/" && *method == Method::GET {
        return Ok(Route::Gateway);
    }
    // The prefix has to be literal: providers split the URL at `/v1`, before any decoding.
    let (rest, versioned) = match path.strip_prefix("/v1/") {
        Some(rest) => (rest, true),
        None => (path.strip_prefix('/').unwrap_or_default(), false),
    };
    if !versioned && !is_admin(rest) {
        return Err(PlanError::NotFound);
    }
    let decoded = checked(path).ok_or_else(|| PlanError::DestinationNotAllowed { input: "path".to_owned() })?;
    let rest = match &decoded {
        Some(decoded) => decoded.get(path.len() - rest.len()..).unwrap_or_default(),
        None => rest.as_bytes(),
    };
    match first_segment(rest) {
        segment if is_admin_segment(segment) => Ok(Route::Admin),
        segment if segment == FEED.as_bytes() || !versioned => Err(PlanError::NotFound),
        _ => Ok(Route::Gateway),
    }
}

/// Checks `path` at every level of encoding. `None`: refused. `Some(None)`: accepted, nothing is encoded.
/// `Some(Some(bytes))`: accepted, this is the fully decoded path.
fn checked(path: &str) -> Option<Option<Vec<u8>>> {
    if !path.is_ascii() || !is_harmless(path.as_bytes()) {
        return None;
    }
    if !path.contains('%') {
        return Some(None);
    }
    if !escapes_are_needed(path.as_bytes()) {
        return None;
    }
    let mut level = path.as_bytes().to_vec();
    for _ in 0..MAX_ENCODINGS {
        let next: Vec<u8> = percent_decode(&level).collect();
        if next.len() == level.len() {
            return Some(Some(level));
        }
        if !is_harmless(&next) {
            return None;
        }
        level = next;
    }
    None
}

/// Whether no reader of this text could take a host, a query or another path out of it.
fn is_harmless(path: &[u8]) -> bool {
    !path.iter().any(|&byte| byte.is_ascii_control() || matches!(byte, b'@' | b'\\' | b'#' | b'?'))
        && !path.windows(2).any(|window| window == b"//")
        && !path.split(|&byte| byte == b'/').any(is_dots)
        && !names_azure_host(path)
        && !glues_to_host(path)
}

/// `.` and `..`, also with path parameters behind them (`..;x`), which some servers strip before they resolve dots.
fn is_dots(segment: &[u8]) -> bool {
    let name = segment.split(|&byte| byte == b';').next().unwrap_or_default();
    matches!(name, b"." | b"..")
}

/// For azure-openai the gateway takes the host from any path that holds this text, wherever it stands.
fn names_azure_host(path: &[u8]) -> bool {
    const SUFFIX: &[u8] = b".openai.azure.com";
    memchr_iter(b'.', path).any(|at| starts_with(&path[at..], SUFFIX))
}

/// `/v1/proxy` is cut out of the path and the rest is appended to the provider's host, so that `/v1/proxy.evil/x` continues
/// the host and `/v1/proxy2/x` its port.
fn glues_to_host(path: &[u8]) -> bool {
    const PROXY: &[u8] = b"/v1/proxy";
    memchr_iter(b'/', path)
        .any(|at| starts_with(&path[at..], PROXY) && !matches!(path.get(at + PROXY.len()), None | Some(b'/')))
}

/// In any case.
fn starts_with(path: &[u8], prefix: &[u8]) -> bool {
    path.get(..prefix.len()).is_some_and(|start| start.eq_ignore_ascii_case(prefix))
}

/// Whether every `%` starts an escape of a byte that may need one. An escaped letter (`/v1/%66iles`) is decoded by the
/// router and not by the providers: the route is then one and the text they cut another, which a query can supply.
fn escapes_are_needed(path: &[u8]) -> bool {
    memchr_iter(b'%', path).all(|at| {
        let hex = |offset: usize| path.get(at + offset).and_then(|&digit| char::from(digit).to_digit(16));
        let (Some(high), Some(low)) = (hex(1), hex(2)) else { return false };
        let byte = high * 16 + low;
        !u8::try_from(byte).is_ok_and(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_'))
    })
}

fn first_segment(rest: &[u8]) -> &[u8] {
    rest.split(|&byte| matches!(byte, b'/' | b';')).next().unwrap_or_default()
}

fn is_admin(rest: &str) -> bool {
    is_admin_segment(first_segment(rest.as_bytes()))
}

fn is_admin_segment(segment: &[u8]) -> bool {
    ADMIN.iter().any(|name| name.as_bytes() == segment)
}
