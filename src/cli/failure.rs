//! The message of a command that failed: the thing, the reason and the remedy, on one line. Only an error in an
//! expression takes more lines: the expression, and a caret below the mistake.

use std::{borrow::Cow, fmt, process::ExitCode};

use crate::cli::text;

/// A result with [`Failure`].
pub(crate) type Result<T, E = Failure> = std::result::Result<T, E>;

/// Why a command did not do what it was asked.
#[derive(Debug)]
pub(crate) struct Failure {
    what: Option<String>,
    why: String,
    remedy: Option<String>,
    /// Lines below the message, with their columns kept.
    below: Vec<String>,
    is_usage: bool,
    may_pass: bool,
}

impl Failure {
    /// A failure of a command that was called correctly: exit code 1.
    pub(crate) fn failed(what: impl Into<String>, why: impl Into<String>) -> Self {
        Self {
            what: Some(what.into()),
            why: why.into(),
            remedy: None,
            below: Vec::new(),
            is_usage: false,
            may_pass: false,
        }
    }

    /// Makes a failure as [`Failure::failed`] does, from a foreign reason that may already name `what`.
    pub(crate) fn about(what: &str, why: impl Into<String>) -> Self {
        let failure = Self::failed(what, why);
        let edges: &[char] = &['"', '\'', ':', ',', ';', '.', '(', ')'];
        let names_it = failure.why.split_whitespace().any(|word| word.trim_matches(edges) == what);
        Self { what: failure.what.filter(|_| !names_it), ..failure }
    }

    /// A failure of a command that was called wrongly: exit code 2.
    pub(crate) fn usage(why: impl Into<String>) -> Self {
        Self { what: None, why: why.into(), remedy: None, below: Vec::new(), is_usage: true, may_pass: false }
    }

    /// Shows these lines below the message, with their leading blanks kept.
    pub(crate) fn below(mut self, lines: &str) -> Self {
        self.below = lines.lines().map(|line| text::shown(line.trim_end()).into_owned()).collect();
        self
    }

    /// Adds what to do about it.
    pub(crate) fn remedy(mut self, remedy: impl Into<String>) -> Self {
        self.remedy = Some(remedy.into());
        self
    }

    /// Marks a failure that may pass soon: the server is restarting, the network was away.
    pub(crate) fn passing(mut self) -> Self {
        self.may_pass = true;
        self
    }

    /// Whether trying again may help.
    pub(crate) fn may_pass(&self) -> bool {
        self.may_pass
    }

    /// The thing and the reason alone, for when the user does not have to act yet.
    pub(crate) fn reason(&self) -> String {
        let what = self.what.as_ref().map(|what| format!("{}: ", text::one_line(what))).unwrap_or_default();
        // Reasons from servers may end with a full stop, but this message goes on.
        format!("{what}{}", without_errno(&text::one_line(&self.why)).trim_end_matches(['.', ' ']))
    }

    /// What to do about it, if that is known.
    pub(crate) fn advice(&self) -> Option<&str> {
        self.remedy.as_deref()
    }

    /// The process's exit code.
    pub(crate) fn exit_code(&self) -> ExitCode {
        ExitCode::from(if self.is_usage { 2 } else { 1 })
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.reason())?;
        if let Some(remedy) = &self.remedy {
            write!(f, "; {}", text::one_line(remedy))?;
        }
        self.below.iter().try_for_each(|line| write!(f, "\n  {line}"))
    }
}

/// Removes the number of a system error, which helps no user: ` (os error 2)`.
pub(crate) fn without_errno(why: &str) -> Cow<'_, str> {
    let parts =
        why.split_once(" (os error ").and_then(|(before, rest)| Some((before, rest.split_once(')')?.1)));
    parts.map_or(Cow::Borrowed(why), |(before, after)| Cow::Owned(format!("{before}{after}")))
}

#[cfg(test)]
mod tests {
    use crate::cli::failure::Failure;

    #[test]
    fn a_failure_is_one_line_of_thing_reason_and_remedy() {
        let failure = Failure::failed("cr.io/a:1", "no such\nimage.").remedy("see wharf image list");
        assert_eq!(failure.to_string(), "cr.io/a:1: no such image; see wharf image list");
        let system = Failure::failed("/nowhere", std::io::Error::from_raw_os_error(2).to_string());
        assert_eq!(system.to_string(), "/nowhere: No such file or directory");
        let inside = Failure::failed("serve", "/x: Permission denied (os error 13); it was left as it is");
        assert_eq!(inside.to_string(), "serve: /x: Permission denied; it was left as it is");
        let named = Failure::about("py", "no such image: py").remedy("see wharf image list");
        assert_eq!(named.to_string(), "no such image: py; see wharf image list");
        assert_eq!(Failure::about("py", "no python").to_string(), "py: no python");
        let caret = Failure::failed("x", "SYNTAX at 1").remedy("y").below("g\u{1b};\n ^\n");
        assert_eq!(caret.to_string(), "x: SYNTAX at 1; y\n  g\\u{1b};\n   ^");
        let hostile = Failure::failed("x", "\u{1b}[2Jgone");
        assert_eq!(hostile.to_string(), "x: \\u{1b}[2Jgone");
    }
}
