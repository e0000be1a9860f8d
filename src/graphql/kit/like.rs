//! Patterns as SQL's `LIKE` has them: `%` for any characters, `_` for one, `\` to take the next as it is.

/// A pattern, ready to be held against texts.
#[derive(Debug)]
pub struct Pattern {
    shape: Shape,
    ignores_case: bool,
}

#[derive(Debug)]
enum Shape {
    /// No wildcard.
    Whole(String),
    /// `text%`
    Start(String),
    /// `%text`
    End(String),
    /// `%text%`
    Within(String),
    /// Anything else.
    Mixed(Vec<Piece>),
}

#[derive(Debug, PartialEq, Eq)]
enum Piece {
    Letter(char),
    AnyOne,
    Any,
}

impl Pattern {
    /// `like`, or `ilike` if case is ignored.
    pub fn new(text: &str, ignores_case: bool) -> Self {
        let folded = if ignores_case { text.to_lowercase() } else { text.to_owned() };
        let mut letters = folded.chars();
        let mut pieces = Vec::new();
        while let Some(letter) = letters.next() {
            pieces.push(match letter {
                '%' => Piece::Any,
                '_' => Piece::AnyOne,
                '\\' => Piece::Letter(letters.next().unwrap_or('\\')),
                other => Piece::Letter(other),
            });
        }
        pieces.dedup_by(|b, a| *a == Piece::Any && *b == Piece::Any);
        Self { shape: Shape::of(pieces), ignores_case }
    }

    /// `contains`: the text anywhere, no wildcards.
    pub fn within(text: &str) -> Self {
        Self { shape: Shape::Within(text.into()), ignores_case: false }
    }

    /// Whether the text is like the pattern.
    pub fn matches(&self, text: &str) -> bool {
        if !self.ignores_case {
            return self.shape.matches(text);
        }
        match &self.shape {
            // The usual search, without a copy of each text.
            Shape::Within(part) if part.is_ascii() && text.is_ascii() => {
                part.is_empty()
                    || text.as_bytes().windows(part.len()).any(|w| w.eq_ignore_ascii_case(part.as_bytes()))
            }
            shape => shape.matches(&text.to_lowercase()),
        }
    }
}

impl Shape {
    fn of(pieces: Vec<Piece>) -> Self {
        let (starts, ends) = (pieces.first() == Some(&Piece::Any), pieces.last() == Some(&Piece::Any));
        let inner = match pieces.as_slice() {
            [Piece::Any, inner @ .., Piece::Any] | [Piece::Any, inner @ ..] | [inner @ .., Piece::Any] => {
                inner
            }
            inner => inner,
        };
        let letters = inner.iter().map(|piece| match piece {
            Piece::Letter(letter) => Some(*letter),
            Piece::Any | Piece::AnyOne => None,
        });
        match (letters.collect::<Option<String>>(), starts, ends) {
            (None, ..) => Self::Mixed(pieces),
            (Some(text), false, false) => Self::Whole(text),
            (Some(text), false, true) => Self::Start(text),
            (Some(text), true, false) if !text.is_empty() => Self::End(text),
            (Some(text), true, _) => Self::Within(text),
        }
    }

    fn matches(&self, text: &str) -> bool {
        match self {
            Self::Whole(whole) => text == whole,
            Self::Start(start) => text.starts_with(start.as_str()),
            Self::End(end) => text.ends_with(end.as_str()),
            Self::Within(part) => text.contains(part.as_str()),
            Self::Mixed(pieces) => fits(pieces, text),
        }
    }
}

/// Whether the text fits the pieces. Only the last `%` met is ever tried again, so this takes no more than the product
/// of both lengths.
fn fits(pieces: &[Piece], text: &str) -> bool {
    let (mut pieces, mut text) = (pieces, text.chars());
    let mut again: Option<(&[Piece], std::str::Chars<'_>)> = None;
    loop {
        let mut rest = text.clone();
        match (pieces.split_first(), rest.next()) {
            (Some((Piece::Any, after)), _) => {
                again = Some((after, text.clone()));
                pieces = after;
                continue;
            }
            (Some((Piece::AnyOne, after)), Some(_)) => {
                (pieces, text) = (after, rest);
                continue;
            }
            (Some((Piece::Letter(wanted), after)), Some(letter)) if *wanted == letter => {
                (pieces, text) = (after, rest);
                continue;
            }
            (None, None) => return true,
            _ => {}
        }
        // One character more for the last `%`.
        let Some((after, mut from)) = again.take() else { return false };
        if from.next().is_none() {
            return false;
        }
        (pieces, text) = (after, from.clone());
        again = Some((after, from));
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::Pattern;

    fn like(pattern: &str, text: &str) -> bool {
        Pattern::new(pattern, false).matches(text)
    }

    #[test]
    fn wildcards_stand_for_what_sql_says() {
        for (pattern, yes, no) in [
            ("abc", "abc", "abcd"),
            ("a%", "a", "ba"),
            ("%a", "ba", "ab"),
            ("%a%", "bab", "bb"),
            ("%", "", "-"),
            ("a_c", "aéc", "ac"),
            ("%a_c%e", "xxabcabce", "abc"),
            ("100\\%", "100%", "1000"),
            ("%\\_%", "a_b", "ab"),
            ("a%%b", "ab", "ba"),
        ] {
            assert!(like(pattern, yes), "{yes:?} like {pattern:?}");
            assert!(pattern == "%" || !like(pattern, no), "{no:?} like {pattern:?}");
        }
    }

    #[test]
    fn case_is_ignored_when_asked() {
        let ilike = |pattern: &str, text: &str| Pattern::new(pattern, true).matches(text);
        assert!(ilike("%PY%", "stable/python") && ilike("py%", "PyTorch") && ilike("%Ü%", "grün"));
        assert!(!ilike("%px%", "stable/python") && !like("%PY%", "stable/python"));
    }

    /// The definition, without any cleverness.
    fn plainly(pattern: &[char], text: &[char]) -> bool {
        match pattern.split_first() {
            None => text.is_empty(),
            Some(('%', rest)) => (0..=text.len()).any(|skip| plainly(rest, &text[skip..])),
            Some((letter, rest)) => {
                text.first().is_some_and(|c| *letter == '_' || c == letter) && plainly(rest, &text[1..])
            }
        }
    }

    proptest! {
        #[test]
        fn every_pattern_means_what_its_definition_says(pattern in "[ab%_]{0,8}", text in "[ab]{0,10}") {
            let letters = |text: &str| text.chars().collect::<Vec<_>>();
            prop_assert_eq!(like(&pattern, &text), plainly(&letters(&pattern), &letters(&text)));
        }
    }
}
