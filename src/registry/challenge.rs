//! The `WWW-Authenticate` header, as registries and the proxies in front of them write it.

use reqwest::header::{HeaderMap, WWW_AUTHENTICATE};

/// Most text of all challenges together, in bytes. Real ones have 300.
const MAX_TEXT: usize = 16 * 1024;
/// Most challenges read.
const MAX_CHALLENGES: usize = 16;
/// Most parameters read per challenge.
const MAX_PARAMETERS: usize = 32;

/// One way in which a server lets a client authenticate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Challenge {
    /// `bearer`, `basic`, …, in lower case.
    pub(crate) scheme: String,
    parameters: Vec<(String, String)>,
}

impl Challenge {
    /// The value of this parameter (its name in lower case).
    pub(crate) fn parameter(&self, name: &str) -> Option<&str> {
        self.parameters.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }
}

/// All challenges of a response.
pub(crate) fn challenges(headers: &HeaderMap) -> Vec<Challenge> {
    let mut found = Vec::new();
    let mut budget = MAX_TEXT;
    for value in headers.get_all(WWW_AUTHENTICATE) {
        let text = String::from_utf8_lossy(value.as_bytes());
        let Some(left) = budget.checked_sub(text.len()) else { continue };
        budget = left;
        found.append(&mut parse(&text));
    }
    found.truncate(MAX_CHALLENGES);
    found
}

/// Parses one header line. RFC 9110 leaves it ambiguous whether a comma ends a parameter or a challenge; the text
/// after it decides: a word with `=` behind it is a parameter, a word without is a scheme. Text that fits neither is
/// skipped.
fn parse(text: &str) -> Vec<Challenge> {
    let mut found: Vec<Challenge> = Vec::new();
    let mut input = Input { rest: text };
    while found.len() <= MAX_CHALLENGES {
        input.skip(|c| c == ',' || c.is_whitespace());
        if input.rest.is_empty() {
            break;
        }
        let word = input.take(is_word);
        if word.is_empty() {
            input.skip(|c| c != ',');
            continue;
        }
        let before_space = input.rest;
        input.skip(char::is_whitespace);
        if input.eat('=') && !input.rest.starts_with('=') {
            input.skip(char::is_whitespace);
            let value = input.value();
            if let Some(last) = found.last_mut().filter(|last| last.parameters.len() < MAX_PARAMETERS) {
                last.parameters.push((word.to_ascii_lowercase(), value));
            }
        } else {
            input.rest = before_space;
            found.push(Challenge { scheme: word.to_ascii_lowercase(), parameters: Vec::new() });
            input.skip_token68();
        }
    }
    found
}

/// Whether this is a character of tokens (RFC 9110, 5.6.2).
fn is_word(c: char) -> bool {
    c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c)
}

struct Input<'a> {
    rest: &'a str,
}

impl<'a> Input<'a> {
    fn take(&mut self, fits: impl Fn(char) -> bool) -> &'a str {
        let end = self.rest.find(|c| !fits(c)).unwrap_or(self.rest.len());
        let (taken, rest) = self.rest.split_at_checked(end).unwrap_or((self.rest, ""));
        self.rest = rest;
        taken
    }

    fn skip(&mut self, fits: impl Fn(char) -> bool) {
        self.take(fits);
    }

    fn eat(&mut self, wanted: char) -> bool {
        let after = self.rest.strip_prefix(wanted);
        self.rest = after.unwrap_or(self.rest);
        after.is_some()
    }

    /// Reads a quoted string with its escapes undone, or everything up to the next comma or space (some servers omit
    /// the quotes, even around URLs). A quote that is not closed ends with the line.
    fn value(&mut self) -> String {
        if !self.eat('"') {
            return self.take(|c| c != ',' && !c.is_whitespace()).to_owned();
        }
        let mut value = String::new();
        let mut characters = self.rest.chars();
        while let Some(c) = characters.next() {
            match c {
                '"' => break,
                '\\' => value.extend(characters.next()),
                _ => value.push(c),
            }
        }
        self.rest = characters.as_str();
        value
    }

    /// Skips the blob that may follow a scheme instead of parameters: `Negotiate dG9rZW4==`.
    fn skip_token68(&mut self) {
        let start = self.rest;
        self.skip(char::is_whitespace);
        let blob = self.take(|c| c.is_ascii_alphanumeric() || "-._~+/".contains(c));
        let padding = self.take(|c| c == '=');
        self.skip(char::is_whitespace);
        let ends = self.rest.is_empty() || self.rest.starts_with(',');
        // `Basic` alone before a comma is a scheme without parameters; `Bearer realm=` is an empty parameter.
        if blob.is_empty() || !ends || (padding.len() == 1 && blob.eq_ignore_ascii_case("realm")) {
            self.rest = start;
        }
    }
}

