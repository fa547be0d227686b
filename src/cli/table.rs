//! A table of text: aligned columns, two blanks between them.

/// Rows under their headings; every row has as many cells as there are headings.
#[derive(Debug)]
pub struct Table<const N: usize> {
    headings: [&'static str; N],
    rows: Vec<[String; N]>,
}

// === impl Table ===

impl<const N: usize> Table<N> {
    /// An empty table.
    pub fn new(headings: [&'static str; N]) -> Self {
        Self { headings, rows: Vec::new() }
    }

    /// Adds a row; an empty cell is shown as `-`.
    pub fn push(&mut self, cells: [String; N]) {
        self.rows.push(cells.map(|cell| if cell.is_empty() { "-".to_owned() } else { cell }));
    }

    /// The lines: headings, then rows.
    pub fn lines(&self) -> Vec<String> {
        let headings = self.headings.map(str::to_owned);
        let rows = || std::iter::once(&headings).chain(&self.rows);
        let width = |column: usize| rows().map(|cells| cells[column].chars().count()).max().unwrap_or(0);
        let widths: Vec<usize> = (0..N).map(width).collect();
        rows()
            .map(|cells| {
                let padded = cells.iter().zip(&widths).map(|(cell, &width)| format!("{cell:width$}"));
                padded.collect::<Vec<_>>().join("  ").trim_end().to_owned()
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let mut table = Table::new(["NAME", "X", "LAST"]);
        table.push(["a".to_owned(), "long cell".to_owned(), "é".to_owned()]);
        table.push(["longer name".to_owned(), String::new(), String::new()]);
        assert_eq!(
            table.lines(),
            ["NAME         X          LAST", "a            long cell  é", "longer name  -          -",]
        );
    }
}
