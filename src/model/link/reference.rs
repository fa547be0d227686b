//! `secret_references[]` → [`Reference`], and the look-up that mappings use.

use std::{
    collections::{HashMap, HashSet},
    fmt, mem,
    sync::Arc,
    time::Duration,
};

use url::Host;

use super::{
    Context,
    findings::{Findings, Ids, Naming, Quoted, Report, WHOLE},
};
use crate::model::{
    Auth, AuthConfig, ManagerType, Reference, SecretLocation, auth,
    raw::{self, Given, Members, Rows, Text},
    seals::Seals,
};

/// Longest `ttl_secs`: a year. Beyond it nothing is refreshed in the life of a process, which is no lifetime.
const MAX_TTL_SECS: u64 = 365 * 24 * 3600;
/// Longest `secret_key`, in bytes; the limit of Portkey's API.
pub(super) const MAX_KEY_BYTES: usize = 255;
/// Managers that are announced and not part of this version.
const LATER: [&str; 4] = ["onepassword", "doppler", "infisical", "sealed"];

/// Linked references by id and slug.
#[derive(Default)]
pub(super) struct References {
    all_usable: Vec<Arc<Reference>>,
    by_name: HashMap<Arc<str>, Found>,
}

/// What a name stands for.
#[derive(Clone)]
enum Found {
    /// A usable reference.
    Usable(Arc<Reference>),
    /// One with a fault of its own.
    SetAside,
}

// === impl References ===

impl References {
    pub(super) fn link(given: Rows<'_>, context: &mut Context<'_>, findings: &mut Findings) -> Self {
        const LIST: &str = "secret_references";
        let mut references = Self::default();
        let mut ids = Ids::default();
        let mut slugs = HashSet::new();
        let mut by_id = Vec::new();
        for (index, row) in findings.rows(LIST, given).into_iter().enumerate() {
            let Some(mut row) = findings.row::<raw::Reference<'_>>(LIST, index, row) else { continue };
            let mut report = findings.report(LIST, index);
            let Some(named) = report.named(mem::take(&mut row.id), mem::take(&mut row.slug)) else { continue };
            let naming = report.identified(named, None, &mut ids);
            if !slugs.insert(Arc::clone(&naming.slug)) {
                report.refuse("slug", "is the slug of an earlier reference, too");
            }
            let Naming { id, slug } = naming.clone();
            let found = match link_one(row, naming, context, &mut report) {
                Some(reference) => {
                    let reference = Arc::new(reference);
                    references.all_usable.push(Arc::clone(&reference));
                    Found::Usable(reference)
                }
                None => Found::SetAside,
            };
            by_id.push((id, found.clone()));
            references.by_name.insert(slug, found);
        }
        // A slug may look like another reference's id; ids win, because nobody can choose them.
        references.by_name.extend(by_id);
        references
    }

    /// The reference with this id or slug.
    ///
    /// # Errors
    /// Why there is none to use.
    pub(super) fn usable(&self, id_or_slug: &str) -> Result<Arc<Reference>, String> {
        match self.by_name.get(id_or_slug) {
            Some(Found::Usable(reference)) => Ok(Arc::clone(reference)),
            Some(Found::SetAside) => {
                Err(format!("names the secret reference {}, which has a fault of its own", Quoted(id_or_slug)))
            }
            None => Err(format!("{} is no secret reference of this snapshot", Quoted(id_or_slug))),
        }
    }

    pub(super) fn into_usable(self) -> Vec<Arc<Reference>> {
        self.all_usable
    }
}

