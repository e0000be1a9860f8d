//! The addresses where agents say that their peers can reach them.

use std::net::IpAddr;

use url::{Host, Url};

use crate::base::loopback;
use crate::wire::MAX_TEXT;

/// Checks the address where an agent that dials in from `from` says that peers can reach it.
///
/// # Errors
/// The text is not such an address, or it would send peers to their own machines.
pub(in crate::fleet) fn checked(text: &str, from: IpAddr) -> Result<Url, &'static str> {
    if text.len() > MAX_TEXT {
        return Err("it is too long");
    }
    let url = Url::parse(text).map_err(|_| "it is no URL")?;
    let is_plain = url.username().is_empty() && url.password().is_none();
    if !matches!(url.scheme(), "http" | "https") || !is_plain {
        return Err("it is no http:// or https:// URL without user and password");
    }
    if url.path() != "/" || url.query().is_some() || url.fragment().is_some() {
        return Err("it has more than a host and a port");
    }
    match url.host() {
        None => Err("it has no host"),
        Some(Host::Ipv4(address)) if address.is_unspecified() => Err("it is nobody's address"),
        Some(Host::Ipv6(address)) if address.is_unspecified() => Err("it is nobody's address"),
        Some(_) if loopback::is_url(&url) && !loopback::is_address(from) => {
            Err("it is this machine's own, and the agent is on another")
        }
        Some(_) => Ok(url),
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use super::checked;

    #[test]
    fn an_agents_address_is_a_host_and_a_port_that_is_not_its_peers_own() {
        let (far, near): (IpAddr, IpAddr) = ("10.0.0.5".parse().unwrap(), "127.0.0.1".parse().unwrap());
        for url in ["http://10.0.0.5:7000", "https://gpu01.lab", "http://[fd00::5]:7000"] {
            assert!(checked(url, far).is_ok(), "{url}");
        }
        for url in [
            "",
            "10.0.0.5:7000",
            "ftp://10.0.0.5",
            "http://u:p@10.0.0.5",
            "http://10.0.0.5/v2/",
            "http://10.0.0.5/?x",
            "http://0.0.0.0:7000",
            "http://[::]:7000",
            "http://127.0.0.1:2375",
            "http://[::ffff:127.0.0.1]:2375",
            "http://localhost:2375",
            "http://localhost.:2375",
        ] {
            assert!(checked(url, far).is_err(), "{url}");
        }
        assert!(checked("http://127.0.0.1:7000", near).is_ok());
    }
}
