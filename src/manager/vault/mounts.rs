//! Which mounts a server has, as far as this identity was told, and what to try where it was not.
//!
//! A mount is asked for once (`sys/internal/ui/mounts`, open to every token that may read something below it) and kept for
//! its life: mounts do not nest, so the longest known prefix is the one. Whoever reads nothing where a remembered mount was
//! has it forgotten and asks again, which covers a mount that was upgraded or replaced.

use std::sync::{Mutex, MutexGuard, PoisonError};

use http::HeaderValue;
use rustify::{
    endpoint::Endpoint,
    enums::{RequestMethod, RequestType, ResponseType},
};

use super::{
    answer::{self, MountInfo},
    path::{Form, Kv, SecretPath},
    wire::Wire,
};
use crate::manager::{FailureClass, FetchError};

/// Mounts remembered for one identity; the oldest goes first.
const MAX_MOUNTS: usize = 256;

/// The mounts one identity knows.
#[derive(Debug, Default)]
pub(super) struct Mounts {
    known: Mutex<Vec<(String, Kv)>>,
}

/// Requests to try for one path.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Plan {
    /// In this order, until one is answered.
    pub(super) forms: Vec<Form>,
    /// The mount was remembered, not asked for now.
    pub(super) remembered: bool,
}

/// `GET sys/internal/ui/mounts/{path}`, which vaultrs does not have.
struct DescribeMount<'a> {
    path: &'a str,
}

// === impl Mounts ===

impl Mounts {
    /// How to read `path`. `version` is what the reference says; `own_identity` forbids guesses that could hand out the
    /// login's own token.
    ///
    /// # Errors
    /// [`FetchError`] of asking for the mount; [`FailureClass::Misconfigured`] when it is no key-value engine.
    pub(super) async fn plan(
        &self,
        wire: &Wire,
        token: &HeaderValue,
        path: &SecretPath,
        version: Option<Kv>,
        own_identity: bool,
    ) -> Result<Plan, FetchError> {
        if let Some(form) = self.remembered(path, version) {
            return Ok(Plan { forms: vec![form], remembered: true });
        }
        let described = match wire.call(&DescribeMount { path: path.as_str() }, token).await {
            Ok(answer) => Some(answer::mount(&answer.body)?),
            Err(error) => match error.class {
                // Not granted, not there, not known to this server, or closed by something in front of it.
                FailureClass::Denied | FailureClass::Gone | FailureClass::Misconfigured | FailureClass::Malformed
                    if error.code.as_deref() != Some("address_refused") =>
                {
                    None
                }
                _ => return Err(error),
            },
        };
        let form = described.map(|mount| self.learn(path, mount, version)).transpose()?.flatten();
        match form {
            Some(form) => Ok(Plan { forms: vec![form], remembered: false }),
            None if own_identity && path.mentions_reserved() => {
                Err(FetchError::new(FailureClass::Misconfigured).with_code("mount_unknown"))
            }
            None => Ok(Plan { forms: path.guesses(version), remembered: false }),
        }
    }

    /// Forgets the mount of `path`.
    pub(super) fn forget(&self, path: &SecretPath) {
        self.known().retain(|(prefix, kv)| path.in_mount(prefix, *kv).is_none());
    }

    fn remembered(&self, path: &SecretPath, version: Option<Kv>) -> Option<Form> {
        let known = self.known();
        let (prefix, kv) = known
            .iter()
            .filter(|(prefix, kv)| path.in_mount(prefix, *kv).is_some())
            .max_by_key(|(prefix, _)| prefix.len())?;
        path.in_mount(prefix, version.unwrap_or(*kv))
    }

    fn learn(&self, path: &SecretPath, mount: MountInfo, version: Option<Kv>) -> Result<Option<Form>, FetchError> {
        let Some(kv) = mount.version else {
            return Err(FetchError::new(FailureClass::Misconfigured).with_code("not_kv"));
        };
        let form = path.in_mount(&mount.prefix, version.unwrap_or(kv));
        if form.is_some() {
            let mut known = self.known();
            known.retain(|(prefix, _)| *prefix != mount.prefix);
            if known.len() >= MAX_MOUNTS {
                known.remove(0);
            }
            known.push((mount.prefix, kv));
        }
        Ok(form)
    }

    fn known(&self) -> MutexGuard<'_, Vec<(String, Kv)>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl DescribeMount ===

impl Endpoint for DescribeMount<'_> {
    type Response = serde_json::Value;
    const REQUEST_BODY_TYPE: RequestType = RequestType::JSON;
    const RESPONSE_BODY_TYPE: ResponseType = ResponseType::JSON;

    fn path(&self) -> String {
        format!("sys/internal/ui/mounts/{}", self.path)
    }

    fn method(&self) -> RequestMethod {
        RequestMethod::GET
    }
}
