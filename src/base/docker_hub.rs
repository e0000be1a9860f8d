//! Docker Hub: its names and its hosts.

/// The registry of an image name that names none.
pub(crate) const NAME: &str = "docker.io";
/// The name that some configurations use for the same registry.
pub(crate) const OLD_NAME: &str = "index.docker.io";
/// The host that answers for Docker Hub, which engines ask.
pub(crate) const HOST: &str = "registry-1.docker.io";
/// The host that issues its tokens.
const REALM: &str = "auth.docker.io";

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
    use super::{HOST, NAME, OLD_NAME, is_host, is_realm};

    #[test]
    fn its_hosts_are_known_and_no_others() {
        assert!([NAME, OLD_NAME, HOST].into_iter().all(is_host));
        assert!(!["", "evildocker.io", "docker.io.evil.test", "cr.example.org"].into_iter().any(is_host));
        assert!(is_realm(HOST, "auth.docker.io") && !is_realm(HOST, "evil.test"));
        assert!(!is_realm("evil.test", "auth.docker.io"));
    }
}
