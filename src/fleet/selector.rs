//! Label selectors, exactly as `kubectl -l` parses them: `{gpu in (a100,h100),zone!=b,!cordoned}`.
//!
//! Missing labels are treated as in Kubernetes: `!=` and `notin` also match an agent that does not have the label.

use std::fmt;

/// A selector: all of its requirements must hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Selector {
    /// At least one.
    pub requirements: Vec<Requirement>,
}

/// A requirement on one label.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Requirement {
    /// The label's key.
    pub key: String,
    /// The condition on its value.
    pub condition: Condition,
}

/// A condition on a label.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Condition {
    /// `key`: the label exists, with any value.
    Present,
    /// `!key`: the label does not exist.
    Absent,
    /// `key=value`: the label has this value.
    Equal(String),
    /// `key!=value`: the label has another value, or does not exist.
    NotEqual(String),
    /// `key in (…)`: the label has one of these values.
    In(Vec<String>),
    /// `key notin (…)`: the label has none of these values, or does not exist.
    NotIn(Vec<String>),
}

impl Requirement {
    /// Whether a label with this value, or no such label, meets the requirement.
    pub(crate) fn allows(&self, value: Option<&str>) -> bool {
        match (&self.condition, value) {
            (Condition::Present, value) => value.is_some(),
            (Condition::Absent, value) => value.is_none(),
            (Condition::Equal(_) | Condition::In(_), None) => false,
            (Condition::NotEqual(_) | Condition::NotIn(_), None) => true,
            (Condition::Equal(wanted), Some(value)) => wanted == value,
            (Condition::NotEqual(unwanted), Some(value)) => unwanted != value,
            (Condition::In(wanted), Some(value)) => wanted.iter().any(|one| one == value),
            (Condition::NotIn(unwanted), Some(value)) => unwanted.iter().all(|one| one != value),
        }
    }
}

impl Selector {
    /// Parses a selector at the start of the text; returns it and its length in bytes, braces included.
    ///
    /// # Errors
    /// The reason why the text is not a selector.
    pub(crate) fn read(text: &str) -> Result<(Self, usize), String> {
        let mut reader = Reader { text, at: 0 };
        reader.skip("{");
        let mut requirements = vec![reader.requirement()?];
        while reader.skip(",") {
            requirements.push(reader.requirement()?);
        }
        if reader.skip("}") {
            Ok((Self { requirements }, reader.at))
        } else {
            Err(reader.surprise("`,` or `}`"))
        }
    }
}

struct Reader<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Reader<'a> {
    fn rest(&self) -> &'a str {
        self.text.get(self.at..).unwrap_or_default()
    }

    fn blanks(&mut self) {
        let rest = self.rest();
        self.at += rest.len() - rest.trim_start_matches([' ', '\t', '\r', '\n']).len();
    }

    /// Skips blanks and then this sign, if it is next.
    fn skip(&mut self, sign: &str) -> bool {
        self.blanks();
        let found = self.rest().starts_with(sign);
        if found {
            self.at += sign.len();
        }
        found
    }

    /// Takes the characters up to the next blank or sign; may be empty.
    fn word(&mut self) -> &'a str {
        self.blanks();
        let rest = self.rest();
        let within = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | '/');
        let (word, _) = rest.split_at(rest.find(|c| !within(c)).unwrap_or(rest.len()));
        self.at += word.len();
        word
    }

    fn surprise(&self, wanted: &str) -> String {
        match self.rest().chars().next() {
            None => format!("a selector in braces is not closed; {wanted} is missing"),
            Some(found) => format!("in the braces, {wanted} should stand where {found:?} is"),
        }
    }

    fn requirement(&mut self) -> Result<Requirement, String> {
        let absent = self.skip("!");
        let key = self.key()?;
        let condition = if absent { Condition::Absent } else { self.condition()? };
        Ok(Requirement { key, condition })
    }

    fn key(&mut self) -> Result<String, String> {
        let key = self.word();
        if key.is_empty() {
            return Err(self.surprise("a label"));
        }
        let (prefix, name) = key.split_once('/').map_or((None, key), |(prefix, name)| (Some(prefix), name));
        if prefix.is_some_and(|prefix| !is_subdomain(prefix)) || name.is_empty() || !is_label_name(name) {
            return Err(
                "a label is called such as `rack` or `lab.example/rack`: at most 63 letters, digits, `-`, `_` \
                 and `.` after the slash, none of these signs first or last"
                    .into(),
            );
        }
        Ok(key.to_owned())
    }

    fn condition(&mut self) -> Result<Condition, String> {
        if self.skip("!=") {
            return Ok(Condition::NotEqual(self.value()?));
        }
        if self.skip("==") || self.skip("=") {
            return Ok(Condition::Equal(self.value()?));
        }
        self.blanks();
        match self.rest().chars().next() {
            Some(',' | '}') => return Ok(Condition::Present),
            Some('>' | '<') => return Err("comparing numbers with `>` and `<` is not supported".into()),
            _ => {}
        }
        let start = self.at;
        match self.word() {
            "in" => Ok(Condition::In(self.values()?)),
            "notin" => Ok(Condition::NotIn(self.values()?)),
            _ => {
                self.at = start;
                Err(self.surprise("`=`, `!=`, `in`, `notin`, `,` or `}`"))
            }
        }
    }

    fn values(&mut self) -> Result<Vec<String>, String> {
        if !self.skip("(") {
            return Err(self.surprise("`(`"));
        }
        let mut values = vec![self.value()?];
        while self.skip(",") {
            values.push(self.value()?);
        }
        if self.skip(")") { Ok(values) } else { Err(self.surprise("`,` or `)`")) }
    }

    fn value(&mut self) -> Result<String, String> {
        let value = self.word();
        if is_label_name(value) {
            return Ok(value.to_owned());
        }
        Err("a label's value has at most 63 letters, digits, `-`, `_` and `.`, none of these signs first or last"
            .into())
    }
}

/// Whether this is a label's value, or if not empty a label's name, that Kubernetes allows.
fn is_label_name(text: &str) -> bool {
    let within = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
    let (first, last) = (text.bytes().next(), text.bytes().next_back());
    text.len() <= 63
        && text.bytes().all(within)
        && first.into_iter().chain(last).all(|b| b.is_ascii_alphanumeric())
}

fn is_subdomain(text: &str) -> bool {
    let part = |part: &str| {
        let within = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
        !part.is_empty() && part.bytes().all(within) && !part.starts_with('-') && !part.ends_with('-')
    };
    text.len() <= 253 && text.split('.').all(part)
}

impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (place, requirement) in self.requirements.iter().enumerate() {
            write!(f, "{}{requirement}", if place == 0 { '{' } else { ',' })?;
        }
        f.write_str("}")
    }
}

impl fmt::Display for Requirement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let key = &self.key;
        match &self.condition {
            Condition::Present => f.write_str(key),
            Condition::Absent => write!(f, "!{key}"),
            Condition::Equal(value) => write!(f, "{key}={value}"),
            Condition::NotEqual(value) => write!(f, "{key}!={value}"),
            Condition::In(values) => write!(f, "{key} in ({})", values.join(",")),
            Condition::NotIn(values) => write!(f, "{key} notin ({})", values.join(",")),
        }
    }
}
