//! Texts of the configuration → values.
//!
//! A refusal is the end of a sentence that begins with the value: what is wrong, then what to write instead.

use std::{
    fs::{self, File},
    net::{IpAddr, SocketAddr},
    path::PathBuf,
};

use ipnet::IpNet;
use url::{Host, Url};

use super::why;
use crate::{dialect::portkey::SAFE_CHECKS, proxy};

/// Plugins of gateway 1.15.2 (`plugins/`) that ask a service of their vendor. One of the operator's own is not among them.
const REMOTE_PLUGINS: [&str; 20] = [
    "acuvity",
    "aporia",
    "azure",
    "bedrock",
    "crowdstrike-aidr",
    "exa",
    "f5-guardrails",
    "javelin",
    "lasso",
    "mistral",
    "pangea",
    "panw-prisma-airs",
    "patronus",
    "pillar",
    "portkey",
    "promptfoo",
    "promptsecurity",
    "qualifire",
    "sydelabs",
    "walledai",
];
/// Longest name of an object in a snapshot, in bytes.
const MAX_NAME: usize = 255;

/// `listen`, `admin_listen`: address and port.
pub fn listen_address(text: &str) -> Result<SocketAddr, String> {
    if let Ok(address) = text.parse() {
        return Ok(address);
    }
    Err(match text.rsplit_once(':') {
        Some(("localhost", port)) => format!("names a host; write 127.0.0.1:{port}"),
        Some(("" | "*", port)) => format!("names no address; write 0.0.0.0:{port} or '[::]:{port}'"),
        None if text.parse::<u16>().is_ok() => format!("names no address; write 127.0.0.1:{text}"),
        None => "has no port; write an address and a port, like 127.0.0.1:8900".to_owned(),
        Some(_) => "is not an address and a port; write it like 127.0.0.1:8900 or '[::1]:8900'".to_owned(),
    })
}

/// `listen`: address and port, or `unix:` and the path of a socket.
pub fn listen_place(text: &str) -> Result<proxy::Address, String> {
    match text.strip_prefix("unix:") {
        Some(_) => unix_socket(text).map(proxy::Address::Unix),
        None => listen_address(text).map(proxy::Address::Tcp),
    }
}

/// `upstream.url`: scheme, host and port, or `unix:` and the path of a socket.
pub fn upstream_url(text: &str) -> Result<Url, String> {
    match text.strip_prefix("unix:") {
        Some(path) => {
            unix_socket(text)?;
            let mut url = Url::parse("unix:/").map_err(|error| error.to_string())?;
            url.set_path(path);
            Ok(url)
        }
        None => base_url(text),
    }
}

/// Absolute, and short enough for `sockaddr_un` (unix(7): 108 bytes with the closing NUL).
fn unix_socket(text: &str) -> Result<PathBuf, String> {
    const EXAMPLE: &str = "write it like unix:/run/sidekey/sidekey.sock";
    let path = PathBuf::from(text.trim_start_matches("unix:"));
    if !path.is_absolute() || path.file_name().is_none() {
        return Err(format!("is not the absolute path of a socket; {EXAMPLE}"));
    }
    if path.as_os_str().len() > 107 {
        return Err("is longer than the 107 bytes a socket's path may have".to_owned());
    }
    Ok(path)
}

/// Scheme, host and port of a service.
pub fn base_url(text: &str) -> Result<Url, String> {
    const EXAMPLE: &str = "write it like https://gateway.example:8787";
    let url = Url::parse(text).map_err(|error| format!("is not a URL ({error}); {EXAMPLE}"))?;
    if !matches!(url.scheme(), "http" | "https") {
        return Err(format!("is neither http nor https; {EXAMPLE}"));
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err("holds a user name or password; remove it".to_owned());
    }
    if url.path() != "/" || url.query().is_some() || url.fragment().is_some() {
        return Err(format!("holds more than scheme, host and port; {EXAMPLE}"));
    }
    Ok(url)
}

/// The whole URL of one endpoint.
pub fn endpoint(text: &str) -> Result<Url, String> {
    const EXAMPLE: &str = "write it like https://oauth2.example/token";
    let url = Url::parse(text).map_err(|error| format!("is not a URL ({error}); {EXAMPLE}"))?;
    if !matches!(url.scheme(), "http" | "https") {
        return Err(format!("is neither http nor https; {EXAMPLE}"));
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err("holds a user name or password; remove it".to_owned());
    }
    if url.query().is_some() || url.fragment().is_some() {
        return Err(format!("holds a query or fragment; {EXAMPLE}"));
    }
    Ok(url)
}

/// A cloud region, which becomes part of a host name.
pub fn region(text: &str) -> Result<String, String> {
    let fits = (1..=32).contains(&text.len())
        && text.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-');
    if fits { Ok(text.to_owned()) } else { Err("is no region; write it like eu-central-1".to_owned()) }
}

/// The external id of AWS roles (STS API, `ExternalId`).
pub fn external_id(text: &str) -> Result<String, String> {
    let fits = (2..=1224).contains(&text.len())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+=,.@:/-_".contains(&byte));
    if fits { Ok(text.to_owned()) } else { Err("must be 2 to 1224 letters, digits and +=,.@:/-_".to_owned()) }
}

/// An HTTP proxy that managers are reached through.
pub fn proxy_url(text: &str) -> Result<Url, String> {
    let url = base_url(text)?;
    if url.scheme() != "http" {
        return Err("is not http; a proxy is asked in plain http and the connection through it is TLS".to_owned());
    }
    Ok(url)
}