/// `None`: the report says why.
fn link_one(
    row: raw::Reference<'_>,
    naming: Naming,
    context: &mut Context<'_>,
    report: &mut Report<'_>,
) -> Option<Reference> {
    let manager_type = manager_type(row.manager_type, report);
    let members = report.value("auth_config", row.auth_config, "an object").unwrap_or(Members::none());
    let auth = manager_type.and_then(|manager| auth_config(manager, &members, &context.seals(&naming.id), report));
    let kv_version = match auth.as_ref().map(Auth::shape) {
        Some(AuthConfig::Vault(vault)) => vault.kv_version,
        Some(AuthConfig::Aws(_) | AuthConfig::Azure(_) | AuthConfig::Gcp(_) | AuthConfig::File) | None => None,
    };
    let path = report.required_text("secret_path", row.secret_path);
    let location = manager_type.zip(path).and_then(|(manager, path)| {
        SecretLocation::parse(manager, &path, kv_version).map_err(|error| report.fault("secret_path", error)).ok()
    });
    let secret_key = secret_key(|| "secret_key", row.secret_key, report);
    let ttl = report.value("ttl_secs", row.ttl_secs, "a whole number of seconds, or null");
    if ttl.is_some_and(|secs| secs > MAX_TTL_SECS) {
        report.fault("ttl_secs", format_args!("must be 0 to {MAX_TTL_SECS}"));
    }
    let lifespan = report.lifespan(row.status, row.expires_at);
    let workspaces = context.workspaces.sharing(row.allow_all_workspaces, row.allowed_workspaces, report);
    let allowed_providers = allowed_providers(row.allowed_providers, context, report);
    let allowed_hosts = allowed_hosts(row.allowed_hosts, context, report);

    let (manager_type, auth) = (manager_type?, auth?);
    if let Err(reason) = (context.rules.admit)(manager_type, auth.shape(), location.as_ref()) {
        report.fault(WHOLE, reason);
    }
    let location = location?;
    report.is_clean().then(|| Reference {
        manager_type,
        identity: auth::identity(manager_type, &members, auth.is_sealed().then_some(&context.seals(&naming.id))),
        id: naming.id,
        slug: naming.slug,
        auth,
        location,
        secret_key,
        ttl: ttl.map(Duration::from_secs),
        lifespan,
        workspaces,
        allowed_providers,
        allowed_hosts,
    })
}

fn manager_type(given: Given<Text<'_>>, report: &mut Report<'_>) -> Option<ManagerType> {
    let name = report.required_text("manager_type", given)?;
    let known = ManagerType::from_name(&name);
    match known {
        Some(_) => {}
        None if LATER.contains(&&*name) => {
            report.fault("manager_type", format_args!("{name} is not part of this build"));
        }
        None => report.fault(
            "manager_type",
            format_args!(
                "{} is unknown; write one of {}",
                Quoted(&name),
                ManagerType::ALL.map(ManagerType::as_str).join(", ")
            ),
        ),
    }
    known
}

fn auth_config(
    manager: ManagerType,
    members: &Members<'_>,
    seals: &Seals<'_>,
    report: &mut Report<'_>,
) -> Option<Auth> {
    let mut seen = HashSet::new();
    for (key, _) in members.iter() {
        if !seen.insert(key) {
            report.fault(format_args!("auth_config.{}", Quoted(key)), "is given twice");
        }
    }
    auth::parse(manager, members, seals)
        .map_err(|faults| {
            for fault in faults {
                report.fault(format_args!("auth_config.{}", fault.key), fault.message);
            }
        })
        .ok()
}

/// `secret_key` of a reference or mapping.
pub(super) fn secret_key<K: fmt::Display>(
    key: impl Fn() -> K,
    given: Given<Text<'_>>,
    report: &mut Report<'_>,
) -> Option<Arc<str>> {
    let text = report.text(key(), given)?;
    if text.len() > MAX_KEY_BYTES {
        report.fault(key(), format_args!("is longer than {MAX_KEY_BYTES} bytes"));
    }
    Some(text.into())
}

fn allowed_providers(given: Given<Vec<String>>, context: &mut Context<'_>, report: &mut Report<'_>) -> Box<[Arc<str>]> {
    let providers = report.value("allowed_providers", given, "a list of provider ids").unwrap_or_default();
    providers.iter().map(|provider| context.names.intern(provider)).collect()
}

/// Hosts as URLs write them, in lower case; exact, or a suffix with a leading dot.
fn allowed_hosts(given: Given<Vec<String>>, context: &mut Context<'_>, report: &mut Report<'_>) -> Box<[Arc<str>]> {
    let hosts = report.value("allowed_hosts", given, "a list of host names").unwrap_or_default();
    let mut allowed = Vec::with_capacity(hosts.len());
    for (index, written) in hosts.iter().enumerate() {
        let (dot, name) = match written.strip_prefix('.') {
            Some(name) => (".", name),
            None => ("", &**written),
        };
        match Host::parse(name) {
            Ok(host) => allowed.push(context.names.intern(&format!("{dot}{host}"))),
            Err(_) => report.fault(
                format_args!("allowed_hosts[{index}]"),
                "must be a host like api.openai.com, or a suffix like .openai.azure.com, without port and path",
            ),
        }
    }
    allowed.into()
}
