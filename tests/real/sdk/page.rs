//! `docs/sdk-matrix.md`: which case works in which SDK.

use std::{env, fmt::Write, fs};

use super::{CASES, SDKS, Sdk};
use crate::components::version;

const FILE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/sdk-matrix.md");

/// One column per SDK: its cells from top to bottom, true where the case works.
struct Page {
    columns: [Vec<bool>; SDKS.len()],
}

/// Panics unless the page says of `sdk` that `works` work and nothing else; with `REAL_TESTS_WRITE_DOCS` set it is made to.
pub fn check(sdk: &Sdk, works: &[&str]) {
    let text = fs::read_to_string(FILE).unwrap_or_default();
    let mut page = Page::read(&text);
    for (column, other) in page.columns.iter_mut().zip(&SDKS) {
        if other.script == sdk.script {
            *column = CASES.iter().map(|case| works.contains(&case.name)).collect();
        }
    }
    let wanted = page.write();
    if env::var_os("REAL_TESTS_WRITE_DOCS").is_some() {
        fs::create_dir_all(concat!(env!("CARGO_MANIFEST_DIR"), "/docs")).expect("the repository is writable");
        fs::write(FILE, wanted).expect("the page is writable");
        return;
    }
    assert!(wanted == text, "docs/sdk-matrix.md is out of date (tests/real/sdk.rs says how to write it):\n{wanted}");
}

// === impl Page ===

impl Page {
    /// The cells of a page; where a title or a row is missing, nothing works.
    fn read(text: &str) -> Self {
        let mut rows = text.lines().filter(|line| line.starts_with("| ")).map(|line| {
            let cells = line.trim_matches('|').split(" | ").map(str::trim);
            cells.collect::<Vec<_>>()
        });
        let titles = rows.next().unwrap_or_default();
        let rows: Vec<Vec<&str>> = rows.collect();
        let cell = |says: &str, title: &str| {
            let at = titles.iter().position(|&found| found == title)?;
            rows.iter().find(|row| row[0] == says)?.get(at).copied()
        };
        let column = |sdk: Sdk| CASES.iter().map(|case| cell(case.says, &sdk.title()) == Some("✓")).collect();
        Self { columns: SDKS.map(column) }
    }

    fn write(&self) -> String {
        let titles = SDKS.map(|sdk| sdk.title()).join(" | ");
        let mut text = format!(
            "# Which SDK reaches which endpoint\n\n\
             Unmodified SDKs against Sidekey, the Portkey gateway {} and OpenBao {}. `tests/real/sdk.rs` runs them and holds\n\
             this page against what it saw at the provider. ✓ works, – the SDK has no such call. The Node SDKs run over TLS.\n\n\
             | request | {titles} |\n|---|{}\n",
            version("PORTKEY_GATEWAY"),
            version("OPENBAO_CLI"),
            "---|".repeat(SDKS.len()),
        );
        for (row, case) in CASES.iter().enumerate() {
            let cells = self.columns.each_ref().map(|column| if column[row] { "✓" } else { "–" }).join(" | ");
            writeln!(text, "| {} | {cells} |", case.says).expect("a string takes it all");
        }
        text
    }
}
