//! Nothing a registry says makes us connect to machines it may not name, or show our password to strangers.

use std::{
    io,
    net::IpAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use async_trait::async_trait;

use crate::{
    base::digest::Digest,
    registry::{
        address::{AddressClass, Resolver},
        client::{Client, Remote},
        error::{Error, Reason},
        tests::{
            Internet, ann, client, patient, remote,
            server::{Reply, Server},
        },
    },
};

/// The registry of these tests: public, over plain HTTP (as an administrator may add one), really on loopback.
fn public(server: &Server) -> Remote {
    let mut remote = remote(&format!("http://registry.example:{}", server.port));
    remote.credentials = Some(ann());
    remote
}

/// Places that must never receive a packet: hosts (with `PORT` for the canary's port). The comments say what is wrong
/// with each.
const FORBIDDEN: [&str; 75] = [
    // This machine, in every spelling.
    "http://127.0.0.1:PORT/",
    "http://127.1:PORT/",
    "http://127.0.1:PORT/",
    "http://2130706433:PORT/",
    "http://0x7f000001:PORT/",
    "http://0x7f.1:PORT/",
    "http://0177.0.0.1:PORT/",
    "http://017700000001:PORT/",
    "http://127.0.0.1.:PORT/",
    "http://127.255.255.254:PORT/",
    "http://0:PORT/",
    "http://0.0.0.0:PORT/",
    "http://0x0:PORT/",
    "http://00000000:PORT/",
    "http://[::1]:PORT/",
    "http://[0:0:0:0:0:0:0:1]:PORT/",
    "http://[::]:PORT/",
    "http://[::ffff:127.0.0.1]:PORT/",
    "http://[::ffff:7f00:1]:PORT/",
    "http://[::127.0.0.1]:PORT/",
    "http://[64:ff9b::127.0.0.1]:PORT/",
    "http://[2002:7f00:1::]:PORT/",
    "http://localhost:PORT/",
    "http://LOCALHOST:PORT/",
    "http://localhost.:PORT/",
    "http://%6c%6fcalhost:PORT/",
    "http://127.0.0.1.nip.test:PORT/",
    "http://0.0.0.0.nip.test:PORT/",
    "http://0--1.nip.test:PORT/",
    "http://0--ffff-7f00-1.nip.test:PORT/",
    // Fullwidth and circled digits, and an ideographic full stop, which IDNA maps to ASCII.
    "http://１２７.0.0.1:PORT/",
    "http://①②⑦.0.0.1:PORT/",
    "http://127。0。0。1:PORT/",
    "http://ⓛocalhost:PORT/",
    // Metadata services and link-local.
    "http://169.254.169.254/latest/meta-data/",
    "http://169.254.169.254:PORT/",
    "http://0xa9fea9fe/",
    "http://2852039166/",
    "http://0251.0376.0251.0376/",
    "http://169.254.43518/",
    "http://[::ffff:169.254.169.254]/",
    "http://[::ffff:a9fe:a9fe]/",
    "http://[64:ff9b::a9fe:a9fe]/",
    "http://[64:ff9b:1::a9fe:a9fe]/",
    "http://[2002:a9fe:a9fe::]/",
    "http://[2001:0:1:1:1:1:5601:5601]/",
    "http://[fe80::1]/",
    "http://[fd00:ec2::254]/",
    "http://100.100.100.200/",
    "http://192.0.0.192/",
    "http://169.254.169.254.nip.test:PORT/",
    "http://0--ffff-a9fe-a9fe.nip.test:PORT/",
    "http://fd00-ec2--254.nip.test:PORT/",
    "http://100.100.100.200.nip.test:PORT/",
    // Private networks, from a registry that is not in one.
    "http://10.0.0.1:PORT/",
    "http://172.16.0.1:PORT/",
    "http://172.31.255.255:PORT/",
    "http://192.168.1.1:PORT/",
    "http://100.64.0.1:PORT/",
    "http://[fc00::1]:PORT/",
    "http://[::ffff:10.0.0.1]:PORT/",
    "http://10.0.0.1.nip.test:PORT/",
    "http://minio.lan:PORT/",
    // Addresses that lead nowhere.
    "http://224.0.0.1:PORT/",
    "http://255.255.255.255:PORT/",
    "http://240.0.0.1:PORT/",
    "http://[ff02::1]:PORT/",
    // User info, other schemes, things that are no host.
    "http://registry.example@127.0.0.1:PORT/",
    "http://registry.example:80@localhost:PORT/",
    "http://127.0.0.1:PORT\\@registry.example/",
    "http://registry.example%00.localhost:PORT/",
    "file:///etc/passwd",
    "gopher://127.0.0.1:PORT/_x",
    "ftp://127.0.0.1:PORT/",
    "javascript:alert(1)",
];

fn at(url: &str, canary: &Server) -> String {
    url.replace("PORT", &canary.port.to_string())
}

/// Asserts that such a URL was refused as a place or as nonsense. A timeout or "connection refused" would mean that a
/// packet left.
fn assert_refused(error: &Error, url: &str) {
    assert!(matches!(error.reason, Reason::Blocked { .. } | Reason::Invalid(_)), "{url}: {error}");
}

#[tokio::test]
async fn no_redirect_reaches_a_forbidden_place() {
    let canary = Server::start(|_| Reply::ok("{}")).await;
    for scheme in ["http", "https"] {
        for (number, url) in FORBIDDEN.into_iter().enumerate() {
            let url = at(url, &canary).replacen("http://", &format!("{scheme}://"), 1);
            let status = [301, 302, 303, 307, 308][number % 5];
            let target = url.clone();
            let server = Server::start(move |_| Reply::redirect(status, &target)).await;
            let error = client(public(&server), patient()).manifest("a", "tag").await.unwrap_err();
            assert_refused(&error, &url);
            assert_eq!(server.requests().len(), 1, "{url} was tried again");
        }
    }
    assert_eq!(canary.connections(), 0);
}

#[tokio::test]
async fn no_token_realm_reaches_a_forbidden_place() {
    let canary = Server::start(|_| Reply::ok(r#"{"token":"x"}"#)).await;
    let strangers = [
        "http://auth.evil.test:PORT/token",
        "http://registry.example.evil.test:PORT/",
        "http://evilregistry.example:PORT/",
        "http://example:PORT/",
        "http://xn--registry-9za.example:PORT/",
        "http://registry.exаmple:PORT/",
        "http://203.0.113.8:PORT/",
        "http://auth.registry.example:PORT/#x",
        "http://auth.registry.example:PORT/\ttoken",
        "//auth.evil.test:PORT/token",
        "\\\\auth.evil.test:PORT/token",
        "https://auth.evil.test:PORT/token",
        "",
    ];
    let encrypted = FORBIDDEN.map(|url| url.replacen("http://", "https://", 1));
    for url in encrypted.iter().map(String::as_str).chain(FORBIDDEN).chain(strangers) {
        let realm = at(url, &canary);
        let challenge = format!("Bearer realm=\"{}\",service=\"x\"", realm.replace('\\', "\\\\"));
        let server = Server::start(move |_| Reply::new(401, &[("www-authenticate", &challenge)], "")).await;
        let error = client(public(&server), patient()).manifest("a", "tag").await.unwrap_err();
        assert_refused(&error, url);
        assert!(!error.to_string().contains("hunter2"));
    }
    assert_eq!(canary.connections(), 0);
}

#[tokio::test]
async fn a_forbidden_registry_is_refused_whatever_it_resolves_to() {
    let canary = Server::start(|_| Reply::ok("{}")).await;
    for url in [
        "http://169.254.169.254.nip.test:PORT",
        "http://fd00-ec2--254.nip.test:PORT",
        "http://127.0.0.1.nip.test:PORT",
        "http://0.0.0.0:PORT",
        "http://169.254.169.254",
        "http://[fe80::1]:PORT",
    ] {
        let error = client(remote(&at(url, &canary)), patient()).ping().await.unwrap_err();
        assert!(matches!(error.reason, Reason::Blocked { .. }), "{url}: {error}");
    }
    assert_eq!(canary.connections(), 0);
}

#[tokio::test]
async fn authorization_stays_with_its_origin() {
    // One machine, two ports: the second port is another origin, and redirects back to the first.
    let storage = Server::start(|request| {
        assert_eq!(request.header("authorization"), None, "{request:?}");
        Reply::ok("layer")
    })
    .await;
    let port = storage.port;
    let server = Server::start(move |request| {
        if request.header("authorization").is_none() {
            return Reply::new(401, &[("www-authenticate", "Basic realm=x")], "");
        }
        if request.path().starts_with("/v2/a/blobs") {
            return Reply::redirect(307, "/moved");
        }
        Reply::redirect(307, &format!("http://registry.example:{port}/blob?signature=x"))
    })
    .await;
    let digest = Digest::sha256_of(b"layer");
    let bytes = client(public(&server), patient()).blob("a", &digest, 5, 100).await.unwrap();
    assert_eq!(bytes, b"layer");
    assert_eq!(storage.requests().len(), 1);
    // The redirect within the origin kept the header.
    assert_eq!(server.lines().last().unwrap(), "GET /moved");
}

#[tokio::test]
async fn authorization_does_not_come_back_after_it_was_left_behind() {
    let home = Arc::new(AtomicUsize::new(0));
    let back = home.clone();
    let away = Server::start(move |_| {
        Reply::redirect(302, &format!("http://registry.example:{}/back", back.load(Ordering::SeqCst)))
    })
    .await;
    let port = away.port;
    let server = Server::start(move |request| match (request.path(), request.header("authorization")) {
        ("/back", None) => Reply::ok("layer"),
        ("/back", Some(_)) => panic!("it came back"),
        (_, None) => Reply::new(401, &[("www-authenticate", "Basic realm=x")], ""),
        _ => Reply::redirect(302, &format!("http://registry.example:{port}/")),
    })
    .await;
    home.store(server.port.into(), Ordering::SeqCst);
    let digest = Digest::sha256_of(b"layer");
    client(public(&server), patient()).blob("a", &digest, 5, 100).await.unwrap();
    assert_eq!(away.requests().len(), 1);
    assert_eq!(away.requests()[0].header("authorization"), None);
}

#[tokio::test]
async fn a_host_redirected_to_cannot_ask_who_we_are() {
    let realm = Server::start(|_| Reply::ok(r#"{"token":"x"}"#)).await;
    let challenge = format!("Bearer realm=\"http://registry.example:{}/token\"", realm.port);
    let storage = Server::start(move |_| Reply::new(401, &[("www-authenticate", &challenge)], "")).await;
    let target = format!("http://registry.example:{}/", storage.port);
    let server = Server::start(move |_| Reply::redirect(307, &target)).await;
    let error = client(public(&server), patient()).manifest("a", "tag").await.unwrap_err();
    assert!(matches!(error.reason, Reason::Unauthorized(_)), "{error}");
    // Two requests were redirected there: the one that learns what the registry wants, and the one for the manifest.
    assert_eq!((realm.connections(), storage.requests().len()), (0, 2));
}

#[tokio::test]
async fn redirects_end_after_five_and_a_refresh_header_is_none() {
    let server = Server::start(|request| {
        let hop: u32 = request.path().trim_start_matches("/hop").parse().unwrap_or_default();
        Reply::redirect(302, &format!("/hop{}", hop + 1))
    })
    .await;
    let error = client(public(&server), patient()).manifest("a", "tag").await.unwrap_err();
    assert!(error.to_string().contains("too many redirects"), "{error}");
    assert_eq!(server.requests().len(), 6);

    let canary = Server::start(|_| Reply::ok("{}")).await;
    let refresh = format!("0; url=http://registry.example:{}/", canary.port);
    let server = Server::start(move |_| Reply::new(204, &[("refresh", &refresh)], "")).await;
    client(public(&server), patient()).manifest("a", "tag").await.unwrap_err();
    assert_eq!(canary.connections(), 0);
}

#[tokio::test]
async fn a_token_server_cannot_redirect() {
    let canary = Server::start(|_| Reply::ok(r#"{"token":"x"}"#)).await;
    let target = format!("http://registry.example:{}/token", canary.port);
    let server = Server::start(move |request| {
        if request.path().starts_with("/token") {
            return Reply::redirect(307, &target);
        }
        Reply::new(401, &[("www-authenticate", "Bearer realm=\"/token\"")], "")
    })
    .await;
    let error = client(public(&server), patient()).manifest("a", "tag").await.unwrap_err();
    assert!(error.to_string().contains("redirects"), "{error}");
    assert_eq!(canary.connections(), 0);
}

#[tokio::test]
async fn an_approved_realm_is_asked_and_a_private_registry_may_use_its_neighbours() {
    let realm = Server::start(|_| Reply::ok(r#"{"token":"good"}"#)).await;
    for (home, auth, trusted) in [
        ("registry.example", "auth.evil.test", vec!["auth.evil.test".to_owned()]),
        ("registry.example", "auth.evil.test", vec![format!("auth.evil.test:{}", realm.port)]),
        ("registry.example", "minio.lan", vec!["minio.lan".to_owned()]),
        ("registry.example", "registry.example", vec![]),
        ("harbor.lan", "harbor.lan", vec![]),
    ] {
        let challenge = format!("Bearer realm=\"http://{auth}:{}/token\"", realm.port);
        let server = Server::start(move |request| match request.header("authorization") {
            Some("Bearer good") => Reply::ok("{}"),
            _ => Reply::new(401, &[("www-authenticate", &challenge)], ""),
        })
        .await;
        let mut remote = remote(&format!("http://{home}:{}", server.port));
        remote.trusted_hosts = trusted;
        client(remote, patient()).ping().await.unwrap();
    }
    let wrong_port = Server::start(move |_| {
        Reply::new(401, &[("www-authenticate", "Bearer realm=\"http://auth.evil.test:1/\"")], "")
    })
    .await;
    let mut remote = public(&wrong_port);
    remote.trusted_hosts = vec![format!("auth.evil.test:{}", realm.port)];
    let error = client(remote, patient()).ping().await.unwrap_err();
    assert!(matches!(error.reason, Reason::Blocked { .. }), "{error}");
    assert!(error.to_string().contains("trusted_hosts"), "{error}");
}

#[tokio::test]
async fn a_loopback_registry_may_use_loopback() {
    let server = Server::start(|_| Reply::ok("{}")).await;
    for host in ["127.0.0.1", "localhost", "[::1]"] {
        client(remote(&format!("http://{host}:{}", server.port)), patient()).ping().await.unwrap();
    }
}

/// A resolver that answers with a public address first and with the metadata service's ever after.
struct Rebinding(AtomicUsize);

#[async_trait]
impl Resolver for Rebinding {
    async fn resolve(&self, _: &str) -> io::Result<Vec<IpAddr>> {
        let first = self.0.fetch_add(1, Ordering::SeqCst) == 0;
        Ok(vec![if first { "203.0.113.7" } else { "169.254.169.254" }.parse().unwrap()])
    }

    fn route(&self, _: IpAddr) -> IpAddr {
        "127.0.0.1".parse().unwrap()
    }
}

#[tokio::test]
async fn a_name_that_changes_its_address_is_judged_each_time() {
    let server = Server::start(|_| Reply::ok("{}")).await;
    let anonymous = Remote { credentials: None, ..public(&server) };
    let client = Client::with_limits(anonymous, Arc::new(Rebinding(AtomicUsize::new(0))), patient()).unwrap();
    client.ping().await.unwrap();
    let error = client.ping().await.unwrap_err();
    assert!(matches!(error.reason, Reason::Blocked { .. }), "{error}");
    assert_eq!(server.connections(), 1);
}

/// A resolver with a mixed answer: the public address may be dialled, the other may not.
struct Mixed;

#[async_trait]
impl Resolver for Mixed {
    async fn resolve(&self, _: &str) -> io::Result<Vec<IpAddr>> {
        Ok(vec!["169.254.169.254".parse().unwrap(), "203.0.113.7".parse().unwrap()])
    }

    fn route(&self, address: IpAddr) -> IpAddr {
        assert_eq!(address.to_string(), "203.0.113.7");
        "127.0.0.1".parse().unwrap()
    }
}

#[tokio::test]
async fn of_several_addresses_only_the_permitted_are_dialled() {
    let server = Server::start(|_| Reply::ok("{}")).await;
    Client::with_limits(public(&server), Arc::new(Mixed), patient()).unwrap().ping().await.unwrap();
}

#[tokio::test]
async fn a_link_to_another_origin_fails_the_listing() {
    let canary = Server::start(|_| Reply::ok(r#"{"tags":["b"]}"#)).await;
    for target in [
        format!("<http://registry.example:{}/>", canary.port),
        format!("<//evil.test:{}/>", canary.port),
        format!("<http://127.0.0.1:{}/>", canary.port),
        "<file:///etc/passwd>".to_owned(),
    ] {
        let link = format!("{target}; rel=\"next\"");
        let server = Server::start(move |_| Reply::new(200, &[("link", &link)], r#"{"tags":["a"]}"#)).await;
        let error = client(public(&server), patient()).tags("a").await.unwrap_err();
        assert!(matches!(error.reason, Reason::Invalid(_)), "{target}: {error}");
    }
    assert_eq!(canary.connections(), 0);
}

#[test]
fn a_registry_url_with_user_info_or_another_scheme_is_no_setting() {
    for url in ["ftp://a/", "file:///x", "http://user@a/", "https://:pw@a/", "data:x"] {
        let error = Client::with_resolver(remote(url), Arc::new(Internet)).err().unwrap();
        assert!(matches!(error.reason, Reason::Misconfigured(_)), "{url}");
        assert!(!error.to_string().contains("pw"), "{error}");
    }
}

#[test]
fn every_wrapping_of_an_address_has_the_place_of_what_it_wraps() {
    for (address, place) in [
        ("8.8.8.8", AddressClass::Public),
        ("172.32.0.1", AddressClass::Public),
        ("100.128.0.1", AddressClass::Public),
        ("2606:4700::1", AddressClass::Public),
        ("::ffff:8.8.8.8", AddressClass::Public),
        ("64:ff9b::808:808", AddressClass::Public),
        ("10.255.255.255", AddressClass::Private),
        ("198.19.0.1", AddressClass::Private),
        ("fd12::1", AddressClass::Private),
        ("fec0::1", AddressClass::Private),
        ("::ffff:192.168.0.1", AddressClass::Private),
        ("2002:a00:1::", AddressClass::Private),
        ("127.8.8.8", AddressClass::Loopback),
        ("::1", AddressClass::Loopback),
        ("::ffff:0:127.0.0.1", AddressClass::Loopback),
        ("fe80::5efe:127.0.0.1", AddressClass::Loopback),
        ("2001:db8::5efe:7f00:1", AddressClass::Loopback),
        ("::", AddressClass::Never),
        ("::ffff:0.0.0.0", AddressClass::Never),
        ("169.254.0.1", AddressClass::Never),
        ("febf::1", AddressClass::Never),
        ("ff05::2", AddressClass::Never),
        ("64:ff9b:1::1", AddressClass::Never),
        ("2001:0:53aa:64c:0:0:5601:5601", AddressClass::Never),
    ] {
        assert_eq!(AddressClass::of(address.parse().unwrap()), place, "{address}");
    }
}
