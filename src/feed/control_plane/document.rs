//! The raw document that is held, and what a delta makes of it.
//!
//! Only the text is held. A delta is merged row by row into a new text, which is linked like one that came whole; whatever
//! does not fit is no reason to guess, the caller asks for the whole then.

use std::{
    borrow::Cow,
    collections::{HashMap, HashSet},
};

use serde::Deserialize;
use serde_json::value::RawValue;
use time::{OffsetDateTime, format_description::well_known::Rfc3339};
use zeroize::Zeroizing;

use super::order::State;

/// What an update says of itself.
#[derive(Deserialize)]
pub(super) struct Head<'a> {
    #[serde(borrow)]
    epoch: Cow<'a, str>,
    version: u64,
    #[serde(default, borrow)]
    generated_at: Option<Cow<'a, str>>,
    /// A delta: the version it is told from.
    #[serde(default)]
    pub(super) since: Option<u64>,
}

/// A delta.
#[derive(Deserialize)]
struct Delta<'a> {
    #[serde(borrow)]
    version: &'a RawValue,
    #[serde(default, borrow)]
    generated_at: Option<&'a RawValue>,
    #[serde(default, borrow)]
    changed: HashMap<Cow<'a, str>, Vec<&'a RawValue>>,
    #[serde(default, borrow)]
    removed: HashMap<Cow<'a, str>, Vec<Cow<'a, str>>>,
}

/// A row, as far as merging has to know it.
#[derive(Deserialize)]
struct Row<'a> {
    #[serde(borrow)]
    id: Cow<'a, str>,
}

/// The members of the document in their order.
type Members<'a> = Vec<(Cow<'a, str>, &'a RawValue)>;

/// A delta that does not fit what is held, or either is not what it should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the delta does not fit the document")]
pub(super) struct Misfit;

// === impl Head ===

impl<'a> Head<'a> {
    /// Reads the head of `update`; `None` when it is no JSON object, or does not say where it stands.
    pub(super) fn read(update: &'a [u8]) -> Option<Self> {
        serde_json::from_slice(update).ok()
    }

    /// Where the document stands after the update.
    pub(super) fn state(&self) -> State {
        let made = self.generated_at.as_deref().and_then(|text| OffsetDateTime::parse(text, &Rfc3339).ok());
        State { epoch: self.epoch.clone().into_owned(), version: self.version, generated_at: made }
    }
}

/// `base` after the delta `update`, in a buffer sized once. Blocks for large ones.
///
/// # Errors
/// [`Misfit`].
pub(super) fn merge(base: &[u8], update: &[u8]) -> Result<Zeroizing<Vec<u8>>, Misfit> {
    let mut members = members(base).ok_or(Misfit)?;
    let Delta { version, generated_at, mut changed, mut removed } =
        serde_json::from_slice(update).map_err(|_| Misfit)?;
    let heads = [("version", Some(version)), ("generated_at", generated_at)];
    for (name, value) in heads.into_iter().filter_map(|(name, value)| Some((name, value?))) {
        match members.iter_mut().find(|(member, _)| member == name) {
            Some((_, held)) => *held = value,
            None => members.push((name.into(), value)),
        }
    }
    // Both texts hold every name and row that is written.
    let mut out = Zeroizing::new(Vec::with_capacity(base.len() + update.len() + 64));
    out.push(b'{');
    for (name, held) in &members {
        let (changed, removed) = (changed.remove(&**name), removed.remove(&**name));
        member(&mut out, name)?;
        match (changed, removed) {
            (None, None) => out.extend_from_slice(held.get().as_bytes()),
            (changed, removed) => {
                let held: Vec<&RawValue> = serde_json::from_str(held.get()).map_err(|_| Misfit)?;
                rows(&mut out, &held, &changed.unwrap_or_default(), &removed.unwrap_or_default())?;
            }
        }
    }
    // Lists that were not there.
    for (name, changed) in changed {
        member(&mut out, &name)?;
        rows(&mut out, &[], &changed, &[])?;
    }
    out.push(b'}');
    Ok(out)
}

/// Writes a list: what is held, without what was removed and with what changed in its place; what is new at the end.
fn rows(out: &mut Vec<u8>, held: &[&RawValue], changed: &[&RawValue], removed: &[Cow<'_, str>]) -> Result<(), Misfit> {
    let id = |row: &RawValue| match serde_json::from_str::<Row<'_>>(row.get()) {
        Ok(Row { id }) => Ok(id.into_owned()),
        Err(_) => Err(Misfit),
    };
    let mut newer = HashMap::with_capacity(changed.len());
    for row in changed {
        if newer.insert(id(row)?, *row).is_some() {
            return Err(Misfit);
        }
    }
    // Also of what came and went since: that was never held.
    let gone: HashSet<&str> = removed.iter().map(|id| &**id).collect();
    if newer.keys().any(|id| gone.contains(&**id)) {
        return Err(Misfit);
    }
    out.push(b'[');
    let begin = out.len();
    let mut write = |row: &RawValue| {
        if out.len() > begin {
            out.push(b',');
        }
        out.extend_from_slice(row.get().as_bytes());
    };
    for row in held {
        let id = id(row)?;
        match newer.remove(&id) {
            Some(row) => write(row),
            None if gone.contains(&*id) => {}
            None => write(row),
        }
    }
    // In the order in which they were told.
    for row in changed {
        if newer.contains_key(&id(row)?) {
            write(row);
        }
    }
    out.push(b']');
    Ok(())
}

