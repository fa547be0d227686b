//! `file` against the contract: a directory has no network, no login and no versions.

use std::{fs, os::unix::fs::symlink, sync::Arc};

use async_trait::async_trait;
use sidekey::{
    egress::{self, Policy},
    manager::{
        Managers as _,
        registry::{Ambient, FileSettings, Registry, RegistrySettings},
    },
    metric::Metrics,
    model::{AuthConfig, ManagerType, SecretLocation, VersionSelector},
};
use tempfile::TempDir;

use super::{Arranged, CANARY, Case, Subject, at, keeps_the_contract, reference, settings};

struct Folder(TempDir);

#[async_trait]
impl Subject for Folder {
    async fn arrange(&self, case: Case) -> Result<Arranged, &'static str> {
        let root = self.0.path();
        let document = format!("{CANARY}\n");
        let location = match case {
            Case::Found | Case::MissingKey => {
                fs::create_dir_all(root.join("..1")).unwrap();
                fs::write(root.join("..1/key"), &document).unwrap();
                drop(symlink("..1/key", root.join("key")));
                at("key")
            }
            Case::Gone => at("absent"),
            Case::Malformed => {
                fs::write(root.join("empty"), "").unwrap();
                at("empty")
            }
            Case::WrongVersion => SecretLocation { version: VersionSelector::Pinned("1".into()), ..at("key") },
            Case::Denied => return Err("tests may run as root, whom no mode stops"),
            Case::ExpiredLogin => return Err("there is no login"),
            Case::Throttled => return Err("a file system does not say so"),
            Case::Down | Case::Slow => return Err("there is no network"),
            Case::PinnedVersion | Case::AbsentVersion => return Err("there are no versions"),
        };
        let file = FileSettings { root: Some(root.to_owned()), ambient: Ambient::default() };
        let settings = RegistrySettings { file, ..settings(Policy::new(egress::Settings::default())) };
        let registry = Registry::new(settings, Arc::new(Metrics::new())).unwrap();
        let manager = registry.manager(&reference("file", ManagerType::File, AuthConfig::File, at("key"))).unwrap();
        Ok(Arranged { manager, location, document, version: None, _world: Box::new(()) })
    }
}

#[tokio::test]
async fn file_keeps_the_contract() {
    let absent = [
        Case::Denied,
        Case::ExpiredLogin,
        Case::Throttled,
        Case::Down,
        Case::Slow,
        Case::PinnedVersion,
        Case::AbsentVersion,
    ];
    keeps_the_contract(&Folder(tempfile::tempdir().unwrap()), &absent).await;
}

#[tokio::test]
async fn file_may_be_off_or_limited_to_folders() {
    let folder = tempfile::tempdir().unwrap();
    let registry = |root: bool, allowed, paths: &[&str]| {
        let paths = paths.iter().map(|&path| path.to_owned()).collect();
        let root = root.then(|| folder.path().to_owned());
        let file = FileSettings { root, ambient: Ambient { allowed, paths } };
        let settings = RegistrySettings { file, ..settings(Policy::new(egress::Settings::default())) };
        Registry::new(settings, Arc::new(Metrics::new())).unwrap()
    };
    #[rustfmt::skip]
    let rows = [
        // root set, ambient, ambient_paths, path, what the refusal names
        (true, true, &[][..], "team/key", None),
        (false, true, &[][..], "team/key", Some("managers.file.root")),
        (true, false, &[][..], "team/key", Some("managers.file.ambient")),
        (true, true, &["team"][..], "team/key", None),
        (true, true, &["/team/"][..], "team/key", None),
        (true, true, &["other", "team/key"][..], "team/key", None),
        (true, true, &["tea"][..], "team/key", Some("managers.file.ambient_paths")),
        (true, true, &["team/key/x"][..], "team/key", Some("managers.file.ambient_paths")),
        (true, true, &[][..], "../key", Some("..")),
        (true, true, &[][..], "/etc/passwd", Some("relative")),
    ];
    for (root, allowed, paths, path, named) in rows {
        let registry = registry(root, allowed, paths);
        let admitted = registry.admit(ManagerType::File, &AuthConfig::File, Some(&at(path)));
        match named {
            None => assert_eq!(admitted, Ok(()), "{path} below {paths:?}"),
            Some(named) => {
                let reason = admitted.expect_err(path);
                assert!(reason.contains(named), "{reason}");
                let reference = reference("file", ManagerType::File, AuthConfig::File, at(path));
                assert!(registry.manager(&reference).is_err(), "{path}");
            }
        }
    }
}
