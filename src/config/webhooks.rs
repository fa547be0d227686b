//! `webhook_listen` and `webhooks.*`: a source is served when its keys are there, and half of one is refused.

use std::net::SocketAddr;

use http::HeaderName;
use url::Url;

use super::{reader::Reader, value};
use crate::{
    proxy::TlsSettings,
    push::{EventBridge, EventGrid, Hmac, Pubsub, Settings, Synced},
};

/// Shortest and longest text that can stand in a claim.
const CLAIM_BYTES: std::ops::RangeInclusive<usize> = 1..=512;
/// Every key that is unset by default and says nothing without `webhook_listen`; those of sources first.
const KEYS: [&str; 14] = [
    "webhooks.eventbridge.api_key_file",
    "webhooks.eventbridge.oauth_issuer",
    "webhooks.eventbridge.oauth_audience",
    "webhooks.eventbridge.oauth_keys_url",
    "webhooks.event_grid.audience",
    "webhooks.event_grid.tenant_id",
    "webhooks.event_grid.authority_host",
    "webhooks.pubsub.audience",
    "webhooks.pubsub.service_account",
    "webhooks.doppler.secret_file",
    "webhooks.infisical.secret_file",
    "webhooks.hmac.secret_file",
    "webhooks.tls.cert_file",
    "webhooks.tls.key_file",
];
/// How many of them belong to sources.
const OF_SOURCES: usize = 12;

/// `webhook_listen`, `webhooks.*`; `taken` are the other listeners.
pub fn webhooks(reader: &mut Reader<'_>, taken: &[SocketAddr]) -> Option<Settings> {
    let listen = reader.optional("webhook_listen", value::listen_address);
    let plaintext = reader.flag("webhooks.allow_plaintext", false);
    let settings = Settings {
        tls: tls(reader),
        eventbridge: eventbridge(reader),
        event_grid: event_grid(reader),
        pubsub: pubsub(reader),
        doppler: synced(reader, "webhooks.doppler.secret_file", "webhooks.doppler.references"),
        infisical: synced(reader, "webhooks.infisical.secret_file", "webhooks.infisical.references"),
        hmac: hmac(reader),
        // Where there is none nothing is built of the rest.
        ..Settings::new(listen.unwrap_or(SocketAddr::from(([127, 0, 0, 1], 0))))
    };
    if !reader.is_set("webhook_listen") {
        for key in KEYS {
            if reader.is_set(key) {
                reader.problem(key, "has no effect without webhook_listen; set that, or remove it");
            }
        }
        if plaintext {
            reader.problem("webhooks.allow_plaintext", "has no effect without webhook_listen; set that, or remove it");
        }
        return None;
    }
    let address = listen?;
    if address.port() != 0 && taken.contains(&address) {
        reader.problem("webhook_listen", "is the address of another listener; give it one of its own");
    }
    if !KEYS[..OF_SOURCES].iter().any(|key| reader.is_set(key)) {
        reader.problem("webhook_listen", "has no source beside it; set one under webhooks, or remove it");
    }
    let encrypted = reader.is_set("webhooks.tls.cert_file");
    if !address.ip().is_loopback() && !encrypted && !plaintext {
        reader.problem(
            "webhook_listen",
            "is open to the network in plain text, which shows tokens and keys of sources; set webhooks.tls.cert_file and key_file, or \
             webhooks.allow_plaintext: true if something in front of it ends TLS",
        );
    }
    Some(settings)
}

fn tls(reader: &mut Reader<'_>) -> Option<TlsSettings> {
    let cert_file = reader.optional("webhooks.tls.cert_file", value::readable_file);
    let key_file = reader.optional("webhooks.tls.key_file", value::readable_file);
    together(reader, ["webhooks.tls.cert_file", "webhooks.tls.key_file"]);
    Some(TlsSettings { cert_file: cert_file?, key_file: key_file?, client_ca_file: None })
}

fn eventbridge(reader: &mut Reader<'_>) -> Option<EventBridge> {
    const FILE: &str = "webhooks.eventbridge.api_key_file";
    const HEADER: &str = "webhooks.eventbridge.api_key_header";
    const ISSUER: &str = "webhooks.eventbridge.oauth_issuer";
    const AUDIENCE: &str = "webhooks.eventbridge.oauth_audience";
    const KEYS_URL: &str = "webhooks.eventbridge.oauth_keys_url";
    let file = reader.optional(FILE, value::readable_file);
    let usual = HeaderName::from_static("x-api-key");
    let header = reader.text(HEADER, usual.clone(), header_name);
    let issuer = reader.optional(ISSUER, issuer_url);
    let audience = reader.optional(AUDIENCE, claim);
    let keys_url = reader.optional(KEYS_URL, https);
    together(reader, [ISSUER, AUDIENCE]);
    let oauth = [ISSUER, AUDIENCE, KEYS_URL].into_iter().find(|key| reader.is_set(key));
    match (reader.is_set(FILE), oauth) {
        (true, Some(key)) => {
            reader.problem(key, "stands beside api_key_file; a connection has one way to authenticate, keep one");
        }
        (false, _) if header != usual => {
            reader.problem(HEADER, "has no effect without api_key_file; set that, or remove it");
        }
        (false, Some(KEYS_URL)) => reader.problem(KEYS_URL, "needs webhooks.eventbridge.oauth_issuer beside it"),
        (true, None) | (false, _) => {}
    }
    match (file, issuer, audience) {
        (Some(file), _, _) => Some(EventBridge::ApiKey { header, file }),
        (None, Some(issuer), Some(audience)) => Some(EventBridge::OAuth { issuer, audience, keys_url }),
        (None, _, _) => None,
    }
}

