//! Nobody can post something that passes for a seal.

use proptest::prelude::*;
use serde_json::{Map, Value, json, value::RawValue};

use super::{deployments, plain};
use crate::control::sealing::Stored;

/// Any JSON, with a preference for what looks like a seal.
fn values() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        "[ -~]{0,8}".prop_map(Value::from),
        Just(json!({"$sealed": "forged", "mask": "*****"})),
    ];
    leaf.prop_recursive(3, 24, 4, |inner| {
        let names =
            prop_oneof![Just("$sealed".to_owned()), Just("mask".to_owned()), Just("alias".to_owned()), "[a-z]{1,4}"];
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::vec((names, inner), 0..4)
                .prop_map(|members| members.into_iter().collect::<Map<_, _>>().into()),
        ]
    })
}

proptest! {
    #[test]
    fn what_is_stored_in_clear_is_read_in_clear(value in values()) {
        let raw = RawValue::from_string(value.to_string()).unwrap();
        for stored in [plain(&raw), deployments(&raw)].into_iter().flatten() {
            let text = serde_json::to_string(&Stored::Plain(stored.clone())).unwrap();
            prop_assert_eq!(serde_json::from_str::<Stored>(&text).unwrap(), Stored::Plain(stored));
        }
    }
}
