//! Imports go down only: every path in `src/` that names a room is read, not only `use` lines, and one that climbs fails.
//!
//! Comments and strings do not count, tests inside `src/` do. `super` is followed to the room it leads to, and a path that
//! names the whole crate (`use crate::*`) is refused, because it names every room.

use std::{collections::BTreeSet, fs, iter::Peekable, path::Path, str::CharIndices};

/// The rows of the picture in `src/lib.rs`, from the ground up, the top one in the order its rooms build on each other. A
/// room may name itself and the rooms of the rows below.
const ROWS: [&[&str]; 9] = [
    &["secret", "metric", "trace", "seal"],
    &["model"],
    &["egress", "feed", "dialect", "manager"],
    &["resolve", "clients"],
    &["proxy", "control"],
    &["telemetry", "admin", "push"],
    &["config"],
    &["app"],
    &["cli"],
];
/// What may be named beside that.
const SIDEWAYS: [(&str, &str); 2] = [("manager", "egress"), ("seal", "secret")];
/// What may not be named, although it lies below: whoever keeps sealed values cannot open one, nor fetch a secret; and whoever
/// listens to the outside can have a secret read again, and do nothing else with it.
const CLOSED: [(&str, &[&str]); 14] = [
    ("control", &["seal", "opener"]),
    ("control", &["seal", "identity"]),
    ("control", &["egress"]),
    ("control", &["feed"]),
    ("control", &["dialect"]),
    ("control", &["manager"]),
    ("control", &["resolve"]),
    ("control", &["clients"]),
    ("push", &["secret"]),
    ("push", &["seal"]),
    ("push", &["manager"]),
    ("push", &["dialect"]),
    ("push", &["resolve", "Resolver"]),
    ("push", &["resolve", "Quest"]),
];

/// A piece of source text: an identifier, `::`, or one sign.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Token {
    text: String,
    line: usize,
}

#[test]
fn no_path_climbs() {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut climbing = Vec::new();
    let mut files = 0;
    for file in rust_files(&source) {
        let name = file.strip_prefix(&source).unwrap().to_str().unwrap().to_owned();
        if !matches!(name.as_str(), "lib.rs" | "main.rs") {
            climbing.extend(climbs(&name, &fs::read_to_string(&file).unwrap()));
            files += 1;
        }
    }
    assert!(files >= ROWS.concat().len(), "only {files} files were read");
    assert_eq!(climbing, [""; 0]);
}

#[test]
fn every_room_has_a_row() {
    let lib = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("src/lib.rs")).unwrap();
    let declared: BTreeSet<_> =
        lib.lines().filter_map(|line| line.strip_prefix("pub mod ")?.strip_suffix(';')).map(str::to_owned).collect();
    let known: BTreeSet<_> = ROWS.concat().into_iter().map(str::to_owned).collect();
    assert_eq!(declared, known);
}

