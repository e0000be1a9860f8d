//! The client against servers: a real registry, and scripted ones that misbehave.

mod blobs;
mod hostile;
mod pages;
mod plainer;
mod real;
mod server;
mod ssrf;
mod tokens;
mod trust;

use std::{
    io,
    net::{IpAddr, Ipv4Addr},
    sync::Arc,
    time::Duration,
};

use async_trait::async_trait;
use serde_json::json;
use url::Url;

use crate::{
    base::secret::Secret,
    registry::{
        address::Resolver,
        client::{Client, Credentials, Remote},
        limits::ClientLimits,
        manners::Manners,
        tests::server::Reply,
    },
};

/// A registry at this URL, as an administrator would add it.
fn remote(url: &str) -> Remote {
    let url = Url::parse(url).unwrap();
    Remote {
        host: "cr.test".into(),
        url,
        credentials: None,
        ssl_verify: true,
        ca_pem: None,
        trusted_hosts: Vec::new(),
        concurrency: 8,
        outbound: Arc::default(),
        manners: Manners::default(),
    }
}

/// Credentials with the right password.
fn ann() -> Credentials {
    Credentials { username: "ann".into(), password: Secret::new("hunter2") }
}

/// Deadlines for servers that never answer in time.
fn hasty() -> ClientLimits {
    ClientLimits {
        headers: Duration::from_millis(300),
        idle: Duration::from_millis(300),
        total: Duration::from_secs(1),
        attempts: 2,
        backoff: Duration::from_millis(2),
        unasked_pause: Duration::from_millis(2),
        ..ClientLimits::default()
    }
}

/// Deadlines that never pass on loopback, with short waits between tries.
fn patient() -> ClientLimits {
    ClientLimits {
        backoff: Duration::from_millis(2),
        unasked_pause: Duration::from_millis(2),
        ..ClientLimits::default()
    }
}

/// A client of a server on loopback.
fn client(remote: Remote, limits: ClientLimits) -> Client {
    Client::with_limits(remote, Arc::new(Internet), limits).unwrap()
}

/// A small internet: names with fixed addresses, all of them really on loopback.
struct Internet;

/// The address that `registry.example` and its public neighbours resolve to.
const PUBLIC: IpAddr = IpAddr::V4(Ipv4Addr::new(203, 0, 113, 7));

#[async_trait]
impl Resolver for Internet {
    async fn resolve(&self, host: &str) -> io::Result<Vec<IpAddr>> {
        let host = host.trim_end_matches('.');
        // Names such as `10-0-0-1.ip.test` and `169.254.169.254.nip.test` resolve to the address they spell.
        if let Some(text) = host.strip_suffix(".nip.test") {
            let parsed = text.parse().or_else(|_| text.replace('-', ":").parse());
            return parsed.map(|address| vec![address]).map_err(io::Error::other);
        }
        match host {
            "localhost" => Ok(vec![IpAddr::V4(Ipv4Addr::LOCALHOST)]),
            "harbor.lan" | "minio.lan" => Ok(vec!["10.1.2.3".parse().unwrap()]),
            _ => Ok(vec![PUBLIC]),
        }
    }

    fn route(&self, _: IpAddr) -> IpAddr {
        IpAddr::V4(Ipv4Addr::LOCALHOST)
    }
}

pub(in crate::registry::tests) const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
pub(in crate::registry::tests) const EMPTY: &str =
    r#"{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[]}"#;

pub(in crate::registry::tests) fn manifest(headers: &[(&str, &str)]) -> Reply {
    Reply::new(200, &[&[("content-type", OCI_INDEX)], headers].concat(), EMPTY)
}

pub(in crate::registry::tests) fn tags(tags: &[&str], link: Option<&str>) -> Reply {
    let body = json!({"name": "a", "tags": tags}).to_string();
    match link {
        Some(link) => Reply::new(200, &[("link", link)], body),
        None => Reply::ok(body),
    }
}
