//! The wire shape of a snapshot, `schema_version` 1. Unknown fields are ignored.
