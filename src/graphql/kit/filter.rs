//! The `filter` argument of lists: an expression, prepared for the fields of one kind of row and tested against rows.
//!
//! ```text
//! let filter = Filter::<ImageFields>::parse(Some("name like \"%python%\" & size_bytes < 5e9"))?;
//! rows.filter(|row| filter.holds(row, &meter))
//! ```
//!
//! As in SQL, a comparison with a field that has no value is neither true nor false, and a row passes only if the
//! whole expression is true. `is null` and `== null` test for fields without a value.

use std::cmp::Ordering;

use jiff::Timestamp;
use jiff::civil::Date;
use jiff::tz::TimeZone;

use crate::base::Result;
use crate::base::walk::Meter;
use crate::graphql::kit::field::{self, Read, Record};
use crate::graphql::kit::like::Pattern;
use crate::graphql::kit::parser::{self, Comparison, Constant, Expression, Operator, unescaped};

/// The cost of a comparison besides the text it looks at, as [`Meter::look`] counts.
const COMPARISON: usize = 16;

/// A filter for rows; without an expression every row passes.
pub(crate) struct Filter<R: Record>(Option<Node<R>>);

enum Node<R: Record> {
    All(Vec<Self>),
    Any(Vec<Self>),
    Not(Box<Self>),
    /// Tests only whether the field has a value.
    IsNull(&'static Read<R>, Option<String>, bool),
    Test(&'static Read<R>, Option<String>, Test),
}

/// A comparison with a constant of the field's type.
enum Test {
    Text(Operator, String),
    Like(Box<Pattern>),
    OneOf(Vec<String>),
    Number(Operator, f64),
    NumberOneOf(Vec<f64>),
    Truth(bool),
    Time(Operator, Timestamp),
    TimeOneOf(Vec<Timestamp>),
}

impl<R: Record> Filter<R> {
    /// Parses the argument; null and an empty text let every row pass.
    ///
    /// # Errors
    /// [`crate::base::Error::Invalid`] with the position, the reason and the remedy.
    pub(crate) fn parse(text: Option<&str>) -> Result<Self> {
        match text.filter(|text| !text.trim().is_empty()) {
            None => Ok(Self(None)),
            Some(text) => Ok(Self(Some(node(&parser::parse(text)?)?))),
        }
    }

    /// Whether this row passes.
    pub(crate) fn holds(&self, view: R::View<'_>, meter: &Meter) -> bool {
        self.0.as_ref().is_none_or(|node| node.holds(view, meter) == Some(true))
    }
}

impl<R: Record> Node<R> {
    fn holds(&self, view: R::View<'_>, meter: &Meter) -> Option<bool> {
        match self {
            Self::All(parts) => {
                let mut outcome = Some(true);
                for part in parts {
                    match part.holds(view, meter) {
                        Some(false) => return Some(false),
                        None => outcome = None,
                        Some(true) => {}
                    }
                }
                outcome
            }
            Self::Any(parts) => {
                let mut outcome = Some(false);
                for part in parts {
                    match part.holds(view, meter) {
                        Some(true) => return Some(true),
                        None => outcome = None,
                        Some(false) => {}
                    }
                }
                outcome
            }
            Self::Not(inner) => inner.holds(view, meter).map(|held| !held),
            Self::IsNull(read, key, wanted) => {
                meter.look(COMPARISON);
                Some(is_null(read, key.as_deref(), view) == *wanted)
            }
            Self::Test(read, key, test) => test.holds(read, key.as_deref(), view, meter),
        }
    }
}

fn is_null<R: Record>(read: &Read<R>, key: Option<&str>, view: R::View<'_>) -> bool {
    let row = R::row(view);
    match read {
        Read::Text(read) | Read::Id(read, _) => read(row).is_none(),
        Read::Number(read) => read(row).is_none(),
        Read::Truth(read) => read(view).is_none(),
        Read::Time(read) => read(row).is_none(),
        Read::Texts(any) => !any(row, &mut |_| true),
        Read::Keyed(read) => read(row, key.unwrap_or_default()).is_none(),
    }
}

impl Test {
    fn holds<R: Record>(
        &self,
        read: &Read<R>,
        key: Option<&str>,
        view: R::View<'_>,
        meter: &Meter,
    ) -> Option<bool> {
        let row = R::row(view);
        meter.look(COMPARISON);
        let takes_text = |text: &str| {
            meter.look(text.len().saturating_mul(self.weight()));
            self.takes_text(text)
        };
        match read {
            Read::Text(read) | Read::Id(read, _) => read(row).map(|text| takes_text(&text)),
            Read::Keyed(read) => read(row, key.unwrap_or_default()).map(|text| takes_text(&text)),
            Read::Texts(any) => Some(any(row, &mut |text| takes_text(text))),
            Read::Number(read) => read(row).map(|number| self.takes_number(number)),
            Read::Truth(read) => {
                read(view).map(|truth| matches!(self, Self::Truth(wanted) if *wanted == truth))
            }
            Read::Time(read) => read(row).map(|time| self.takes_time(time)),
        }
    }

    /// Returns the test with its texts converted to the form in which the field is read; patterns stay as they are.
    fn in_form(self, plain: fn(&str) -> String) -> Self {
        match self {
            Self::Text(operator, text) => Self::Text(operator, plain(&text)),
            Self::OneOf(texts) => Self::OneOf(texts.iter().map(|text| plain(text)).collect()),
            other => other,
        }
    }

    /// Returns how many times the test looks at each byte of a text.
    fn weight(&self) -> usize {
        match self {
            Self::Like(pattern) => pattern.weight(),
            // Most comparisons fail early or by length.
            Self::OneOf(wanted) => 1 + wanted.len() / 8,
            _ => 1,
        }
    }

    fn takes_text(&self, text: &str) -> bool {
        match self {
            Self::Text(operator, wanted) => is_so(*operator, text.cmp(wanted)),
            Self::Like(pattern) => pattern.matches(text),
            Self::OneOf(wanted) => wanted.iter().any(|one| one == text),
            _ => false,
        }
    }

    fn takes_number(&self, number: f64) -> bool {
        match self {
            Self::Number(operator, wanted) => is_so(*operator, number.total_cmp(wanted)),
            Self::NumberOneOf(wanted) => wanted.iter().any(|one| one.total_cmp(&number).is_eq()),
            _ => false,
        }
    }

    fn takes_time(&self, time: Timestamp) -> bool {
        match self {
            Self::Time(operator, wanted) => is_so(*operator, time.cmp(wanted)),
            Self::TimeOneOf(wanted) => wanted.contains(&time),
            _ => false,
        }
    }
}

fn is_so(operator: Operator, order: Ordering) -> bool {
    match operator {
        Operator::Equal | Operator::Is => order.is_eq(),
        Operator::NotEqual | Operator::IsNot => order.is_ne(),
        Operator::Less => order.is_lt(),
        Operator::LessOrEqual => order.is_le(),
        Operator::Greater => order.is_gt(),
        Operator::GreaterOrEqual => order.is_ge(),
        Operator::In | Operator::Contains | Operator::Like | Operator::ILike => false,
    }
}

fn node<R: Record>(expression: &Expression<'_>) -> Result<Node<R>> {
    let nodes = |parts: &[Expression<'_>]| parts.iter().map(node).collect::<Result<Vec<_>>>();
    Ok(match expression {
        Expression::All(parts) => Node::All(nodes(parts)?),
        Expression::Any(parts) => Node::Any(nodes(parts)?),
        Expression::Not(inner) => Node::Not(Box::new(node(inner)?)),
        Expression::Compare(comparison) => compared(comparison)?,
    })
}

fn compared<R: Record>(comparison: &Comparison<'_>) -> Result<Node<R>> {
    let Some((field, key)) = field::find::<R>(&comparison.name) else {
        let known = field::names::<R>(|_| true);
        return Err(comparison
            .name_at
            .error(format!("there is no field {:?}; there are {known}", comparison.name)));
    };
    let (read, key) = (&field.read, key.map(str::to_owned));
    let is_null = match (comparison.operator, &comparison.value) {
        (Operator::Equal | Operator::Is, Constant::Null) => Some(true),
        (Operator::NotEqual | Operator::IsNot, Constant::Null) => Some(false),
        _ => None,
    };
    if let Some(wanted) = is_null {
        return Ok(Node::IsNull(read, key, wanted));
    }
    let test = match read {
        Read::Text(_) | Read::Texts(_) | Read::Keyed(_) => text_test(comparison),
        Read::Id(_, plain) => text_test(comparison).map(|test| test.in_form(*plain)),
        Read::Number(_) => number_test(comparison),
        Read::Truth(_) => truth_test(comparison),
        Read::Time(_) => time_test(comparison)?,
    };
    match test {
        Some(test) => Ok(Node::Test(read, key, test)),
        None => Err(unfit(read, comparison)),
    }
}

/// Returns the error for a constant or an operator that the field's type does not support.
fn unfit<R: Record>(read: &Read<R>, comparison: &Comparison<'_>) -> crate::base::Error {
    let (name, operator, kind) = (&comparison.name, comparison.operator.as_str(), read.kind());
    let example = match read {
        Read::Text(_) | Read::Id(..) | Read::Texts(_) | Read::Keyed(_) => {
            format!(r#"{name} == "...", {name} like "%...%""#)
        }
        Read::Number(_) => format!("{name} >= 1000"),
        Read::Truth(_) => format!("{name} == true"),
        Read::Time(_) => format!(r#"{name} >= "2024-01-31""#),
    };
    comparison
        .value_at
        .error(format!("{name} is {kind} and can't be compared so with `{operator}`; try {example}"))
}

fn text_test(comparison: &Comparison<'_>) -> Option<Test> {
    let like = |pattern| Test::Like(Box::new(pattern));
    match (comparison.operator, &comparison.value) {
        (Operator::Like, Constant::Text(text)) => Some(like(Pattern::new(text, false))),
        (Operator::ILike, Constant::Text(text)) => Some(like(Pattern::new(text, true))),
        (Operator::Contains, Constant::Text(text)) => Some(like(Pattern::within(&unescaped(text)))),
        (Operator::In, Constant::List(values)) => each(values, text_of).map(Test::OneOf),
        (operator, Constant::Text(text)) if operator != Operator::In => {
            Some(Test::Text(operator, unescaped(text)))
        }
        _ => None,
    }
}

fn number_test(comparison: &Comparison<'_>) -> Option<Test> {
    match (comparison.operator, &comparison.value) {
        (Operator::In, Constant::List(values)) => each(values, number_of).map(Test::NumberOneOf),
        (operator, value) if operator.is_order() => {
            number_of(value).map(|number| Test::Number(operator, number))
        }
        _ => None,
    }
}

fn truth_test(comparison: &Comparison<'_>) -> Option<Test> {
    match (comparison.operator, &comparison.value) {
        (Operator::Equal | Operator::Is, Constant::Truth(wanted)) => Some(Test::Truth(*wanted)),
        (Operator::NotEqual | Operator::IsNot, Constant::Truth(unwanted)) => Some(Test::Truth(!unwanted)),
        _ => None,
    }
}

fn time_test(comparison: &Comparison<'_>) -> Result<Option<Test>> {
    let time = |constant: &Constant| match constant {
        Constant::Text(text) => time_of(text).ok_or_else(|| {
            let why = format!("{text:?} is no time; write 2024-01-31 or 2024-01-31T10:00:00Z");
            comparison.value_at.error(why)
        }),
        _ => {
            Err(comparison.value_at.error("a time is written as \"2024-01-31\" or \"2024-01-31T10:00:00Z\""))
        }
    };
    Ok(match (comparison.operator, &comparison.value) {
        (Operator::In, Constant::List(values)) => {
            Some(Test::TimeOneOf(values.iter().map(time).collect::<Result<_>>()?))
        }
        (operator, value) if operator.is_order() => Some(Test::Time(operator, time(value)?)),
        _ => None,
    })
}

/// Reads a time in RFC 3339, or a date, which stands for its first midnight (UTC).
fn time_of(text: &str) -> Option<Timestamp> {
    let midnight = |date: Date| date.to_zoned(TimeZone::UTC).ok().map(|zoned| zoned.timestamp());
    text.parse().ok().or_else(|| text.parse().ok().and_then(midnight))
}

fn text_of(constant: &Constant) -> Option<String> {
    match constant {
        Constant::Text(text) => Some(unescaped(text)),
        _ => None,
    }
}

fn number_of(constant: &Constant) -> Option<f64> {
    match constant {
        Constant::Number(number) => Some(*number),
        _ => None,
    }
}

fn each<T>(values: &[Constant], read: impl Fn(&Constant) -> Option<T>) -> Option<Vec<T>> {
    values.iter().map(read).collect()
}

#[cfg(test)]
mod tests {
    use std::borrow::Cow;

    use jiff::Timestamp;

    use super::{Filter, Meter};
    use crate::graphql::kit::field::{Field, Read, Record, number};

    /// A row with fields of all types, some of which may be missing.
    struct Ship {
        name: Option<&'static str>,
        tons: Option<u64>,
        is_afloat: bool,
        launched: Option<&'static str>,
        crew: &'static [&'static str],
    }

    impl Record for Ship {
        type View<'a> = &'a Self;

        fn row(view: Self::View<'_>) -> &Self {
            view
        }

        fn fields() -> &'static [Field<Self>] {
            &[
                Field { name: "name", read: Read::Text(|ship| ship.name.map(Cow::Borrowed)) },
                Field { name: "tons", read: Read::Number(|ship| ship.tons.map(number)) },
                Field { name: "afloat", read: Read::Truth(|ship| Some(ship.is_afloat)) },
                Field { name: "launched", read: Read::Time(|ship| ship.launched?.parse::<Timestamp>().ok()) },
                Field {
                    name: "crew",
                    read: Read::Texts(|ship, is_it| ship.crew.iter().any(|&one| is_it(one))),
                },
                Field {
                    name: "letter",
                    read: Read::Keyed(|ship, key| {
                        ship.name.filter(|name| name.contains(key)).map(Cow::Borrowed)
                    }),
                },
            ]
        }
    }

    const SHIPS: [Ship; 2] = [
        Ship {
            name: Some("Argo"),
            tons: Some(50),
            is_afloat: true,
            launched: Some("2024-03-01T12:00:00Z"),
            crew: &["Jason", "Orpheus"],
        },
        Ship { name: None, tons: None, is_afloat: false, launched: None, crew: &[] },
    ];

    fn taken(text: &str) -> [bool; 2] {
        let filter = Filter::<Ship>::parse(Some(text)).unwrap_or_else(|error| panic!("{text}: {error}"));
        let meter = Meter::default();
        [filter.holds(&SHIPS[0], &meter), filter.holds(&SHIPS[1], &meter)]
    }

    #[test]
    fn each_operator_compares_as_its_type_does() {
        for text in [
            r#"name == "Argo""#,
            r#"name != "argo""#,
            r#"name < "B" & name >= "Argo""#,
            r#"name like "A%""#,
            r#"name ilike "%RG%""#,
            r#"name contains "rg""#,
            r#"name in ["x", "Argo"]"#,
            "tons > 49 & tons <= 50",
            "tons in [1, 50]",
            r#"launched >= "2024-03-01" & launched < "2024-03-02T00:00:00+01:00""#,
            r#"launched == "2024-03-01T13:00:00+01:00""#,
            r#"crew == "Jason""#,
            r#"crew like "Orph%""#,
            r#"letter.rg like "A%""#,
            "name isnot null",
            "crew != null & afloat is true",
        ] {
            assert_eq!(taken(text), [true, false], "{text}");
        }
        for text in ["afloat == false", "name is null", "crew == null", "launched is null & tons == null"] {
            assert_eq!(taken(text), [false, true], "{text}");
        }
        assert_eq!(taken(" "), [true, true]);
    }

    #[test]
    fn what_has_no_value_neither_holds_nor_fails() {
        for text in [r#"name == "x""#, r#"!(name == "Argo")"#, "tons in []", "!(tons > 49)"] {
            assert_eq!(taken(text), [false, false], "{text}");
        }
        assert_eq!(taken(r#"(!(name == "Argo")) | afloat == false"#), [false, true]);
        assert_eq!(taken(r#"!(name == "x" & afloat == false)"#), [true, false]);
    }

    #[test]
    fn a_comparison_must_fit_the_fields_type() {
        for (text, expected) in [
            ("nmae == 1", "at character 1: there is no field \"nmae\"; there are name, tons"),
            ("letter == \"x\"", "there is no field"),
            ("name == 1", "at character 9: name is a text"),
            ("name in \"x\"", "name is a text"),
            ("tons like \"5%\"", "tons is a number and can't be compared so with `like`; try tons >= 1000"),
            ("tons == \"50\"", "tons is a number"),
            ("afloat > true", "afloat is true or false"),
            ("launched > \"soon\"", "\"soon\" is no time; write 2024-01-31"),
            ("launched > 5", "a time is written as"),
            ("name < null", "name is a text"),
        ] {
            let error = Filter::<Ship>::parse(Some(text)).err().map(|error| error.to_string()).expect(text);
            assert!(error.starts_with("filter: at character") && error.contains(expected), "{text}: {error}");
        }
    }
}
