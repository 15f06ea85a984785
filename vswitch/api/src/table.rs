//! Tables for a terminal: one printer for all programs of the project.

use std::fmt;

use crate::plain::cut;

/// The longest cell in characters. One long cell would make every row as long.
pub(crate) const CELL_MAX: usize = 256;

/// The head of a column, and on which side its cells are aligned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Column {
    head: String,
    right: bool,
}

/// A column of text, aligned to the left.
pub fn left(head: impl Into<String>) -> Column {
    Column {
        head: head.into(),
        right: false,
    }
}

/// A column of numbers, aligned to the right.
pub fn right(head: impl Into<String>) -> Column {
    Column {
        head: head.into(),
        right: true,
    }
}

/// Rows of text. Its [`Display`](fmt::Display) makes each column as wide as its widest cell,
/// separates columns with two spaces, and leaves no space at the end of a line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Table {
    columns: Vec<Column>,
    rows: Vec<Vec<String>>,
}

impl Table {
    /// A table without rows.
    pub fn new(columns: impl IntoIterator<Item = Column>) -> Self {
        Self {
            columns: columns.into_iter().collect(),
            rows: Vec::new(),
        }
    }

    /// Adds a row. Missing cells are empty; cells beyond the last column are not printed. A cell is
    /// cut to [`CELL_MAX`] characters and made plain: its text may come from another process.
    pub fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        let cells = cells.into_iter().map(|cell| cut(&cell, CELL_MAX));
        self.rows.push(cells.collect());
    }

    /// The same table with these rows added.
    pub fn with<R: IntoIterator<Item = String>>(
        mut self,
        rows: impl IntoIterator<Item = R>,
    ) -> Self {
        for row in rows {
            self.row(row);
        }
        self
    }
}

impl fmt::Display for Table {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let heads: Vec<String> = self
            .columns
            .iter()
            .map(|column| column.head.clone())
            .collect();
        let lines = || std::iter::once(&heads).chain(&self.rows);
        let width = |column: usize| {
            let cells = lines().filter_map(|line| line.get(column));
            cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
        };
        let widths: Vec<usize> = (0..heads.len()).map(width).collect();
        for line in lines() {
            let mut text = String::new();
            for ((cell, width), column) in line.iter().zip(&widths).zip(&self.columns) {
                text += &match column.right {
                    true => format!("{cell:>width$}"),
                    false => format!("{cell:<width$}"),
                };
                text += "  ";
            }
            writeln!(out, "{}", text.trim_end())?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_fit_widest_cell_and_numbers_align_right() {
        let row = |cells: [&str; 3]| cells.map(str::to_owned);
        let table = Table::new([left("PORT"), right("RX"), left("MOSTLY")])
            .with([row(["red-vm1", "7", "µ"]), row(["u", "12345", ""])]);
        assert_eq!(
            table.to_string(),
            concat!(
                "PORT        RX  MOSTLY\n",
                "red-vm1      7  µ\n",
                "u        12345\n"
            )
        );
    }

    #[test]
    fn hostile_cell_is_cut_and_plain() {
        let mut table = Table::new([left("A"), left("B")]);
        table.row(["\u{1b}[2J\n".to_owned(), "x".repeat(1 << 20)]);
        table.row(["1".to_owned(), "2".to_owned()]);
        let text = table.to_string();
        assert_eq!(text.lines().count(), 3);
        assert!(text.contains("\\u{1b}[2J\\n  xx"), "{text}");
        assert!(text.len() < 1000, "{}", text.len());
    }

    #[test]
    fn rows_of_other_length_are_filled_or_cut() {
        let table = Table::new([left("A"), left("B")]).with([
            vec!["1".to_owned()],
            vec!["1".to_owned(), "2".to_owned(), "3".to_owned()],
        ]);
        assert_eq!(table.to_string(), "A  B\n1\n1  2\n");
    }
}
