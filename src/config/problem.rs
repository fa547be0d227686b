//! What is wrong with a configuration: every fault of a run at once.
//!
//! A problem names its place, its key and a remedy. It may show the value of its own key, never that of a key that is
//! about a credential, and never anything that stands beside it in the file.

use std::{fmt, io};

use super::tree::SyntaxError;

/// One fault.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Where it stands.
    pub place: Place,
    /// Dotted key (`cache.ttl_secs`); empty when the whole file is meant.
    pub key: String,
    /// What is wrong and how to mend it, lower case, one line.
    pub message: String,
}

/// Where a problem stands. Orders problems as a reader meets them: file, then lines, then the environment.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Place {
    /// The file as a whole, or the relation of several of its keys.
    File {
        /// The file's name as it was given.
        file: String,
    },
    /// A line of the file.
    Line {
        /// The file's name as it was given.
        file: String,
        /// Counted from 1.
        line: u64,
    },
    /// An environment variable.
    Variable {
        /// Its name.
        name: String,
    },
}

/// A configuration that cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("{} in the configuration", count(problems.len()))]
pub struct Invalid {
    /// Every fault, in reading order; at least one.
    pub problems: Vec<Problem>,
}

// === impl Invalid ===

impl Invalid {
    /// One fault of `file` as a whole.
    pub fn of_file(file: &str, message: String) -> Self {
        let place = Place::File { file: file.to_owned() };
        Self { problems: vec![Problem { place, key: String::new(), message }] }
    }

    /// Text that is not YAML.
    pub(super) fn of_syntax(file: &str, error: SyntaxError) -> Self {
        let SyntaxError { line, column, reason } = error;
        let file = file.to_owned();
        let (place, message) = match line {
            0 => (Place::File { file }, reason.to_owned()),
            line => (Place::Line { file, line }, format!("column {column}: {reason}")),
        };
        Self { problems: vec![Problem { place, key: String::new(), message }] }
    }
}

// === impl Problem ===

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.key.as_str() {
            "" => write!(f, "{}: {}", self.place, self.message),
            key => write!(f, "{}: {key}: {}", self.place, self.message),
        }
    }
}

// === impl Place ===

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File { file } => f.write_str(file),
            Self::Line { file, line } => write!(f, "{file}:{line}"),
            Self::Variable { name } => f.write_str(name),
        }
    }
}

/// Why a file cannot be read, in the words of people.
pub fn why(error: &io::Error) -> String {
    match error.kind() {
        // The standard library calls everything an entity; here that is a virtual key.
        io::ErrorKind::NotFound => "no such file".to_owned(),
        kind => kind.to_string(),
    }
}

fn count(problems: usize) -> String {
    if problems == 1 { "1 problem".to_owned() } else { format!("{problems} problems") }
}