fn event_grid(reader: &mut Reader<'_>) -> Option<EventGrid> {
    const AUDIENCE: &str = "webhooks.event_grid.audience";
    const TENANT: &str = "webhooks.event_grid.tenant_id";
    const APP: &str = "webhooks.event_grid.app_id";
    const AUTHORITY: &str = "webhooks.event_grid.authority_host";
    let audience = reader.optional(AUDIENCE, claim);
    let tenant_id = reader.optional(TENANT, tenant);
    let app_id = reader.text(APP, EventGrid::APP_ID.to_owned(), tenant);
    let authority_host = reader.optional(AUTHORITY, |text| value::base_url(text).and_then(|url| https(url.as_str())));
    together(reader, [AUDIENCE, TENANT]);
    let other = [(APP, app_id != EventGrid::APP_ID), (AUTHORITY, reader.is_set(AUTHORITY))];
    for (key, set) in other {
        if set && !reader.is_set(TENANT) {
            reader.problem(key, "has no effect without webhooks.event_grid.tenant_id; set that, or remove it");
        }
    }
    let authority_host = authority_host.or_else(|| Url::parse(EventGrid::AUTHORITY).ok())?;
    Some(EventGrid { audience: audience?, tenant_id: tenant_id?, app_id, authority_host })
}

fn pubsub(reader: &mut Reader<'_>) -> Option<Pubsub> {
    const AUDIENCE: &str = "webhooks.pubsub.audience";
    const ACCOUNT: &str = "webhooks.pubsub.service_account";
    const ISSUER: &str = "webhooks.pubsub.issuer";
    let audience = reader.optional(AUDIENCE, claim);
    let service_account = reader.optional(ACCOUNT, |text| match text.split_once('@') {
        Some((name, domain)) if !name.is_empty() && !domain.is_empty() => claim(text),
        Some(_) | None => {
            Err("is no service account; write its address, like push@project.iam.gserviceaccount.com".to_owned())
        }
    });
    let issuer = reader.text(ISSUER, Pubsub::ISSUER.to_owned(), issuer_url);
    together(reader, [AUDIENCE, ACCOUNT]);
    if issuer != Pubsub::ISSUER && !reader.is_set(AUDIENCE) {
        reader.problem(ISSUER, "has no effect without webhooks.pubsub.audience; set that, or remove it");
    }
    Some(Pubsub { audience: audience?, service_account: service_account?, issuer })
}

fn synced(reader: &mut Reader<'_>, file_key: &'static str, references_key: &'static str) -> Option<Synced> {
    let file = reader.optional(file_key, value::readable_file);
    let references = reader.list(references_key, Vec::new(), value::name);
    if reader.is_set(file_key) && references.is_empty() {
        reader.problem(references_key, "names nothing; list the references whose secrets come from there");
    }
    if !references.is_empty() && !reader.is_set(file_key) {
        reader.problem(references_key, "has no effect without secret_file beside it; set that, or remove it");
    }
    Some(Synced { file: file?, references })
}

fn hmac(reader: &mut Reader<'_>) -> Option<Hmac> {
    let file = reader.optional("webhooks.hmac.secret_file", value::readable_file);
    // What was accepted is remembered for twice as long.
    let tolerance = reader.secs("webhooks.hmac.tolerance_secs", 300, 1..=3600);
    Some(Hmac { file: file?, tolerance })
}

/// Two keys of which one means nothing.
fn together(reader: &mut Reader<'_>, keys: [&'static str; 2]) {
    for (at, key) in keys.iter().enumerate() {
        let other = keys[1 - at];
        if reader.is_set(key) && !reader.is_set(other) {
            reader.problem(key, &format!("needs {other} beside it"));
        }
    }
}

/// Text of a claim, compared as it is.
fn claim(text: &str) -> Result<String, String> {
    match CLAIM_BYTES.contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic()) {
        true => Ok(text.to_owned()),
        false => Err("is not 1 to 512 visible ASCII characters".to_owned()),
    }
}

/// A tenant or application of Entra, which becomes part of a URL path.
fn tenant(text: &str) -> Result<String, String> {
    let legal = text.len() == 36
        && text.bytes().enumerate().all(|(at, byte)| match at {
            8 | 13 | 18 | 23 => byte == b'-',
            _ => byte.is_ascii_hexdigit(),
        });
    match legal {
        true => Ok(text.to_ascii_lowercase()),
        false => Err("is not an id; write it like 4962773b-9cdb-44cf-a8bf-237846a00ab7".to_owned()),
    }
}

fn https(text: &str) -> Result<Url, String> {
    let url = value::endpoint(text)?;
    if url.scheme() == "https" { Ok(url) } else { Err("is not https; keys are not taken from elsewhere".to_owned()) }
}

/// As it stands in `iss`, where a slash at the end counts.
fn issuer_url(text: &str) -> Result<String, String> {
    https(text).and_then(|_| claim(text))
}

fn header_name(text: &str) -> Result<HeaderName, String> {
    HeaderName::try_from(text).map_err(|_| "is not the name of a header; write it like x-api-key".to_owned())
}
