//! `docs/errors.md` is what the code does: every code, its status, when to come back, and every field of the log.

use std::{fs, path::Path};

use sidekey::proxy::Code;

use super::ROWS;

fn page() -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/errors.md")).unwrap()
}

/// The rows of the table of codes.
fn rows(page: &str) -> Vec<Vec<&str>> {
    let table = page.lines().skip_while(|line| !line.starts_with("| code |")).skip(2);
    let rows = table.take_while(|line| line.starts_with('|'));
    rows.map(|line| line.trim_matches(['|', ' ']).split(" | ").map(str::trim).collect()).collect()
}

#[test]
fn the_page_has_each_code_with_its_status_and_what_to_do() {
    let page = page();
    let documented: Vec<(String, String, String)> = rows(&page)
        .into_iter()
        .map(|row| {
            let [code, status, retry, meaning, cause, remedy] = row[..] else { panic!("six cells: {row:?}") };
            for text in [meaning, cause, remedy] {
                assert!(text.len() > 10, "{code} says too little: {row:?}");
            }
            (code.trim_matches('`').to_owned(), status.to_owned(), retry.to_owned())
        })
        .collect();
    let built = Code::ALL.iter().map(|code| {
        let retry = code.retry_after().map_or_else(|| "–".to_owned(), |wait| wait.as_secs().to_string());
        (code.as_str().to_owned(), code.status().as_u16().to_string(), retry)
    });
    assert_eq!(documented, built.collect::<Vec<_>>());
}

#[test]
fn the_page_names_every_field_that_leads_to_a_cause() {
    let page = page();
    for (field, _) in ROWS.iter().flat_map(|row| row.log) {
        assert!(page.contains(&format!("`{field}`")), "{field} is not explained");
    }
}