#[test]
fn a_path_that_climbs_is_found_however_it_is_written() {
    struct Case {
        file: &'static str,
        source: &'static str,
        /// The rooms that are named against the rule.
        climbs: &'static [&'static str],
    }
    let cases = [
        Case { file: "resolve.rs", source: "use crate::proxy::Settings;", climbs: &["proxy"] },
        Case { file: "resolve.rs", source: "use crate::{model::A, proxy, manager::{B, C}};", climbs: &["proxy"] },
        Case { file: "resolve.rs", source: "pub use crate::{app::{self, X}, cli as c};", climbs: &["app", "cli"] },
        Case {
            file: "resolve.rs",
            source: "fn f() -> crate::proxy::X { g::<crate::cli::Y>() }",
            climbs: &["proxy", "cli"],
        },
        Case { file: "resolve.rs", source: "fn f() { super::proxy::g(); }", climbs: &["proxy"] },
        Case { file: "resolve/pick.rs", source: "fn f() { super::super::proxy::g(); }", climbs: &["proxy"] },
        Case { file: "resolve/pick.rs", source: "fn f() { super::proxy::g(); }", climbs: &[] },
        Case { file: "resolve.rs", source: "mod tests { use super::super::proxy; }", climbs: &["proxy"] },
        Case { file: "resolve.rs", source: "mod tests { mod deep { } use super::proxy; }", climbs: &[] },
        Case { file: "resolve.rs", source: "mod a { fn f() {} } use super::proxy;", climbs: &["proxy"] },
        Case {
            file: "resolve.rs",
            source: "#[cfg(test)]\nmod tests { use crate :: /* up */ proxy :: X; }",
            climbs: &["proxy"],
        },
        Case { file: "resolve.rs", source: "use crate::*;", climbs: &["*"] },
        Case { file: "resolve.rs", source: "use super::*;", climbs: &["*"] },
        Case { file: "resolve.rs", source: "use crate as root;", climbs: &["*"] },
        Case { file: "resolve.rs", source: "use crate::{self as root};", climbs: &["*"] },
        Case { file: "resolve.rs", source: "extern crate self as ours;", climbs: &["*"] },
        Case { file: "resolve.rs", source: "macro_rules! m { () => { $crate::proxy::x() } }", climbs: &["proxy"] },
        Case { file: "resolve.rs", source: "use crate::r#proxy::X;", climbs: &["proxy"] },
        Case {
            file: "resolve.rs",
            source: "pub(crate) fn f<'a>(x: &'a str, c: char) { if c == '\"' { crate::proxy::x() } }",
            climbs: &["proxy"],
        },
        Case {
            file: "resolve.rs",
            source: "// crate::proxy\n/* crate::proxy /* crate::cli */ */ /// [`crate::app`]",
            climbs: &[],
        },
        Case {
            file: "resolve.rs",
            source: r##"f("crate::proxy \" crate::cli", r#"crate::"proxy""#, b"crate::cli", '"');"##,
            climbs: &[],
        },
        Case {
            file: "resolve.rs",
            source: "pub(in crate::resolve) fn f(&self) { self.proxy(); crate::resolve::g() }",
            climbs: &[],
        },
        Case { file: "resolve.rs", source: "fn f() { crate::model::x(); crate::manager::y() }", climbs: &[] },
        Case { file: "egress.rs", source: "use crate::manager::X;", climbs: &["manager"] },
        Case { file: "manager/vault.rs", source: "use crate::egress::X;", climbs: &[] },
        Case { file: "dialect/portkey.rs", source: "use crate::egress::X;", climbs: &["egress"] },
        Case { file: "model.rs", source: "use crate::{secret::A, metric::B};", climbs: &[] },
        Case { file: "secret.rs", source: "use crate::metric::B;", climbs: &["metric"] },
        Case { file: "admin.rs", source: "use crate::{config::B, proxy::C};", climbs: &["config"] },
        Case { file: "control/store.rs", source: "use crate::{model::A, seal::recipient::B};", climbs: &[] },
        Case { file: "control/store.rs", source: "use crate::seal::{Place, identity::Identity};", climbs: &["seal"] },
        Case { file: "control.rs", source: "use crate::seal;", climbs: &["seal"] },
        Case { file: "control.rs", source: "use crate::seal::*;", climbs: &["seal"] },
        Case {
            file: "control.rs",
            source: "fn f() { crate::resolve::g(); crate::manager::h() }",
            climbs: &["resolve", "manager"],
        },
        Case {
            file: "control.rs",
            source: "use crate::{egress::A, feed::B, dialect::C};",
            climbs: &["egress", "feed", "dialect"],
        },
        Case { file: "control.rs", source: "use crate::proxy::A;", climbs: &["proxy"] },
        Case { file: "push.rs", source: "use crate::resolve::Expiry;", climbs: &[] },
        Case { file: "push.rs", source: "use crate::resolve::{Expiry, Resolver};", climbs: &["resolve"] },
        Case { file: "push/verify.rs", source: "use crate::{manager::A, secret::B};", climbs: &["manager", "secret"] },
        Case { file: "app.rs", source: "use crate::{config::B, proxy::C, cli::D};", climbs: &["cli"] },
        Case { file: "cli/check.rs", source: "use crate::{app::B, config::C}; use super::D;", climbs: &[] },
    ];
    for Case { file, source, climbs: expected } in cases {
        let found = climbs(file, source);
        assert_eq!(found.len(), expected.len(), "{file}: {source}: {found:?}");
        for room in expected {
            assert!(
                found.iter().any(|climb| climb.ends_with(&format!(" names {room}"))),
                "{file}: {source}: {found:?}"
            );
        }
    }
}

