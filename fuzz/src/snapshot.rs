//! Any snapshot: what is taken strictly is taken leniently with nothing set aside, and every entity that is found may be looked up.

use sidekey::model::{Caller, LinkRules, link};

/// `input` is the document.
pub fn check(input: &[u8]) {
    let lenient = link(input, &LinkRules::LENIENT);
    if link(input, &LinkRules::STRICT).is_ok() {
        let lenient = lenient.as_ref().expect("lenient takes what strict takes");
        assert!(lenient.set_aside.is_empty());
    }
    let Ok(snapshot) = lenient else { return };
    for entity in snapshot.entities() {
        let caller = Caller { workspace: entity.workspace_id.clone() };
        let _ = snapshot.entity(&entity.slug, &caller);
    }
}
