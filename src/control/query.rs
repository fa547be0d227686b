//! The query of a list: which page, and filters. An empty parameter counts as absent, and so does a bare `?`.

use std::borrow::Cow;

use axum::extract::FromRequestParts;
use http::request::Parts;
use url::form_urlencoded;

use super::{Refusal, store::Page};

/// Largest page of any list, in objects.
const MAX_PAGE_SIZE: usize = 1000;

/// The parameters of a call, by name.
#[derive(Clone, Debug, Default)]
pub struct Query(Vec<(String, String)>);

// === impl Query ===

impl Query {
    /// Reads `text`, without its `?`.
    pub fn parse(text: &str) -> Self {
        Self(form_urlencoded::parse(text.as_bytes()).into_owned().collect())
    }

    /// The value of `name`, unless it is empty. SDKs write some names in camelCase.
    pub fn get(&self, name: &str) -> Option<&str> {
        let camel = camel_case(name);
        let found = self.0.iter().find(|(given, value)| (given == name || *given == camel) && !value.is_empty());
        found.map(|(_, value)| value.as_str())
    }

    /// `current_page`, counted from 0, and `page_size`, `size` if it is not given.
    ///
    /// # Errors
    /// 400 when one is no number in its range.
    pub fn page(&self, size: usize, most: usize) -> Result<Page, Refusal> {
        let most = most.min(MAX_PAGE_SIZE);
        let number = |name: &str, default: usize, least: usize, most: usize| match self.get(name) {
            None => Ok(default),
            Some(text) => match text.parse() {
                Ok(number) if (least..=most).contains(&number) => Ok(number),
                _ if most == usize::MAX => {
                    Err(Refusal::invalid(format!("{name}: must be a whole number from {least}")))
                }
                _ => Err(Refusal::invalid(format!("{name}: must be a whole number, {least} to {most}"))),
            },
        };
        Ok(Page { index: number("current_page", 0, 0, usize::MAX)?, size: number("page_size", size, 1, most)? })
    }

    /// The value of `name`, which must be one of `words`.
    ///
    /// # Errors
    /// 400 when it is none.
    pub fn word<'w>(&self, name: &str, words: &[&'w str]) -> Result<Option<&'w str>, Refusal> {
        let Some(given) = self.get(name) else { return Ok(None) };
        match words.iter().find(|word| **word == given) {
            Some(word) => Ok(Some(word)),
            None => Err(Refusal::invalid(format!("{name}: must be one of {}", words.join(", ")))),
        }
    }
}

impl<S: Sync> FromRequestParts<S> for Query {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Refusal> {
        Ok(Self::parse(parts.uri.query().unwrap_or_default()))
    }
}

fn camel_case(name: &str) -> Cow<'_, str> {
    if !name.contains('_') {
        return Cow::Borrowed(name);
    }
    let mut camel = String::with_capacity(name.len());
    let mut upper = false;
    for char in name.chars() {
        match (char, upper) {
            ('_', _) => upper = true,
            (char, true) => {
                camel.push(char.to_ascii_uppercase());
                upper = false;
            }
            (char, false) => camel.push(char),
        }
    }
    Cow::Owned(camel)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_are_read_as_sdks_write_them() {
        let cases = [
            ("", Some((0, 20))),
            ("current_page=2&page_size=5", Some((2, 5))),
            ("currentPage=1", Some((1, 20))),
            ("pageSize=100&current_page=", Some((0, 100))),
            ("page_size=0", None),
            ("page_size=101", None),
            ("current_page=-1", None),
            ("current_page=x", None),
            ("current_page=99999999999999999999999", None),
        ];
        for (text, expected) in cases {
            let page = Query::parse(text).page(20, 100).ok().map(|page| (page.index, page.size));
            assert_eq!(page, expected, "{text}");
        }
    }
}
