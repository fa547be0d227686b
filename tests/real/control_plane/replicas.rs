//! Several control planes on one PostgreSQL.

use std::{fs, sync::Arc, time::Duration};

use sidekey::control::store::Location;
use tokio::time::{Instant, timeout};

use super::{ControlPlane, Home, Ledger, Written, rows, state};
use crate::{components::Postgres, harness};

/// What a write may take to reach a data plane at another replica.
const REACH: Duration = Duration::from_secs(1);

/// Started at once on an empty database; each write is told by the other; one is killed in the middle of writes.
pub async fn are_one_control_plane() {
    let (postgres, folder) = (Postgres::start().await, harness::folder());
    let home = Home::on_postgres(&folder, &postgres.url());
    let (mut one, mut two) = (home.spawn("one"), home.spawn("two"));
    for control in [&mut one, &mut two] {
        let address = control.address;
        control.process.until("ready", async || tokio::net::TcpStream::connect(address).await.ok()).await;
    }
    let (first, second) = (one.feed("").await.expect(200), two.feed("").await.expect(200));
    assert_eq!(state(&first), state(&second), "epoch and version are the database's");
    assert_eq!(first.json()["organisation_id"], second.json()["organisation_id"], "one made the organisation");

    // Told by the other, whoever wrote.
    for (name, writer, reader) in [("ws-one", &one, &two), ("ws-two", &two, &one)] {
        let since = state(&reader.feed("").await.expect(200));
        let query = format!("?wait=60&since={since}");
        let waiting = reader.feed(&query);
        let write = async {
            // Whoever waits has to be there first.
            tokio::time::sleep(Duration::from_millis(200)).await;
            assert_eq!(writer.write(name).await, Written::Acknowledged);
            Instant::now()
        };
        let (told, written) = tokio::join!(timeout(Duration::from_secs(30), waiting), write);
        let elapsed = written.elapsed();
        let told = told.expect("told").expect(200).json();
        assert_eq!(rows(&told["changed"], "workspaces")[0]["slug"], name);
        println!("{name}: told by the other replica {} ms after the answer", elapsed.as_millis());
        assert!(elapsed < REACH, "{elapsed:?}");
    }

    // One dies in the middle of writes.
    let ledger = Arc::new(Ledger::default());
    let writers: Vec<_> = [one.address, two.address, one.address, two.address]
        .into_iter()
        .map(|address| {
            let ledger = Arc::clone(&ledger);
            tokio::spawn(async move { ledger.fill_at(address, 400).await })
        })
        .collect();
    while ledger.acknowledged() < 60 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    one.kill().await;
    for writer in writers {
        writer.await.expect("a writer");
    }
    let location = Location::Url(postgres.url());
    ledger.check(&location).await;
    let there = rows(&two.feed("").await.expect(200).json(), "workspaces").len();
    assert!(there >= ledger.acknowledged() + 2, "{there}");
    let one = home.start("one").await;
    assert_eq!(state(&one.feed("").await.expect(200)), state(&two.feed("").await.expect(200)));
    println!("{} writes acknowledged, one of two replicas killed, none lost", ledger.acknowledged());
}

/// An older binary leaves a newer schema alone, and says why.
pub async fn leave_a_newer_schema_alone() {
    let (postgres, folder) = (Postgres::start().await, harness::folder());
    let home = Home::on_postgres(&folder, &postgres.url());
    home.start("control-plane").await.kill().await;
    let pool = sqlx::PgPool::connect(&postgres.url()).await.expect("a connection");
    sqlx::query("INSERT INTO schema_steps (step, at) VALUES (99, 0)").execute(&pool).await.expect("a step");
    let ControlPlane { mut process, .. } = home.spawn("older");
    assert_eq!(process.ended().await.code(), Some(1));
    let log = fs::read_to_string(folder.join("older.log")).expect("a log");
    assert!(log.contains("schema 99") && log.contains("run the newer sidekey"), "{log}");
}

/// Without notifications, as behind a pooler, changes arrive all the same.
pub async fn notice_without_being_told() {
    let (postgres, folder) = (Postgres::start().await, harness::folder());
    let home = Home::on_postgres(&folder, &postgres.url());
    let control = home.start("control-plane").await;
    let since = state(&control.feed("").await.expect(200));
    let pool = sqlx::PgPool::connect(&postgres.url()).await.expect("a connection");
    let query = format!("?wait=60&since={since}");
    let write = async {
        tokio::time::sleep(Duration::from_millis(200)).await;
        let sql = "UPDATE organisations SET version = version + 1";
        sqlx::query(sql).execute(&pool).await.expect("a write");
        Instant::now()
    };
    let (told, written) = tokio::join!(control.feed(&query), write);
    assert!(written.elapsed() < REACH, "{:?}", written.elapsed());
    assert_ne!(state(&told.expect(200)), since);
}