fn member(out: &mut Vec<u8>, name: &str) -> Result<(), Misfit> {
    if out.len() > 1 {
        out.push(b',');
    }
    serde_json::to_writer(&mut *out, name).map_err(|_| Misfit)?;
    out.push(b':');
    Ok(())
}

fn members(document: &[u8]) -> Option<Members<'_>> {
    struct Collect;

    impl<'de> serde::de::Visitor<'de> for Collect {
        type Value = Members<'de>;

        fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("an object")
        }

        fn visit_map<A: serde::de::MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
            let mut members = Vec::new();
            while let Some((Name(name), value)) = map.next_entry()? {
                members.push((name, value));
            }
            Ok(members)
        }
    }

    #[derive(Deserialize)]
    struct Name<'a>(#[serde(borrow)] Cow<'a, str>);

    use serde::Deserializer as _;
    serde_json::Deserializer::from_slice(document).deserialize_map(Collect).ok()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn base() -> Value {
        json!({
            "schema_version": 1, "epoch": "7", "version": 3, "generated_at": "2026-11-25T00:00:00Z", "organisation_id": "o",
            "integrations": [{"id": "a", "n": 1}, {"id": "b", "n": 1}, {"id": "c", "n": 1}],
            "virtual_keys": [{"id": "a", "n": 1}],
        })
    }

    fn merged(delta: &Value) -> Result<Value, Misfit> {
        let text = merge(base().to_string().as_bytes(), delta.to_string().as_bytes())?;
        Ok(serde_json::from_slice(&text).unwrap())
    }

    #[test]
    fn rows_are_replaced_removed_and_added() {
        let told = merged(&json!({
            "schema_version": 1, "epoch": "7", "since": 3, "version": 5, "generated_at": "2026-11-25T00:00:01Z", "organisation_id": "o",
            "changed": {"integrations": [{"id": "n", "n": 9}, {"id": "b", "n": 2}], "configs": [{"id": "x"}]},
            "removed": {"integrations": ["a", "never held"], "api_keys": ["k"]},
        }));
        let told = told.unwrap();
        let mut expected = base();
        expected["version"] = json!(5);
        expected["generated_at"] = json!("2026-11-25T00:00:01Z");
        expected["integrations"] = json!([{"id": "b", "n": 2}, {"id": "c", "n": 1}, {"id": "n", "n": 9}]);
        expected["configs"] = json!([{"id": "x"}]);
        assert_eq!(told, expected);
        let head = expected.to_string();
        let state = Head::read(head.as_bytes()).unwrap().state();
        assert_eq!((state.tag(), state.generated_at.is_some()), ("7-5".to_owned(), true));
    }

    #[test]
    fn what_does_not_fit_is_not_guessed() {
        let cases = [
            json!([]),
            json!({}),
            json!({"version": 4, "changed": []}),
            json!({"version": 4, "changed": {"integrations": {}}}),
            json!({"version": 4, "changed": {"integrations": [{"slug": "no id"}]}}),
            json!({"version": 4, "changed": {"integrations": [{"id": "n"}, {"id": "n"}]}}),
            json!({"version": 4, "changed": {"integrations": [{"id": "n"}]}, "removed": {"integrations": ["n"]}}),
            json!({"version": 4, "changed": {"organisation_id": [{"id": "n"}]}}),
        ];
        for delta in cases {
            assert_eq!(merged(&delta), Err(Misfit), "{delta}");
        }
        assert_eq!(merge(b"{\"integrations\":", b"{\"version\":1}").unwrap_err(), Misfit);
    }

    proptest::proptest! {
        /// Whatever changes, a delta from the old state leads to the new one, and the buffer never grows.
        #[test]
        fn a_delta_leads_to_the_new_state(old in rows_of(), new in rows_of()) {
            let list = |rows: &std::collections::BTreeMap<u8, u8>| -> Vec<Value> {
                rows.iter().map(|(id, n)| json!({"id": format!("i{id}"), "n": n})).collect()
            };
            let before = json!({"version": 1, "x": list(&old)});
            let changed: Vec<_> = new.iter().filter(|(id, n)| old.get(id) != Some(n))
                .map(|(id, n)| json!({"id": format!("i{id}"), "n": n})).collect();
            let removed: Vec<_> = old.keys().filter(|id| !new.contains_key(id)).map(|id| format!("i{id}")).collect();
            let delta = json!({"version": 2, "changed": {"x": changed}, "removed": {"x": removed}});
            let (base, delta) = (before.to_string(), delta.to_string());
            let text = merge(base.as_bytes(), delta.as_bytes()).unwrap();
            let after: Value = serde_json::from_slice(&text).unwrap();
            let mut rows = after["x"].as_array().unwrap().clone();
            rows.sort_by_key(|row| row["id"].to_string());
            let mut expected = list(&new);
            expected.sort_by_key(|row| row["id"].to_string());
            proptest::prop_assert_eq!(rows, expected);
            proptest::prop_assert!(text.len() <= base.len() + delta.len() + 64);
        }
    }

    fn rows_of() -> impl proptest::strategy::Strategy<Value = std::collections::BTreeMap<u8, u8>> {
        proptest::collection::btree_map(0..20u8, 0..3u8, 0..12)
    }
}
