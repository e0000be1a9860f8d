//! Failures of engines, in classes that a transfer can act on.

use std::error::Error;
use std::fmt;
use std::io;
use std::time::Duration;

/// The longest message kept from an engine, in characters: enough for Docker's longest (two references and a URL), too
/// little to flood a task's record.
const MAX_MESSAGE: usize = 400;

/// The text shown in place of credentials.
const HIDDEN: &str = "[secret]";
/// Shorter text after `Basic` or `Bearer` is an ordinary word: this is the shortest password, with a user, in base64.
const SHORTEST_CREDENTIALS: usize = 12;

/// A failed operation of an engine. It prints as one line and never contains credentials.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// The class of the failure, for decisions.
    pub class: Class,
    /// The message for people: the engine's or the system's own words, or ours with the remedy.
    pub message: String,
}

/// The classes of failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Class {
    /// The node's disk is full.
    NoSpace,
    /// The registry refused the credentials, or wants some.
    Unauthorized,
    /// The registry has no such repository, tag or manifest.
    NotFound,
    /// The registry has the image, but not for this processor or system.
    WrongPlatform,
    /// The engine does not answer, or its connection broke. Whether the operation went through is unknown.
    EngineGone,
    /// The engine can't reach the registry, or the registry is in passing trouble.
    Network,
    /// Something on the node uses the image.
    InUse,
    /// We were asked to stop.
    Stopped,
    /// Anything else; trying again won't help.
    Other,
}

impl Fault {
    /// A fault of this class; the message is cut to one line of limited length.
    pub(crate) fn new(class: Class, message: impl AsRef<str>) -> Self {
        Self { class, message: one_line(message.as_ref()) }
    }

    /// A fault that the engine reported, classed by its words.
    pub(crate) fn told(message: &str) -> Self {
        Self::new(classify(message), message)
    }

    /// A fault for a connection that can't be made, or broke.
    pub(crate) fn broken(error: &(dyn Error + 'static)) -> Self {
        let mut text = error.to_string();
        let mut system = error.downcast_ref::<io::Error>().map(io::Error::kind);
        let mut cause = error.source();
        while let Some(inner) = cause {
            system = inner.downcast_ref::<io::Error>().map(io::Error::kind).or(system);
            let said = inner.to_string();
            if !text.contains(&said) {
                text = format!("{text}: {said}");
            }
            cause = inner.source();
        }
        let (class, remedy) = match system {
            Some(io::ErrorKind::FileTooLarge) => (Class::Other, ""),
            Some(io::ErrorKind::PermissionDenied) => (
                Class::EngineGone,
                "; the user wharf runs as must be allowed to use the engine's socket (Docker's: group docker)",
            ),
            Some(io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused) => {
                (Class::EngineGone, "; is the engine running there?")
            }
            _ => (Class::EngineGone, ""),
        };
        Self::new(class, format!("{text}{remedy}"))
    }

    /// A fault for an engine that did not answer in time.
    pub(crate) fn silent(doing: &str, limit: Duration) -> Self {
        Self::new(Class::EngineGone, format!("the engine did not answer within {limit:?}: {doing}"))
    }

    /// A fault for an operation that we stopped.
    pub(crate) fn stopped() -> Self {
        Self::new(Class::Stopped, "stopped on request")
    }

    /// Whether the same operation may succeed later without any change.
    pub fn is_transient(&self) -> bool {
        matches!(self.class, Class::EngineGone | Class::Network)
    }
}

impl Class {
    /// The class in a word or two, as task records and metrics show it.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::NoSpace => "no space",
            Self::Unauthorized => "unauthorized",
            Self::NotFound => "not found",
            Self::WrongPlatform => "wrong platform",
            Self::EngineGone => "engine gone",
            Self::Network => "network",
            Self::InUse => "in use",
            Self::Stopped => "stopped",
            Self::Other => "other",
        }
    }
}

impl fmt::Display for Class {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // "other: " would say nothing, so the message stands alone.
        match self.class {
            Class::Other => f.write_str(&self.message),
            class => write!(f, "{class}: {}", self.message),
        }
    }
}

impl Error for Fault {}

/// Foreign text as one line of at most [`MAX_MESSAGE`] characters, without control characters or credentials.
pub(crate) fn one_line(text: &str) -> String {
    // Credentials are hidden before the text is cut: half a password is still a secret.
    let text = without_credentials(&text.trim().chars().take(MAX_MESSAGE * 4).collect::<String>());
    let mut line: String = text
        .chars()
        .take(MAX_MESSAGE)
        .map(|c| if c.is_control() || matches!(c, '\u{2028}'..='\u{202e}') { ' ' } else { c })
        .collect();
    if text.chars().nth(MAX_MESSAGE).is_some() {
        line.push_str("...");
    }
    line
}

