//! Tables for people: columns without borders. On a terminal, the last column is wrapped; in a pipe, nothing is cut.

use std::collections::VecDeque;

use comfy_table::{ColumnConstraint, ContentArrangement, Table, presets};

use crate::cli::{self, text};

/// Spaces between columns.
const GAP: u16 = 2;
/// Least width of a last column whose text is wrapped.
const LAST_COLUMN: u16 = 24;

/// Longest line of a value on a terminal, in characters. References and digests are shorter; labels may have megabytes.
const LONGEST: usize = 600;
/// The text of an empty cell: tools that split lines at blanks would miss an empty column.
const EMPTY: &str = "-";

/// The first cell of a row whose real first cell stands on a line of its own, above.
const REST: &str = "↳";
/// A first cell up to this width, in columns, never gets a line of its own.
const FIRST_COLUMN: usize = 40;

/// A table with headers. Every cell is made safe to show.
pub(crate) fn rows(headers: &[&str], rows: impl IntoIterator<Item = Vec<String>>) -> String {
    rows_within(headers, rows, terminal_width())
}

fn rows_within(
    headers: &[&str],
    rows: impl IntoIterator<Item = Vec<String>>,
    terminal: Option<u16>,
) -> String {
    let mut table = plain();
    table.set_header(headers.iter().copied());
    // One very long name would move the other columns of every row off the screen.
    let longest = terminal.map_or(usize::MAX, |width| FIRST_COLUMN.max(usize::from(width) * 6 / 10));
    let mut on_own_line = VecDeque::new();
    for row in rows {
        let last = row.len().saturating_sub(1);
        table.add_row(row.iter().enumerate().map(|(column, cell)| match text::one_line(cell) {
            cell if column == 0 && last > 0 && console::measure_text_width(&cell) > longest => {
                on_own_line.push_back(cell);
                REST.to_owned()
            }
            cell if cell.is_empty() && column < last => EMPTY.to_owned(),
            cell => cell,
        }));
    }
    let table = finished(table, terminal);
    if on_own_line.is_empty() {
        return table;
    }
    let mut lines = Vec::new();
    for line in table.lines() {
        if line.starts_with(REST) {
            lines.extend(on_own_line.pop_front());
        }
        lines.push(line.to_owned());
    }
    lines.join("\n")
}

fn terminal_width() -> Option<u16> {
    let terminal = console::Term::stdout();
    terminal.features().is_attended().then(|| terminal.size_checked().map(|(_, width)| width))?
}

/// `name  value` lines about one thing. A value keeps its line breaks; an empty value is left out.
pub(crate) fn fields<'a>(fields: impl IntoIterator<Item = (&'a str, String)>) -> String {
    let mut table = plain();
    for (name, value) in fields.into_iter().filter(|(_, value)| !value.is_empty()) {
        let longest = if cli::is_for_people() { LONGEST } else { usize::MAX };
        let line = |line| text::clipped(&text::shown(line), longest).into_owned();
        let value = value.lines().map(line).collect::<Vec<_>>().join("\n");
        table.add_row([name.to_owned(), value]);
    }
    finished(table, terminal_width())
}

fn plain() -> Table {
    let mut table = Table::new();
    table.load_preset(presets::NOTHING);
    table
}

fn finished(mut table: Table, terminal: Option<u16>) -> String {
    let last = table.column_count().saturating_sub(1);
    for column in table.column_iter_mut() {
        column.set_padding((0, GAP));
        // Users copy references and ids, so only the last column may wrap.
        if column.index < last {
            column.set_constraint(ColumnConstraint::ContentWidth);
        }
    }
    match terminal.filter(|width| leaves_room(&table, *width)) {
        Some(width) => table.set_width(width).set_content_arrangement(ContentArrangement::Dynamic),
        None => table.set_content_arrangement(ContentArrangement::Disabled),
    };
    table.trim_fmt()
}

/// Whether the other columns leave the last one enough width for readable text; if not, the terminal's own line breaks
/// do less harm.
fn leaves_room(table: &Table, width: u16) -> bool {
    let widths = table.column_max_content_widths();
    let before: u16 = widths.iter().rev().skip(1).map(|width| width.saturating_add(GAP)).sum();
    before.saturating_add(LAST_COLUMN) <= width
}

#[cfg(test)]
mod tests {
    use crate::cli::table::{fields, rows, rows_within};

    #[test]
    fn columns_line_up_without_borders() {
        let table = rows(
            &["IMAGE", "SIZE"],
            [vec!["a:1".into(), "1.0 MB".into()], vec!["long-name:22".into(), "2 B".into()]],
        );
        assert_eq!(table, "IMAGE         SIZE\na:1           1.0 MB\nlong-name:22  2 B");
    }

    #[test]
    fn a_very_long_name_has_a_line_of_its_own_on_a_terminal() {
        let name = "n".repeat(70);
        let rows = || {
            [vec!["a:1".to_owned(), String::new(), "x".into()], vec![name.clone(), "2 B".into(), "y".into()]]
        };
        let headers = ["IMAGE", "SIZE", "TEXT"];
        assert_eq!(
            rows_within(&headers, rows(), Some(80)),
            format!("IMAGE  SIZE  TEXT\na:1    -     x\n{name}\n↳      2 B   y")
        );
        assert!(rows_within(&headers, rows(), None).ends_with(&format!("{name}  2 B   y")));
    }

    #[test]
    fn cells_cannot_forge_rows_or_colours() {
        let table = rows(&["IMAGE"], [vec!["a\nforged\u{1b}[31m".into()]]);
        assert_eq!(table, "IMAGE\na forged\\u{1b}[31m");
        let fields =
            fields([("name", "x\u{202e}".into()), ("empty", String::new()), ("labels", "a=1\nb=2".into())]);
        assert_eq!(fields, "name    x\\u{202e}\nlabels  a=1\n        b=2");
    }
}
