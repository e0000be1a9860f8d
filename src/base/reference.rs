//! References: names of images, as people and clients type them.
//!
//! Grammar: distribution-spec v1.1 ("Pulling manifests") for repository and tag; the host part as Docker reads it.

use std::borrow::Cow;
use std::fmt;

use url::Url;

use crate::base::digest::Digest;
use crate::base::{docker_hub, loopback};

/// Longest reference we look at: host 255 + name 255 + tag 128 + digest 135, and some slack.
pub(crate) const MAX_REFERENCE: usize = 1024;
/// Longest registry host, and longest `host/name` together (many clients enforce the same 255).
pub(crate) const MAX_NAME: usize = 255;
/// Longest tag (distribution-spec: 128 characters).
pub(crate) const MAX_TAG: usize = 128;

/// Why a text is not an image reference.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("invalid image reference {given:?}: {why}")]
pub(crate) struct InvalidReference {
    given: String,
    why: &'static str,
}

/// A reference: the text typed for an image, split into its parts but not yet looked up.
///
/// Whether a first component without a dot is a registry (`registry/python:3.9`) depends on which registries exist,
/// so the lookup decides, not the parser.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Reference {
    /// Everything before the tag and the digest: `host/name`, `name`, or an alias.
    pub(crate) path: String,
    /// The tag, if one was given.
    pub(crate) tag: Option<String>,
    /// The digest, if one was given: of the config (the image ID) or of the manifest.
    pub(crate) digest: Option<Digest>,
}

impl Reference {
    /// Takes a reference apart: `path[:tag][@digest]`, or a digest alone (then `path` is empty).
    ///
    /// # Errors
    /// Text that is empty, too long, carries a URL scheme, or has a part that breaks its grammar.
    pub(crate) fn parse(text: &str) -> Result<Self, InvalidReference> {
        let fail = |why| Err(InvalidReference { given: shown(text), why });
        let text_trimmed = text.trim();
        if text_trimmed.is_empty() {
            return fail("it is empty");
        }
        if text_trimmed.len() > MAX_REFERENCE {
            return fail("it is longer than 1024 bytes");
        }
        if text_trimmed.contains("://") || text_trimmed.starts_with("//") {
            return fail("leave out the protocol scheme; write host/name:tag");
        }
        if let Ok(digest) = text_trimmed.parse() {
            return Ok(Self { path: String::new(), tag: None, digest: Some(digest) });
        }
        let (rest, digest) = match text_trimmed.split_once('@') {
            None => (text_trimmed, None),
            Some((rest, digest)) => match digest.parse() {
                Ok(digest) => (rest, Some(digest)),
                Err(_) => return fail("what follows @ must be sha256:<64 hex digits>"),
            },
        };
        // A colon starts the tag only if it comes after the last slash: `host:5000/name` has no tag.
        let after_slash = rest.rfind('/').map_or(0, |slash| slash + 1);
        let (path, tag) = match rest.get(after_slash..).and_then(|last| last.rfind(':')) {
            None => (rest, None),
            Some(colon) => {
                let colon = after_slash + colon;
                (rest.get(..colon).unwrap_or_default(), rest.get(colon + 1..))
            }
        };
        if path.is_empty() {
            return fail("the image's name is missing");
        }
        if tag.is_some_and(|tag| !is_tag(tag)) {
            return fail("the tag may have letters, digits, '_', '.' and '-', 128 at most");
        }
        if path.chars().any(|c| c.is_control() || c.is_whitespace()) {
            return fail("it has a space or a control character");
        }
        Ok(Self { path: path.into(), tag: tag.map(Into::into), digest })
    }
}

/// The first 80 characters of foreign text, for an error message.
pub(crate) fn shown(text: &str) -> String {
    if text.chars().count() <= 80 {
        return text.into();
    }
    let mut start: String = text.chars().take(77).collect();
    start.push_str("...");
    start
}

/// Whether this is a tag: `[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}`.
pub(crate) fn is_tag(text: &str) -> bool {
    let word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    text.len() <= MAX_TAG
        && text.bytes().next().is_some_and(word)
        && text.bytes().all(|b| word(b) || b == b'.' || b == b'-')
}

/// Whether this is a repository name: path components of `[a-z0-9]+`, joined inside by `.`, `_`, `__` or dashes.
pub(crate) fn is_repository(text: &str) -> bool {
    !text.is_empty() && text.len() <= MAX_NAME && text.split('/').all(is_repository_component)
}

