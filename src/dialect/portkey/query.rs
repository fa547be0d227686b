//! `?model=@slug/rest`, for routes without a body (realtime, GET).

use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use url::form_urlencoded;

use super::name::{self, NamedModel};

/// The query's first `model`, and the query without the names of entities.
#[derive(Debug, Default)]
pub(super) struct Query {
    model: Option<String>,
    stripped: Option<String>,
}

// === impl Query ===

impl Query {
    /// Reads a raw query.
    pub(super) fn read(raw: Option<&str>) -> Self {
        let Some(raw) = raw else { return Self::default() };
        let mut query = Self::default();
        let mut kept: Vec<String> = Vec::new();
        let mut changed = false;
        for pair in raw.split('&') {
            let model = form_urlencoded::parse(pair.as_bytes()).find(|(key, _)| key == "model").map(|(_, value)| value);
            let Some(model) = model else {
                kept.push(pair.to_owned());
                continue;
            };
            match name::in_model(&model) {
                None => kept.push(pair.to_owned()),
                Some(named) => {
                    changed = true;
                    kept.extend(
                        named.rest.map(|rest| format!("model={}", utf8_percent_encode(rest, NON_ALPHANUMERIC))),
                    );
                }
            }
            query.model.get_or_insert_with(|| model.into_owned());
        }
        query.stripped = changed.then(|| kept.join("&"));
        query
    }

    /// The first `model`, decoded.
    pub(super) fn model(&self) -> Option<&str> {
        self.model.as_deref()
    }

    /// The first `model`, if it names an entity.
    pub(super) fn named_model(&self) -> Option<NamedModel<'_>> {
        self.model().and_then(name::in_model)
    }

    /// The query without names; `None`: it holds none.
    pub(super) fn into_stripped(self) -> Option<String> {
        self.stripped
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_found_and_removed() {
        for (raw, model, stripped) in [
            ("a=1&b=2", None, None),
            ("model=gpt-4o", Some("gpt-4o"), None),
            ("model=@a/gpt-4o", Some("@a/gpt-4o"), Some("model=gpt%2D4o")),
            ("model=%40a%2Fgpt+4o&x=%41", Some("@a/gpt 4o"), Some("model=gpt%204o&x=%41")),
            ("x=1&%6dodel=@a/m", Some("@a/m"), Some("x=1&model=m")),
            ("model=@a&x=1", Some("@a"), Some("x=1")),
            ("model=@a", Some("@a"), Some("")),
            ("model=m&model=@b/n", Some("m"), Some("model=m&model=n")),
            ("model=@cf/x", Some("@cf/x"), None),
            ("model=@a/x%26y%3d%23", Some("@a/x&y=#"), Some("model=x%26y%3D%23")),
            ("", None, None),
        ] {
            let query = Query::read(Some(raw));
            assert_eq!(query.model(), model, "{raw}");
            assert_eq!(query.into_stripped().as_deref(), stripped, "{raw}");
        }
    }
}
