//! Hosts that are this machine itself, however they are written.

use std::net::IpAddr;

use url::Url;

/// Whether an address leads back to this machine: `127.0.0.0/8`, also inside an IPv6 address, and `::1`.
pub(crate) fn is_address(address: IpAddr) -> bool {
    address.to_canonical().is_loopback()
}

/// Whether connections to a host, with or without a port, never leave this machine: a loopback address, `localhost`, or
/// a name below it (RFC 6761, 6.3).
pub(crate) fn is_host(host: &str) -> bool {
    let host = match host.rsplit_once(':') {
        // Text with more colons is an IPv6 address, which has a port only after brackets.
        Some((name, port)) if is_port(port) && (name.ends_with(']') || !name.contains(':')) => name,
        _ => host,
    };
    let name = host.trim_start_matches('[').trim_end_matches(']').to_ascii_lowercase();
    // A single dot at the end stands for the root of all names.
    let name = name.strip_suffix('.').unwrap_or(&name);
    name == "localhost" || name.ends_with(".localhost") || name.parse().is_ok_and(is_address)
}

/// Whether connections to a URL's host never leave this machine; see [`is_host`].
pub(crate) fn is_url(url: &Url) -> bool {
    url.host_str().is_some_and(is_host)
}

fn is_port(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use url::Url;

    use super::{is_host, is_url};

    #[test]
    fn this_machine_is_known_however_it_is_written() {
        for host in [
            "localhost",
            "LocalHost.",
            "wharf.localhost",
            "127.0.0.1",
            "127.8.8.8",
            "::1",
            "[::1]",
            "[::ffff:127.0.0.1]",
        ] {
            assert!(is_host(host), "{host}");
            if !host.contains("::") || host.starts_with('[') {
                assert!(is_host(&format!("{host}:5000")), "{host}");
                assert!(is_url(&Url::parse(&format!("http://{host}:5000/x")).unwrap()), "{host}");
            }
        }
        for host in [
            "",
            "localhost.lab",
            "mylocalhost",
            "10.0.0.1",
            "128.0.0.1",
            "::2",
            "[::ffff:10.0.0.1]",
            "127.0.0.1.lab",
        ] {
            assert!(!is_host(host) && !is_host(&format!("{host}:5000")), "{host}");
        }
        assert!(!is_url(&Url::parse("data:x").unwrap()));
    }
}
