//! The scripted fake against the contract: what other tests lean on has to behave like the real ones.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use sidekey::{
    manager::{
        FailureClass,
        fake::{Answer, Fake},
    },
    model::{SecretLocation, VersionSelector},
};

use super::{Arranged, CANARY, Case, Subject, at, keeps_the_contract};

struct Scripted;

#[async_trait]
impl Subject for Scripted {
    async fn arrange(&self, case: Case) -> Result<Arranged, &'static str> {
        let fake = Fake::new();
        let document = format!(r#"{{"key":"{CANARY}"}}"#);
        let fail = |class| ("path", Answer::fail(class), at("path"));
        let pinned = |number: &str| SecretLocation { version: VersionSelector::Pinned(number.into()), ..at("path") };
        let (path, answer, location) = match case {
            Case::Found | Case::MissingKey => ("path", Answer::map(&document).version("1"), at("path")),
            Case::PinnedVersion => ("path?version=1", Answer::map(&document).version("1"), pinned("1")),
            Case::Gone => ("elsewhere", Answer::map(&document), at("path")),
            Case::AbsentVersion => ("path?version=1", Answer::map(&document), pinned("2")),
            Case::Denied => fail(FailureClass::Denied),
            Case::Down => fail(FailureClass::Unavailable),
            Case::Malformed => fail(FailureClass::Malformed),
            Case::WrongVersion => fail(FailureClass::Misconfigured),
            Case::Throttled => {
                let wait = Duration::from_secs(30);
                ("path", Answer::fail(FailureClass::Throttled).retry_after(wait), at("path"))
            }
            Case::ExpiredLogin => return Err("there is no login"),
            Case::Slow => return Err("it takes as long as its script says; the deadline is the registry's"),
        };
        fake.script(path, [answer]);
        Ok(Arranged { manager: Arc::new(fake), location, document, version: Some("1"), _world: Box::new(()) })
    }
}

#[tokio::test]
async fn fake_keeps_the_contract() {
    keeps_the_contract(&Scripted, &[Case::ExpiredLogin, Case::Slow]).await;
}
