//! `sidekey reseal`: seals again what is sealed already, to other recipients, where an identity is that opens it.
//!
//! Of a feed, each value is posted to the admin API, which seals it on arrival to the `sealing.recipients` it has now. Of a
//! file, a copy is written with every seal replaced. Nothing that cannot be opened is touched; values are never shown.

use std::{
    collections::BTreeMap,
    fs::{self, OpenOptions},
    io::Write as _,
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    time::Duration,
};

use serde::Serialize;
use serde_json::Value;
use url::Url;
use zeroize::Zeroizing;

use super::{Exit, Screen, block_on, load, screen::printable, snapshot};
use crate::{
    config::why,
    feed::{Source, control_plane},
    seal::{
        Place,
        identity::Identities,
        recipient::{Recipient, Recipients},
    },
    secret::SecretValue,
};

/// Lists of a snapshot whose rows hold sealed values, where they stand in a row, and what the admin API calls the list.
const LISTS: [(&str, &str, &str); 3] = [
    ("secret_references", "auth_config", "secret-references"),
    ("integrations", "configurations", "integrations"),
    ("virtual_keys", "model_config", "virtual-keys"),
];
/// For one call of the admin API.
const PATIENCE: Duration = Duration::from_secs(15);

/// What to do.
#[derive(Debug, clap::Args)]
pub struct Asked {
    /// The configuration of a sidecar: its snapshot, and the identities that open it
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// Of a feed: holds an API key that may update secret references, integrations and virtual keys
    #[arg(long, value_name = "FILE", conflicts_with_all = ["recipient", "out"])]
    key_file: Option<PathBuf>,
    /// Of a file: who can open the copy, age1…; several are allowed
    #[arg(long, value_name = "AGE1", requires = "out")]
    recipient: Vec<Recipient>,
    /// Of a file: where the copy goes. Never overwritten
    #[arg(long, value_name = "FILE", requires = "recipient")]
    out: Option<PathBuf>,
}

/// The sealed values of one object.
struct Found {
    list: &'static str,
    /// What the admin API calls the list.
    path: &'static str,
    id: String,
    slug: String,
    /// By the member that holds the field, empty for those of the row itself.
    fields: Vec<(&'static str, String, String)>,
}

/// A field of a body of the admin API.
#[derive(Serialize)]
#[serde(untagged)]
enum Posted<'v> {
    Text(&'v str),
    Members(BTreeMap<&'v str, &'v str>),
}

/// Why nothing was done.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error("{0}")]
    Usage(String),
    #[error("{0}")]
    Failed(String),
}

/// Seals every value again; 1 when one could not be.
pub fn run(asked: &Asked) -> Exit {
    let mut screen = Screen::stdout();
    match reseal(asked, &mut screen) {
        Ok(true) => Exit::Fine,
        Ok(false) => Exit::Failed,
        Err(Failure::Usage(message)) => {
            Screen::stderr().line(printable(&message));
            Exit::Usage
        }
        Err(Failure::Failed(message)) => {
            Screen::stderr().line(printable(&message));
            Exit::Failed
        }
    }
}

fn reseal(asked: &Asked, screen: &mut Screen) -> Result<bool, Failure> {
    let usage = |message: &str| Failure::Usage(message.to_owned());
    let config = load(&asked.config, &mut Screen::stderr()).map_err(|_| usage("nothing was sealed"))?;
    let file = config.identity_file.ok_or_else(|| usage("sealing.identity_file is not set: nothing can be opened"))?;
    let identities = fs::read_to_string(&file).map(Zeroizing::new);
    let identities = identities.map_err(|error| Failure::Failed(format!("{} {}", file.display(), why(&error))))?;
    let identities =
        Identities::parse(&identities).map_err(|error| Failure::Usage(format!("{} {error}", file.display())))?;
    let source = config.snapshot.ok_or_else(|| usage("no snapshot is configured"))?;
    let (document, _) = snapshot::read(&source).map_err(Failure::Failed)?;
    let (organisation, found) =
        find(&document).ok_or_else(|| Failure::Failed("the snapshot is no JSON object".to_owned()))?;
    match (&source, &asked.key_file, &asked.out) {
        (Source::ControlPlane(settings), Some(key_file), _) => {
            let key = fs::read_to_string(key_file).map(Zeroizing::new);
            let key = key.map_err(|error| Failure::Failed(format!("{} {}", key_file.display(), why(&error))))?;
            let posting = post(&settings.address, key.trim(), &organisation, &found, &identities, screen);
            block_on(posting).unwrap_or(Err(Failure::Failed("threads cannot be started".to_owned())))
        }
        (Source::File(_), None, Some(out)) => {
            let recipients = Recipients::new(asked.recipient.clone()).ok_or_else(|| usage("name a --recipient"))?;
            copy(&document, out, &recipients, &organisation, &found, &identities, screen)
        }
        (Source::ControlPlane(_), None, _) => Err(usage("the snapshot comes from a control plane: name --key-file")),
        (Source::File(_), _, _) => Err(usage("the snapshot is a file: name --recipient and --out")),
    }
}