/// The text without credentials: user and password in a URL, and the words after the schemes of HTTP's `Authorization`.
fn without_credentials(text: &str) -> String {
    let ends = |c: char| c.is_whitespace() || matches!(c, '"' | '\'' | '<' | '>' | ',' | ';');
    let mut kept = String::with_capacity(text.len());
    let mut is_secret_next = false;
    for word in text.split_inclusive(ends) {
        let (bare, end) = word
            .char_indices()
            .last()
            .filter(|(_, c)| ends(*c))
            .map_or((word, ""), |(at, _)| word.split_at(at));
        // "no basic auth credentials" contains no credentials.
        if is_secret_next && bare.len() >= SHORTEST_CREDENTIALS {
            kept.push_str(HIDDEN);
        } else {
            push_url(&mut kept, bare);
        }
        kept.push_str(end);
        is_secret_next = bare.is_empty() && is_secret_next
            || bare.eq_ignore_ascii_case("bearer")
            || bare.eq_ignore_ascii_case("basic");
    }
    kept
}

/// Adds a word; if it is or contains a URL, without user and password.
fn push_url(kept: &mut String, word: &str) {
    let (before, rest) = word.split_once("://").map_or((word, None), |(before, rest)| (before, Some(rest)));
    kept.push_str(before);
    let Some(rest) = rest else { return };
    let authority = rest.find(['/', '?', '#']).map_or(rest, |end| rest.split_at(end).0);
    let hidden = authority.rfind('@').and_then(|at| rest.get(at..));
    kept.push_str("://");
    if hidden.is_some() {
        kept.push_str(HIDDEN);
    }
    kept.push_str(hidden.unwrap_or(rest));
}

/// Phrases of engines' messages in lower case, with their class, the most telling first. A daemon's status code says
/// little: Docker answers 500 for a refused password, an unknown host and a full disk alike.
const WORDS: &[(&str, Class)] = &[
    ("no space left on device", Class::NoSpace),
    ("disk quota exceeded", Class::NoSpace),
    ("no matching manifest for", Class::WrongPlatform),
    ("no match for platform", Class::WrongPlatform),
    ("does not match the specified platform", Class::WrongPlatform),
    ("cannot be used on this platform", Class::WrongPlatform),
    ("no image found in image index for architecture", Class::WrongPlatform),
    ("no image found in manifest list for architecture", Class::WrongPlatform),
    ("no basic auth credentials", Class::Unauthorized),
    ("unauthorized", Class::Unauthorized),
    ("authentication required", Class::Unauthorized),
    ("incorrect username or password", Class::Unauthorized),
    ("access denied", Class::Unauthorized),
    ("access to the resource is denied", Class::Unauthorized),
    ("manifest unknown", Class::NotFound),
    ("name unknown", Class::NotFound),
    ("repository name not known", Class::NotFound),
    ("blob unknown", Class::NotFound),
    ("no such image", Class::NotFound),
    ("is using its referenced image", Class::InUse),
    ("image is being used by", Class::InUse),
    ("image is in use by a container", Class::InUse),
    // An untrusted certificate does not become trusted by waiting, though a network error wraps it.
    ("x509:", Class::Other),
    ("server gave http response to https client", Class::Other),
    ("context canceled", Class::Stopped),
    ("connection refused", Class::Network),
    ("connection reset", Class::Network),
    ("no such host", Class::Network),
    ("server misbehaving", Class::Network),
    ("network is unreachable", Class::Network),
    ("no route to host", Class::Network),
    ("i/o timeout", Class::Network),
    ("timeout exceeded", Class::Network),
    ("handshake timeout", Class::Network),
    ("deadline exceeded", Class::Network),
    ("toomanyrequests", Class::Network),
    ("too many requests", Class::Network),
    ("unexpected http status: 5", Class::Network),
    ("bad gateway", Class::Network),
    ("service unavailable", Class::Network),
    ("broken pipe", Class::Network),
    ("eof", Class::Network),
    ("not found", Class::NotFound),
];

