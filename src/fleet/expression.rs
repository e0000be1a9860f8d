//! The tree of a parsed expression, whose names are not looked up yet, and how it is written out again.

use std::fmt;

use crate::fleet::pattern::Pattern;
use crate::fleet::selector::Selector;

/// Longest expression, in bytes: a screenful of names, and what a URL or a log line still carries.
pub(crate) const MAX_BYTES: usize = 4096;
/// Deepest nesting of parentheses: more than people can read, and shallow enough for any stack.
pub(crate) const MAX_DEPTH: usize = 32;
/// Most names that all ranges together may stand for; they are counted before the first one is made.
pub const MAX_NAMES: u64 = 65_536;

/// A set of agents, as an admin wrote it. [`fmt::Display`] writes its shortest usual spelling, which parses to an
/// equal expression.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Expression {
    /// The outermost set.
    pub set: Set,
}

/// A set: a union, and filters that apply to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Set {
    /// At least one atom; the set starts as the union of these.
    pub union: Vec<Atom>,
    /// The filters, applied to the union one after another.
    pub filters: Vec<SetFilter>,
}

/// A filter, `& …` or `! …`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SetFilter {
    /// Whether the matching agents stay or go.
    pub operation: Operation,
    /// The agents that match.
    pub atom: Atom,
}

/// What a filter does with the agents its atom names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operation {
    /// `&`: only the matching agents stay.
    Keep,
    /// `!`: the matching agents go.
    Drop,
}

/// A part of an expression that names agents by itself.
#[derive(Debug, Clone)]
pub struct Atom {
    /// The byte position where it starts, for error messages.
    pub position: usize,
    /// The agents it names.
    pub term: Term,
}

/// Equality ignores where an atom stood in the text.
impl PartialEq for Atom {
    fn eq(&self, other: &Self) -> bool {
        self.term == other.term
    }
}

impl Eq for Atom {}

/// The ways to name agents.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Term {
    /// `*`, `all` or `@*`.
    Everyone,
    /// `(…)`.
    Parentheses(Box<Set>),
    /// `@name`: a scaling group, or a group that an admin defined.
    Group(String),
    /// `{…}`.
    Selector(Selector),
    /// A name, with or without ranges and wildcards.
    Pattern(Pattern),
}

impl fmt::Display for Expression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.set.fmt(f)
    }
}

impl fmt::Display for Set {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (place, atom) in self.union.iter().enumerate() {
            if place > 0 {
                f.write_str(",")?;
            }
            atom.fmt(f)?;
        }
        self.filters.iter().try_for_each(|filter| filter.fmt(f))
    }
}

impl fmt::Display for SetFilter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sign = match self.operation {
            Operation::Keep => '&',
            Operation::Drop => '!',
        };
        write!(f, "{sign}{}", self.atom)
    }
}

impl fmt::Display for Atom {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.term {
            Term::Everyone => f.write_str("*"),
            Term::Parentheses(set) => write!(f, "({set})"),
            Term::Group(name) => write!(f, "@{name}"),
            Term::Selector(selector) => selector.fmt(f),
            Term::Pattern(pattern) => pattern.fmt(f),
        }
    }
}
