//! The result of a check, and how it is shown.

use std::fmt;

use serde::Serialize;

use crate::cli::{
    self,
    failure::{Failure, Result},
    json, table, text,
};

/// Most findings of one kind that are shown one by one.
const MOST: usize = 20;

/// The verdict of a check.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Verdict {
    /// All is as it should be.
    Ok,
    /// It works, but an administrator should look at it.
    Warn,
    /// It does not work, or gives access to strangers.
    Fail,
}

impl Verdict {
    fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warn => "warn",
            Self::Fail => "fail",
        }
    }
}

/// The result of a check.
#[derive(Debug, Serialize)]
pub(super) struct Finding {
    result: Verdict,
    check: String,
    found: String,
    remedy: Option<String>,
}

impl Finding {
    pub(super) fn ok(check: impl Into<String>, found: impl Into<String>) -> Self {
        Self { result: Verdict::Ok, check: check.into(), found: found.into(), remedy: None }
    }

    pub(super) fn warn(
        check: impl Into<String>,
        found: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Self {
        Self { result: Verdict::Warn, remedy: Some(remedy.into()), ..Self::ok(check, found) }
    }

    pub(super) fn fail(
        check: impl Into<String>,
        found: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Self {
        Self { result: Verdict::Fail, remedy: Some(remedy.into()), ..Self::ok(check, found) }
    }

    /// A failed check, with the failure that another command would have ended with.
    pub(super) fn failed(check: impl Into<String>, why: &Failure) -> Self {
        Self {
            result: Verdict::Fail,
            remedy: why.advice().map(str::to_owned),
            ..Self::ok(check, why.reason())
        }
    }

    fn said(&self) -> String {
        let remedy = self.remedy.as_ref().map(|remedy| format!("; {remedy}")).unwrap_or_default();
        text::one_line(&format!("{}{remedy}", self.found))
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}: {}", self.result.as_str(), text::one_line(&self.check), self.said())
    }
}

/// The first [`MOST`] findings of a kind, and a finding with the number of the others.
pub(super) fn some(mut findings: Vec<Finding>, kind: &str, all: &str) -> Vec<Finding> {
    let more = findings.len().saturating_sub(MOST);
    if more > 0 {
        let result = findings.drain(MOST..).map(|finding| finding.result).max().unwrap_or(Verdict::Warn);
        let counted = Finding::warn(kind, format!("{more} more like these"), format!("see {all}"));
        findings.push(Finding { result, ..counted });
    }
    findings
}

/// Prints all findings.
///
/// # Errors
/// A failure if any finding is [`Verdict::Fail`].
pub(super) fn report(findings: &[Finding], as_json: bool) -> Result<()> {
    if as_json {
        json::print(&findings)?;
    } else {
        let row =
            |finding: &Finding| vec![finding.result.as_str().into(), finding.check.clone(), finding.said()];
        cli::print(&table::rows(&["RESULT", "CHECK", "FOUND"], findings.iter().map(row)))?;
    }
    match findings.iter().filter(|finding| finding.result == Verdict::Fail).count() {
        0 => Ok(()),
        failed => Err(Failure::failed("doctor", format!("{failed} of {} checks failed", findings.len()))),
    }
}

#[cfg(test)]
mod tests {
    use super::{Finding, MOST, report, some};

    #[test]
    fn a_finding_is_one_line_that_no_terminal_obeys() {
        let finding = Finding::warn("a\u{1b}", "b\nc", "d");
        assert_eq!(finding.to_string(), "warn a\\u{1b}: b c; d");
    }

    #[test]
    fn many_alike_are_counted() {
        let many = |n| (0..n).map(|n| Finding::fail(format!("agent {n}"), "x", "y")).collect::<Vec<_>>();
        assert_eq!(some(many(MOST), "agents", "z").len(), MOST);
        let shown = some(many(MOST + 5), "agents", "z");
        assert_eq!(shown.len(), MOST + 1);
        assert_eq!(shown[MOST].to_string(), "fail agents: 5 more like these; see z");
    }

    #[test]
    fn only_what_fails_is_a_failure() {
        report(&[Finding::ok("a", "b"), Finding::warn("a", "b", "c")], false).unwrap();
        let failure = report(&[Finding::ok("a", "b"), Finding::fail("a", "b", "c")], true).unwrap_err();
        assert_eq!(failure.to_string(), "doctor: 1 of 2 checks failed");
    }
}
