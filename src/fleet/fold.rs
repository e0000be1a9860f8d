//! Folds many names into a short form, as `nodeset -f` writes it: `cpu[1-4],gpu[01-02,04-16]`, and unfolds it.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;

use crate::fleet::error::{ErrorCode, ExpressionError};
use crate::fleet::expression::{MAX_NAMES, Term};
use crate::fleet::parser::{self, ExpressionLimits};

/// Longest folded text that [`expand`] accepts, in bytes. Such text is ours, not typed: as long as the names of a
/// large lab that have nothing in common.
const MAX_FOLDED: usize = 16 << 20;

/// The most digits that a range can have.
const MAX_DIGITS: usize = 18;

/// A number within a name: its digits first, so that numbers of one width stand together.
type Number = (usize, u64);

/// Writes names as ranges over the last number in each. The result is an expression that stands for exactly these
/// names ([`expand`] returns them).
///
/// Where a number is padded, all numbers of a range have one width: `gpu09` and `gpu10` are `gpu[09-10]`, and `gpu99`
/// and `gpu100` beside them stay separate. Where no number is padded, ranges run through all widths, as `cpu[1-12]`
/// does when it is parsed.
pub fn fold<S: AsRef<str>>(names: impl IntoIterator<Item = S>) -> String {
    let names: Vec<S> = names.into_iter().collect();
    let mut series: BTreeMap<(&str, &str), BTreeSet<Option<Number>>> = BTreeMap::new();
    for name in &names {
        let (before, number, after) = split_number(name.as_ref());
        series.entry((before, after)).or_default().insert(number);
    }
    let mut folded = String::new();
    for ((before, after), numbers) in series {
        let (lone, numbers): (Vec<_>, Vec<_>) = numbers.into_iter().partition(Option::is_none);
        if !lone.is_empty() {
            let _ = write!(folded, "{before}{after},");
        }
        let numbers: Vec<Number> = numbers.into_iter().flatten().collect();
        match numbers.as_slice() {
            [] => {}
            [(width, number)] => {
                let _ = write!(folded, "{before}{number:0width$}{after},");
            }
            many => {
                let _ = write!(folded, "{before}[{}]{after},", ranges(many));
            }
        }
    }
    folded.pop();
    folded
}

/// Splits a name into the text before its last number, the number, and the text after it. If there is no number, or
/// one too long for a range, the whole name comes first.
fn split_number(name: &str) -> (&str, Option<Number>, &str) {
    let whole = (name, None, "");
    let Some(last) = name.rfind(|c: char| c.is_ascii_digit()) else { return whole };
    let (rest, after) = name.split_at(last + 1);
    let before = rest.trim_end_matches(|c: char| c.is_ascii_digit());
    let digits = rest.get(before.len()..).unwrap_or_default();
    match digits.parse() {
        Ok(number) if digits.len() <= MAX_DIGITS => (before, Some((digits.len(), number)), after),
        _ => whole,
    }
}

fn ranges(numbers: &[Number]) -> String {
    // With padded numbers a range keeps its width; otherwise it could not be parsed back.
    let one_width = numbers.iter().copied().any(is_padded);
    let mut runs: Vec<(Number, Number)> = Vec::new();
    for &next in numbers {
        let (width, number) = next;
        match runs.last_mut() {
            Some((_, last)) if last.1 + 1 == number && (last.0 == width || !one_width) => *last = next,
            _ => runs.push((next, next)),
        }
    }
    let mut text = String::new();
    for ((width, first), (last_width, last)) in runs {
        let _ = write!(text, "{first:0width$}");
        if last > first {
            let _ = write!(text, "-{last:0last_width$}");
        }
        text.push(',');
    }
    text.pop();
    text
}

/// Whether a number is written with zeros before it.
fn is_padded((width, number): Number) -> bool {
    let digits = number.checked_ilog10().map_or(1, |log| log as usize + 1);
    digits < width
}

/// The names that a folded text stands for, sorted. Tests use it to check that [`fold`] loses nothing.
///
/// # Errors
/// Text that is not made of names and ranges joined by commas, or stands for too many names.
pub fn expand(folded: &str) -> Result<Vec<String>, ExpressionError> {
    if folded.is_empty() {
        return Ok(Vec::new());
    }
    let expression = parser::parse(folded, &ExpressionLimits { bytes: MAX_FOLDED, names: MAX_NAMES })?;
    let other =
        |position| ExpressionError::new(ErrorCode::Syntax, position, "only names and ranges stand here");
    if let Some(filter) = expression.set.filters.first() {
        return Err(other(filter.atom.position.saturating_sub(1)));
    }
    let mut names = BTreeSet::new();
    for atom in &expression.set.union {
        match &atom.term {
            Term::Pattern(pattern) if !pattern.is_glob() => pattern.expand(&mut |name| {
                names.insert(name.to_owned());
            }),
            _ => return Err(other(atom.position)),
        }
    }
    Ok(names.into_iter().collect())
}

#[cfg(test)]
mod tests {
    use super::{expand, fold};

    fn check(names: &[&str], folded: &str) {
        assert_eq!(fold(names), folded);
        let mut names = names.to_vec();
        names.sort_unstable();
        names.dedup();
        assert_eq!(expand(folded).unwrap(), names);
    }

    #[test]
    fn names_fold_on_their_last_number() {
        check(&[], "");
        check(&["gpu"], "gpu");
        check(&["gpu01"], "gpu01");
        check(&["gpu02", "gpu01", "gpu01", "gpu"], "gpu,gpu[01-02]");
        check(&["dc1n01", "dc1n02", "dc2n01"], "dc1n[01-02],dc2n01");
        check(&["n1-ib", "n2-ib", "n2"], "n2,n[1-2]-ib");
        check(&["1", "2", "4"], "[1-2,4]");
    }

    #[test]
    fn padding_survives() {
        check(&["gpu09", "gpu10"], "gpu[09-10]");
        check(&["gpu9", "gpu10"], "gpu[9-10]");
        check(&["gpu9", "gpu09", "gpu10"], "gpu[9,09-10]");
        check(&["gpu99", "gpu100", "gpu101"], "gpu[99-101]");
        check(&["gpu09", "gpu99", "gpu100"], "gpu[09,99,100]");
        check(&["gpu098", "gpu099", "gpu100"], "gpu[098-100]");
        check(&["gpu98", "gpu99", "gpu0100"], "gpu[98-99,0100]");
        check(&["a0", "a00", "a1", "a01", "a000"], "a[0-1,00-01,000]");
    }

    #[test]
    fn a_number_too_long_for_a_range_is_a_name() {
        let nineteen = "9".repeat(19);
        check(&["a999999999999999998", "a999999999999999999"], "a[999999999999999998-999999999999999999]");
        check(&[&format!("a1{nineteen}"), &format!("a2{nineteen}")], &format!("a1{nineteen},a2{nineteen}"));
    }

    #[test]
    fn only_names_expand() {
        for text in ["*", "all", "@a", "{a=b}", "(a)", "a!b", "a*", "a[1"] {
            assert!(expand(text).is_err(), "{text}");
        }
    }
}
