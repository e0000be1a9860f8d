//! The text of a `filter` argument: Backend.AI's small query language, read by recursive descent.
//!
//! ```text
//! expression = term { "&" term } [ "|" expression ] | term "|" expression
//! term       = name operator value | "!" term | "(" expression ")"
//! name       = letters, digits, "_", "-", "/" and "." | name "." "text"    (* a key with other characters *)
//! operator   = "==" "!=" "<" "<=" ">" ">=" "in" "contains" "like" "ilike" "is" "isnot"
//! value      = "text" | number | true | false | null | "[" value, ... "]"
//! ```
//!
//! Backend.AI itself reads everything to the right of `&`, `|` and `!` first: there, `a & b | c` means `a & (b | c)`,
//! and `!a & b` means `!(a & b)`. Users mean the opposite. Where the two readings differ, the parser asks for
//! parentheses; every accepted expression means the same in both.

use std::borrow::Cow;

use crate::base::{Error, Result};

/// The longest expression, in bytes. Those of the web UI have some hundred.
const MAX_TEXT: usize = 4_096;
/// How deep parentheses and negations may nest: the parser's stack grows with them.
const MAX_DEPTH: usize = 32;
/// The most comparisons: each is made for every row.
const MAX_COMPARISONS: usize = 64;

/// A parsed expression.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Expression<'t> {
    /// All of these hold.
    All(Vec<Self>),
    /// At least one of these holds.
    Any(Vec<Self>),
    /// The inner expression does not hold.
    Not(Box<Self>),
    /// A comparison.
    Compare(Comparison<'t>),
}

/// A field, an operator and a constant.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Comparison<'t> {
    /// The field's name, with the key after its dot if there is one.
    pub(crate) name: Cow<'t, str>,
    /// The position of the name, for errors.
    pub(crate) name_at: TextPosition,
    /// The operator.
    pub(crate) operator: Operator,
    /// The constant.
    pub(crate) value: Constant,
    /// The position of the constant, for errors.
    pub(crate) value_at: TextPosition,
}

/// A position in the text, in characters from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TextPosition(usize);

impl TextPosition {
    /// Returns an error at this position of a filter.
    pub(crate) fn error(self, why: impl std::fmt::Display) -> Error {
        Error::invalid("filter", format!("at character {}: {why}", self.0))
    }
}

/// A comparison's operator.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Operator {
    /// `==`
    Equal,
    /// `!=`
    NotEqual,
    /// `<`
    Less,
    /// `<=`
    LessOrEqual,
    /// `>`
    Greater,
    /// `>=`
    GreaterOrEqual,
    /// `in`
    In,
    /// `contains`
    Contains,
    /// `like`
    Like,
    /// `ilike`
    ILike,
    /// `is`
    Is,
    /// `isnot`
    IsNot,
}

/// The operators as they are written; where one begins with another, the longer one first.
const OPERATORS: &[(&str, Operator)] = &[
    ("==", Operator::Equal),
    ("!=", Operator::NotEqual),
    ("<=", Operator::LessOrEqual),
    ("<", Operator::Less),
    (">=", Operator::GreaterOrEqual),
    (">", Operator::Greater),
    ("contains", Operator::Contains),
    ("ilike", Operator::ILike),
    ("isnot", Operator::IsNot),
    ("like", Operator::Like),
    ("in", Operator::In),
    ("is", Operator::Is),
];

impl Operator {
    /// Returns the operator as it is written.
    pub(crate) fn as_str(self) -> &'static str {
        OPERATORS.iter().find(|(_, known)| *known == self).map_or("", |(text, _)| text)
    }

    /// Whether it compares two values for order or equality.
    pub(crate) fn is_order(self) -> bool {
        !matches!(self, Self::In | Self::Contains | Self::Like | Self::ILike)
    }
}

/// A constant.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Constant {
    /// A text in quotation marks; `\"` stands for a quotation mark.
    Text(String),
    /// A number with or without a fraction.
    Number(f64),
    /// `true` or `false`.
    Truth(bool),
    /// `null`.
    Null,
    /// A list in brackets.
    List(Vec<Self>),
}

