//! Any snapshot: what is taken strictly is taken leniently with nothing set aside, and every entity that is found may be looked up.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sidekey::model::{Caller, LinkRules, link};

fuzz_target!(|json: &[u8]| {
    let lenient = link(json, &LinkRules::LENIENT);
    if link(json, &LinkRules::STRICT).is_ok() {
        let lenient = lenient.as_ref().expect("lenient takes what strict takes");
        assert!(lenient.set_aside.is_empty());
    }
    let Ok(snapshot) = lenient else { return };
    for entity in snapshot.entities() {
        let caller = Caller { workspace: entity.workspace_id.clone(), ..Caller::default() };
        let _ = snapshot.entity(&entity.slug, &caller);
    }
});
