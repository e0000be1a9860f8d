//! Conditions on fields. Every given condition must hold.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::Deserialize;

use crate::base::walk::Meter;
use crate::base::{Error, Result};

/// The most filters one request may nest: each is tested against every item of the list.
const MAX_FILTERS: usize = 100;

/// A filter that may contain others.
pub(crate) trait Nested: Sized {
    /// Returns the filters of which all must hold, of which one must hold, and of which none may hold.
    fn inner(&self) -> [Option<&Vec<Self>>; 3];

    /// Returns the number of filters, including those inside.
    fn count(&self) -> usize {
        1 + self.inner().into_iter().flatten().flatten().map(Self::count).sum::<usize>()
    }

    /// Refuses a filter that takes too much work.
    ///
    /// # Errors
    /// [`Error::Invalid`] for more than [`MAX_FILTERS`].
    fn check(&self) -> Result<()> {
        if self.count() > MAX_FILTERS {
            return Err(Error::invalid("filter", format!("it may have {MAX_FILTERS} filters in it at most")));
        }
        Ok(())
    }

    /// Whether the inner filters let an item pass; `takes` tests the item against one of them.
    fn inner_take(&self, takes: impl Fn(&Self) -> bool) -> bool {
        let [all, any, none] = self.inner();
        all.is_none_or(|filters| filters.iter().all(&takes))
            && any.is_none_or(|filters| filters.is_empty() || filters.iter().any(&takes))
            && none.is_none_or(|filters| !filters.iter().any(&takes))
    }
}

/// About how many times a filter looks at each byte of an item: it may have conditions of several kinds.
const CONDITIONS: usize = 8;

/// Returns the items that pass the filter, and counts what it looks at on `meter`; `size` is about how much text an
/// item has.
///
/// # Errors
/// Those of [`Meter::go_on`].
pub(crate) fn sift<F: Nested, T>(
    items: Vec<T>,
    filter: Option<&F>,
    meter: &Meter,
    size: impl Fn(&T) -> usize,
    takes: impl Fn(&F, &T) -> bool,
) -> Result<Vec<T>> {
    let Some(filter) = filter else { return Ok(items) };
    let count = filter.count().saturating_mul(CONDITIONS);
    let mut sifted = Vec::new();
    for item in items {
        meter.go_on()?;
        meter.look(count.saturating_mul(size(&item)));
        if takes(filter, &item) {
            sifted.push(item);
        }
    }
    Ok(sifted)
}

/// Whether a condition holds; a missing condition always holds.
pub(crate) fn holds<F>(filter: Option<&F>, takes: impl FnOnce(&F) -> bool) -> bool {
    filter.is_none_or(takes)
}

/// Conditions on a text: `equals`, `contains`, `starts_with`, `ends_with` and `in`, each also with the prefix `not_`
/// for the opposite, and before that `i_` to ignore case.
#[derive(Debug, Clone, Deserialize)]
#[serde(try_from = "BTreeMap<String, Option<Wanted>>")]
pub(crate) struct TextFilter(Vec<TextTest>);

#[derive(Debug, Clone)]
struct TextTest {
    /// Whether a text matches one of these.
    compare: fn(&str, &[String]) -> bool,
    ignores_case: bool,
    is_negated: bool,
    /// Sorted, so that a long list takes no longer to search than a short one.
    wanted: Vec<String>,
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Wanted {
    One(String),
    Any(Vec<String>),
}

impl TryFrom<BTreeMap<String, Option<Wanted>>> for TextFilter {
    type Error = String;

    fn try_from(given: BTreeMap<String, Option<Wanted>>) -> Result<Self, String> {
        let mut tests = Vec::new();
        for (name, wanted) in given {
            let (ignores_case, rest) =
                name.strip_prefix("i_").map_or((false, name.as_str()), |rest| (true, rest));
            let (is_negated, rest) = rest.strip_prefix("not_").map_or((false, rest), |rest| (true, rest));
            let compare: fn(&str, &[String]) -> bool = match rest {
                "equals" | "in" => |text, wanted| wanted.binary_search_by(|one| (**one).cmp(text)).is_ok(),
                "contains" => |text, wanted| wanted.iter().any(|part| text.contains(&**part)),
                "starts_with" => |text, wanted| wanted.iter().any(|part| text.starts_with(&**part)),
                "ends_with" => |text, wanted| wanted.iter().any(|part| text.ends_with(&**part)),
                _ => return Err(format!("unknown condition {name}")),
            };
            let wanted = match (rest, wanted) {
                (_, None) => continue,
                ("in", Some(Wanted::Any(list))) => list,
                ("in", _) => return Err(format!("{name} takes a list")),
                (_, Some(Wanted::One(text))) => vec![text],
                (_, Some(Wanted::Any(_))) => return Err(format!("{name} takes one text")),
            };
            let fold = |text: String| if ignores_case { text.to_lowercase() } else { text };
            let mut wanted: Vec<String> = wanted.into_iter().map(fold).collect();
            wanted.sort_unstable();
            tests.push(TextTest { compare, ignores_case, is_negated, wanted });
        }
        Ok(Self(tests))
    }
}

impl TextFilter {
    /// Whether the text meets the conditions.
    pub(crate) fn takes(&self, text: &str) -> bool {
        self.0.iter().all(|test| {
            let folded = test.ignores_case.then(|| text.to_lowercase());
            let text = folded.as_deref().unwrap_or(text);
            (test.compare)(text, &test.wanted) != test.is_negated
        })
    }
}

/// Conditions on a value that is one of several.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ChoiceFilter<T> {
    equals: Option<T>,
    #[serde(rename = "in")]
    one_of: Option<Vec<T>>,
    not_equals: Option<T>,
    not_in: Option<Vec<T>>,
}

