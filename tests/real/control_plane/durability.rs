//! What was acknowledged is there, whatever ended the process or the disk.
//!
//! `REAL_TESTS_WRITES` sets how many writes there are (default 240; `REAL_TESTS_WRITES=1000 REAL_TESTS_SECS=600` for the
//! numbers in `docs/control-plane.md`).

use std::{fs, path::Path, process::Command, sync::Arc, time::Duration};

use sidekey::control::store::Location;

use super::{Home, Ledger, Written, number, rows, state};
use crate::{harness, process::command};

/// Who write at once.
const WRITERS: usize = 8;

/// Killed again and again in the middle of writes.
pub async fn survives_kills() {
    let folder = harness::folder();
    let (home, location) = (Home::on_sqlite(&folder), Location::File(folder.join("control.db")));
    let (ledger, most) = (Arc::new(Ledger::default()), number("REAL_TESTS_WRITES", 240));
    let mut kills = 0;
    let mut chance = 0x9e37_79b9_7f4a_7c15_u64;
    while ledger.acknowledged() < most {
        let mut control = home.start("control-plane").await;
        // Any number that has no relation to what a write does.
        chance = chance.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        let until = Duration::from_millis(5 + (chance >> 33) % 150);
        let address = control.address;
        let writers: Vec<_> = (0..WRITERS)
            .map(|_| {
                let ledger = Arc::clone(&ledger);
                tokio::spawn(async move { ledger.fill_at(address, usize::MAX).await })
            })
            .collect();
        tokio::time::sleep(until).await;
        control.kill().await;
        kills += 1;
        for writer in writers {
            writer.await.expect("a writer");
        }
        ledger.check(&location).await;
    }
    println!("{} writes acknowledged, {kills} kills, none lost", ledger.acknowledged());
}

/// A disk that is full, and has room again.
pub async fn survives_a_full_disk() {
    let disk = harness::folder().join("disk");
    fs::create_dir(&disk).expect("a folder");
    let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", "size=4m", "tmpfs"]).arg(&disk).status();
    if !mounted.is_ok_and(|status| status.success()) {
        harness::skip("a file system of 4 MiB cannot be mounted here: root could");
    }
    let filler = disk.join("filler");
    fs::write(&filler, vec![0; 3 << 20]).expect("a file");
    let (home, location) = (Home::on_sqlite(&disk), Location::File(disk.join("control.db")));
    let mut control = home.start("control-plane").await;
    let ledger = Arc::new(Ledger::default());
    ledger.fill(&control, 2_000).await;
    let before = ledger.acknowledged();
    assert!((1..2_000).contains(&before), "the disk is not full after {before} writes");
    assert_eq!(control.write("ws-refused").await, Written::Unknown, "a write was acknowledged without a disk");

    // What is there can be read, and goes out.
    let snapshot = control.feed("").await.expect(200).json();
    assert_eq!(rows(&snapshot, "workspaces").len(), before);

    // Room again: without a restart, and with one.
    fs::remove_file(&filler).expect("a file");
    assert_eq!(control.write("ws-again").await, Written::Acknowledged);
    control.kill().await;
    ledger.check(&location).await;
    refill(&filler);
    let mut control = home.start("control-plane").await;
    assert_eq!(rows(&control.feed("").await.expect(200).json(), "workspaces").len(), before + 1);
    control.kill().await;
    ledger.check(&location).await;
}

/// As large as fits.
fn refill(file: &Path) {
    let mut size = 4 << 20;
    while size > 0 && fs::write(file, vec![0; size]).is_err() {
        size -= 64 << 10;
    }
    // A database in this mode needs a file for those who share it.
    fs::write(file, vec![0; size.saturating_sub(256 << 10)]).expect("a file");
}

/// A backup that is put back, and said to be one.
pub async fn a_backup_begins_an_epoch() {
    let folder = harness::folder();
    let home = Home::on_sqlite(&folder);
    let mut control = home.start("control-plane").await;
    assert_eq!(control.write("ws-kept").await, Written::Acknowledged);
    control.kill().await;
    let backup = folder.join("backup");
    fs::create_dir(&backup).expect("a folder");
    let files = ["control.db", "control.db-wal"];
    for file in files {
        fs::copy(folder.join(file), backup.join(file)).expect("a copy");
    }
    let mut control = home.start("control-plane").await;
    assert_eq!(control.write("ws-lost").await, Written::Acknowledged);
    let held = state(&control.feed("").await.expect(200));
    control.kill().await;
    for file in files {
        fs::copy(backup.join(file), folder.join(file)).expect("a copy");
    }
    let config = folder.join("control-plane.yaml");
    let mut begin = command(env!("CARGO_BIN_EXE_sidekey"));
    let began =
        begin.args(["control-plane", "--new-epoch", "--config"]).arg(&config).output().await.expect("it starts");
    assert!(began.status.success(), "{}", String::from_utf8_lossy(&began.stderr));
    let control = home.start("control-plane").await;
    // As many writes as were lost: only the epoch tells that they are others.
    assert_eq!(control.write("ws-new").await, Written::Acknowledged);
    let told = control.feed(&format!("?since={held}")).await.expect(200).json();
    assert!(told["since"].is_null(), "told in full");
    let mut slugs: Vec<_> = rows(&told, "workspaces").iter().map(|row| row["slug"].as_str().expect("a slug")).collect();
    slugs.sort_unstable();
    assert_eq!(slugs, ["ws-kept", "ws-new"]);
}
