//! Tables for people: columns without borders, wrapped in the last column on a terminal, never cut in a pipe.

use std::io::{self, IsTerminal};

use comfy_table::{ColumnConstraint, ContentArrangement, Table, presets};

use crate::cli::text;

/// Spaces between columns.
const GAP: u16 = 2;
/// Least width in which a text is worth wrapping.
const LAST_COLUMN: u16 = 24;

/// Rows under headers. Every cell is made safe to show.
pub(crate) fn rows(headers: &[&str], rows: impl IntoIterator<Item = Vec<String>>) -> String {
    let mut table = plain();
    table.set_header(headers.iter().copied());
    for row in rows {
        table.add_row(row.iter().map(|cell| text::one_line(cell)));
    }
    finished(table)
}

/// `name  value` lines of one thing; a value of several lines keeps them, an empty one is left out.
pub(crate) fn fields<'a>(fields: impl IntoIterator<Item = (&'a str, String)>) -> String {
    let mut table = plain();
    for (name, value) in fields.into_iter().filter(|(_, value)| !value.is_empty()) {
        let value = value.lines().map(text::shown).collect::<Vec<_>>().join("\n");
        table.add_row([name.to_owned(), value]);
    }
    finished(table)
}

fn plain() -> Table {
    let mut table = Table::new();
    table.load_preset(presets::NOTHING);
    table
}

fn finished(mut table: Table) -> String {
    let last = table.column_count().saturating_sub(1);
    for column in table.column_iter_mut() {
        column.set_padding((0, GAP));
        // References and ids are there to be copied: only the last column may wrap.
        if column.index < last {
            column.set_constraint(ColumnConstraint::ContentWidth);
        }
    }
    let wraps = io::stdout().is_terminal() && table.width().is_some_and(|width| leaves_room(&table, width));
    table.set_content_arrangement(if wraps {
        ContentArrangement::Dynamic
    } else {
        ContentArrangement::Disabled
    });
    table.trim_fmt()
}

/// Whether the columns before the last leave it a width in which text can be read; if not, the terminal's own
/// line breaks do less harm.
fn leaves_room(table: &Table, width: u16) -> bool {
    let widths = table.column_max_content_widths();
    let before: u16 = widths.iter().rev().skip(1).map(|width| width.saturating_add(GAP)).sum();
    before.saturating_add(LAST_COLUMN) <= width
}

#[cfg(test)]
mod tests {
    use crate::cli::table::{fields, rows};

    #[test]
    fn columns_line_up_without_borders() {
        let table = rows(
            &["IMAGE", "SIZE"],
            [vec!["a:1".into(), "1.0 MB".into()], vec!["long-name:22".into(), "2 B".into()]],
        );
        assert_eq!(table, "IMAGE         SIZE\na:1           1.0 MB\nlong-name:22  2 B");
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
