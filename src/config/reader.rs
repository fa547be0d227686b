//! Typed access to a configuration that collects faults instead of stopping at one.
//!
//! Every key is asked for once, with its type, default and range; an answer always comes back, so that reading goes on
//! behind a fault. What was never asked for is unknown, so that the code that reads is the only list of keys there is.
//! `SIDEKEY_<KEY>` (`__` between levels, lists in YAML flow) stands above the file and is checked alike.

use std::{ffi::OsString, ops::RangeInclusive, time::Duration};

use super::{
    nearest::nearest,
    problem::{Place, Problem},
    shown::{clean, show},
    tree::{Entry, Node, Value},
    variables::{Form, Override, is_service_link, overrides, variable},
};

/// Reads one configuration.
#[derive(Debug)]
pub struct Reader<'a> {
    file: &'a str,
    full: &'static str,
    root: Vec<Entry>,
    overrides: Vec<Override>,
    keys: Vec<Key>,
    problems: Vec<Problem>,
}

/// A key that was asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Key {
    /// Dotted name.
    pub name: &'static str,
    /// The legal values as messages and documents write them (`0 to 86400`, `pass or reject`); empty when any.
    pub range: String,
    /// Whether this version can do what the key asks for.
    pub built: bool,
}

/// A value and where it was found.
struct Found {
    value: Value,
    place: Place,
}

// === impl Reader ===

impl<'a> Reader<'a> {
    /// Reads `root`, the tree of `file`, below `variables`; `full` is the example that lists every key.
    pub fn new(
        file: &'a str,
        full: &'static str,
        root: Node,
        variables: impl IntoIterator<Item = (OsString, OsString)>,
    ) -> Self {
        let mut reader = Self {
            file,
            full,
            root: Vec::new(),
            overrides: overrides(variables),
            keys: Vec::new(),
            problems: Vec::new(),
        };
        match root.value {
            Value::Map(entries) => reader.root = entries,
            Value::Null => {}
            _ => {
                let message = format!("is not a list of keys; see {full} for an example");
                reader.push(reader.line(root.line), "", &message);
            }
        }
        reader
    }

    /// A whole number in `range`.
    pub fn whole(&mut self, key: &'static str, default: u64, range: RangeInclusive<u64>) -> u64 {
        debug_assert!(range.contains(&default), "{key}");
        let legal = format!("{} to {}", range.start(), range.end());
        let Some(found) = self.find(key, Form::Yaml, legal.clone()) else { return default };
        match found.value {
            Value::Whole(number) => match u64::try_from(number) {
                Ok(number) if range.contains(&number) => return number,
                _ => self.refuse(key, &found, &format!("is out of range; use {legal}")),
            },
            // What is too long for a whole number arrives as this.
            Value::Float(number) if number.abs() >= f64::from(u32::MAX) => {
                self.refuse(key, &found, &format!("is out of range; use {legal}"));
            }
            Value::Null => self.missing(key, &found),
            _ => self.refuse(key, &found, &format!("is not a whole number; use {legal}")),
        }
        default
    }

    /// As [`Reader::whole`], in seconds.
    pub fn secs(&mut self, key: &'static str, default: u64, range: RangeInclusive<u64>) -> Duration {
        Duration::from_secs(self.whole(key, default, range))
    }

    /// As [`Reader::whole`], in milliseconds.
    pub fn millis(&mut self, key: &'static str, default: u64, range: RangeInclusive<u64>) -> Duration {
        Duration::from_millis(self.whole(key, default, range))
    }

    /// As [`Reader::whole`], as a size or count in memory.
    pub fn size(&mut self, key: &'static str, default: u64, range: RangeInclusive<u64>) -> usize {
        // A range ends far below what an address can count.
        usize::try_from(self.whole(key, default, range)).unwrap_or(usize::MAX)
    }

    /// A part of one in `range`.
    pub fn ratio(&mut self, key: &'static str, default: f64, range: RangeInclusive<f64>) -> f64 {
        debug_assert!(range.contains(&default), "{key}");
        let legal = format!("{} to {}", range.start(), range.end());
        let Some(found) = self.find(key, Form::Yaml, legal.clone()) else { return default };
        let number = match found.value {
            Value::Float(number) => number,
            Value::Whole(0) => 0.0,
            Value::Whole(1) => 1.0,
            Value::Whole(_) => f64::INFINITY,
            Value::Null => {
                self.missing(key, &found);
                return default;
            }
            Value::Bool(_) | Value::Text(_) | Value::List(_) | Value::Map(_) => {
                self.refuse(key, &found, &format!("is not a number; use {legal}"));
                return default;
            }
        };
        if range.contains(&number) {
            return number;
        }
        self.refuse(key, &found, &format!("is out of range; use {legal}"));
        default
    }

