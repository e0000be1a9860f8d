//! Makes foreign text safe to show on a terminal: names, labels and messages come from registries, which any stranger
//! may run.

use std::{borrow::Cow, fmt::Write};

/// The text with every character that a terminal would obey instead of showing it written as `\u{…}`: C0 and C1
/// controls (and so every ANSI sequence), bidirectional overrides and marks, and characters without width.
pub(crate) fn shown(text: &str) -> Cow<'_, str> {
    escaped(text, is_hidden, |out, c| {
        let _ = write!(out, "{}", c.escape_unicode());
    })
}

/// Does what [`shown`] does, after turning line breaks into spaces.
pub(crate) fn one_line(text: &str) -> String {
    let joined = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect::<Vec<_>>().join(" ");
    shown(&joined).into_owned()
}

/// The first `longest` characters of a text; if more follow, a note says how long the text is.
pub(crate) fn clipped(text: &str, longest: usize) -> Cow<'_, str> {
    match text.char_indices().nth(longest) {
        None => Cow::Borrowed(text),
        Some((end, _)) => {
            let start = text.get(..end).unwrap_or_default();
            Cow::Owned(format!("{start}… ({} characters; whole with --json)", text.chars().count()))
        }
    }
}

/// JSON text with every character that [`shown`] escapes written as an escape; the meaning stays the same.
pub(crate) fn json(text: &str) -> Cow<'_, str> {
    // In valid JSON these characters stand only inside strings, where `\uXXXX` may replace them; line breaks between
    // tokens are the formatter's own.
    escaped(
        text,
        |c| c != '\n' && is_hidden(c),
        |out, c| {
            let mut units = [0; 2];
            for unit in c.encode_utf16(&mut units) {
                let _ = write!(out, "\\u{unit:04x}");
            }
        },
    )
}

/// The agents that a task, a plan or a rule for one architecture leaves out; `None` if there are none.
pub(crate) fn others(count: u64) -> Option<String> {
    match count {
        0 => None,
        1 => Some("1 agent of another architecture".into()),
        _ => Some(format!("{count} agents of other architectures")),
    }
}

/// A size for people, in powers of 1000 as the container tools print it.
pub(crate) fn size(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["kB", "MB", "GB", "TB", "PB"];
    if bytes < 1000 {
        return format!("{bytes} B");
    }
    let mut power = 1000_u64;
    for (index, unit) in UNITS.iter().enumerate() {
        // 999.95 would print as 1000.0, so it gets the next unit.
        if bytes < power.saturating_mul(1000) - power / 20 || index + 1 == UNITS.len() {
            let tenths = (u128::from(bytes) * 10 + u128::from(power) / 2) / u128::from(power);
            return format!("{}.{} {unit}", tenths / 10, tenths % 10);
        }
        power = power.saturating_mul(1000);
    }
    format!("{bytes} B")
}

/// A server's timestamp, to the second; other text stays unchanged.
pub(crate) fn moment(text: &str) -> String {
    let parsed = text.parse::<jiff::Timestamp>();
    parsed.map_or_else(|_| text.to_owned(), |at| at.strftime("%Y-%m-%d %H:%M:%S UTC").to_string())
}

fn escaped(text: &str, hidden: impl Fn(char) -> bool, write: impl Fn(&mut String, char)) -> Cow<'_, str> {
    if !text.contains(&hidden) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len() + 8);
    for c in text.chars() {
        if hidden(c) { write(&mut out, c) } else { out.push(c) }
    }
    Cow::Owned(out)
}

fn is_hidden(c: char) -> bool {
    c.is_control()
        || matches!(c,
            '\u{ad}'                        // soft hyphen
            | '\u{61c}'                     // Arabic letter mark
            | '\u{180e}'                    // Mongolian vowel separator
            | '\u{200b}'..='\u{200f}'       // zero width, marks of direction
            | '\u{2028}'..='\u{202e}'       // line and paragraph separators, embeddings and overrides
            | '\u{2060}'..='\u{206f}'       // invisible operators, isolates
            | '\u{feff}'                    // byte order mark
            | '\u{fff9}'..='\u{fffb}'       // interlinear annotation
            | '\u{e0000}'..='\u{e007f}') // tags
}

#[cfg(test)]
mod tests {
    use crate::cli::text::{clipped, json, one_line, shown, size};

    #[test]
    fn nothing_a_terminal_obeys_gets_through() {
        assert_eq!(shown("Python 3.9, é 漢 🐍"), "Python 3.9, é 漢 🐍");
        for (hostile, expected) in [
            ("\u{1b}[31mred", "\\u{1b}[31mred"),
            ("a\u{9b}2J", "a\\u{9b}2J"),
            ("\u{202e}gpj.exe", "\\u{202e}gpj.exe"),
            ("a\u{2066}b\u{200b}c\u{feff}", "a\\u{2066}b\\u{200b}c\\u{feff}"),
            ("a\r\u{8}\u{7f}\tb", "a\\u{d}\\u{8}\\u{7f}\\u{9}b"),
            ("\u{e0041}", "\\u{e0041}"),
        ] {
            assert_eq!(shown(hostile), expected);
        }
        assert_eq!(one_line("a\r\n\r\n  b\u{7}"), "a b\\u{7}");
    }

    #[test]
    fn a_text_that_nobody_reads_to_its_end_is_cut_between_characters() {
        assert_eq!(clipped("é漢", 2), "é漢");
        assert_eq!(clipped("é漢z", 2), "é漢… (3 characters; whole with --json)");
    }

    #[test]
    fn escaped_json_means_the_same() {
        let hostile = "\u{202e}a\u{9b}b\u{7f}c\u{e0041}d\u{1b}\n\"";
        let text = serde_json::to_string_pretty(&[hostile]).unwrap();
        let safe = json(&text);
        assert!(!safe.chars().any(|c| c != '\n' && super::is_hidden(c)), "{safe}");
        assert_eq!(serde_json::from_str::<Vec<String>>(&safe).unwrap(), [hostile]);
    }

    #[test]
    fn sizes_read_as_the_container_tools_write_them() {
        for (bytes, expected) in [
            (0, "0 B"),
            (999, "999 B"),
            (1000, "1.0 kB"),
            (12_345_678, "12.3 MB"),
            (999_949, "999.9 kB"),
            (999_950, "1.0 MB"),
            (12_000_000_000, "12.0 GB"),
            (u64::MAX, "18446.7 PB"),
        ] {
            assert_eq!(size(bytes), expected, "{bytes}");
        }
    }
}