fn rust_files(folder: &Path) -> Vec<std::path::PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files.extend(rust_files(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    files.sort();
    files
}

/// Every climbing path of `source`, as `file:line names room`.
fn climbs(file: &str, source: &str) -> Vec<String> {
    let modules: Vec<String> = file.trim_end_matches(".rs").split('/').map(str::to_owned).collect();
    let room = modules[0].clone();
    let row = row(&room).unwrap_or_else(|| panic!("{room} has no row"));
    let mut climbing = Vec::new();
    for (path, line) in absolute_paths(modules, &tokens(source)) {
        let named = path.first().map_or("*", String::as_str);
        let climbs = match self::row(named) {
            Some(below) => named != room && below >= row && !SIDEWAYS.contains(&(&room, named)),
            // An item of the crate root would be no room; there are none.
            None => named == "*",
        };
        let closed = CLOSED.iter().any(|(closed_to, closed)| {
            // A glob over a room, or its own name, gives everything in it.
            let named: Vec<&str> = path.iter().map(String::as_str).collect();
            *closed_to == room && (named.starts_with(closed) || (closed.len() > 1 && named == closed[..1]))
        });
        if climbs || closed {
            climbing.push(format!("{file}:{line} names {named}"));
        }
    }
    climbing.dedup();
    climbing
}

fn row(room: &str) -> Option<usize> {
    ROWS.iter().position(|rooms| rooms.contains(&room))
}

/// Every path that starts at `crate`, `self` or `super`, made absolute; a path that ends at the root is empty.
fn absolute_paths(file: Vec<String>, tokens: &[Token]) -> Vec<(Vec<String>, usize)> {
    let mut found = Vec::new();
    // The module of the file, then of each `mod x {` around; `None` for other braces.
    let mut inner: Vec<Option<String>> = Vec::new();
    let text = |at: usize| tokens.get(at).map_or("", |token| token.text.as_str());
    let mut at = 0;
    while at < tokens.len() {
        match text(at) {
            "{" => {
                let is_module = at >= 2 && text(at - 2) == "mod";
                inner.push(is_module.then(|| text(at - 1).to_owned()));
            }
            "}" => {
                inner.pop();
            }
            "extern" if text(at + 1) == "crate" => {
                found.push((Vec::new(), tokens[at].line));
                at += 1;
            }
            "crate" | "self" | "super" if at == 0 || text(at - 1) != "::" => {
                let whole = text(at) == "crate" && text(at + 1) == "as";
                if text(at + 1) == "::" {
                    let module: Vec<String> = file.iter().cloned().chain(inner.iter().flatten().cloned()).collect();
                    at = follow(&module, Vec::new(), tokens, at, &mut found);
                    continue;
                } else if whole {
                    found.push((Vec::new(), tokens[at].line));
                }
            }
            _ => {}
        }
        at += 1;
    }
    found
}

/// Follows one path (or the group at its end) from `at`, after `before`; returns where reading goes on.
fn follow(
    module: &[String],
    mut before: Vec<String>,
    tokens: &[Token],
    mut at: usize,
    found: &mut Vec<(Vec<String>, usize)>,
) -> usize {
    let text = |at: usize| tokens.get(at).map_or("", |token| token.text.as_str());
    let line = tokens[at].line;
    loop {
        match text(at) {
            "crate" => before.clear(),
            "self" if text(at + 1) == "::" && before.is_empty() => before = module.to_vec(),
            "self" => {}
            "super" => {
                if before.is_empty() {
                    before = module.to_vec();
                }
                before.pop();
            }
            "{" => {
                at += 1;
                while !matches!(text(at), "}" | "") {
                    at = if text(at) == "," { at + 1 } else { follow(module, before.clone(), tokens, at, found) };
                }
                return at + 1;
            }
            "*" => {
                found.push((before, line));
                return at + 1;
            }
            "<" => {
                // `path::<Generic>`: the path ends here, what stands inside is read on its own.
                found.push((before, line));
                return at;
            }
            name => before.push(name.to_owned()),
        }
        at += 1;
        if text(at) == "::" {
            at += 1;
            continue;
        }
        found.push((before, line));
        if text(at) == "as" {
            at += 2;
        }
        return at;
    }
}

/// Splits `source` into tokens, without comments and literals.
fn tokens(source: &str) -> Vec<Token> {
    let mut tokens = Vec::new();
    let mut line = 1;
    let mut chars = source.char_indices().peekable();
    while let Some((at, c)) = chars.next() {
        let rest = &source[at..];
        let skipped = literal_or_comment(rest);
        if skipped > 0 {
            line += rest[..skipped].matches('\n').count();
            skip(&mut chars, at + skipped);
        } else if c == '\n' {
            line += 1;
        } else if c.is_alphabetic() || c == '_' {
            let end = rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(rest.len());
            skip(&mut chars, at + end);
            tokens.push(Token { text: rest[..end].to_owned(), line });
        } else if rest.starts_with("::") {
            skip(&mut chars, at + 2);
            tokens.push(Token { text: "::".to_owned(), line });
        } else if !c.is_whitespace() {
            tokens.push(Token { text: c.to_string(), line });
        }
    }
    tokens
}

fn skip(chars: &mut Peekable<CharIndices<'_>>, until: usize) {
    while chars.next_if(|(at, _)| *at < until).is_some() {}
}

/// Length of the literal or comment that `rest` starts with, `r#` of a raw identifier included; 0 if there is none.
fn literal_or_comment(rest: &str) -> usize {
    if rest.starts_with("//") {
        return rest.find('\n').unwrap_or(rest.len());
    }
    if rest.starts_with("/*") {
        let (mut depth, mut at) = (0, 0);
        while at < rest.len() {
            if rest[at..].starts_with("/*") {
                depth += 1;
                at += 2;
            } else if rest[at..].starts_with("*/") {
                depth -= 1;
                at += 2;
                if depth == 0 {
                    return at;
                }
            } else {
                at += rest[at..].chars().next().map_or(1, char::len_utf8);
            }
        }
        return rest.len();
    }
    let prefix =
        ["br", "cr", "b", "c", "r", ""].into_iter().find(|prefix| rest.starts_with(prefix)).unwrap_or_default();
    let body = &rest[prefix.len()..];
    let hashes = if prefix.ends_with('r') { body.chars().take_while(|c| *c == '#').count() } else { 0 };
    if body[hashes..].starts_with('"') {
        let raw = prefix.ends_with('r');
        let end = format!("\"{}", "#".repeat(hashes));
        let mut at = hashes + 1;
        while at < body.len() {
            if !raw && body[at..].starts_with('\\') {
                at += 1 + body[at + 1..].chars().next().map_or(1, char::len_utf8);
            } else if body[at..].starts_with(&end) {
                return prefix.len() + at + end.len();
            } else {
                at += body[at..].chars().next().map_or(1, char::len_utf8);
            }
        }
        return rest.len();
    }
    if prefix == "r" && hashes == 1 {
        return 2;
    }
    if let Some(inside) = rest.strip_prefix('\'') {
        // A character, or a lifetime, which has no closing quote.
        let first = inside.chars().next().map_or(0, char::len_utf8);
        return match inside.starts_with('\\') {
            true => 1 + inside[2..].find('\'').map_or(0, |end| end + 3),
            false if inside[first..].starts_with('\'') => first + 2,
            false => 0,
        };
    }
    0
}
