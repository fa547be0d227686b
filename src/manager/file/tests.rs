//! Files as a kubelet, an operator and an attacker lay them out.

use std::{fs, os::unix::fs::symlink};

use tempfile::TempDir;

use super::*;

fn location(path: &str) -> SecretLocation {
    SecretLocation { path: path.into(), version: VersionSelector::Current }
}

fn layout() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("root");
    fs::create_dir_all(root.join("team/deep")).unwrap();
    fs::write(root.join("key"), "sk-1\n").unwrap();
    fs::write(root.join("team/deep/key"), "sk-2").unwrap();
    fs::write(root.join("empty"), "").unwrap();
    fs::write(root.join("large"), vec![b'x'; MAX_FILE as usize + 1]).unwrap();
    fs::write(root.join("largest"), vec![b'x'; MAX_FILE as usize]).unwrap();
    fs::write(folder.path().join("outside"), "sk-canary").unwrap();
    // As the kubelet mounts a Secret.
    fs::create_dir(root.join("..2026_11_25")).unwrap();
    fs::write(root.join("..2026_11_25/mounted"), "sk-3").unwrap();
    symlink("..2026_11_25", root.join("..data")).unwrap();
    symlink("..data/mounted", root.join("mounted")).unwrap();
    // Ways out.
    symlink("../outside", root.join("relative")).unwrap();
    symlink(folder.path().join("outside"), root.join("absolute")).unwrap();
    symlink("..", root.join("up")).unwrap();
    symlink("/proc/self/environ", root.join("magic")).unwrap();
    symlink("loop", root.join("loop")).unwrap();
    symlink("missing", root.join("dangling")).unwrap();
    rustix::fs::mknodat(rustix::fs::CWD, root.join("fifo"), rustix::fs::FileType::Fifo, Mode::RUSR, 0).unwrap();
    folder
}

fn outcome(read: Result<Fetched, FetchError>) -> Result<String, (FailureClass, String)> {
    match read {
        Ok(Fetched::Document { value, map: false, version: Some(_), not_after: None }) => {
            Ok(value.expose_str().unwrap().chars().take(8).collect())
        }
        Ok(other) => panic!("{other:?}"),
        Err(error) => Err((error.class, error.code.unwrap_or_default().to_string())),
    }
}

#[test]
fn what_lies_below_the_root_is_read_and_nothing_else() {
    use FailureClass::*;
    let folder = layout();
    let files = Files::open(&folder.path().join("root")).unwrap();
    #[rustfmt::skip]
    let rows = [
        ("key", Ok("sk-1\n")), ("team/deep/key", Ok("sk-2")), ("mounted", Ok("sk-3")), ("..data/mounted", Ok("sk-3")),
        ("largest", Ok("xxxxxxxx")),
        ("missing", Err((Gone, "absent"))), ("key/below", Err((Gone, "absent"))), ("dangling", Err((Gone, "absent"))),
        ("team", Err((Misconfigured, "not_a_file"))), ("fifo", Err((Misconfigured, "not_a_file"))),
        ("relative", Err((Misconfigured, "outside_root"))), ("absolute", Err((Misconfigured, "outside_root"))),
        ("up/outside", Err((Misconfigured, "outside_root"))), ("magic", Err((Misconfigured, "outside_root"))),
        ("loop", Err((Misconfigured, "outside_root"))),
        ("empty", Err((Malformed, "empty"))), ("large", Err((Malformed, "too_large"))),
    ];
    for (path, expected) in rows {
        let expected = expected.map(str::to_owned).map_err(|(class, code)| (class, code.to_owned()));
        assert_eq!(outcome(files.root.read(Path::new(path))), expected, "{path}");
        // The way of kernels without openat2 agrees.
        let compared =
            files.root.open_compared(Path::new(path)).map(drop).map_err(|fault| FetchError::from(fault).class);
        match &expected {
            Err((Misconfigured, code)) if code == "outside_root" => assert_eq!(compared, Err(Misconfigured), "{path}"),
            Err((Gone, _)) => assert_eq!(compared, Err(Gone), "{path}"),
            _ => assert_eq!(compared, Ok(()), "{path}"),
        }
    }
}

#[test]
fn what_the_system_says_becomes_a_class() {
    #[rustfmt::skip]
    let rows = [
        (Errno::NOENT, FailureClass::Gone), (Errno::NOTDIR, FailureClass::Gone), (Errno::ACCESS, FailureClass::Denied),
        (Errno::XDEV, FailureClass::Misconfigured), (Errno::LOOP, FailureClass::Misconfigured),
        (Errno::AGAIN, FailureClass::Unavailable), (Errno::IO, FailureClass::Unavailable), (Errno::MFILE, FailureClass::Unavailable),
    ];
    for (errno, class) in rows {
        assert_eq!(FetchError::from(Fault::from(errno)).class, class, "{errno}");
    }
}

#[test]
fn names_stay_relative_and_without_version() {
    let folder = layout();
    let files = Files::open(&folder.path().join("root")).unwrap();
    for good in ["key", "team/deep/key", "..data/mounted", "a b"] {
        assert_eq!(files.admit(&location(good)), Ok(()), "{good}");
    }
    for bad in ["", "/etc/passwd", "../outside", "a/../b", "./key", "a//b", "a/", "a\0b"] {
        assert!(files.admit(&location(bad)).is_err(), "{bad:?}");
    }
    for version in [VersionSelector::Previous, VersionSelector::Pinned("1".into()), VersionSelector::Stage("x".into())]
    {
        assert!(files.admit(&SecretLocation { version, ..location("key") }).is_err());
    }
}

#[tokio::test]
async fn a_swapped_mount_is_seen_with_a_new_version() {
    let folder = layout();
    let root = folder.path().join("root");
    let files = Files::open(&root).unwrap();
    let read = async || match files.fetch(&location("mounted"), None).await.unwrap() {
        Fetched::Document { value, version: Some(version), .. } => (value.expose_str().unwrap().to_owned(), version),
        other => panic!("{other:?}"),
    };
    let (before, old) = read().await;
    fs::create_dir(root.join("..2026_11_26")).unwrap();
    fs::write(root.join("..2026_11_26/mounted"), "sk-4").unwrap();
    symlink("..2026_11_26", root.join("..data_tmp")).unwrap();
    fs::rename(root.join("..data_tmp"), root.join("..data")).unwrap();
    let (after, new) = read().await;
    assert_eq!((before.as_str(), after.as_str()), ("sk-3", "sk-4"));
    assert_ne!(old, new);
}

#[test]
fn a_root_must_be_a_directory() {
    let folder = layout();
    for bad in ["nowhere", "outside"] {
        assert!(Files::open(&folder.path().join(bad)).is_err(), "{bad}");
    }
}
