//! Docker Hub: its names and its hosts.

/// The registry of an image name that names none.
pub(crate) const NAME: &str = "docker.io";
/// What people and configurations call the same registry, besides.
const OTHER_NAMES: [&str; 4] = ["index.docker.io", HOST, "registry.hub.docker.com", "hub.docker.com"];
/// The host that answers for Docker Hub, which engines ask.
pub(crate) const HOST: &str = "registry-1.docker.io";
/// The host that issues its tokens.
const REALM: &str = "auth.docker.io";

/// Whether this is a name of Docker Hub, in lower case.
pub(crate) fn is_named(host: &str) -> bool {
    host == NAME || OTHER_NAMES.contains(&host)
}

/// Whether a host belongs to Docker Hub.
pub(crate) fn is_host(host: &str) -> bool {
    host.strip_suffix(NAME).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
}

/// Whether the registry at `home` gets its tokens from this host.
pub(crate) fn is_realm(home: &str, host: &str) -> bool {
    is_host(home) && host == REALM
}

#[cfg(test)]
mod tests {
    use super::{HOST, NAME, is_host, is_named, is_realm};

    #[test]
    fn its_hosts_are_known_and_no_others() {
        assert!([NAME, "index.docker.io", HOST].into_iter().all(is_host));
        assert!([NAME, "index.docker.io", HOST].into_iter().all(is_named));
        assert!(!["auth.docker.io", "mirror.docker.io", "cr.example.org"].into_iter().any(is_named));
        assert!(!["", "evildocker.io", "docker.io.evil.test", "cr.example.org"].into_iter().any(is_host));
        assert!(is_realm(HOST, "auth.docker.io") && !is_realm(HOST, "evil.test"));
        assert!(!is_realm("evil.test", "auth.docker.io"));
    }
}
