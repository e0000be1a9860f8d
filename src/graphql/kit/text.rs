//! Limits on a document as text: its nesting and number of tokens, checked before it is parsed. Also finds what the
//! parser misses: an object among the arguments that names a field twice (October 2021, 5.6.3).
//!
//! The parser calls itself for every bracket, and so does all code that walks or drops its tree: 1,600 brackets in 3
//! kB of text exhaust a thread's stack, which ends the process. So the bytes are checked first, by code that does not
//! call itself.

use std::collections::HashSet;

use async_graphql::{ServerError, ServerResult};

use crate::base::reference::shown;

/// The deepest nesting of brackets of all kinds. The introspection query that tools send nests 14 deep, the official
/// clients' documents 4; the parser takes some kB of stack for each level.
const MAX_NESTING: usize = 64;
/// The most names, values and signs. The introspection query has 300, the largest document of the official clients
/// 100.
const MAX_TOKENS: usize = 10_000;

/// Refuses a text that is too deep or too long for the parser. It does not check whether the text is a document.
pub(crate) fn check(text: &str) -> ServerResult<()> {
    let refuse = |why: String| Err(ServerError::new(why, None));
    // The open brackets, each with the names before a colon in it.
    let mut open: Vec<Bracket<'_>> = Vec::new();
    let mut before = "";
    for (count, token) in Tokens::new(text).enumerate() {
        if count >= MAX_TOKENS {
            return refuse(format!(
                "the document has more than {MAX_TOKENS} tokens; give values as variables, and ask for less at once"
            ));
        }
        match token {
            "(" | "[" | "{" => {
                // A selection is never in parentheses; in braces inside parentheses there are only objects.
                let is_in_arguments =
                    open.last().is_some_and(|outer| outer.sign == "(" || outer.is_in_arguments);
                open.push(Bracket { sign: token, is_in_arguments, names: HashSet::new() });
            }
            ")" | "]" | "}" => drop(open.pop()),
            ":" => {
                if let Some(object) = open.last_mut().filter(|open| open.sign == "{" && open.is_in_arguments)
                    && !object.names.insert(before)
                {
                    return refuse(format!("an object in the document gives \"{}\" twice", shown(before)));
                }
            }
            _ => {}
        }
        if open.len() > MAX_NESTING {
            return refuse(format!(
                "the document nests deeper than {MAX_NESTING} brackets; ask for less at once"
            ));
        }
        before = token;
    }
    Ok(())
}

struct Bracket<'t> {
    sign: &'t str,
    is_in_arguments: bool,
    names: HashSet<&'t str>,
}

/// The tokens of a text, as GraphQL defines them (October 2021, 2.1). Text that is no token is returned by
/// characters.
struct Tokens<'t> {
    rest: &'t str,
    /// Whether an unterminated block string was found. Then no later one is searched for its end; otherwise a text
    /// full of them would be read to its end for each.
    is_open: bool,
}

impl<'t> Iterator for Tokens<'t> {
    type Item = &'t str;

    fn next(&mut self) -> Option<&'t str> {
        self.skip_ignored();
        let length = self.length()?;
        let (token, rest) = self.rest.split_at_checked(length)?;
        self.rest = rest;
        Some(token)
    }
}

impl<'t> Tokens<'t> {
    fn new(text: &'t str) -> Self {
        Self { rest: text, is_open: false }
    }

    /// Skips white space, commas and comments.
    fn skip_ignored(&mut self) {
        loop {
            self.rest = self.rest.trim_start_matches([' ', '\t', '\r', '\n', ',', '\u{feff}']);
            if !self.rest.starts_with('#') {
                return;
            }
            self.rest = self.rest.trim_start_matches(|c| c != '\r' && c != '\n');
        }
    }