#[cfg(test)]
mod tests {
    use reqwest::header::{HeaderMap, WWW_AUTHENTICATE};

    use super::{MAX_CHALLENGES, challenges, parse};

    fn shown(text: &str) -> String {
        let one = |c: &super::Challenge| {
            let parameters: Vec<_> = c.parameters.iter().map(|(k, v)| format!("{k}={v}")).collect();
            format!("{}[{}]", c.scheme, parameters.join("|"))
        };
        parse(text).iter().map(one).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn challenges_are_read_in_every_spelling_met() {
        for (text, expected) in [
            (
                r#"Bearer realm="https://auth.docker.io/token",service="registry.docker.io",scope="repository:a/b:pull,push""#,
                "bearer[realm=https://auth.docker.io/token|service=registry.docker.io|scope=repository:a/b:pull,push]",
            ),
            (r#"Basic realm="Registry Realm""#, "basic[realm=Registry Realm]"),
            ("Basic", "basic[]"),
            ("BASIC realm=simple", "basic[realm=simple]"),
            (r#"Basic realm="a", Bearer realm="b",service="c""#, "basic[realm=a] bearer[realm=b|service=c]"),
            (
                r#"Bearer realm="b" , service = "c" ,Basic realm="a""#,
                "bearer[realm=b|service=c] basic[realm=a]",
            ),
            ("Bearer realm=https://a.b/c?d=e,service=x", "bearer[realm=https://a.b/c?d=e|service=x]"),
            (r#"Bearer realm="a\"b\\c""#, r#"bearer[realm=a"b\c]"#),
            (r#"Bearer realm="unterminated,service="#, "bearer[realm=unterminated,service=]"),
            (r#"Bearer realm="ends with \"#, "bearer[realm=ends with ]"),
            ("Negotiate", "negotiate[]"),
            ("Negotiate dG9rZW4=, Basic realm=x", "negotiate[] basic[realm=x]"),
            ("Negotiate dG9rZW4==", "negotiate[]"),
            ("NTLM abc/def+ghi, Bearer realm=y", "ntlm[] bearer[realm=y]"),
            ("Negotiate, NTLM, Basic realm=x", "negotiate[] ntlm[] basic[realm=x]"),
            (",,, Basic realm=x,,", "basic[realm=x]"),
            ("Bearer realm=", "bearer[realm=]"),
            (r#"Bearer realm="",error="invalid_token""#, "bearer[realm=|error=invalid_token]"),
            ("Bearer REALM=x", "bearer[realm=x]"),
            (r#"Bearer realm="b" service="c""#, "bearer[realm=b|service=c]"),
            ("\"quoted\" nonsense", ""),
            ("realm=\"x\"", ""),
            ("=, =x, @@@, Basic realm=x", "basic[realm=x]"),
            ("Bearer realm=\"\u{fc}\"", "bearer[realm=\u{fc}]"),
            ("", ""),
            ("   ", ""),
        ] {
            assert_eq!(shown(text), expected, "{text}");
        }
    }

    #[test]
    fn several_headers_add_up_and_floods_are_bounded() {
        let mut headers = HeaderMap::new();
        headers.append(WWW_AUTHENTICATE, "Basic realm=a".parse().unwrap());
        headers.append(WWW_AUTHENTICATE, "Bearer realm=b".parse().unwrap());
        assert_eq!(challenges(&headers).len(), 2);
        headers.append(WWW_AUTHENTICATE, "Basic realm=x, ".repeat(2000).parse().unwrap());
        assert_eq!(challenges(&headers).len(), 2);
        headers.append(WWW_AUTHENTICATE, "Basic realm=x, ".repeat(500).parse().unwrap());
        assert_eq!(challenges(&headers).len(), MAX_CHALLENGES);
        let many = format!("Bearer {}", "a=b,".repeat(2000));
        assert_eq!(parse(&many)[0].parameters.len(), super::MAX_PARAMETERS);
    }
}