fn classify(message: &str) -> Class {
    let message = message.to_lowercase();
    WORDS.iter().find(|(words, _)| message.contains(words)).map_or(Class::Other, |(_, class)| *class)
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::{Class, Fault};

    /// Each message is from Docker Engine 20.10, made to fail that way, except Docker Hub's, which is known from
    /// reports by users.
    #[test]
    fn what_a_real_daemon_says_is_classed() {
        for (said, class) in [
            (
                "manifest for 127.0.0.1:5990/lab/a:nope not found: manifest unknown: manifest unknown",
                Class::NotFound,
            ),
            ("No such image: 127.0.0.1:5990/lab/a:none", Class::NotFound),
            (
                "Head \"http://127.0.0.1:5991/v2/lab/a/manifests/1\": no basic auth credentials",
                Class::Unauthorized,
            ),
            ("unauthorized: authentication required", Class::Unauthorized),
            (
                "pull access denied for lab/a, repository does not exist or may require 'docker login': denied: \
                 requested access to the resource is denied",
                Class::Unauthorized,
            ),
            (
                "Get \"http://127.0.0.1:1/v2/\": dial tcp 127.0.0.1:1: connect: connection refused",
                Class::Network,
            ),
            (
                "Get \"https://nohost.invalid/v2/\": dial tcp: lookup nohost.invalid on 10.0.0.2:53: no such host",
                Class::Network,
            ),
            ("no matching manifest for linux/amd64 in the manifest list entries", Class::WrongPlatform),
            (
                "conflict: unable to remove repository reference \"cr.test/lab/a:1\" (must force) - container \
                 5595047863b7 is using its referenced image c21253aa656d",
                Class::InUse,
            ),
            (
                "Get \"https://192.0.2.2:5992/v2/\": x509: certificate is valid for 10.0.0.1, not 192.0.2.2",
                Class::Other,
            ),
            ("write /data/tmp/GetImageBlob1318641388: no space left on device", Class::NoSpace),
            ("invalid reference format: repository name must be lowercase", Class::Other),
        ] {
            assert_eq!(Fault::told(said).class, class, "{said}");
        }
    }

    /// Each message is from Podman 4.3 or containerd 1.6.
    #[test]
    fn what_other_engines_say_is_classed() {
        for (said, class) in [
            (
                "choosing an image from manifest list docker://127.0.0.1:1/lab/arm:1: no image found in manifest list \
                 for architecture amd64, variant \"\", OS linux",
                Class::WrongPlatform,
            ),
            (
                "image 127.0.0.1:1/lab/a:1 is in use: image used by 2dc0: image is in use by a container: consider \
                 listing external containers and force-removing image",
                Class::InUse,
            ),
            (
                "initializing source docker://127.0.0.1:1/a/b:1: pinging container registry 127.0.0.1:1: Get \
                 \"https://127.0.0.1:1/v2/\": dial tcp 127.0.0.1:1: connect: connection refused",
                Class::Network,
            ),
        ] {
            assert_eq!(Fault::told(said).class, class, "{said}");
        }
    }

    #[test]
    fn a_broken_connection_comes_with_the_remedy() {
        for (kind, remedy) in [
            (io::ErrorKind::PermissionDenied, "must be allowed to use the engine's socket"),
            (io::ErrorKind::NotFound, "is the engine running there?"),
            (io::ErrorKind::ConnectionRefused, "is the engine running there?"),
            (io::ErrorKind::BrokenPipe, ""),
        ] {
            let fault = Fault::broken(&io::Error::from(kind));
            assert!(fault.class == Class::EngineGone && fault.message.contains(remedy), "{fault}");
        }
    }

    #[test]
    fn what_opens_a_door_is_not_repeated() {
        for (said, shown) in [
            ("Get \"https://ann:hunter2@cr.io/v2/\": EOF", "Get \"https://[secret]@cr.io/v2/\": EOF"),
            ("http://ann:p@ss@cr.io?x=a@b no", "http://[secret]@cr.io?x=a@b no"),
            ("docker://cr.io/a@sha256:ab: gone", "docker://cr.io/a@sha256:ab: gone"),
            (
                "sent Authorization: Bearer eyJhbGciOiJSUzI1NiJ9.e30, got 401",
                "sent Authorization: Bearer [secret], got 401",
            ),
            ("basic  YW5uOmh1bnRlcjI=", "basic  [secret]"),
            ("no basic auth credentials", "no basic auth credentials"),
            ("write /a: no space left on device", "write /a: no space left on device"),
        ] {
            assert_eq!(super::one_line(said), shown);
        }
        let long = format!("{}https://ann:{}@cr.io", "x".repeat(390), "hunter2".repeat(20));
        assert!(!super::one_line(&long).contains("hunter2"));
    }

    #[test]
    fn a_fault_is_one_bounded_line() {
        let fault = Fault::told(&format!("bad\r\n\u{1b}[2J{}", "x".repeat(10_000)));
        let text = fault.to_string();
        assert!(text.len() < 500 && !text.contains(['\n', '\r', '\u{1b}']), "{text:?}");
        assert_eq!(Fault::stopped().to_string(), "stopped: stopped on request");
        assert!(Fault::told("connection refused").is_transient());
        assert!(!Fault::told("no space left on device").is_transient());
    }
}