    /// Returns the length of the next token.
    fn length(&mut self) -> Option<usize> {
        let is_of_word = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '+' | '.');
        match self.rest.chars().next()? {
            '"' => Some(self.quoted()),
            c if is_of_word(c) => Some(self.rest.find(|c| !is_of_word(c)).unwrap_or(self.rest.len())),
            c => Some(c.len_utf8()),
        }
    }

    /// Returns the length of the quoted text that is next. An unterminated one counts as far as the parser would read
    /// it, because the text after that may have brackets.
    fn quoted(&mut self) -> usize {
        if let Some(inner) = self.rest.strip_prefix("\"\"\"") {
            let is_end = |at: &usize| !inner.get(..*at).is_some_and(|before| before.ends_with('\\'));
            let mut ends = inner.match_indices("\"\"\"").map(|(at, _)| at).filter(is_end);
            let end = if self.is_open { None } else { ends.next() };
            self.is_open = end.is_none();
            return end.map_or(2, |at| at + 6);
        }
        let mut is_escaped = false;
        let end = self.rest.bytes().skip(1).position(|byte| {
            let is_end = matches!(byte, b'\r' | b'\n') || byte == b'"' && !is_escaped;
            is_escaped = byte == b'\\' && !is_escaped;
            is_end
        });
        end.map_or(1, |at| at + 2)
    }
}

#[cfg(test)]
mod tests {
    use super::{MAX_NESTING, MAX_TOKENS, Tokens, check};

    fn tokens(text: &str) -> Vec<&str> {
        Tokens::new(text).collect()
    }

    #[test]
    fn brackets_in_texts_and_comments_are_not_counted() {
        for (text, expected) in [
            ("{a(b:[1,-2.5e+3])}", vec!["{", "a", "(", "b", ":", "[", "1", "-2.5e+3", "]", ")", "}"]),
            ("\u{feff} a # [[[ \"\r b #(", vec!["a", "b"]),
            (r#"a "[\"[" b"#, vec!["a", r#""[\"[""#, "b"]),
            (r#""\\" [ "\\\"[" "#, vec![r#""\\""#, "[", r#""\\\"[""#]),
            (r#""""[ \""" [ "" """ ["#, vec![r#""""[ \""" [ "" """"#, "["]),
            (r#""" [ "" "#, vec![r#""""#, "[", r#""""#]),
            ("$é @x ...F", vec!["$", "é", "@", "x", "...F"]),
        ] {
            assert_eq!(tokens(text), expected, "{text}");
        }
    }

    #[test]
    fn what_does_not_end_hides_nothing_that_the_parser_would_read() {
        for text in ["[\"\"\" [[[", "\"abc\n[[[", "[\"\"\"abc\"[[["] {
            let brackets = tokens(text).iter().filter(|token| **token == "[").count();
            assert!(brackets >= 3, "{text:?}: {:?}", tokens(text));
        }
    }

    #[test]
    fn an_object_among_arguments_says_nothing_twice() {
        for (text, is_fine) in [
            ("{ a: x(o: {b: 1, c: {b: 1}}, p: {b: 1}) { b: y b: y } }", true),
            ("query($v: T = {a: 1, a: 2}) { x }", false),
            ("{ x(o: [{a: 1}, {a: 2}]) }", true),
            ("{ x(o: [{a: 1, b: {c: 1}, a: 2}]) }", false),
        ] {
            assert_eq!(check(text).is_ok(), is_fine, "{text}");
        }
    }

    #[test]
    fn a_text_is_bounded_in_depth_and_tokens() {
        let nested = |depth: usize| format!("{}1{}", "[".repeat(depth), "]".repeat(depth));
        assert!(check(&nested(MAX_NESTING)).is_ok());
        assert!(check(&nested(MAX_NESTING + 1)).unwrap_err().message.contains("nests deeper than 64"));
        assert!(check(&"({[".repeat(30)).unwrap_err().message.contains("nests deeper than 64"));
        assert!(check(&"{} ".repeat(1_000)).is_ok());
        assert!(check(&"a ".repeat(MAX_TOKENS)).is_ok());
        assert!(check(&"a ".repeat(MAX_TOKENS + 1)).unwrap_err().message.contains("more than 10000 tokens"));
    }
}
