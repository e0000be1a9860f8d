//! Docker Hub: what it is called, and the hosts it has.

/// The registry that an image's name without one means.
pub(crate) const NAME: &str = "docker.io";
/// The name some configurations have for the same registry.
pub(crate) const OLD_NAME: &str = "index.docker.io";
/// The host that answers for it, which engines ask.
pub(crate) const HOST: &str = "registry-1.docker.io";
/// Where its tokens come from.
const REALM: &str = "auth.docker.io";

/// Whether a host is one of its own.
pub(crate) fn is_host(host: &str) -> bool {
    host.strip_suffix(NAME).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
}

/// Whether the registry at `home` has its tokens from this host.
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
