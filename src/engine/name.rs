//! The canonical form of an image's name, whichever way the engine spells it.
//!
//! Docker says `alpine:3`, Podman `docker.io/library/alpine:3`, for the same image. The canonical form always names the
//! registry and the tag (distribution/reference, "Familiar names").

use std::net::{Ipv4Addr, SocketAddr};

use crate::base::digest::Digest;
use crate::base::docker_hub;
use crate::base::reference::{Reference, full_name, is_registry_host, is_repository, registry_name};

/// The letters of a grant in the name of a relay's repository.
const RELAY_GRANT: usize = 48;

/// The canonical `registry/name:tag` of a name as an engine writes it; `None` if it has no tag or is not a name.
///
/// A digest after the tag is left out; `<none>:<none>` and names by digest alone have no canonical form.
pub(crate) fn canonical(text: &str) -> Option<String> {
    let reference = Reference::parse(text).ok()?;
    let tag = match (reference.tag, &reference.digest) {
        (Some(tag), _) => tag,
        (None, None) => "latest".to_owned(),
        (None, Some(_)) => return None,
    };
    Some(format!("{}:{tag}", repository(&reference.path)?))
}

/// The canonical `registry/name` of a repository as an engine writes it.
pub(crate) fn repository(text: &str) -> Option<String> {
    // Docker's rule: the first component is a registry if it looks like a host, that is, has a dot or a port or is
    // `localhost`, or has capitals, which no repository may.
    let (registry, name) = match text.split_once('/') {
        Some((first, rest))
            if first.contains(['.', ':'])
                || first == "localhost"
                || first.contains(|c: char| c.is_ascii_uppercase()) =>
        {
            (first, rest)
        }
        _ => (docker_hub::NAME, text),
    };
    if !is_registry_host(registry) || !is_repository(name) {
        return None;
    }
    Some(full_name(&registry_name(registry), name))
}

/// The form in which to ask an engine for this reference: an ID or a canonical name, since any other text could mean
/// another thing in a path; `None` if it is neither.
pub(crate) fn askable(reference: &str) -> Option<String> {
    match reference.parse::<Digest>() {
        Ok(digest) => Some(digest.to_string()),
        Err(_) => canonical(reference),
    }
}

/// Parses an image ID, with or without its algorithm: Podman and CRI-O leave it out in places.
pub(crate) fn image_id(text: &str) -> Option<Digest> {
    text.parse().ok().or_else(|| format!("sha256:{text}").parse().ok())
}

/// The manifest's digest in `name@sha256:…`.
pub(crate) fn manifest(text: &str) -> Option<Digest> {
    text.rsplit_once('@').and_then(|(_, digest)| digest.parse().ok())
}

/// Where the relay is whose repository this is: `127.0.0.1:PORT/GRANT`. `None` for any other repository.
pub(crate) fn relay(repository: &str) -> Option<SocketAddr> {
    let (port, grant) = repository.strip_prefix("127.0.0.1:")?.split_once('/')?;
    let is_grant = grant.len() == RELAY_GRANT
        && grant.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte));
    let port = port.parse().ok()?;
    is_grant.then_some(SocketAddr::from((Ipv4Addr::LOCALHOST, port)))
}

#[cfg(test)]
mod tests {
    use super::{canonical, manifest, repository};

    #[test]
    fn each_engines_spelling_becomes_one() {
        for (given, expected) in [
            ("alpine:3", "docker.io/library/alpine:3"),
            ("alpine", "docker.io/library/alpine:latest"),
            ("docker.io/library/alpine:3", "docker.io/library/alpine:3"),
            ("index.docker.io/library/alpine:3", "docker.io/library/alpine:3"),
            ("docker.io/alpine:3", "docker.io/library/alpine:3"),
            ("registry-1.docker.io/alpine:3", "docker.io/library/alpine:3"),
            ("CR.io/a:1", "cr.io/a:1"),
            ("lablup/python:3.9", "docker.io/lablup/python:3.9"),
            ("localhost/python:1", "localhost/python:1"),
            ("registry:5000/python:1", "registry:5000/python:1"),
            ("127.0.0.1:5000/lab/python:1", "127.0.0.1:5000/lab/python:1"),
            ("[::1]:5000/lab/python:1", "[::1]:5000/lab/python:1"),
            ("cr.io/a/b/c:1", "cr.io/a/b/c:1"),
        ] {
            assert_eq!(canonical(given).as_deref(), Some(expected), "{given}");
        }
    }

    #[test]
    fn what_is_no_name_has_no_canonical_form() {
        let digest = format!("sha256:{}", "ab".repeat(32));
        for given in
            ["<none>:<none>", "", &digest, &format!("cr.io/a@{digest}"), "cr.io/../a:1", "cr.io/a?x:1"]
        {
            assert_eq!(canonical(given), None, "{given}");
        }
        assert_eq!(repository("cr.io/A"), None);
        assert_eq!(manifest(&format!("cr.io/a@{digest}")).unwrap().as_str(), digest);
        assert_eq!(manifest("<none>@<none>"), None);
    }
}
