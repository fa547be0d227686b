//! One document as a manager returned it, with the values picked from it so far.
//!
//! A pick is made once for each version of a document, together with the header values inside the [`Credential`]; every
//! later request shares it. Reading a made pick takes no lock.

use std::{
    fmt,
    sync::{Arc, OnceLock},
};

use super::pick::{PickError, Wanted, pick};
use crate::{
    manager::Version,
    secret::{Credential, SecretValue},
};

/// Picks remembered for one document. Mappings of one snapshot name far fewer; what lies beyond is picked anew each time.
const MAX_PICKS: usize = 64;

/// One version of one secret.
pub struct Document {
    value: SecretValue,
    map: bool,
    version: Option<Version>,
    picks: OnceLock<Box<Pick>>,
}

/// One link in the chain of picks: it only grows, so readers need no lock.
struct Pick {
    wanted: Wanted,
    picked: Picked,
    next: OnceLock<Box<Pick>>,
}

/// What picking gave.
pub type Picked = Result<Arc<Credential>, PickError>;

// === impl Document ===

impl Document {
    /// A document without picks yet; `map` says that it is a map by nature.
    pub fn new(value: SecretValue, map: bool, version: Option<Version>) -> Self {
        Self { value, map, version, picks: OnceLock::new() }
    }

    /// The manager's version.
    pub fn version(&self) -> Option<&Version> {
        self.version.as_ref()
    }

    /// Length of the document in bytes.
    pub fn len(&self) -> usize {
        self.value.expose().len()
    }

    /// Whether the other is the same version with the same content, so that its picks hold here too.
    pub fn same_as(&self, value: &SecretValue, map: bool, version: Option<&Version>) -> bool {
        self.map == map && self.version.as_ref() == version && self.value.expose() == value.expose()
    }

    /// Whether the other has the same content, whatever its version.
    pub fn same_value(&self, other: &Self) -> bool {
        self.value.expose() == other.value.expose()
    }

    /// The value `wanted` of this document; made once and shared.
    ///
    /// # Errors
    /// [`PickError`]; it stands for this version of the document.
    pub fn pick(&self, wanted: &Wanted) -> Picked {
        let mut place = &self.picks;
        for _ in 0..MAX_PICKS {
            let made = place.get_or_init(|| Box::new(Pick::make(wanted.clone(), self.pick_anew(wanted))));
            if made.wanted == *wanted {
                return made.picked.clone();
            }
            place = &made.next;
        }
        self.pick_anew(wanted)
    }

    /// Every value picked so far that could be picked.
    pub fn good_picks(&self) -> impl Iterator<Item = (&Wanted, &Arc<Credential>)> {
        let mut place = &self.picks;
        std::iter::from_fn(move || {
            let made = place.get()?;
            place = &made.next;
            Some(made)
        })
        .filter_map(|made| made.picked.as_ref().ok().map(|credential| (&made.wanted, credential)))
    }

    fn pick_anew(&self, wanted: &Wanted) -> Picked {
        pick(&self.value, self.map, wanted).map(Arc::new)
    }
}

impl fmt::Debug for Document {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Document").field("version", &self.version).finish_non_exhaustive()
    }
}

// === impl Pick ===

impl Pick {
    fn make(wanted: Wanted, picked: Picked) -> Self {
        Self { wanted, picked, next: OnceLock::new() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resolve::pick::Form;

    fn document(json: &str) -> Document {
        Document::new(SecretValue::from(json.to_owned()), true, Some(Version("7".into())))
    }

    fn wanted(key: &str) -> Wanted {
        Wanted { key: Some(key.into()), form: Form::Text }
    }

    #[test]
    fn a_pick_is_made_once() {
        let document = document(r#"{"a": "1", "b": "2"}"#);
        let first = document.pick(&wanted("a")).unwrap();
        assert_eq!(document.pick(&wanted("b")).unwrap().expose(), "2");
        assert_eq!(document.pick(&wanted("c")).unwrap_err(), PickError::Absent);
        assert!(Arc::ptr_eq(&first, &document.pick(&wanted("a")).unwrap()));
        // The same key in another form is another pick.
        let structure = document.pick(&Wanted { form: Form::Structure, ..wanted("a") }).unwrap();
        assert!(structure.is_structured());
        let good: Vec<_> = document.good_picks().map(|(wanted, _)| wanted.key.as_deref().unwrap()).collect();
        assert_eq!(good, ["a", "b", "a"]);
    }

    #[test]
    fn memory_of_picks_is_bounded_and_picking_is_not() {
        let document =
            document(&format!("{{{}}}", (0..100).map(|n| format!("\"{n}\":{n}")).collect::<Vec<_>>().join(",")));
        for n in 0..100 {
            assert_eq!(document.pick(&wanted(&n.to_string())).unwrap().expose(), n.to_string());
        }
        assert_eq!(document.good_picks().count(), MAX_PICKS);
    }

    #[test]
    fn concurrent_first_picks_share_one_value() {
        let document = document(r#"{"a": "1"}"#);
        let picks: Vec<_> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..8).map(|_| scope.spawn(|| document.pick(&wanted("a")).unwrap())).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        assert!(picks.iter().all(|pick| Arc::ptr_eq(pick, &picks[0])));
        assert_eq!(document.good_picks().count(), 1);
    }

    #[test]
    fn debug_shows_no_value() {
        let document = document(r#"{"a": "sk-canary"}"#);
        document.pick(&wanted("a")).unwrap();
        assert!(!format!("{document:?}").contains("canary"));
    }
}
