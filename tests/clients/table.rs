//! `docs/compatibility.md`: a table of commands by releases for each area, kept equal to what the trials observe.
//!
//! Each trial owns one column of one table. With `WHARF_WRITE_DOCS=1` it writes it, otherwise it compares.

use std::collections::BTreeMap;
use std::fmt::{self, Write as _};
use std::fs::File;
use std::io::{Read as _, Seek as _, Write as _};
use std::path::PathBuf;

use crate::clients::rows::{AREAS, CONSTANTS, INTRODUCTION, NOTES, RELEASES, UNREAD};

/// What came of a command with a release.
#[derive(Clone, Copy, Debug)]
pub enum Cell {
    Works,
    /// The release has no such command or option.
    Lacks,
    /// The release has it, and can't do it; the note says why.
    Cannot(&'static Note),
}

/// Why something can't work.
#[derive(Debug)]
pub struct Note {
    pub number: u32,
    pub text: &'static str,
    /// What the client prints then, one of these, which proves it.
    pub shows: &'static [&'static str],
}

/// The commands of an area.
pub struct Area {
    pub name: &'static str,
    pub rows: &'static [&'static str],
}

impl fmt::Display for Cell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Works => f.write_str("works"),
            Self::Lacks => f.write_str("–"),
            Self::Cannot(note) => write!(f, "no ({})", note.number),
        }
    }
}

/// Every cell of the document, by area, row and release.
type Cells = BTreeMap<(String, String, String), String>;

fn path() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("docs/compatibility.md")
}

fn is_writing() -> bool {
    std::env::var("WHARF_WRITE_DOCS").as_deref() == Ok("1")
}

/// Holds the document to what a trial observed, or writes it there.
pub fn settle(area: &'static str, release: &'static str, observed: &BTreeMap<&'static str, Cell>) {
    let rows = AREAS.iter().find(|known| known.name == area).expect("an area of the document").rows;
    let untried: Vec<_> = rows.iter().filter(|row| !observed.contains_key(**row)).collect();
    let unlisted: Vec<_> = observed.keys().filter(|row| !rows.contains(row)).collect();
    assert!(
        untried.is_empty() && unlisted.is_empty(),
        "{area}, {release}: not tried: {untried:?}; not listed: {unlisted:?}"
    );
    let column = |cells: &mut Cells| {
        for (row, cell) in observed {
            cells.insert((area.into(), (*row).into(), release.into()), cell.to_string());
        }
    };
    if is_writing() {
        return rewrite(column);
    }
    let written = parse(&std::fs::read_to_string(path()).unwrap_or_default());
    let mut expected = written.clone();
    column(&mut expected);
    let changed: Vec<String> = expected
        .iter()
        .filter(|(key, cell)| written.get(*key) != Some(cell))
        .map(|((_, row, _), cell)| format!("{row}: {cell}"))
        .collect();
    assert!(
        changed.is_empty(),
        "docs/compatibility.md does not say what {release} did; write it with WHARF_WRITE_DOCS=1:\n{}",
        changed.join("\n")
    );
}

/// Changes the document while no other trial does.
fn rewrite(change: impl FnOnce(&mut Cells)) {
    let mut file = File::options().read(true).write(true).create(true).truncate(false).open(path());
    let file = file.as_mut().expect("docs/compatibility.md");
    file.lock().expect("the document to ourselves");
    let mut text = String::new();
    file.read_to_string(&mut text).expect("a readable document");
    let mut cells = parse(&text);
    change(&mut cells);
    file.set_len(0).and_then(|()| file.rewind()).expect("an empty document");
    file.write_all(render(&cells).as_bytes()).expect("a written document");
}

#[test]
fn the_document_is_what_the_trials_make_of_it() {
    if is_writing() {
        return rewrite(|_| ());
    }
    let text = std::fs::read_to_string(path()).unwrap_or_default();
    let cells = parse(&text);
    assert!(
        render(&cells) == text,
        "docs/compatibility.md was changed by hand; write it with WHARF_WRITE_DOCS=1"
    );
    for area in AREAS {
        for (row, release) in
            area.rows.iter().flat_map(|row| RELEASES.iter().map(move |release| (row, release)))
        {
            let key = (area.name.to_owned(), (*row).to_owned(), (*release).to_owned());
            let cell = cells.get(&key).map(String::as_str).unwrap_or_default();
            assert!(!cell.is_empty(), "{}: {row} was not tried with {release}", area.name);
        }
    }
}

fn parse(text: &str) -> Cells {
    let mut cells = Cells::new();
    let mut area = "";
    for line in text.lines() {
        if let Some(name) = line.strip_prefix("## ") {
            area = name;
        } else if let Some(line) = line.strip_prefix("| `") {
            let Some((row, rest)) = line.split_once("` |") else { continue };
            for (release, cell) in RELEASES.iter().zip(rest.split('|')) {
                cells.insert((area.into(), row.into(), (*release).into()), cell.trim().into());
            }
        }
    }
    cells
}

fn render(cells: &Cells) -> String {
    let mut text = String::from(INTRODUCTION);
    let mut used: Vec<u32> = Vec::new();
    for area in AREAS {
        let _ = write!(text, "\n## {}\n\n| command |", area.name);
        for release in RELEASES {
            let _ = write!(text, " {release} |");
        }
        text.push_str("\n|---|");
        text.push_str(&"---|".repeat(RELEASES.len()));
        text.push('\n');
        for row in area.rows {
            let _ = write!(text, "| `{row}` |");
            for release in RELEASES {
                let key = (area.name.to_owned(), (*row).to_owned(), (*release).to_owned());
                let cell = cells.get(&key).map(String::as_str).unwrap_or_default();
                used.extend(
                    cell.strip_prefix("no (").and_then(|rest| rest.strip_suffix(')')?.parse::<u32>().ok()),
                );
                let _ = write!(text, " {cell} |");
            }
            text.push('\n');
        }
    }
    text.push_str("\n## Why not\n\n");
    for note in NOTES.iter().filter(|note| used.contains(&note.number)) {
        let _ = writeln!(text, "{}. {}", note.number, note.text);
    }
    let _ = write!(text, "\n{CONSTANTS}\n");
    text.push_str(&listed(&["Constant", "always false"]));
    let _ = write!(text, "\n{UNREAD}\n");
    text.push_str(&listed(&["Not looked at"]));
    text
}

/// The fields that the schema describes with one of these words, a line for each type.
fn listed(words: &[&str]) -> String {
    let schema = include_str!("../../src/graphql/schema.graphql");
    let mut fields: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    let (mut owner, mut described) = ("", false);
    for line in schema.lines() {
        let name = |line: &'static str| line.split([' ', ':', '(']).next().unwrap_or_default();
        if let Some(rest) = line.strip_prefix("type ").or_else(|| line.strip_prefix("input ")) {
            (owner, described) = (name(rest), false);
        } else if owner == "Query" || owner == "Mutation" {
            // Arguments, whose owners are among the inputs or not worth a line.
        } else if line.starts_with('\t') && words.iter().any(|word| line.contains(word)) {
            described = true;
        } else if described && !line.contains("\"\"\"") {
            fields.entry(owner).or_default().push(name(line.trim()));
            described = false;
        }
    }
    fields.iter().fold(String::new(), |mut text, (owner, fields)| {
        let _ = writeln!(text, "- `{owner}`: `{}`", fields.join("`, `"));
        text
    })
}
