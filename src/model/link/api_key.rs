//! `api_keys[]` → [`ApiKey`], found by the hashes of its secrets.
//!
//! A key with any fault is set aside whole: one that lost a limit, or its scopes, must not go on without. Its readable
//! hashes stay, so that its owner is told `reference_misconfigured` and not that the secret is wrong.

use std::{collections::HashMap, sync::Arc};

use serde_json::value::RawValue;
use time::OffsetDateTime;

use super::{
    Context,
    findings::{Findings, Ids, Quoted, Report},
    limits, parse_instant,
};
use crate::model::{
    AccountKind, ApiKey, Defaults, Scopes, Snapshot, StoredConfig,
    raw::{self, Given, Rows, Text},
};

/// Most hashes of one key. Two are alive while it rotates; more is a fault of whoever wrote them.
const MAX_HASHES: usize = 8;

/// A hash, before it is known whose it is.
type Hash = (Arc<str>, [u8; 32], Option<OffsetDateTime>);

/// Links the keys into `snapshot`, whose configs must be there.
pub(super) fn link(given: Rows<'_>, context: &mut Context<'_>, findings: &mut Findings, snapshot: &mut Snapshot) {
    const LIST: &str = "api_keys";
    let mut ids = Ids::default();
    let rows = findings.rows(LIST, given);
    snapshot.api_keys.reserve(rows.len());
    let configs: HashMap<Arc<str>, Arc<StoredConfig>> =
        snapshot.configs.iter().map(|config| (Arc::clone(&config.id), Arc::clone(config))).collect();
    for (index, row) in rows.into_iter().enumerate() {
        let Some(row) = findings.row::<raw::ApiKey<'_>>(LIST, index, row) else { continue };
        let mut report = findings.report(LIST, index);
        let Some(named) = report.named(row.id, Given::Absent) else { continue };
        let workspace_id = context.workspaces.owner(row.workspace_id, &mut report);
        let id = report.identified(named, None, &mut ids).id;
        let exhausted = matches!(&row.status, Given::Value(status) if status.eq_ignore_ascii_case("exhausted"));
        let status = if exhausted { Given::Absent } else { row.status };
        let lifespan = report.lifespan(status, row.expires_at);
        let scopes = report.value("scopes", row.scopes, "a list of scopes").unwrap_or_default();
        let hashes = hashes(row.hashes, context, &mut report, snapshot);
        let account = limits::account(
            (AccountKind::ApiKey, &id),
            exhausted,
            row.rate_limits,
            (row.usage_limits, row.usage_reset_at),
            &mut report,
        );
        let key = ApiKey {
            scopes: Scopes::parse(scopes.iter().map(String::as_str)),
            lifespan,
            account,
            defaults: defaults(row.defaults, workspace_id.as_deref(), &configs, snapshot, &mut report),
            fault: report.into_fault(),
            workspace_id,
            id,
        };
        snapshot.api_keys.insert(Arc::new(key), hashes);
    }
}

fn hashes(
    given: Given<Vec<&RawValue>>,
    context: &mut Context<'_>,
    report: &mut Report<'_>,
    snapshot: &Snapshot,
) -> Vec<Hash> {
    let Some(rows) = report.value("hashes", given, "a list") else { return Vec::new() };
    if rows.len() > MAX_HASHES {
        report.fault("hashes", format_args!("holds more than {MAX_HASHES}; remove those that are over"));
    }
    let mut hashes: Vec<Hash> = Vec::with_capacity(rows.len().min(MAX_HASHES));
    for (at, row) in rows.into_iter().take(MAX_HASHES).enumerate() {
        let key = |member: &str| format!("hashes[{at}]{member}");
        let Some(row) = raw::row::<raw::KeyHash<'_>>(row) else {
            report.fault(key(""), "must be an object that names each of its fields once");
            continue;
        };
        let kid = report.required_text(key(".kid"), row.kid);
        let expires_at = instant(&key(".expires_at"), row.expires_at, report);
        let digest = report.required_text(key(".hmac_sha256"), row.hmac_sha256).and_then(|text| {
            let digest = digest(&text);
            if digest.is_none() {
                report.fault(key(".hmac_sha256"), "must be 64 hexadecimal digits; `sidekey hash-key` prints them");
            }
            digest
        });
        let (Some(kid), Some(digest), Ok(expires_at)) = (kid, digest, expires_at) else { continue };
        if !snapshot.api_keys.is_free(&digest) || hashes.iter().any(|(_, other, _)| *other == digest) {
            report.refuse(key(".hmac_sha256"), "is the hash of an earlier secret, too");
            continue;
        }
        hashes.push((context.names.intern(&kid), digest, expires_at));
    }
    hashes
}

fn defaults(
    given: Given<&RawValue>,
    workspace: Option<&str>,
    configs: &HashMap<Arc<str>, Arc<StoredConfig>>,
    snapshot: &Snapshot,
    report: &mut Report<'_>,
) -> Defaults {
    let Some(raw) = report.value("defaults", given, "an object") else { return Defaults::default() };
    let Some(raw) = raw::row::<raw::Defaults<'_>>(raw) else {
        report.fault("defaults", "must be an object that names each of its fields once");
        return Defaults::default();
    };
    let metadata = report.value("defaults.metadata", raw.metadata, "an object").filter(|metadata| !metadata.is_empty());
    let override_ = report.value("defaults.allow_config_override", raw.allow_config_override, "true or false");
    let named = report.text("defaults.config_id", raw.config_id);
    let named = named.or_else(|| report.text("defaults.config_slug", raw.config_slug));
    let config = named.and_then(|named| {
        let by_slug = snapshot.configs.find(&named, workspace);
        let by_id = || {
            // What a request would reach by the slug has to be the config that is meant.
            let meant = configs.get(&*named)?;
            snapshot.configs.find(&meant.slug, workspace).ok().filter(|found| Arc::ptr_eq(found, meant))
        };
        let slug = by_slug.ok().or_else(by_id).map(|config| Arc::clone(&config.slug));
        if slug.as_ref().is_none_or(|slug| !slug.starts_with("pc-")) {
            let named = Quoted(&named);
            report.fault("defaults.config_id", format_args!("{named} is no config that this key may use"));
        }
        slug
    });
    Defaults { metadata: metadata.map(Arc::new), config, allow_config_override: override_.unwrap_or(true) }
}

/// A point in time, or the fault that it is none.
pub(super) fn instant(
    key: &str,
    given: Given<Text<'_>>,
    report: &mut Report<'_>,
) -> Result<Option<OffsetDateTime>, ()> {
    match given {
        Given::Absent => Ok(None),
        Given::Value(text) if text.is_empty() => Ok(None),
        Given::Value(text) => match parse_instant(&text) {
            Some(instant) => Ok(Some(instant)),
            None => {
                report.fault(key, "must be a time like 2026-11-21T03:00:00Z, or null");
                Err(())
            }
        },
        Given::Unusable => {
            report.fault(key, "must be a time like 2026-11-21T03:00:00Z, or null");
            Err(())
        }
    }
}

/// Thirty-two bytes from hexadecimal digits.
fn digest(text: &str) -> Option<[u8; 32]> {
    let digits = text.as_bytes();
    if digits.len() != 64 {
        return None;
    }
    let mut digest = [0; 32];
    for (byte, pair) in digest.iter_mut().zip(digits.chunks_exact(2)) {
        let digit = |at: usize| pair.get(at).and_then(|&digit| char::from(digit).to_digit(16));
        *byte = u8::try_from(digit(0)? * 16 + digit(1)?).ok()?;
    }
    Some(digest)
}
