//! Where an agent hands out its engine's images, or those of its cache, to peers that have a grant from the manager.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use url::Url;

use crate::sources::grants::Grants;

/// Where peers connect, and the grants that admit them.
#[derive(Clone)]
pub(crate) struct PeerServer {
    /// The grants that admit peers.
    pub(crate) grants: Arc<Grants>,
    /// Its URL, if the operator gave one; otherwise it is the address from which the agent reaches the manager.
    pub(crate) url: Option<Url>,
    /// The address it listens on.
    pub(crate) bound: SocketAddr,
}

impl PeerServer {
    /// The URL for peers, for an agent that reaches its manager from this address.
    pub(crate) fn url_from(&self, local: Option<IpAddr>) -> Option<Url> {
        if let Some(url) = &self.url {
            return Some(url.clone());
        }
        let here = if self.bound.ip().is_unspecified() { local? } else { self.bound.ip() };
        Url::parse(&format!("http://{}", SocketAddr::new(here, self.bound.port()))).ok()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::PeerServer;

    #[test]
    fn peers_find_it_where_the_operator_says_or_where_the_manager_is_reached_from() {
        let peer_server = |bound: &str, url: Option<&str>| PeerServer {
            grants: Arc::default(),
            url: url.map(|url| url.parse().unwrap()),
            bound: bound.parse().unwrap(),
        };
        let from = |peer_server: PeerServer, local: Option<&str>| {
            peer_server.url_from(local.map(|ip| ip.parse().unwrap())).map(|url| url.to_string())
        };
        assert_eq!(
            from(peer_server("0.0.0.0:7000", None), Some("10.0.0.5")).unwrap(),
            "http://10.0.0.5:7000/"
        );
        assert_eq!(from(peer_server("[::]:7000", None), Some("fd00::5")).unwrap(), "http://[fd00::5]:7000/");
        assert_eq!(
            from(peer_server("10.0.0.6:7000", None), Some("10.0.0.5")).unwrap(),
            "http://10.0.0.6:7000/"
        );
        assert_eq!(
            from(peer_server("0.0.0.0:7000", Some("https://gpu01.lab")), None).unwrap(),
            "https://gpu01.lab/"
        );
        assert_eq!(from(peer_server("0.0.0.0:7000", None), None), None);
    }
}