/// The organisation, and every object with a sealed value. `None`: no snapshot.
fn find(document: &[u8]) -> Option<(String, Vec<Found>)> {
    let document: Value = serde_json::from_slice(document).ok().filter(Value::is_object)?;
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let mut found = Vec::new();
    for (list, member, path) in LISTS {
        for row in document[list].as_array().into_iter().flatten() {
            let mut fields = Vec::new();
            let seal = |value: &Value| value.get("$sealed").and_then(Value::as_str).map(str::to_owned);
            fields.extend(seal(&row["key"]).map(|sealed| ("", "key".to_owned(), sealed)));
            let members = row[member].as_object().into_iter().flatten();
            fields.extend(members.filter_map(|(name, value)| Some((member, name.clone(), seal(value)?))));
            if !fields.is_empty() {
                let (slug, id) = (text(&row["slug"]), text(&row["id"]));
                let id = if id.is_empty() { slug.clone() } else { id };
                found.push(Found { list, path, id, slug, fields });
            }
        }
    }
    Some((text(&document["organisation_id"]), found))
}

/// Posts what is found to the admin API.
async fn post(
    address: &control_plane::Address,
    key: &str,
    organisation: &str,
    found: &[Found],
    identities: &Identities,
    screen: &mut Screen,
) -> Result<bool, Failure> {
    let http = address.client().map_err(Failure::Failed)?;
    let mut whole = true;
    for object in found {
        let (opened, fine) = object.open(organisation, identities, screen);
        whole &= fine;
        if opened.is_empty() {
            continue;
        }
        let url = address.url.join(&format!("/v1/{}/", object.path)).and_then(|url: Url| url.join(&object.id));
        let url = url.map_err(|error| Failure::Failed(error.to_string()))?;
        let body =
            object.body(&opened).ok_or_else(|| Failure::Failed("a value cannot be written as JSON".to_owned()))?;
        let request = http.put(url).timeout(PATIENCE).header("x-portkey-api-key", key);
        let request = request.header("content-type", "application/json").body(body.to_vec());
        let status = request.send().await.map(|response| response.status().as_u16());
        match status {
            Ok(200) => object.say(&format!("{} sealed again", opened.len()), screen),
            Ok(status) => {
                whole = false;
                object.say(&format!("the control plane answers with status {status}"), screen);
            }
            Err(_) => return Err(Failure::Failed("the control plane cannot be reached".to_owned())),
        }
    }
    Ok(whole)
}

/// Writes a copy of the file with every seal replaced.
fn copy(
    document: &[u8],
    out: &Path,
    recipients: &Recipients,
    organisation: &str,
    found: &[Found],
    identities: &Identities,
    screen: &mut Screen,
) -> Result<bool, Failure> {
    let failed =
        |error: &std::io::Error| Failure::Failed(format!("{} cannot be written ({})", out.display(), why(error)));
    let text = std::str::from_utf8(document).map_err(|_| Failure::Failed("the snapshot is not UTF-8".to_owned()))?;
    let mut text = Zeroizing::new(text.to_owned());
    let mut whole = true;
    for object in found {
        let (opened, fine) = object.open(organisation, identities, screen);
        whole &= fine;
        for (at, value) in &opened {
            let (member, name, old) = &object.fields[*at];
            let field = field(member, name);
            let place = Place { organisation, object_id: &object.id, field: &field };
            let value = value.expose_str().unwrap_or_default();
            let new = recipients.seal(place, value).map_err(|error| Failure::Failed(error.to_string()))?;
            // No two seals are alike, so that the text names one place.
            text =
                Zeroizing::new(text.replace(&serde_json::json!(old).to_string(), &serde_json::json!(new).to_string()));
        }
        if !opened.is_empty() {
            object.say(&format!("{} sealed again", opened.len()), screen);
        }
    }
    let mut file =
        OpenOptions::new().write(true).create_new(true).mode(0o600).open(out).map_err(|error| failed(&error))?;
    file.write_all(text.as_bytes()).and_then(|()| file.sync_all()).map_err(|error| failed(&error))?;
    Ok(whole)
}

// === impl Found ===

impl Found {
    /// What can be opened, by its index in `fields`, and whether that is all; says why not.
    fn open(
        &self,
        organisation: &str,
        identities: &Identities,
        screen: &mut Screen,
    ) -> (Vec<(usize, SecretValue)>, bool) {
        let mut opened = Vec::with_capacity(self.fields.len());
        for (at, (member, name, sealed)) in self.fields.iter().enumerate() {
            let field = field(member, name);
            let place = Place { organisation, object_id: &self.id, field: &field };
            match identities.open(place, sealed) {
                Ok(value) => opened.push((at, value)),
                Err(error) => self.say(&format!("{field} {error}"), screen),
            }
        }
        let whole = opened.len() == self.fields.len();
        (opened, whole)
    }

    /// The body that sets what was `opened`, in a buffer sized once.
    fn body(&self, opened: &[(usize, SecretValue)]) -> Option<Zeroizing<Vec<u8>>> {
        let mut body: BTreeMap<&str, Posted<'_>> = BTreeMap::new();
        let mut size = 64;
        for (at, value) in opened {
            let (member, name, _) = self.fields.get(*at)?;
            let value = value.expose_str()?;
            // A byte becomes six at most.
            size += 6 * (value.len() + name.len() + member.len()) + 16;
            if member.is_empty() {
                body.insert(name, Posted::Text(value));
                continue;
            }
            match body.entry(member).or_insert_with(|| Posted::Members(BTreeMap::new())) {
                Posted::Members(members) => {
                    members.insert(name, value);
                }
                Posted::Text(_) => return None,
            }
        }
        let mut json = Zeroizing::new(Vec::with_capacity(size));
        serde_json::to_writer(&mut *json, &body).ok()?;
        Some(json)
    }

    fn say(&self, what: &str, screen: &mut Screen) {
        screen.line(printable(&format!("{} ({}): {what}", self.list, self.slug)));
    }
}

fn field(member: &str, name: &str) -> String {
    if member.is_empty() { name.to_owned() } else { format!("{member}.{name}") }
}