/// Parses an expression.
///
/// # Errors
/// [`Error::Invalid`] with the position, the reason and the remedy.
pub(crate) fn parse(text: &str) -> Result<Expression<'_>> {
    if text.len() > MAX_TEXT {
        let why = format!("it is {} bytes long, more than {MAX_TEXT}; ask for less at once", text.len());
        return Err(Error::invalid("filter", why));
    }
    let mut parser = Parser { text, at: 0, depth: 0, comparisons: 0 };
    let expression = parser.expression()?;
    if parser.rest().is_empty() {
        return Ok(expression);
    }
    Err(parser.unexpected("`&`, `|` or the end"))
}

struct Parser<'t> {
    text: &'t str,
    /// The position in bytes, always between characters.
    at: usize,
    depth: usize,
    comparisons: usize,
}

impl<'t> Parser<'t> {
    fn expression(&mut self) -> Result<Expression<'t>> {
        let mut alternatives = Vec::new();
        loop {
            let mut terms = vec![self.term()?];
            while self.took("&") {
                terms.push(self.term()?);
            }
            let is_several = terms.len() > 1;
            let place = self.place();
            alternatives.push(all(terms));
            if !self.took("|") {
                return Ok(any(alternatives));
            }
            if is_several {
                return Err(place.error(
                    "`a & b | c` can be read in two ways; put the part that comes first in parentheses: `(a & b) | c`",
                ));
            }
        }
    }

    fn term(&mut self) -> Result<Expression<'t>> {
        let place = self.place();
        if self.took("(") {
            self.enter(place)?;
            let inner = self.expression()?;
            if !self.took(")") {
                return Err(self.unexpected("`&`, `|` or `)`"));
            }
            self.depth -= 1;
            return Ok(inner);
        }
        if self.rest().starts_with('!') && !self.rest().starts_with("!=") {
            self.at += 1;
            self.enter(place)?;
            let inner = self.term()?;
            self.depth -= 1;
            if self.rest().starts_with(['&', '|']) {
                return Err(place
                    .error("`!a & b` can be read in two ways; put the negation in parentheses: `(!a) & b`"));
            }
            return Ok(Expression::Not(Box::new(inner)));
        }
        self.comparison()
    }

    fn enter(&mut self, place: TextPosition) -> Result<()> {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return Err(place.error(format!("it nests deeper than {MAX_DEPTH}; leave out parentheses")));
        }
        Ok(())
    }

    fn comparison(&mut self) -> Result<Expression<'t>> {
        let name_at = self.place();
        self.comparisons += 1;
        if self.comparisons > MAX_COMPARISONS {
            let why =
                format!("there are more than {MAX_COMPARISONS} comparisons; `in [...]` takes many values");
            return Err(name_at.error(why));
        }
        let name = self.name().ok_or_else(|| self.unexpected("the name of a field, `(` or `!`"))?;
        let has_key =
            name.ends_with('.') && self.text.get(self.at..).is_some_and(|rest| rest.starts_with('"'));
        let name = if has_key { format!("{name}{}", unescaped(&self.string()?)).into() } else { name.into() };
        let Some(operator) = self.operator() else {
            let known: Vec<_> = OPERATORS.iter().map(|(text, _)| *text).collect();
            return Err(self.unexpected(&format!("an operator ({})", known.join(" "))));
        };
        let value_at = self.place();
        let value = self.value(true)?;
        Ok(Expression::Compare(Comparison { name, name_at, operator, value, value_at }))
    }

    /// Reads a name: a letter or `_`, then also digits and the characters that label keys may have.
    fn name(&mut self) -> Option<&'t str> {
        let rest = self.rest();
        let is_inside = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-' | '/');
        let end = rest.find(|c: char| !is_inside(c)).unwrap_or(rest.len());
        let name =
            rest.get(..end).filter(|name| name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_'));
        self.at += name.map_or(0, str::len);
        name
    }

    fn operator(&mut self) -> Option<Operator> {
        let rest = self.rest();
        let (text, operator) = OPERATORS.iter().find(|(text, _)| rest.starts_with(text))?;
        self.at += text.len();
        Some(*operator)
    }

    fn value(&mut self, may_be_list: bool) -> Result<Constant> {
        let rest = self.rest();
        match rest.chars().next() {
            Some('"') => self.string().map(Constant::Text),
            Some('[') if may_be_list => self.list(),
            Some(c) if c.is_ascii_digit() || matches!(c, '+' | '-' | '.') => self.number(),
            _ => match self.name() {
                Some("true") => Ok(Constant::Truth(true)),
                Some("false") => Ok(Constant::Truth(false)),
                Some("null") => Ok(Constant::Null),
                other => {
                    self.at -= other.map_or(0, str::len);
                    Err(self.unexpected("a value: a \"text\", a number, true, false, null or a [list]"))
                }
            },
        }
    }

    /// Reads a text. A backslash before a quotation mark keeps it from ending the text. Before anything else the
    /// backslash stays: patterns need it, and in other texts two stand for one.
    fn string(&mut self) -> Result<String> {
        let place = self.place();
        let mut text = String::new();
        let mut letters = self.rest().char_indices().skip(1);
        while let Some((at, letter)) = letters.next() {
            match letter {
                '"' => {
                    self.at += at + 1;
                    return Ok(text);
                }
                '\\' => match letters.next() {
                    Some((_, '"')) => text.push('"'),
                    Some((_, other)) => text.extend(['\\', other]),
                    None => break,
                },
                other => text.push(other),
            }
        }
        Err(place.error("the text has no end; close it with a quotation mark"))
    }

    fn number(&mut self) -> Result<Constant> {
        let (place, rest) = (self.place(), self.rest());
        let is_inside = |c: char| c.is_ascii_alphanumeric() || matches!(c, '+' | '-' | '.');
        let end = rest.find(|c: char| !is_inside(c)).unwrap_or(rest.len());
        let text = rest.get(..end).unwrap_or_default();
        let number = text.parse::<f64>().ok().filter(|number| number.is_finite());
        self.at += end;
        number.map(Constant::Number).ok_or_else(|| place.error(format!("{text:?} is no number")))
    }

    fn list(&mut self) -> Result<Constant> {
        let mut values = Vec::new();
        self.at += 1;
        if self.took("]") {
            return Ok(Constant::List(values));
        }
        loop {
            values.push(self.value(false)?);
            if self.took("]") {
                return Ok(Constant::List(values));
            }
            if !self.took(",") {
                return Err(self.unexpected("`,` or `]`"));
            }
        }
    }

    /// Returns the rest of the text, without the space before it.
    fn rest(&mut self) -> &'t str {
        let rest = self.text.get(self.at..).unwrap_or_default();
        let trimmed = rest.trim_start();
        self.at += rest.len() - trimmed.len();
        trimmed
    }

    fn took(&mut self, sign: &str) -> bool {
        let is_there = self.rest().starts_with(sign);
        self.at += if is_there { sign.len() } else { 0 };
        is_there
    }

    fn place(&mut self) -> TextPosition {
        let _ = self.rest();
        TextPosition(self.text.get(..self.at).map_or(0, |before| before.chars().count()) + 1)
    }

    fn unexpected(&mut self, wanted: &str) -> Error {
        let place = self.place();
        let rest = self.rest();
        let end = rest.char_indices().nth(20).map_or(rest.len(), |(at, _)| at);
        match rest.get(..end) {
            None | Some("") => place.error(format!("expected {wanted}, but the text ends")),
            Some(found) => place.error(format!("expected {wanted}, found {found:?}")),
        }
    }
}

