//! What is wrong with an expression, where, and how to show it to the user who typed it.

use std::fmt;

use crate::base::Error;

/// The kind of mistake, for programs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ErrorCode {
    /// The expression is empty or only whitespace.
    Empty,
    /// The expression does not follow the grammar.
    Syntax,
    /// A range ends before it starts.
    RangeReversed,
    /// The ends of a range are padded to different widths.
    RangePad,
    /// The ranges stand for too many names, or a number has too many digits.
    RangeTooLarge,
    /// A name that no agent has.
    UnknownAgent,
    /// A group that does not exist.
    UnknownGroup,
    /// A union after a filter, which could be read in two ways.
    MixedOps,
    /// A label selector that does not follow Kubernetes' grammar.
    Selector,
    /// A sound expression that no agent matches.
    NoMatch,
    /// Parentheses too deep.
    TooDeep,
    /// Too many bytes.
    TooLong,
}

impl ErrorCode {
    /// The code in the API's spelling: `UNKNOWN_AGENT`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Empty => "EMPTY",
            Self::Syntax => "SYNTAX",
            Self::RangeReversed => "RANGE_REVERSED",
            Self::RangePad => "RANGE_PAD",
            Self::RangeTooLarge => "RANGE_TOO_LARGE",
            Self::UnknownAgent => "UNKNOWN_AGENT",
            Self::UnknownGroup => "UNKNOWN_GROUP",
            Self::MixedOps => "MIXED_OPS",
            Self::Selector => "SELECTOR",
            Self::NoMatch => "NO_MATCH",
            Self::TooDeep => "TOO_DEEP",
            Self::TooLong => "TOO_LONG",
        }
    }
}

impl fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Why an expression does not name a set of agents.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct ExpressionError {
    /// The kind of mistake.
    pub code: ErrorCode,
    /// The position in the text, in bytes; the length of the text means "at the end".
    pub position: usize,
    /// What is wrong and what would be right, for people.
    pub message: String,
}

/// The widest caret line, in characters: what fits a terminal of 80 columns behind a prompt or a quotation mark.
const WINDOW: usize = 72;
/// How many characters before the mistake are shown, if there are more: two thirds, because the text before it
/// explains it.
const BEFORE: usize = 48;

impl ExpressionError {
    /// The refusal of a request whose argument `target_agents` is this expression.
    pub(crate) fn refusal(&self, expression: &str) -> Error {
        let caret = self.caret(expression);
        let why = format!("{} at {}: {}\n{caret}", self.code, self.position, self.message);
        Error::invalid("target_agents", why)
    }

    /// A mistake of this kind at this byte position.
    pub(crate) fn new(code: ErrorCode, position: usize, message: impl Into<String>) -> Self {
        Self { code, position, message: message.into() }
    }

    /// Two lines: the text around the mistake, and a caret below its position.
    ///
    /// The text may come from any user and goes to terminals and logs, so every character that is not printable ASCII
    /// is shown as a blank or `?`. This also keeps the caret in its column, however wide the font makes other
    /// characters.
    pub fn caret(&self, text: &str) -> String {
        // A position inside a character means that character.
        let position = text.floor_char_boundary(self.position);
        let at = text.char_indices().take_while(|(start, _)| *start < position).count();
        let length = text.chars().count();
        let start = if length <= WINDOW { 0 } else { at.saturating_sub(BEFORE).min(length - WINDOW) };
        let mut line = String::with_capacity(WINDOW + 8);
        let mut column = at - start;
        if start > 0 {
            line.push_str("...");
            column += 3;
        }
        line.extend(text.chars().skip(start).take(WINDOW).map(harmless));
        if start + WINDOW < length {
            line.push_str("...");
        }
        format!("{line}\n{:column$}^", "")
    }
}

fn harmless(c: char) -> char {
    match c {
        ' '..='~' => c,
        '\t' | '\r' | '\n' => ' ',
        _ => '?',
    }
}

#[cfg(test)]
mod tests {
    use super::{ErrorCode, ExpressionError};

    fn caret(position: usize, text: &str) -> String {
        ExpressionError::new(ErrorCode::Syntax, position, "").caret(text)
    }

    #[test]
    fn a_caret_stands_below_the_mistake() {
        assert_eq!(caret(0, ""), "\n^");
        assert_eq!(caret(5, "gpu01;rm"), "gpu01;rm\n     ^");
        assert_eq!(caret(6, "gpu01,"), "gpu01,\n      ^");
        assert_eq!(caret(99, "gpu01,"), "gpu01,\n      ^", "beyond the end is the end");
    }

    #[test]
    fn a_caret_line_is_one_harmless_line() {
        assert_eq!(caret(4, "a\n\u{1b}[31m"), "a ?[31m\n    ^");
        assert_eq!(caret(4, "é\u{202e}x"), "??x\n ^", "inside a character");
        assert_eq!(caret(5, "é\u{202e}x"), "??x\n  ^");
    }

    #[test]
    fn a_long_text_is_cut_around_the_mistake() {
        let text = format!("{};{}", "a".repeat(2000), "b".repeat(2000));
        for position in [0, 30, 2000, 3990, 4001] {
            let shown = caret(position, &text);
            let (line, mark) = shown.split_once('\n').unwrap();
            assert!(line.len() <= 78 && mark.len() <= 78, "{shown}");
            if position == 2000 {
                assert_eq!(line.as_bytes()[mark.len() - 1], b';');
                assert!(line.starts_with("...a") && line.ends_with("b..."));
            }
        }
    }
}