    /// `true` or `false`.
    pub fn flag(&mut self, key: &'static str, default: bool) -> bool {
        let Some(found) = self.find(key, Form::Yaml, "true or false".to_owned()) else { return default };
        match found.value {
            Value::Bool(flag) => return flag,
            Value::Null => self.missing(key, &found),
            _ => self.refuse(key, &found, "is not a switch; use true or false"),
        }
        default
    }

    /// One of `words`, each with a meaning; the first is the default.
    pub fn word<T: Copy>(&mut self, key: &'static str, words: &[(&'static str, T)]) -> T {
        let default = words[0].1;
        self.optional_word(key, words).unwrap_or(default)
    }

    /// One of `words`, or nothing.
    pub fn optional_word<T: Copy>(&mut self, key: &'static str, words: &[(&'static str, T)]) -> Option<T> {
        let legal = alternatives(words.iter().map(|(word, _)| *word));
        let found = self.find(key, Form::Text, legal.clone())?;
        match &found.value {
            Value::Text(text) => match words.iter().find(|(word, _)| word == text) {
                Some((_, meaning)) => return Some(*meaning),
                None => self.refuse(key, &found, &format!("is not known; use {legal}")),
            },
            Value::Null => {}
            _ => self.refuse(key, &found, &format!("is not known; use {legal}")),
        }
        None
    }

    /// Text that `parse` accepts. `parse` explains a refusal as what follows the value: `is not a URL; write …`.
    pub fn text<T>(&mut self, key: &'static str, default: T, parse: impl Fn(&str) -> Result<T, String>) -> T {
        let Some(found) = self.find(key, Form::Text, String::new()) else { return default };
        if found.value == Value::Null {
            self.missing(key, &found);
            return default;
        }
        self.parse(key, &found, &parse).unwrap_or(default)
    }

    /// As [`Reader::text`], for a key that may be unset.
    pub fn optional<T>(&mut self, key: &'static str, parse: impl Fn(&str) -> Result<T, String>) -> Option<T> {
        let found = self.find(key, Form::Text, String::new())?;
        if found.value == Value::Null { None } else { self.parse(key, &found, &parse) }
    }

    /// A list of texts that `parse` accepts; `default` when the key is unset.
    pub fn list<T>(&mut self, key: &'static str, default: Vec<T>, parse: impl Fn(&str) -> Result<T, String>) -> Vec<T> {
        let Some(found) = self.find(key, Form::Yaml, String::new()) else { return default };
        match found.value {
            Value::List(items) => self.items(key, &found.place, items, &parse),
            Value::Null => {
                self.missing(key, &found);
                default
            }
            _ => {
                self.refuse(key, &found, "is not a list; write [a, b]");
                default
            }
        }
    }

    /// As [`Reader::list`], with one text standing for a list of one.
    pub fn one_or_more<T>(
        &mut self,
        key: &'static str,
        default: T,
        parse: impl Fn(&str) -> Result<T, String>,
    ) -> Vec<T> {
        let Some(found) = self.find(key, Form::TextOrList, String::new()) else { return vec![default] };
        match found.value {
            Value::List(items) if items.is_empty() => {
                self.push(found.place, key, "is an empty list; give one value at least");
            }
            Value::List(items) => return self.items(key, &found.place, items, &parse),
            Value::Null => self.missing(key, &found),
            _ => return self.parse(key, &found, &parse).into_iter().collect(),
        }
        vec![default]
    }

    /// A list of sections, each with all of `names` and nothing else, as texts in that order; a problem where `parse` says so.
    pub fn records<T, const N: usize>(
        &mut self,
        key: &'static str,
        names: [&'static str; N],
        parse: impl Fn([&str; N]) -> Result<T, String>,
    ) -> Vec<T> {
        let Some(found) = self.find(key, Form::Yaml, String::new()) else { return Vec::new() };
        let example = names.map(|name| format!("{name}: …")).join(", ");
        let Value::List(items) = &found.value else {
            self.refuse(key, &found, &format!("is not a list; write [{{{example}}}]"));
            return Vec::new();
        };
        let mut records = Vec::with_capacity(items.len());
        for item in items {
            let text = |name: &str| match &item.value {
                Value::Map(entries) if entries.len() == N => {
                    look_up(entries, name).and_then(|entry| match &entry.node.value {
                        Value::Text(text) => Some(text.as_str()),
                        _ => None,
                    })
                }
                _ => None,
            };
            let texts = names.map(text);
            let record = match texts.iter().all(Option::is_some) {
                true => parse(texts.map(Option::unwrap_or_default)),
                false => Err(format!("holds something else than {{{example}}}, each as text")),
            };
            match record {
                Ok(record) => records.push(record),
                Err(message) => {
                    let place = if item.line == 0 { found.place.clone() } else { self.line(item.line) };
                    self.push(place, key, &message);
                }
            }
        }
        records
    }

    /// A key or a whole section that this version cannot do yet: refused wherever it stands.
    pub fn later(&mut self, key: &'static str, what: &str) {
        self.keys.push(Key { name: key, range: String::new(), built: false });
        let message = format!("is not available in this version: {what}; remove it");
        if let Some(entry) = look_up(&self.root, key) {
            self.push(self.line(entry.line), key, &message);
        }
        let below = format!("{key}.");
        for at in 0..self.overrides.len() {
            if self.overrides[at].key == key || self.overrides[at].key.starts_with(&below) {
                self.overrides[at].asked = true;
                let (name, key) = (self.overrides[at].name.clone(), self.overrides[at].key.clone());
                self.push(Place::Variable { name }, &key, &message);
            }
        }
    }

    /// Whether `key` was given a value, legal or not.
    pub fn is_set(&self, key: &str) -> bool {
        self.overrides.iter().any(|variable| variable.key == key)
            || look_up(&self.root, key).is_some_and(|entry| entry.node.value != Value::Null)
    }

    /// A fault in the relation of keys, reported at `key`.
    pub fn problem(&mut self, key: &str, message: &str) {
        let variable = self.overrides.iter().find(|variable| variable.key == key);
        let place = match (variable, look_up(&self.root, key)) {
            (Some(variable), _) => Place::Variable { name: variable.name.clone() },
            (None, Some(entry)) => self.line(entry.line),
            (None, None) => Place::File { file: self.file.to_owned() },
        };
        self.push(place, key, message);
    }

    /// Every problem, in reading order, and every key that was asked for. Call it after the last key.
    pub fn finish(mut self) -> (Vec<Problem>, Vec<Key>) {
        let root = std::mem::take(&mut self.root);
        self.unknown_entries("", &root);
        self.unknown_variables();
        self.problems.sort_by(|one, other| one.place.cmp(&other.place));
        (self.problems, self.keys)
    }

    fn find(&mut self, key: &'static str, form: Form, range: String) -> Option<Found> {
        debug_assert!(self.keys.iter().all(|known| known.name != key), "{key} is read twice");
        self.keys.push(Key { name: key, range, built: true });
        if let Some(variable) = self.overrides.iter_mut().find(|variable| variable.key == key) {
            variable.asked = true;
            let place = Place::Variable { name: variable.name.clone() };
            return match form.read(variable.text.as_deref()) {
                Ok(value) => Some(Found { value, place }),
                Err(message) => {
                    self.push(place, key, message);
                    None
                }
            };
        }
        let entry = look_up(&self.root, key)?;
        Some(Found { place: self.line(entry.line), value: entry.node.value.clone() })
    }

    fn parse<T>(&mut self, key: &str, found: &Found, parse: &impl Fn(&str) -> Result<T, String>) -> Option<T> {
        let refusal = match &found.value {
            Value::Text(text) => match parse(text) {
                Ok(value) => return Some(value),
                Err(refusal) => refusal,
            },
            Value::Bool(_) | Value::Whole(_) | Value::Float(_) => "is not text; put it in quotes".to_owned(),
            Value::Null | Value::List(_) | Value::Map(_) => "is not text; give one value".to_owned(),
        };
        self.refuse(key, found, &refusal);
        None
    }

    fn items<T>(
        &mut self,
        key: &str,
        place: &Place,
        items: Vec<Node>,
        parse: &impl Fn(&str) -> Result<T, String>,
    ) -> Vec<T> {
        let mut values = Vec::with_capacity(items.len());
        for item in items {
            let place = match place {
                Place::Line { .. } => self.line(item.line),
                Place::File { .. } | Place::Variable { .. } => place.clone(),
            };
            values.extend(self.parse(key, &Found { value: item.value, place }, parse));
        }
        values
    }

    fn line(&self, line: u64) -> Place {
        match line {
            0 => Place::File { file: self.file.to_owned() },
            line => Place::Line { file: self.file.to_owned(), line },
        }
    }

    fn push(&mut self, place: Place, key: &str, message: &str) {
        self.problems.push(Problem { place, key: key.to_owned(), message: message.to_owned() });
    }

    /// Reports a value, shown unless the key is about a credential.
    fn refuse(&mut self, key: &str, found: &Found, refusal: &str) {
        let shown = show(key, &found.value);
        self.push(found.place.clone(), key, &format!("{shown} {refusal}"));
    }

    fn missing(&mut self, key: &str, found: &Found) {
        self.push(found.place.clone(), key, "has no value; give one, or remove the key to have its default");
    }

    /// Reports what stands in the file and was never asked for, and keys that stand there twice.
    fn unknown_entries(&mut self, above: &str, entries: &[Entry]) {
        for (at, entry) in entries.iter().enumerate() {
            let path = if above.is_empty() { entry.key.clone() } else { format!("{above}.{}", entry.key) };
            let place = self.line(entry.line);
            if let Some(first) = entries[..at].iter().find(|other| other.key == entry.key) {
                let message = format!("stands here again, first on line {}; remove one", first.line);
                self.push(place, &clean(&path), &message);
                continue;
            }
            if entry.key.contains('.') {
                self.push(place, &clean(&path), "holds a dot; write one level per line, each indented below the last");
                continue;
            }
            if self.keys.iter().any(|key| key.name == path) {
                continue;
            }
            let below = format!("{path}.");
            let is_section = self.keys.iter().any(|key| key.name.starts_with(&below));
            match (&entry.node.value, is_section) {
                (Value::Map(entries), true) => self.unknown_entries(&path, entries),
                // A section with all of its keys commented out.
                (Value::Null, true) => {}
                (_, true) => self.push(place, &path, "is a section; write its keys on the lines below, indented"),
                (_, false) => {
                    let message = match self.suggestion(&path) {
                        Some(known) => format!("is not a key; did you mean {known}?"),
                        None => format!("is not a key; remove it, {} lists every key", self.full),
                    };
                    self.push(place, &clean(&path), &message);
                }
            }
        }
    }

    fn unknown_variables(&mut self) {
        for at in 0..self.overrides.len() {
            let Override { name, key, asked, .. } = &self.overrides[at];
            if *asked {
                continue;
            }
            let message = if is_service_link(name) {
                "is no key but looks like a Kubernetes service link; set enableServiceLinks: false in the pod, or rename the service".to_owned()
            } else if self.keys.iter().any(|known| known.name.starts_with(&format!("{key}."))) {
                "names a section; name one key, with __ between the levels".to_owned()
            } else {
                match self.suggestion(key) {
                    Some(known) => format!("names no key; did you mean {}?", variable(known)),
                    None => format!("names no key; unset it, {} lists every key", self.full),
                }
            };
            self.push(Place::Variable { name: clean(name) }, "", &message);
        }
    }

    fn suggestion(&self, key: &str) -> Option<&'static str> {
        let built = self.keys.iter().filter(|known| known.built).map(|known| known.name);
        let sections = built.clone().filter_map(|name| name.rsplit_once('.').map(|(section, _)| section));
        nearest(key, built.chain(sections))
    }
}

/// `a`, `a or b`, `a, b or c`.
fn alternatives<'w>(words: impl Iterator<Item = &'w str>) -> String {
    let words: Vec<_> = words.collect();
    match words.split_last() {
        Some((last, [])) => (*last).to_owned(),
        Some((last, others)) => format!("{} or {last}", others.join(", ")),
        None => String::new(),
    }
}

fn look_up<'t>(entries: &'t [Entry], key: &str) -> Option<&'t Entry> {
    let (first, rest) = key.split_once('.').map_or((key, None), |(first, rest)| (first, Some(rest)));
    let entry = entries.iter().find(|entry| entry.key == first)?;
    match (rest, &entry.node.value) {
        (None, _) => Some(entry),
        (Some(rest), Value::Map(entries)) => look_up(entries, rest),
        (Some(_), _) => None,
    }
}

#[cfg(test)]
mod tests;
