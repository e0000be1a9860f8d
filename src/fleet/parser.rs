//! Parses the text of an expression into a tree, by recursive descent.
//!
//! ```ebnf
//! expression = ws , set , ws ;
//! set        = union , { filter } ;
//! union      = atom , { sep , atom } ;
//! sep        = ws , "," , ws | ws1 ;
//! filter     = ws , [ "," , ws ] , ( "&" | "!" ) , ws , atom ;
//! atom       = "(" , ws , set , ws , ")" | group | selector | pattern ;
//! group      = "@" , ( "*" | name ) ;
//! pattern    = piece , { piece } ;                       (* "*" alone, or "all", = every agent *)
//! piece      = namechar , { namechar } | "*" | "?" | range ;
//! range      = "[" , item , { "," , item } , "]" ;
//! item       = digits , [ "-" , digits , [ "/" , digits ] ] ;
//! selector   = "{" , req , { "," , req } , "}" ;         (* as `kubectl -l` *)
//! namechar   = letter | digit | "_" | "." | "-" ;
//! digits     = digit , { digit } ;                       (* at most 18 *)
//! ws         = { " " | "\t" | "\r" | "\n" } ;  ws1 = at least one ;
//! ```

use crate::base::agent_name::{ALL, is_name_byte};
use crate::fleet::error::{ErrorCode, ExpressionError};
use crate::fleet::expression::{
    Atom, Expression, MAX_BYTES, MAX_DEPTH, MAX_NAMES, Operation, Set, SetFilter, Term,
};
use crate::fleet::pattern::{Pattern, Piece, Span};
use crate::fleet::selector::Selector;

/// Most digits of a number: every such number fits in 64 bits, with room to add a step.
const MAX_DIGITS: usize = 18;

/// The limits on an expression.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ExpressionLimits {
    /// Its longest text, in bytes.
    pub(crate) bytes: usize,
    /// The most names that all its patterns may stand for together.
    pub(crate) names: u64,
}

impl Expression {
    /// Parses an expression.
    ///
    /// # Errors
    /// Text that breaks the grammar or a limit. Whether the names exist is not checked here.
    pub fn parse(text: &str) -> Result<Self, ExpressionError> {
        parse(text, &ExpressionLimits { bytes: MAX_BYTES, names: MAX_NAMES })
    }
}

/// Parses an expression within these limits.
pub(crate) fn parse(text: &str, limits: &ExpressionLimits) -> Result<Expression, ExpressionError> {
    let fail = |code, position, message: String| Err(ExpressionError::new(code, position, message));
    if text.len() > limits.bytes {
        let most = limits.bytes;
        return fail(ErrorCode::TooLong, most, format!("the expression is longer than {most} bytes"));
    }
    let mut parser = Parser { text, at: 0, limits, names: 0 };
    parser.blanks();
    if parser.peek().is_none() {
        let why = "the expression is empty; write `*` for every agent";
        return fail(ErrorCode::Empty, 0, why.into());
    }
    let set = parser.set(0)?;
    match parser.peek() {
        None => Ok(Expression { set }),
        Some(_) => fail(ErrorCode::Syntax, parser.at, "this `)` closes nothing".into()),
    }
}

struct Parser<'a> {
    text: &'a str,
    at: usize,
    limits: &'a ExpressionLimits,
    /// How many names the patterns stand for so far.
    names: u64,
}

type Parsed<T> = Result<T, ExpressionError>;

