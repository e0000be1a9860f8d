//! Whom an address stands for when what it does is counted.

use std::net::{IpAddr, Ipv6Addr};

/// The bits of an IPv6 address that a provider gives to one household; it may use whatever follows as it likes.
const PREFIX: u128 = !0 << 64;

/// The address that counts for all addresses of one household: IPv4 as it is, also within IPv6, and the network of an
/// IPv6 address.
pub fn household(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(address) => address.into(),
        IpAddr::V6(address) => Ipv6Addr::from(u128::from(address) & PREFIX).into(),
    }
}

#[cfg(test)]
mod tests {
    use super::household;

    #[test]
    fn one_household_has_one_address() {
        let of = |text: &str| household(text.parse().unwrap()).to_string();
        assert_eq!(of("192.0.2.7"), "192.0.2.7");
        assert_eq!(of("::ffff:192.0.2.7"), "192.0.2.7");
        assert_eq!(of("2001:db8:1:1:ffff::7"), "2001:db8:1:1::");
        assert_ne!(of("2001:db8:1:2::7"), of("2001:db8:1:1::7"));
    }
}
