//! Patterns as in SQL's `LIKE`: `%` for any characters, `_` for one, `\` to take the next character literally.

use std::collections::HashMap;

/// The most steps for which a search works without a copy of the text.
const FEW_STEPS: usize = 4_096;

/// A pattern, ready to match texts. Matching takes time in proportion to the text alone; where there are `_` between
/// `%`, also to a 64th of the pattern's length: see [`Pattern::weight`].
#[derive(Debug)]
pub(crate) struct Pattern {
    ignores_case: bool,
    /// The part before the first `%`, with which texts must begin; the whole pattern if there is no `%`.
    start: Part,
    /// The parts between the first and the last `%`.
    within: Vec<Part>,
    /// The part after the last `%`, with which texts must end; none if there is no `%`.
    end: Option<Part>,
}

impl Pattern {
    /// Returns the pattern for `like`, or for `ilike` if `ignores_case`.
    pub(crate) fn new(text: &str, ignores_case: bool) -> Self {
        let folded = if ignores_case { text.to_lowercase() } else { text.to_owned() };
        let mut letters = folded.chars();
        let mut parts = Vec::new();
        let mut part = Vec::new();
        while let Some(letter) = letters.next() {
            match letter {
                '%' => parts.push(std::mem::take(&mut part)),
                '_' => part.push(None),
                '\\' => part.push(Some(letters.next().unwrap_or('\\'))),
                other => part.push(Some(other)),
            }
        }
        parts.push(part);
        let mut parts = parts.into_iter();
        let start = Part::new(parts.next().unwrap_or_default());
        let end = parts.next_back().map(Part::new);
        Self {
            ignores_case,
            start,
            within: parts.filter(|part| !part.is_empty()).map(Part::new).collect(),
            end,
        }
    }

    /// Returns the pattern for `contains`: the text anywhere, without wildcards.
    pub(crate) fn within(text: &str) -> Self {
        let nothing = || Part::Plain(String::new());
        let within = vec![Part::Plain(text.into())];
        Self { ignores_case: false, start: nothing(), within, end: Some(nothing()) }
    }

    /// Returns how many steps a match takes at most for each byte of a text.
    pub(crate) fn weight(&self) -> usize {
        let searches = self.within.iter().map(Part::weight).max().unwrap_or_default();
        1 + usize::from(self.ignores_case) + searches
    }

    /// Whether the text matches the pattern.
    pub(crate) fn matches(&self, text: &str) -> bool {
        if !self.ignores_case {
            return self.fits(text);
        }
        match (&self.start, self.within.as_slice(), &self.end) {
            // The usual search needs no copy of each text.
            (Part::Plain(start), [Part::Plain(part)], Some(Part::Plain(end)))
                if start.is_empty()
                    && end.is_empty()
                    && text.len().saturating_mul(part.len()) <= FEW_STEPS
                    && part.is_ascii()
                    && text.is_ascii() =>
            {
                part.is_empty()
                    || text.as_bytes().windows(part.len()).any(|w| w.eq_ignore_ascii_case(part.as_bytes()))
            }
            _ => self.fits(&text.to_lowercase()),
        }
    }

    /// Whether the parts are found in this order. The first match of a part leaves the most text for the parts after
    /// it, so no match has to be tried again.
    fn fits(&self, text: &str) -> bool {
        let Some(rest) = self.start.behind(text) else { return false };
        let Some(end) = &self.end else { return rest.is_empty() };
        let Some(mut rest) = end.before(rest) else { return false };
        self.within.iter().all(|part| match part.behind_found(rest) {
            Some(behind) => {
                rest = behind;
                true
            }
            None => false,
        })
    }
}

/// A part of a pattern between two `%`.
#[derive(Debug)]
enum Part {
    /// A part without wildcards.
    Plain(String),
    /// A part with `_`.
    Masked(Masked),
}

impl Part {
    fn new(letters: Vec<Option<char>>) -> Self {
        match letters.iter().copied().collect() {
            Some(plain) => Self::Plain(plain),
            None => Self::Masked(Masked::new(letters)),
        }
    }

    fn weight(&self) -> usize {
        match self {
            Self::Plain(_) => 1,
            Self::Masked(masked) => masked.any.len(),
        }
    }