impl<'a> Parser<'a> {
    fn rest(&self) -> &'a str {
        self.text.get(self.at..).unwrap_or_default()
    }

    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    /// Skips this character, if it is next.
    fn skip(&mut self, sign: u8) -> bool {
        let found = self.peek() == Some(sign);
        self.at += usize::from(found);
        found
    }

    /// Takes the longest run of bytes that satisfy `within`.
    fn take(&mut self, within: impl Fn(u8) -> bool) -> &'a str {
        let rest = self.rest();
        let length = rest.bytes().position(|b| !within(b)).unwrap_or(rest.len());
        self.at += length;
        rest.get(..length).unwrap_or_default()
    }

    fn blanks(&mut self) {
        self.take(|b| matches!(b, b' ' | b'\t' | b'\r' | b'\n'));
    }

    fn syntax(&self, message: impl Into<String>) -> ExpressionError {
        ExpressionError::new(ErrorCode::Syntax, self.at, message)
    }

    fn set(&mut self, depth: usize) -> Parsed<Set> {
        if depth > MAX_DEPTH {
            let why = format!("parentheses are nested deeper than {MAX_DEPTH}");
            return Err(ExpressionError::new(ErrorCode::TooDeep, self.at, why));
        }
        self.blanks();
        match self.peek() {
            Some(b'!') => return Err(self.syntax("it cannot start with an operator; write `*!name`")),
            Some(b'&') => return Err(self.syntax("it cannot start with an operator; write `name&name`")),
            _ => {}
        }
        let mut set = Set { union: vec![self.atom(depth)?], filters: Vec::new() };
        loop {
            let end = self.at;
            self.blanks();
            let separator = self.at;
            let comma = self.skip(b',');
            if comma {
                self.blanks();
            }
            match self.peek() {
                Some(sign @ (b'&' | b'!')) => {
                    self.at += 1;
                    self.blanks();
                    let operation = if sign == b'&' { Operation::Keep } else { Operation::Drop };
                    set.filters.push(SetFilter { operation, atom: self.atom(depth)? });
                }
                None | Some(b')') if comma => return Err(self.missing_atom()),
                None | Some(b')') => return Ok(set),
                Some(next) if comma || starts_atom(next) => {
                    if !comma && separator == end {
                        return Err(self.syntax("a comma, `&` or `!` is missing here"));
                    }
                    if !set.filters.is_empty() {
                        let why = "a union after `&` or `!` can be read in two ways; add parentheses";
                        return Err(ExpressionError::new(ErrorCode::MixedOps, separator, why));
                    }
                    set.union.push(self.atom(depth)?);
                }
                Some(_) => return Err(self.unexpected()),
            }
        }
    }

    fn atom(&mut self, depth: usize) -> Parsed<Atom> {
        let position = self.at;
        let term = match self.peek() {
            Some(b'(') => self.parentheses(depth)?,
            Some(b'@') => self.group()?,
            Some(b'{') => {
                let (selector, length) = Selector::read(self.rest())
                    .map_err(|why| ExpressionError::new(ErrorCode::Selector, position, why))?;
                self.at += length;
                Term::Selector(selector)
            }
            Some(next) if starts_atom(next) => self.pattern()?,
            Some(next) if !matches!(next, b')' | b',' | b'&' | b'!') => return Err(self.unexpected()),
            _ => return Err(self.missing_atom()),
        };
        Ok(Atom { position, term })
    }

    fn parentheses(&mut self, depth: usize) -> Parsed<Term> {
        self.skip(b'(');
        let set = self.set(depth + 1)?;
        if self.skip(b')') {
            return Ok(Term::Parentheses(Box::new(set)));
        }
        Err(self.syntax("a `)` is missing"))
    }

    fn group(&mut self) -> Parsed<Term> {
        self.skip(b'@');
        if self.skip(b'*') {
            return Ok(Term::Everyone);
        }
        let name = self.take(is_name_byte);
        if name.is_empty() {
            return Err(self.syntax("a group's name must follow `@`"));
        }
        Ok(Term::Group(name.to_owned()))
    }

    fn pattern(&mut self) -> Parsed<Term> {
        let mut pieces = Vec::new();
        let mut stands_for = 1_u64;
        loop {
            match self.peek() {
                Some(b'*') => {
                    self.at += 1;
                    // `**` means the same as `*`.
                    if !matches!(pieces.last(), Some(Piece::Star)) {
                        pieces.push(Piece::Star);
                    }
                }
                Some(b'?') => {
                    self.at += 1;
                    pieces.push(Piece::Any);
                }
                Some(b'[') => pieces.push(self.range(&mut stands_for)?),
                Some(byte) if is_name_byte(byte) => {
                    pieces.push(Piece::Text(self.take(is_name_byte).to_owned()));
                }
                _ => break,
            }
        }
        self.names = self.names.saturating_add(stands_for);
        Ok(match pieces.as_slice() {
            [Piece::Star] => Term::Everyone,
            [Piece::Text(name)] if name == ALL => Term::Everyone,
            _ => Term::Pattern(Pattern { pieces }),
        })
    }

    /// Parses `[…]`. Mistakes in the numbers are reported at the bracket, because the whole range can be seen from
    /// there.
    fn range(&mut self, stands_for: &mut u64) -> Parsed<Piece> {
        let bracket = self.at;
        let fail = |code, message: String| Err(ExpressionError::new(code, bracket, message));
        self.skip(b'[');
        let mut spans = Vec::new();
        let mut count = 0_u64;
        loop {
            let span = self.span(bracket)?;
            count = count.saturating_add(span.count());
            spans.push(span);
            match self.peek() {
                Some(b',') => self.at += 1,
                Some(b']') => break,
                None => return fail(ErrorCode::Syntax, "this `[` is not closed".into()),
                Some(_) => {
                    return Err(self.syntax("in brackets stand numbers and ranges, such as [1-3,5,10-20/2]"));
                }
            }
        }
        self.skip(b']');
        *stands_for = stands_for.saturating_mul(count);
        let most = self.limits.names;
        if self.names.saturating_add(*stands_for) > most {
            let why = format!("the ranges stand for more than {most} names");
            return fail(ErrorCode::RangeTooLarge, why);
        }
        Ok(Piece::Range(spans))
    }

    fn span(&mut self, bracket: usize) -> Parsed<Span> {
        let fail = |code, message: String| Err(ExpressionError::new(code, bracket, message));
        let (first, first_text) = self.number(bracket)?;
        let (mut last, mut last_text, mut step) = (first, first_text, 1);
        if self.skip(b'-') {
            (last, last_text) = self.number(bracket)?;
            if self.skip(b'/') {
                (step, _) = self.number(bracket)?;
            }
        }
        if last < first {
            let why =
                format!("the range {first_text}-{last_text} runs backwards; write {last_text}-{first_text}");
            return fail(ErrorCode::RangeReversed, why);
        }
        let padded = |text: &str| text.len() > 1 && text.starts_with('0');
        let width = if padded(first_text) || padded(last_text) { first_text.len() } else { 0 };
        if width > 0 && first_text.len() != last_text.len() {
            let width = first_text.len().max(last_text.len());
            let why = format!(
                "{first_text} and {last_text} are padded differently; write both with as many digits, such as \
                 {first:0width$}-{last:0width$}, or without zeros before them"
            );
            return fail(ErrorCode::RangePad, why);
        }
        if step == 0 {
            return fail(ErrorCode::Syntax, "a range's step must be at least 1".into());
        }
        Ok(Span { first, last, step: if first == last { 1 } else { step }, width })
    }

    fn number(&mut self, bracket: usize) -> Parsed<(u64, &'a str)> {
        let text = self.take(|b| b.is_ascii_digit());
        if text.len() > MAX_DIGITS {
            let why = format!("a number has more than {MAX_DIGITS} digits");
            return Err(ExpressionError::new(ErrorCode::RangeTooLarge, bracket, why));
        }
        match (text.parse(), self.peek()) {
            (Ok(number), _) => Ok((number, text)),
            (Err(_), None) => Err(ExpressionError::new(ErrorCode::Syntax, bracket, "this `[` is not closed")),
            (Err(_), Some(_)) => Err(self.syntax("a number is missing here")),
        }
    }

    fn missing_atom(&self) -> ExpressionError {
        self.syntax("a name, `*`, `@group`, `{labels}` or `(…)` is missing here")
    }

    fn unexpected(&self) -> ExpressionError {
        let found = self.rest().chars().next().unwrap_or_default();
        self.syntax(match found {
            '^' | '~' | '%' | '<' | '>' => format!("{found:?} has no meaning here yet; it is reserved"),
            ':' => "a group has no source before a `:`; that is reserved".into(),
            ']' | '}' => format!("this `{found}` closes nothing"),
            _ => format!("{found:?} can't stand here; names have letters, digits, `_`, `.` and `-`"),
        })
    }
}

fn starts_atom(byte: u8) -> bool {
    is_name_byte(byte) || matches!(byte, b'(' | b'@' | b'{' | b'*' | b'?' | b'[')
}
