//! The images of a rule: a pattern for canonical names, `registry/name:tag`.
//!
//! `*` stands for any characters or none, including `/` and `:`; `?` for any one character; every other character for
//! itself. A pattern must match the whole name, so `cr.lab/python:3.*` matches neither `cr.lab/python-gpu:3.9` nor
//! `mirror.cr.lab/python:3.9`.

use std::fmt;

use crate::base::reference::{as_told, full_name, registry_name, shown};
use crate::base::{Error, Result};
use crate::fleet::pattern::{self, Matcher, Pattern, Piece};

/// Longest pattern, in bytes: a canonical name has at most 384.
const MAX_BYTES: usize = 512;

/// A pattern for canonical names of images.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ImagePattern(Pattern);

impl ImagePattern {
    /// Parses a pattern.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a pattern that no image's name could match.
    pub(crate) fn parse(text: &str) -> Result<Self> {
        let text = text.trim();
        let refuse = |why: String| Err(Error::invalid("images", format!("{:?} {why}", shown(text))));
        if text.is_empty() {
            let why = "it is empty; write registry/name:tag, where * stands for any characters";
            return Err(Error::invalid("images", why));
        }
        if text.len() > MAX_BYTES {
            return refuse(format!("is longer than {MAX_BYTES} bytes"));
        }
        if text.contains("://") {
            return refuse("has a protocol scheme; write registry/name:tag".into());
        }
        if text.contains('@') {
            return refuse("has a digest; a rule follows names, so write registry/name:tag".into());
        }
        // Only an IPv6 address has brackets, and it comes first.
        let rest =
            text.strip_prefix('[').and_then(|rest| rest.split_once(']')).map_or(text, |(_, rest)| rest);
        if rest.contains(['[', ']']) {
            return refuse("has brackets; images have no ranges, only * and ?".into());
        }
        if let Some(other) = rest.chars().find(|c| !is_of_name(*c)) {
            return refuse(format!("has {other:?}, which no image's name has"));
        }
        if !rest.contains(['/', '*']) {
            return refuse(format!("names no registry; write */{rest} for any, or cr.example.org/{rest}"));
        }
        let last = text.rsplit('/').next().unwrap_or_default();
        if !last.contains([':', '*']) {
            return refuse(format!("has no tag; write {}:* for every tag", shown(text)));
        }
        Ok(Self(Pattern { pieces: pieces(&spelt(text)) }))
    }

    /// Prepares the pattern for matching many names.
    pub(crate) fn ready(&self) -> Ready<'_> {
        Ready { prefix: self.0.prefix(), matcher: Matcher::new(&self.0) }
    }
}

impl fmt::Display for ImagePattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A pattern prepared for matching; see [`ImagePattern::ready`].
pub(crate) struct Ready<'a> {
    prefix: &'a str,
    matcher: pattern::Matcher<'a>,
}

impl Ready<'_> {
    /// Whether the pattern matches this canonical name.
    pub(crate) fn takes(&mut self, canonical: &str) -> bool {
        let canonical = as_told(canonical);
        // A cheap check first: most names in a catalog differ early.
        canonical.starts_with(self.prefix) && self.matcher.matches(&canonical)
    }
}

/// The pattern with its registry in the one spelling that images' names have.
fn spelt(text: &str) -> String {
    match text.split_once('/') {
        Some((host, name)) if !host.contains(['*', '?']) => {
            let registry = registry_name(host);
            let is_one_name = !name.split(':').next().unwrap_or_default().contains(['*', '?']);
            if is_one_name { full_name(&registry, name) } else { format!("{registry}/{name}") }
        }
        _ => text.to_owned(),
    }
}

fn is_of_name(c: char) -> bool {
    c.is_ascii_alphanumeric() || "._-/:*?".contains(c)
}

fn pieces(text: &str) -> Vec<Piece> {
    let mut pieces: Vec<Piece> = Vec::new();
    for c in text.chars() {
        match (c, pieces.last_mut()) {
            ('*', Some(Piece::Star)) => {}
            ('*', _) => pieces.push(Piece::Star),
            ('?', _) => pieces.push(Piece::Any),
            (c, Some(Piece::Text(text))) => text.push(c),
            (c, _) => pieces.push(Piece::Text(c.into())),
        }
    }
    pieces
}

#[cfg(test)]
mod tests {
    use super::ImagePattern;

    fn takes(pattern: &str, name: &str) -> bool {
        ImagePattern::parse(pattern).unwrap().ready().takes(name)
    }

    #[test]
    fn a_pattern_is_held_against_the_whole_name() {
        for (pattern, name) in [
            ("cr.lab/*", "cr.lab/a:1"),
            ("cr.lab/*", "cr.lab/deep/down/a:1"),
            ("cr.lab:5000/python:*", "cr.lab:5000/python:3.9"),
            ("*/python:3.?", "cr.lab/python:3.9"),
            ("*", "cr.lab/a:1"),
            ("*:latest", "cr.lab/a:latest"),
            (" cr.lab/a:1 ", "cr.lab/a:1"),
            ("cr.lab/a**b:1", "cr.lab/ab:1"),
            ("[::1]:5000/*", "[::1]:5000/a:1"),
            ("CR.lab/*", "cr.lab/a:1"),
            ("index.docker.io/lablup/*", "docker.io/lablup/python:3.9"),
            ("docker.io/alpine:3.*", "docker.io/library/alpine:3.20"),
            ("docker.io/*", "docker.io/library/alpine:3.20"),
            // As registries were stored before names had one spelling.
            ("index.docker.io/*", "index.docker.io/library/alpine:3.20"),
            ("docker.io/alpine:*", "registry-1.docker.io/library/alpine:3.20"),
            ("CR.lab/*", "CR.lab/a:1"),
        ] {
            assert!(takes(pattern, name), "{pattern} {name}");
        }
        for (pattern, name) in [
            ("cr.lab/python:3.*", "cr.lab/python-gpu:3.9"),
            ("cr.lab/python:3.*", "mirror.cr.lab/python:3.9"),
            ("*/python:3.?", "cr.lab/python:3.10"),
            ("*:latest", "cr.lab/a:latest2"),
            ("cr.lab/A:*", "cr.lab/a:1"),
        ] {
            assert!(!takes(pattern, name), "{pattern} {name}");
        }
    }

    #[test]
    fn a_pattern_that_matches_nothing_says_what_would() {
        for (pattern, words) in [
            ("", "is empty"),
            ("  ", "is empty"),
            ("python:3.9", "write */python:3.9 for any"),
            ("cr.lab/python", "write cr.lab/python:* for every tag"),
            ("https://cr.lab/python:3", "protocol"),
            ("cr.lab/python@sha256:00", "follows names"),
            ("cr.lab/gpu[01-16]:1", "no ranges"),
            ("cr.lab/a b:1", "' '"),
            ("cr.lab/é:1", "'é'"),
            (&format!("cr.lab/{}:1", "a".repeat(512)), "longer than 512"),
        ] {
            let error = ImagePattern::parse(pattern).unwrap_err().to_string();
            assert!(error.starts_with("images: ") && error.contains(words), "{pattern}: {error}");
        }
    }

    #[test]
    fn no_pattern_is_slow() {
        let stars = format!("{}b", "*a".repeat(200));
        assert!(!takes(&stars, &"a".repeat(380)));
    }

    #[test]
    fn a_pattern_is_written_as_it_was_read() {
        assert_eq!(ImagePattern::parse("cr.lab/**x?:3*").unwrap().to_string(), "cr.lab/*x?:3*");
    }
}
