//! Names with ranges and wildcards: `gpu[01-16]`, `dc[1-2]n?`, `*-ib`.

use std::collections::HashSet;
use std::fmt;

/// A name, or a pattern for many names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pattern {
    /// At least one piece; two texts, or two stars, are never next to each other.
    pub pieces: Vec<Piece>,
}

/// A part of a pattern.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Piece {
    /// These characters.
    Text(String),
    /// `*`: any characters, or none.
    Star,
    /// `?`: any one character.
    Any,
    /// `[…]`: any of these numbers.
    Range(Vec<Span>),
}

/// One part of a range: `1`, `1-9` or `01-15/2`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span {
    /// The first number.
    pub first: u64,
    /// The last number, if the steps reach it.
    pub last: u64,
    /// The step, at least 1.
    pub step: u64,
    /// The number of digits to which numbers are padded with zeros; 0 for no padding.
    pub width: usize,
}

impl Span {
    /// How many numbers it stands for.
    pub(crate) fn count(&self) -> u64 {
        self.last.saturating_sub(self.first) / self.step.max(1) + 1
    }

    fn numbers(self) -> impl Iterator<Item = u64> {
        (0..self.count()).map(move |n| self.first + n * self.step)
    }
}

impl Pattern {
    /// Whether it has wildcards, so that it may match nothing without being a mistake.
    pub fn is_glob(&self) -> bool {
        self.pieces.iter().any(|piece| matches!(piece, Piece::Star | Piece::Any))
    }

    /// The characters that every matching name starts with.
    pub(crate) fn prefix(&self) -> &str {
        match self.pieces.first() {
            Some(Piece::Text(text)) => text,
            _ => "",
        }
    }

    /// Calls `found` with every name the pattern stands for, in the order they are written. A pattern with wildcards
    /// stands for no particular names, so it makes no call. Any other makes as many calls as [`Span::count`]
    /// promises.
    pub(crate) fn expand(&self, found: &mut impl FnMut(&str)) {
        if !self.is_glob() {
            let mut name = String::with_capacity(64);
            expand_into(&self.pieces, &mut name, found);
        }
    }
}

/// Expands the pieces from left to right. The product of the ranges is bounded, yet a name could have a thousand
/// ranges of one number each. So the loop takes texts and such ranges, and each recursion at least doubles the number
/// of names.
fn expand_into(pieces: &[Piece], name: &mut String, found: &mut impl FnMut(&str)) {
    let start = name.len();
    let mut rest = pieces.iter();
    while let Some(piece) = rest.next() {
        match piece {
            Piece::Text(text) => name.push_str(text),
            Piece::Range(spans) => {
                let mut numbers = spans.iter().flat_map(|span| span.numbers().map(|n| (n, span.width)));
                let (first, second) = (numbers.next(), numbers.next());
                if second.is_none() {
                    if let Some((number, width)) = first {
                        push_number(name, number, width);
                    }
                    continue;
                }
                let own = name.len();
                for (number, width) in first.into_iter().chain(second).chain(numbers) {
                    push_number(name, number, width);
                    expand_into(rest.as_slice(), name, found);
                    name.truncate(own);
                }
                name.truncate(start);
                return;
            }
            Piece::Star | Piece::Any => {}
        }
    }
    found(name);
    name.truncate(start);
}

fn push_number(name: &mut String, number: u64, width: usize) {
    use fmt::Write;
    // Writing to a String can't fail.
    let _ = write!(name, "{number:0width$}");
}

/// A pattern with wildcards, prepared for matching many names.
pub(crate) struct Matcher<'a> {
    pieces: Vec<Ready<'a>>,
    /// The positions in the name reached so far, and by the next piece, sorted; fields only to reuse their memory.
    reached: Vec<usize>,
    next: Vec<usize>,
}

enum Ready<'a> {
    Text(&'a [u8]),
    Star,
    Any,
    /// The numbers of a range with the digits each is written with, and the largest number of digits.
    Range(HashSet<(u64, usize)>, usize),
}

impl<'a> Matcher<'a> {
    /// Prepares a pattern: the numbers of its ranges are listed, as many as [`Span::count`] promises.
    pub(crate) fn new(pattern: &'a Pattern) -> Self {
        let ready = |piece: &'a Piece| match piece {
            Piece::Text(text) => Ready::Text(text.as_bytes()),
            Piece::Star => Ready::Star,
            Piece::Any => Ready::Any,
            Piece::Range(spans) => {
                let numbers: HashSet<_> = spans
                    .iter()
                    .flat_map(|span| span.numbers().map(|n| (n, span.width.max(digits(n)))))
                    .collect();
                let most = numbers.iter().map(|(_, digits)| *digits).max().unwrap_or(0);
                Ready::Range(numbers, most)
            }
        };
        let pieces = pattern.pieces.iter().map(ready).collect();
        Self { pieces, reached: Vec::new(), next: Vec::new() }
    }

    /// Whether the whole name matches.
    ///
    /// It follows all positions in the name that the pieces so far can have reached, so the cost is never more than
    /// pieces times characters. To try one position after another could cost far more.
    pub(crate) fn matches(&mut self, name: &str) -> bool {
        let name = name.as_bytes();
        let Self { pieces, reached, next } = self;
        reached.clear();
        reached.push(0);
        for (place, piece) in pieces.iter().enumerate() {
            next.clear();
            match piece {
                Ready::Star if place + 1 == pieces.len() => return true,
                Ready::Star => next.extend(reached.first().copied().unwrap_or(0)..=name.len()),
                Ready::Any => next.extend(reached.iter().map(|at| at + 1).filter(|at| *at <= name.len())),
                Ready::Text(text) => {
                    let fits = |at: &usize| name.get(*at..).is_some_and(|rest| rest.starts_with(text));
                    next.extend(reached.iter().copied().filter(fits).map(|at| at + text.len()));
                }
                Ready::Range(numbers, most) => {
                    for at in reached.iter().copied() {
                        let rest = name.get(at..).unwrap_or_default();
                        next.extend(ends(rest, numbers, *most).map(|length| at + length));
                    }
                    next.sort_unstable();
                    next.dedup();
                }
            }
            if next.is_empty() {
                return false;
            }
            std::mem::swap(reached, next);
        }
        reached.last() == Some(&name.len())
    }
}

/// The lengths of the numbers of this range with which the text starts.
fn ends(text: &[u8], numbers: &HashSet<(u64, usize)>, most: usize) -> impl Iterator<Item = usize> {
    let mut number = 0_u64;
    text.iter().take(most).take_while(|byte| byte.is_ascii_digit()).enumerate().filter_map(
        move |(place, byte)| {
            // At most 18 digits are read, so this does not overflow.
            number = number * 10 + u64::from(byte - b'0');
            numbers.contains(&(number, place + 1)).then_some(place + 1)
        },
    )
}

fn digits(number: u64) -> usize {
    number.checked_ilog10().map_or(1, |log| log as usize + 1)
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.pieces.iter().try_for_each(|piece| piece.fmt(f))
    }
}

impl fmt::Display for Piece {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text(text) => f.write_str(text),
            Self::Star => f.write_str("*"),
            Self::Any => f.write_str("?"),
            Self::Range(spans) => {
                for (place, span) in spans.iter().enumerate() {
                    write!(f, "{}{span}", if place == 0 { '[' } else { ',' })?;
                }
                f.write_str("]")
            }
        }
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { first, last, step, width } = self;
        write!(f, "{first:0width$}")?;
        if last != first {
            write!(f, "-{last:0width$}")?;
        }
        if *step > 1 { write!(f, "/{step}") } else { Ok(()) }
    }
}