/// Returns a text that is no pattern with its backslashes resolved: two stand for one, so that the text can end with
/// one, or have one before a quotation mark.
pub(crate) fn unescaped(text: &str) -> String {
    text.replace(r"\\", r"\")
}

fn all(mut terms: Vec<Expression<'_>>) -> Expression<'_> {
    if terms.len() == 1 { terms.remove(0) } else { Expression::All(terms) }
}

fn any(mut terms: Vec<Expression<'_>>) -> Expression<'_> {
    if terms.len() == 1 { terms.remove(0) } else { Expression::Any(terms) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{Constant, Expression, Operator, parse};

    fn refusal(text: &str) -> String {
        parse(text).expect_err(text).to_string()
    }

    /// Returns the structure of an expression, names only.
    fn shape(expression: &Expression<'_>) -> String {
        let joined = |parts: &[Expression<'_>], sign| parts.iter().map(shape).collect::<Vec<_>>().join(sign);
        match expression {
            Expression::All(parts) => format!("({})", joined(parts, "&")),
            Expression::Any(parts) => format!("({})", joined(parts, "|")),
            Expression::Not(inner) => format!("!{}", shape(inner)),
            Expression::Compare(comparison) => comparison.name.as_ref().into(),
        }
    }

    #[test]
    fn expressions_nest_as_backend_ai_reads_them() {
        for (text, expected) in [
            ("a == 1", "a"),
            ("a==1&b==2&c==3", "(a&b&c)"),
            ("a == 1 | b == 2 & c == 3", "(a|(b&c))"),
            ("(a == 1 | b == 2) & c == 3", "((a|b)&c)"),
            ("(!a == 1) & b == 2", "(!a&b)"),
            ("!(a == 1 & b == 2)", "!(a&b)"),
            ("!!a != 1", "!!a"),
            (r#"labels."a \"b\\" == "x""#, r#"labels.a "b\"#),
        ] {
            assert_eq!(shape(&parse(text).expect(text)), expected, "{text}");
        }
    }

    #[test]
    fn what_can_be_read_in_two_ways_is_refused() {
        for text in ["a == 1 & b == 2 | c == 3", "!a == 1 & b == 2", "!(a == 1) | b == 2"] {
            assert!(refusal(text).contains("two ways"), "{text}");
        }
    }

    #[test]
    fn constants_are_read() {
        let value = |text: &str| match parse(text).expect(text) {
            Expression::Compare(comparison) => (comparison.operator, comparison.value),
            other => panic!("{other:?}"),
        };
        let text = |text: &str| Constant::Text(text.into());
        assert_eq!(value(r#"a like "x\"y\%""#), (Operator::Like, text("x\"y\\%")));
        assert_eq!(value(r#"labels.ai.x-y/z ilike"ü""#), (Operator::ILike, text("ü")));
        assert_eq!(value("a<=-1.5e3"), (Operator::LessOrEqual, Constant::Number(-1500.0)));
        assert_eq!(value("a isnot null"), (Operator::IsNot, Constant::Null));
        assert_eq!(value("a is true"), (Operator::Is, Constant::Truth(true)));
        let list = Constant::List(vec![text("x"), Constant::Number(2.0)]);
        assert_eq!(value(r#"a in [ "x" , 2 ]"#), (Operator::In, list));
        assert_eq!(value("a in []"), (Operator::In, Constant::List(Vec::new())));
    }

    #[test]
    fn errors_name_the_place_and_what_was_expected() {
        for (text, expected) in [
            ("", "at character 1: expected the name of a field"),
            ("name", "at character 5: expected an operator"),
            ("name = \"x\"", "at character 6: expected an operator"),
            ("grün == 1", "at character 3: expected an operator"),
            ("a == ", "at character 6: expected a value"),
            ("a == x", "at character 6: expected a value"),
            ("a == \"x", "at character 6: the text has no end"),
            ("a.\"x == 1", "at character 3: the text has no end"),
            ("a. \"x\" == 1", "at character 4: expected an operator"),
            ("a == 1x", "at character 6: \"1x\" is no number"),
            ("(a == 1", "at character 8: expected `&`, `|` or `)`"),
            ("a == 1 b == 2", "at character 8: expected `&`, `|` or the end"),
            ("a in [1 2]", "at character 9: expected `,` or `]`"),
        ] {
            assert!(refusal(text).contains(expected), "{text}: {}", refusal(text));
        }
    }

    #[test]
    fn an_expression_is_bounded_in_length_depth_and_comparisons() {
        assert!(refusal(&"a".repeat(5_000)).contains("bytes long"));
        assert!(refusal(&format!("{}a == 1{}", "(".repeat(100), ")".repeat(100))).contains("nests deeper"));
        assert!(refusal(&format!("{}a == 1", "!".repeat(100))).contains("nests deeper"));
        assert!(refusal(&vec!["a == 1"; 100].join(" & ")).contains("more than 64 comparisons"));
        assert!(parse(&vec!["(a == 1)"; 64].join("|")).is_ok());
    }

    proptest! {
        #[test]
        fn no_text_breaks_the_parser(text in r#"[ab="!&|()\[\],.1< \\ünl]{0,60}"#) {
            let _ = parse(&text);
        }
    }
}