/// The gateway as its package starts it.
#[expect(clippy::expect_used, reason = "a constant, checked by a test")]
pub fn default_upstream() -> Url {
    Url::parse("http://127.0.0.1:8787").expect("a URL")
}

/// Whether nothing sent to `url` leaves the machine.
pub fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => {
            address.is_loopback() || address.to_ipv4_mapped().is_some_and(|v4| v4.is_loopback())
        }
        // RFC 6761 6.3: never leaves the machine.
        Some(Host::Domain(name)) => name == "localhost" || name.ends_with(".localhost"),
        None => false,
    }
}

/// A host, or a suffix with a leading dot; in lower case.
pub fn host_pattern(text: &str) -> Result<String, String> {
    let host = text.to_ascii_lowercase();
    let name = host.strip_prefix('.').unwrap_or(&host);
    if host.contains('@') {
        // A remedy would repeat what stands before it.
        return Err("holds a user name; write the host alone".to_owned());
    }
    if let Some((_, rest)) = host.split_once("://") {
        let host = rest.split(['/', ':']).next().unwrap_or_default();
        return Err(format!("is a URL; write the host alone: {host}"));
    }
    if let Some(suffix) = host.strip_prefix("*.") {
        return Err(format!("holds a wildcard; write .{suffix} for every host below it"));
    }
    if let Some((host, port)) = host.rsplit_once(':')
        && port.parse::<u16>().is_ok()
    {
        return Err(format!("holds a port; write the host alone: {host}"));
    }
    let legal = |label: &str| {
        !label.is_empty() && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
    };
    if name.len() > MAX_NAME || !name.split('.').all(legal) {
        return Err("is not a host; write vault.example, or .example for every host below it".to_owned());
    }
    Ok(host)
}

/// A network that managers may connect to.
pub fn network(text: &str) -> Result<IpNet, String> {
    let Ok(network) = text.parse::<IpNet>() else {
        return Err(match text.parse::<IpAddr>() {
            Ok(address) => format!("has no prefix length; write {}", IpNet::from(address)),
            Err(_) => "is not a network; write it like 10.20.0.0/16".to_owned(),
        });
    };
    if network.addr() != network.network() {
        return Err(format!("has bits set behind its prefix; write {}", network.trunc()));
    }
    let closed = match network {
        IpNet::V4(v4) => v4.network().is_link_local() && v4.prefix_len() >= 16,
        IpNet::V6(v6) => v6.network().is_unicast_link_local() && v6.prefix_len() >= 10,
    };
    if closed {
        return Err("is link-local, where cloud metadata services answer; it is never opened, remove it".to_owned());
    }
    Ok(network)
}

/// A file that must be there from the start.
pub fn readable_file(text: &str) -> Result<PathBuf, String> {
    let path = path(text)?;
    let file = File::open(&path).map_err(|error| format!("cannot be read ({}); name a readable file", why(&error)))?;
    match file.metadata() {
        Ok(metadata) if !metadata.is_dir() => Ok(path),
        _ => Err("is a directory; name a file".to_owned()),
    }
}

/// A directory that must be there from the start.
pub fn directory(text: &str) -> Result<PathBuf, String> {
    let path = path(text)?;
    match fs::metadata(&path) {
        Ok(metadata) if metadata.is_dir() => Ok(path),
        Ok(_) => Err("is a file; name a directory".to_owned()),
        Err(error) => Err(format!("cannot be read ({}); name a directory", why(&error))),
    }
}

/// A path that may come into being later.
pub fn path(text: &str) -> Result<PathBuf, String> {
    match text {
        "" => Err("is empty; name a path".to_owned()),
        _ if text.contains('\0') => Err("holds a NUL; name a path".to_owned()),
        _ => Ok(PathBuf::from(text)),
    }
}

/// The mount of an auth method at Vault, without slashes around it.
pub fn mount(text: &str) -> Result<String, String> {
    let mount = text.trim_matches('/');
    let legal = |part: &str| {
        !matches!(part, "" | "." | "..")
            && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte))
    };
    if mount.split('/').all(legal) {
        Ok(mount.to_owned())
    } else {
        Err("is not a mount; write it like approle".to_owned())
    }
}

/// The beginning of a `secret_path`.
pub fn path_prefix(text: &str) -> Result<String, String> {
    if text.is_empty() || text.split('/').any(|part| part == "..") || text.contains(char::is_control) {
        return Err("is not the beginning of a secret path; write it like secret/data/team-a/".to_owned());
    }
    Ok(text.to_owned())
}

/// Id or slug of an object in the snapshot.
pub fn name(text: &str) -> Result<String, String> {
    if text.is_empty() || text.len() > MAX_NAME || !text.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err("is not an id or slug".to_owned());
    }
    Ok(text.to_owned())
}

/// Id of a check of the gateway, `plugin.check`, that is not known to open a connection.
pub fn check_id(text: &str) -> Result<String, String> {
    let legal =
        |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte));
    match text.split_once('.') {
        Some((plugin, check)) if legal(plugin) && legal(check) => {
            let connects = REMOTE_PLUGINS.contains(&plugin) || (plugin == "default" && !SAFE_CHECKS.contains(&text));
            if connects {
                return Err("opens a connection, which would carry every credential out; remove it".to_owned());
            }
            Ok(text.to_owned())
        }
        _ => Err("is not the id of a check; write it like default.contains".to_owned()),
    }
}

#[cfg(test)]
mod tests;