/// Whether a repository is this project or below it: `stable/python` is within `stable`, `stable2` is not.
pub(crate) fn is_within(repository: &str, project: &str) -> bool {
    repository.strip_prefix(project).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

fn is_repository_component(component: &str) -> bool {
    let alphanumeric = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let ends_well = component.bytes().next().is_some_and(alphanumeric)
        && component.bytes().next_back().is_some_and(alphanumeric);
    ends_well
        && component.split(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit()).all(|separator| {
            matches!(separator, "" | "." | "_" | "__") || separator.bytes().all(|b| b == b'-')
        })
}

/// The one name of a registry: its host in lower case, and Docker Hub by one of its names.
pub(crate) fn registry_name(host: &str) -> String {
    let host = host.trim().to_ascii_lowercase();
    if docker_hub::is_named(&host) { docker_hub::NAME.into() } else { host }
}

/// The one spelling of `registry/name`, where `registry` is the name of a registry: at Docker Hub, a name of one
/// component is in `library`.
pub(crate) fn full_name(registry: &str, name: &str) -> String {
    if docker_hub::is_named(registry) && !name.contains('/') {
        format!("{registry}/library/{name}")
    } else {
        format!("{registry}/{name}")
    }
}

/// The canonical name as engines tell it: a registry that was added before names had one spelling may still be stored
/// as `index.docker.io` or with capitals.
pub(crate) fn as_told(canonical: &str) -> Cow<'_, str> {
    match canonical.split_once('/') {
        Some((host, name))
            if host != docker_hub::NAME
                && (docker_hub::is_named(host) || host.bytes().any(|b| b.is_ascii_uppercase())) =>
        {
            full_name(&registry_name(host), name).into()
        }
        _ => canonical.into(),
    }
}

/// A registry as people type it, or paste it from a browser or another tool.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TypedRegistry {
    /// Its name.
    pub(crate) name: String,
    /// The URL that was typed, if it says more than the name.
    pub(crate) url: Option<Url>,
}

/// Reads a registry's `host`, `host:port` or URL; `None` if it is neither.
pub(crate) fn typed_registry(text: &str) -> Option<TypedRegistry> {
    let text = text.trim();
    if is_registry_host(text) {
        return Some(TypedRegistry { name: registry_name(text), url: None });
    }
    let has_scheme = text.contains("://");
    let host = text.split('/').next().filter(|host| !host.is_empty())?;
    let whole = if has_scheme { text.to_owned() } else { text.replacen(host, &registry_url(host), 1) };
    let url = Url::parse(&whole).ok().filter(is_plain_url)?;
    let port = url.port().map(|port| format!(":{port}")).unwrap_or_default();
    let host = format!("{}{port}", url.host_str()?);
    if !is_registry_host(&host) {
        return None;
    }
    let url = api_url(url);
    let says_more = has_scheme || url.path() != "/";
    Some(TypedRegistry { name: registry_name(&host), url: Some(url).filter(|_| says_more) })
}

/// Whether this is a URL of HTTP without user, query and fragment.
fn is_plain_url(url: &Url) -> bool {
    matches!(url.scheme(), "http" | "https")
        && url.username().is_empty()
        && url.password().is_none()
        && url.query().is_none()
        && url.fragment().is_none()
}

/// The URL under which a registry's API is: without the version that people paste along, and for Docker Hub that of the
/// host that answers for it.
pub(crate) fn api_url(mut url: Url) -> Url {
    let path = url.path().trim_end_matches('/');
    let base = ["/v2/_catalog", "/v2", "/v1"].into_iter().find_map(|version| path.strip_suffix(version));
    let path = format!("{}/", base.unwrap_or(path));
    url.set_path(&path);
    if url.scheme() == "https" && url.port().is_none() && url.host_str().is_some_and(docker_hub::is_named) {
        // Docker Hub's host is a host: this never fails.
        let _ = url.set_host(Some(docker_hub::HOST));
        url.set_path("/");
    }
    url
}

/// The default URL of a registry. A registry on this machine speaks plain HTTP, as Docker assumes too.
pub(crate) fn registry_url(host: &str) -> String {
    let host = if docker_hub::is_named(host) { docker_hub::HOST } else { host };
    format!("{}://{host}", if loopback::is_host(host) { "http" } else { "https" })
}