    /// Returns the rest of a text that begins with this part.
    fn behind<'t>(&self, text: &'t str) -> Option<&'t str> {
        match self {
            Self::Plain(plain) => text.strip_prefix(plain.as_str()),
            Self::Masked(masked) => {
                let mut letters = text.chars();
                let is_like = masked.letters.iter().all(|wanted| is_like(*wanted, letters.next()));
                is_like.then_some(letters.as_str())
            }
        }
    }

    /// Returns the beginning of a text that ends with this part.
    fn before<'t>(&self, text: &'t str) -> Option<&'t str> {
        match self {
            Self::Plain(plain) => text.strip_suffix(plain.as_str()),
            Self::Masked(masked) => {
                let mut letters = text.chars();
                let is_like = masked.letters.iter().rev().all(|wanted| is_like(*wanted, letters.next_back()));
                is_like.then_some(letters.as_str())
            }
        }
    }

    /// Returns the rest of a text after the first match of this part.
    fn behind_found<'t>(&self, text: &'t str) -> Option<&'t str> {
        match self {
            Self::Plain(plain) => text.find(plain.as_str()).and_then(|at| text.get(at + plain.len()..)),
            Self::Masked(masked) => masked.behind_found(text),
        }
    }
}

fn is_like(wanted: Option<char>, letter: Option<char>) -> bool {
    letter.is_some() && (wanted.is_none() || wanted == letter)
}

/// Letters, some of which may be any letter. All possible starts in a text are followed at once, one bit each: bit
/// `n` says that the first `n + 1` letters match the end of the text read so far (the Shift-And algorithm).
#[derive(Debug)]
struct Masked {
    letters: Vec<Option<char>>,
    /// The positions at which each letter may stand; `any` has those at which every other letter may stand.
    places: HashMap<char, Vec<u64>>,
    any: Vec<u64>,
}

impl Masked {
    fn new(letters: Vec<Option<char>>) -> Self {
        let bits = |is_it: &dyn Fn(&Option<char>) -> bool| {
            let gather = |chunk: &[Option<char>]| {
                chunk.iter().rev().fold(0, |word: u64, letter| word << 1 | u64::from(is_it(letter)))
            };
            letters.chunks(64).map(gather).collect::<Vec<_>>()
        };
        let mut places = HashMap::new();
        for letter in letters.iter().flatten() {
            places
                .entry(*letter)
                .or_insert_with(|| bits(&|known| known.is_none_or(|known| known == *letter)));
        }
        Self { any: bits(&Option::is_none), places, letters }
    }

    fn behind_found<'t>(&self, text: &'t str) -> Option<&'t str> {
        let last = self.letters.len().checked_sub(1)?;
        let mut reached = vec![0_u64; self.any.len()];
        let mut rest = text.chars();
        while let Some(letter) = rest.next() {
            let may_stand = self.places.get(&letter).unwrap_or(&self.any);
            let mut carry = 1;
            for (word, mask) in reached.iter_mut().zip(may_stand) {
                let top = *word >> 63;
                *word = (*word << 1 | carry) & mask;
                carry = top;
            }
            if reached.last().is_some_and(|word| word >> (last % 64) & 1 == 1) {
                return Some(rest.as_str());
            }
        }
        None
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

    /// The definition of a match, implemented naively.
    fn plainly(pattern: &[char], text: &[char]) -> bool {
        match pattern.split_first() {
            None => text.is_empty(),
            Some(('%', rest)) => (0..=text.len()).any(|skip| plainly(rest, &text[skip..])),
            Some((letter, rest)) => {
                text.first().is_some_and(|c| *letter == '_' || c == letter) && plainly(rest, &text[1..])
            }
        }
    }

    #[test]
    fn a_pattern_takes_no_longer_than_its_text_is_long() {
        // A search that starts again from each position would take 10^12 steps for these.
        let text = "a".repeat(1 << 20);
        let tail = "a".repeat(1 << 20);
        for pattern in [format!("%{tail}b%"), format!("%{}b%", "%a".repeat(1 << 18)), format!("%{tail}_")] {
            for ignores_case in [false, true] {
                assert!(!Pattern::new(&pattern, ignores_case).matches(&text));
            }
        }
        let masked = format!("%{}_b%", "a".repeat(4_000));
        assert_eq!(Pattern::new(&masked, true).weight(), 65);
        assert!(!Pattern::new(&masked, true).matches(&text[..1 << 14]));
        assert!(Pattern::new(&masked, true).matches(&format!("{}XB", &text[..1 << 14])));
    }

    proptest! {
        #[test]
        fn every_pattern_means_what_its_definition_says(pattern in "[aé%_]{0,8}", text in "[aé]{0,10}") {
            let letters = |text: &str| text.chars().collect::<Vec<_>>();
            prop_assert_eq!(like(&pattern, &text), plainly(&letters(&pattern), &letters(&text)));
        }

        #[test]
        fn long_parts_are_found_over_the_ends_of_words(start in "[ab]{0,90}", inner in "[ab_]{60,140}", end in "[ab]{0,90}") {
            let text = format!("{start}{}{end}", inner.replace('_', "b"));
            let pattern = format!("%{inner}%");
            prop_assert!(like(&pattern, &text));
            prop_assert!(!like(&pattern, &text.replace(['a', 'b'], "c")) || !inner.contains(['a', 'b']));
        }
    }
}
