//! Where a request comes from: the peer, or what a trusted proxy says about it.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use poem::Request;

/// A range of addresses such as `10.0.0.0/8`, or a single address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Network {
    address: IpAddr,
    length: u8,
}

impl Network {
    fn has(self, address: IpAddr) -> bool {
        match (self.address, address.to_canonical()) {
            (IpAddr::V4(own), IpAddr::V4(other)) => {
                let mask = u32::MAX.checked_shl(32 - u32::from(self.length)).unwrap_or(0);
                u32::from(own) & mask == u32::from(other) & mask
            }
            (IpAddr::V6(own), IpAddr::V6(other)) => {
                let mask = u128::MAX.checked_shl(128 - u32::from(self.length)).unwrap_or(0);
                u128::from(own) & mask == u128::from(other) & mask
            }
            _ => false,
        }
    }
}

impl FromStr for Network {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let refuse = || format!("{text:?} is neither an address nor a range such as 10.0.0.0/8");
        let (address, length) = match text.split_once('/') {
            Some((address, length)) => (address, Some(length.parse::<u8>().map_err(|_| refuse())?)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().map_err(|_| refuse())?;
        let address = address.to_canonical();
        let longest = if address.is_ipv4() { 32 } else { 128 };
        let length = length.unwrap_or(longest);
        if length > longest { Err(refuse()) } else { Ok(Self { address, length }) }
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.length)
    }
}

/// The proxies that the server trusts.
#[derive(Debug, Clone, Default)]
pub struct Proxies(Vec<Network>);

/// The origin of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Peer {
    /// The address; `None` if the network has no addresses.
    pub(crate) address: Option<IpAddr>,
    /// Whether it came over TLS, at least on the part of the way that a browser sees.
    pub(crate) is_secure: bool,
}

impl Proxies {
    /// Returns a list of these proxies only.
    pub(crate) fn new(networks: Vec<Network>) -> Self {
        Self(networks)
    }

    /// Returns where the request comes from.
    pub(crate) fn peer(&self, request: &Request) -> Peer {
        let direct = request.remote_addr().as_socket_addr().map(|address| address.ip().to_canonical());
        let forwarded = |name: &str| {
            let lines = request.headers().get_all(name).iter().filter_map(|value| value.to_str().ok());
            lines.flat_map(|line| line.split(',')).map(|hop| hop.trim().to_owned()).collect::<Vec<_>>()
        };
        self.judge(direct, &forwarded("X-Forwarded-For"), &forwarded("X-Forwarded-Proto"))
    }

    fn judge(&self, direct: Option<IpAddr>, hops: &[String], schemes: &[String]) -> Peer {
        if !direct.is_some_and(|address| self.trusts(address)) {
            return Peer { address: direct, is_secure: false };
        }
        let mut address = direct;
        // Each proxy appends the address that it got the request from. Anyone may have written what stands before the
        // last address that is not a trusted proxy's.
        for hop in hops.iter().rev() {
            let Some(heard) = address_of(hop) else { break };
            address = Some(heard);
            if !self.trusts(heard) {
                break;
            }
        }
        let is_secure = schemes.last().is_some_and(|scheme| scheme.eq_ignore_ascii_case("https"));
        Peer { address, is_secure }
    }

    /// Whether this is the address of a trusted proxy.
    pub(crate) fn trusts(&self, address: IpAddr) -> bool {
        self.0.iter().any(|network| network.has(address))
    }
}

/// Reads an address; some proxies add the port.
fn address_of(hop: &str) -> Option<IpAddr> {
    let address = hop.parse::<IpAddr>().ok();
    let with_port = || hop.parse::<std::net::SocketAddr>().ok().map(|address| address.ip());
    address.or_else(with_port).map(|address| address.to_canonical())
}

#[cfg(test)]
mod tests {
    use super::{Network, Peer, Proxies};

    fn judged(direct: &str, hops: &[&str], schemes: &[&str]) -> Peer {
        let proxies = Proxies::new(vec!["10.0.0.0/8".parse().unwrap(), "::1".parse().unwrap()]);
        let owned = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
        proxies.judge(Some(direct.parse().unwrap()), &owned(hops), &owned(schemes))
    }

    #[test]
    fn only_a_trusted_proxy_is_believed() {
        let is = |peer: Peer, address: &str, is_secure: bool| {
            assert_eq!(peer, Peer { address: Some(address.parse().unwrap()), is_secure });
        };
        is(judged("192.0.2.1", &["198.51.100.9"], &["https"]), "192.0.2.1", false);
        is(judged("10.1.2.3", &["198.51.100.9"], &["https"]), "198.51.100.9", true);
        is(judged("::1", &["203.0.113.5", "198.51.100.9", "10.9.9.9"], &["http"]), "198.51.100.9", false);
        is(judged("10.1.2.3", &["203.0.113.5", "nonsense", "10.9.9.9"], &[]), "10.9.9.9", false);
        is(judged("10.1.2.3", &[], &[]), "10.1.2.3", false);
        is(judged("10.1.2.3", &["[2001:db8::7]:4711"], &[]), "2001:db8::7", false);
        is(judged("10.1.2.3", &["::ffff:198.51.100.9"], &[]), "198.51.100.9", false);
    }

    #[test]
    fn a_range_has_the_addresses_that_begin_like_it() {
        let has =
            |network: &str, address: &str| network.parse::<Network>().unwrap().has(address.parse().unwrap());
        assert!(has("192.0.2.0/25", "192.0.2.127") && !has("192.0.2.0/25", "192.0.2.128"));
        assert!(has("0.0.0.0/0", "8.8.8.8") && !has("0.0.0.0/0", "2001:db8::1"));
        assert!(has("2001:db8::/32", "2001:db8:1::1") && !has("2001:db8::/32", "2001:db9::1"));
        assert!(
            has("::/0", "2001:db8::1") && has("127.0.0.1", "127.0.0.1") && !has("127.0.0.1", "127.0.0.2")
        );
        for wrong in ["", "10.0.0.0/33", "10.0.0/8", "::/129", "localhost", "10.0.0.0/-1"] {
            assert!(wrong.parse::<Network>().is_err(), "{wrong}");
        }
    }
}