/// Whether this can name a registry: `host` or `host:port`, the host a DNS name, an IPv4 address or a bracketed IPv6
/// address. A name without a dot is allowed (`localhost:5000`, `registry:5000`, `harbor`).
pub(crate) fn is_registry_host(text: &str) -> bool {
    if text.len() > MAX_NAME {
        return false;
    }
    let (host, port) = match text.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((address, after)) => {
            if address.parse::<std::net::Ipv6Addr>().is_err() {
                return false;
            }
            match (after, after.strip_prefix(':')) {
                ("", _) => return true,
                (_, Some(port)) => return is_port(port),
                _ => return false,
            }
        }
        None => text.split_once(':').map_or((text, None), |(host, port)| (host, Some(port))),
    };
    port.is_none_or(is_port)
        && host.split('.').all(|label| {
            let inner = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_';
            !label.is_empty() && label.len() <= 63 && label.bytes().all(inner) && !label.starts_with('-')
        })
}

fn is_port(text: &str) -> bool {
    text.parse::<u16>().is_ok_and(|port| port > 0) && text.bytes().all(|b| b.is_ascii_digit())
}

/// A canonical name: `registry/name:tag`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Canonical(String);

impl Canonical {
    /// Joins the parts of the name.
    pub(crate) fn new(registry: &str, name: &str, tag: &str) -> Self {
        Self(format!("{registry}/{name}:{tag}"))
    }