impl<T: PartialEq> ChoiceFilter<T> {
    /// Whether the value meets the conditions.
    pub(crate) fn takes(&self, value: &T) -> bool {
        holds(self.equals.as_ref(), |wanted| wanted == value)
            && holds(self.one_of.as_ref(), |wanted| wanted.contains(value))
            && holds(self.not_equals.as_ref(), |unwanted| unwanted != value)
            && holds(self.not_in.as_ref(), |unwanted| !unwanted.contains(value))
    }
}

/// Conditions on a number.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct NumberFilter {
    equals: Option<i128>,
    not_equals: Option<i128>,
    greater_than: Option<i128>,
    greater_than_or_equal: Option<i128>,
    less_than: Option<i128>,
    less_than_or_equal: Option<i128>,
}

impl NumberFilter {
    /// Whether the number meets the conditions.
    pub(crate) fn takes(&self, number: u64) -> bool {
        let number = i128::from(number);
        self.equals.is_none_or(|bound| number == bound)
            && self.not_equals.is_none_or(|bound| number != bound)
            && self.greater_than.is_none_or(|bound| number > bound)
            && self.greater_than_or_equal.is_none_or(|bound| number >= bound)
            && self.less_than.is_none_or(|bound| number < bound)
            && self.less_than_or_equal.is_none_or(|bound| number <= bound)
    }
}

/// Conditions on a time.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct TimeFilter {
    before: Option<Timestamp>,
    after: Option<Timestamp>,
    equals: Option<Timestamp>,
    not_equals: Option<Timestamp>,
}

impl TimeFilter {
    /// Whether the time meets the conditions. A missing time is neither before, after nor equal to any other.
    pub(crate) fn takes(&self, time: Option<Timestamp>) -> bool {
        self.before.is_none_or(|bound| time.is_some_and(|time| time < bound))
            && self.after.is_none_or(|bound| time.is_some_and(|time| time > bound))
            && self.equals.is_none_or(|wanted| time == Some(wanted))
            && self.not_equals.is_none_or(|unwanted| time != Some(unwanted))
    }
}

#[cfg(test)]
mod tests {
    use super::{ChoiceFilter, NumberFilter, TextFilter, TimeFilter};

    fn text(filter: &str) -> TextFilter {
        serde_json::from_str(filter).unwrap_or_else(|why| panic!("{filter}: {why}"))
    }

    #[test]
    fn a_text_must_meet_every_condition() {
        for (filter, taken) in [
            ("{}", true),
            (r#"{"equals": null}"#, true),
            (r#"{"equals": "stable/Python"}"#, true),
            (r#"{"equals": "stable/python"}"#, false),
            (r#"{"i_equals": "STABLE/python"}"#, true),
            (r#"{"contains": "Pyt", "starts_with": "stable", "ends_with": "on"}"#, true),
            (r#"{"contains": "Pyt", "not_ends_with": "on"}"#, false),
            (r#"{"i_not_contains": "PYTHON"}"#, false),
            (r#"{"in": ["a", "stable/Python"]}"#, true),
            (r#"{"i_in": ["A", "stable/PYTHON"]}"#, true),
            (r#"{"not_in": ["stable/Python"]}"#, false),
            (r#"{"in": []}"#, false),
        ] {
            assert_eq!(text(filter).takes("stable/Python"), taken, "{filter}");
        }
        for wrong in [r#"{"like": "a"}"#, r#"{"equals": ["a"]}"#, r#"{"in": "a"}"#, r#"{"equals": 1}"#, "[]"]
        {
            assert!(serde_json::from_str::<TextFilter>(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn numbers_times_and_choices_are_compared() {
        let number: NumberFilter =
            serde_json::from_str(r#"{"greater_than_or_equal": -5, "less_than": 10, "not_equals": 3}"#)
                .unwrap();
        assert_eq!([0, 3, 9, 10].map(|n| number.takes(n)), [true, false, true, false]);
        let time: TimeFilter = serde_json::from_str(r#"{"after": "2026-01-01T00:00:00Z"}"#).unwrap();
        let at = |text: &str| Some(text.parse().unwrap());
        assert!(time.takes(at("2026-01-02T00:00:00Z")) && !time.takes(at("2026-01-01T00:00:00Z")));
        assert!(!time.takes(None));
        let choice: ChoiceFilter<u8> = serde_json::from_str(r#"{"in": [1, 2], "not_equals": 2}"#).unwrap();
        assert_eq!([1, 2, 3].map(|n| choice.takes(&n)), [true, false, false]);
    }
}