    /// The name as text.
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Canonical {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::{
        Reference, as_told, full_name, is_registry_host, is_repository, is_tag, registry_url, typed_registry,
    };

    fn parts(text: &str) -> (String, Option<String>, bool) {
        let reference = Reference::parse(text).unwrap();
        (reference.path, reference.tag, reference.digest.is_some())
    }

    #[test]
    fn a_stored_name_is_told_as_engines_tell_it() {
        for (stored, told) in [
            ("index.docker.io/library/alpine:3", "docker.io/library/alpine:3"),
            ("registry-1.docker.io/lablup/python:3", "docker.io/lablup/python:3"),
            ("CR.lab:5000/a:1", "cr.lab:5000/a:1"),
            ("docker.io/library/alpine:3", "docker.io/library/alpine:3"),
            ("cr.lab/a:V1", "cr.lab/a:V1"),
            ("no-registry", "no-registry"),
        ] {
            assert_eq!(as_told(stored), told);
        }
    }

    #[test]
    fn a_registry_on_this_machine_is_plain_http_unless_told_otherwise() {
        for (host, expected) in [
            ("cr.example.org", "https://cr.example.org"),
            ("cr.example.org:5000", "https://cr.example.org:5000"),
            ("localhost", "http://localhost"),
            ("localhost:5000", "http://localhost:5000"),
            ("127.0.0.2:5000", "http://127.0.0.2:5000"),
            ("[::1]:5000", "http://[::1]:5000"),
            ("cr.localhost:5000", "http://cr.localhost:5000"),
            ("localhost.example.org", "https://localhost.example.org"),
            ("127.example.org", "https://127.example.org"),
        ] {
            assert_eq!(registry_url(host), expected);
        }
    }

    #[test]
    fn a_registry_is_taken_for_what_is_meant() {
        const HUB: Option<&str> = Some("https://registry-1.docker.io/");
        for (text, name, url) in [
            ("cr.example.org", "cr.example.org", None),
            (" CR.example.org:5000 ", "cr.example.org:5000", None),
            ("https://cr.example.org", "cr.example.org", Some("https://cr.example.org/")),
            ("http://CR.example.org:5000/v2/", "cr.example.org:5000", Some("http://cr.example.org:5000/")),
            ("http://127.0.0.1:5000/v2/_catalog", "127.0.0.1:5000", Some("http://127.0.0.1:5000/")),
            ("https://cr.example.org/docker/v2", "cr.example.org", Some("https://cr.example.org/docker/")),
            ("cr.example.org/v2/", "cr.example.org", None),
            ("cr.example.org/", "cr.example.org", None),
            ("cr.example.org/docker/", "cr.example.org", Some("https://cr.example.org/docker/")),
            ("localhost:5000/v2", "localhost:5000", None),
            ("[::1]:5000", "[::1]:5000", None),
            ("http://[::1]:5000/v2/", "[::1]:5000", Some("http://[::1]:5000/")),
            ("docker.io", "docker.io", None),
            ("Index.Docker.io", "docker.io", None),
            ("registry-1.docker.io", "docker.io", None),
            ("https://index.docker.io/v1/", "docker.io", HUB),
            ("https://registry-1.docker.io/v2/", "docker.io", HUB),
            ("http://docker.io", "docker.io", Some("http://docker.io/")),
        ] {
            let typed = typed_registry(text).unwrap_or_else(|| panic!("{text}"));
            assert_eq!(
                (typed.name.as_str(), typed.url.as_ref().map(url::Url::as_str)),
                (name, url),
                "{text}"
            );
        }
        for text in [
            "",
            "a b",
            "ftp://cr.example.org",
            "https://",
            "https://u:p@cr.example.org",
            "https://cr/?x",
            "/v2/",
        ] {
            assert_eq!(typed_registry(text), None, "{text}");
        }
        assert_eq!(registry_url("docker.io"), "https://registry-1.docker.io");
        assert_eq!(full_name("docker.io", "alpine"), "docker.io/library/alpine");
        assert_eq!(full_name("docker.io", "lablup/python"), "docker.io/lablup/python");
        assert_eq!(full_name("cr.example.org", "alpine"), "cr.example.org/alpine");
    }

    #[test]
    fn a_reference_comes_apart_at_the_tag_and_the_digest() {
        let digest = format!("sha256:{}", "ab".repeat(32));
        assert_eq!(parts("cr.io/a/b:3.9"), ("cr.io/a/b".into(), Some("3.9".into()), false));
        assert_eq!(parts("localhost:5000/a"), ("localhost:5000/a".into(), None, false));
        assert_eq!(parts("localhost:5000/a:1"), ("localhost:5000/a".into(), Some("1".into()), false));
        assert_eq!(parts("py"), ("py".into(), None, false));
        assert_eq!(parts(&format!("cr.io/a@{digest}")), ("cr.io/a".into(), None, true));
        assert_eq!(parts(&format!("cr.io/a:1@{digest}")), ("cr.io/a".into(), Some("1".into()), true));
        assert_eq!(parts(&digest), (String::new(), None, true));
        assert_eq!(parts("[::1]:5000/a:1"), ("[::1]:5000/a".into(), Some("1".into()), false));
    }

    #[test]
    fn a_malformed_reference_is_refused_with_the_reason() {
        for (text, reason) in [
            ("", "empty"),
            ("https://cr.io/a:1", "protocol scheme"),
            ("//cr.io/a", "protocol scheme"),
            (":1", "missing"),
            ("a:", "tag"),
            ("a:-b", "tag"),
            ("a@sha256:12", "must be sha256"),
            ("a b", "space"),
            ("a\u{0}b", "control"),
        ] {
            let error = Reference::parse(text).unwrap_err().to_string();
            assert!(error.contains(reason), "{text:?}: {error}");
        }
        assert!(Reference::parse(&"a".repeat(2000)).unwrap_err().to_string().len() < 200);
    }

    #[test]
    fn names_follow_the_distribution_grammar() {
        for good in ["a", "stable/python", "a.b/c_d/e__f/g--h", "a1/b2", "0"] {
            assert!(is_repository(good), "{good}");
        }
        for bad in [
            "",
            "/",
            "a/",
            "/a",
            "A",
            "a..b",
            "a___b",
            "-a",
            "a-",
            "a/../b",
            "%2e",
            "a b",
            "é",
            "a._b",
            &"a".repeat(256),
        ] {
            assert!(!is_repository(bad), "{bad}");
        }
        for good in ["1", "latest", "_x", "V1.2-rc_3", &"a".repeat(128)] {
            assert!(is_tag(good), "{good}");
        }
        for bad in ["", ".a", "-a", "a/b", "a:b", "a b", "\u{202e}a", &"a".repeat(129)] {
            assert!(!is_tag(bad), "{bad}");
        }
    }

    #[test]
    fn registry_hosts_are_hosts_with_an_optional_port() {
        for good in
            ["cr.io", "localhost", "localhost:5000", "10.0.0.1:5000", "[::1]:5000", "[::1]", "my-harbor"]
        {
            assert!(is_registry_host(good), "{good}");
        }
        for bad in
            ["", "a/b", "a:0", "a:65536", "a:x", "a:+5", "a..b", "u@h", "-a", "[::1", "[x]", "a b", "[::1]5"]
        {
            assert!(!is_registry_host(bad), "{bad}");
        }
    }
}
