//! Certificates that must not be believed.

use std::{path::Path, process::Command, sync::Arc};

use rustls::{
    ServerConfig,
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
};
use tokio::io::AsyncWriteExt as _;
use tokio_rustls::TlsAcceptor;

use crate::registry::{
    client::Remote,
    error::{Error, Reason},
    tests::{
        client, patient, remote,
        server::{Reply, Server, Stream},
    },
};

/// A certificate authority made for one test.
struct Authority {
    directory: tempfile::TempDir,
}

impl Authority {
    fn new() -> Self {
        let authority = Self { directory: tempfile::tempdir().unwrap() };
        // Authorities with the same name would differ only in their signatures, which gives another error.
        let name = authority.path().file_name().unwrap().to_string_lossy().into_owned();
        authority.openssl(&format!(
            "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -keyout ca.key -out ca.pem \
             -days 2 -subj /CN=ca-{name} -addext basicConstraints=critical,CA:TRUE -addext keyUsage=keyCertSign"
        ));
        authority
    }

    fn openssl(&self, arguments: &str) {
        let output = Command::new("openssl")
            .args(arguments.split_whitespace())
            .current_dir(self.directory.path())
            .output()
            .expect("the tests need the openssl command");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }

    fn path(&self) -> &Path {
        self.directory.path()
    }

    fn pem(&self) -> String {
        std::fs::read_to_string(self.path().join("ca.pem")).unwrap()
    }

    /// Starts a server with a certificate for `name`, valid for this many days from now (none is in the past).
    async fn serve(&self, name: &str, days: i32) -> Server {
        self.answering(name, days, Reply::ok("{}")).await
    }

    async fn redirecting(&self, name: &str, target: &str) -> Server {
        self.answering(name, 2, Reply::redirect(307, target)).await
    }

    async fn answering(&self, name: &str, days: i32, reply: Reply) -> Server {
        self.openssl(&format!(
            "req -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -keyout key.pem -out csr.pem -subj /CN={name}"
        ));
        std::fs::write(self.path().join("ext"), format!("subjectAltName=DNS:{name}")).unwrap();
        self.openssl(&format!(
            "x509 -req -in csr.pem -CA ca.pem -CAkey ca.key -CAcreateserial -out cert.pem -days {days} -extfile ext"
        ));
        self.present(reply).await
    }

    /// A server with a certificate that signed itself, with these extensions, valid for this many days.
    async fn self_signed(&self, name: &str, days: i32, extension: &str) -> Server {
        self.openssl(&format!(
            "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -keyout key.pem -out cert.pem \
             -days 2 -subj /CN={name} -addext subjectAltName=DNS:{name} -addext basicConstraints={extension}"
        ));
        if days < 0 {
            // Signed anew, with dates of the past.
            self.openssl(
                "x509 -in cert.pem -signkey key.pem -days -1 -copy_extensions copyall -out past.pem",
            );
            std::fs::rename(self.path().join("past.pem"), self.path().join("cert.pem")).unwrap();
        }
        self.present(Reply::ok("{}")).await
    }

    /// Serves with `cert.pem`.
    async fn present(&self, reply: Reply) -> Server {
        let chain = CertificateDer::pem_file_iter(self.path().join("cert.pem")).unwrap();
        let key = PrivateKeyDer::from_pem_file(self.path().join("key.pem")).unwrap();
        let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(chain.map(Result::unwrap).collect(), key)
            .unwrap();
        let acceptor = TlsAcceptor::from(Arc::new(config));
        Server::start_wrapped(
            move |_| reply.clone(),
            move |socket| {
                let acceptor = acceptor.clone();
                Box::pin(async move {
                    let stream = acceptor.accept(socket).await.ok()?;
                    Some(Box::new(stream) as Box<dyn Stream>)
                })
            },
        )
        .await
    }
}

fn at(server: &Server, name: &str, ca_pem: Option<String>) -> Remote {
    Remote { ca_pem, ..remote(&format!("https://{name}:{}", server.port)) }
}

async fn ping(remote: Remote) -> Result<(), Error> {
    client(remote, patient()).ping().await
}

fn assert_tls(outcome: Result<(), Error>, why: &str) {
    let error = outcome.unwrap_err();
    assert!(matches!(&error.reason, Reason::Tls(text) if text.contains(why)), "{error}");
    assert!(!error.is_transient());
}

#[tokio::test]
async fn a_private_ca_counts_for_its_registry_only() {
    let authority = Authority::new();
    let server = authority.serve("registry.example", 2).await;
    ping(at(&server, "registry.example", Some(authority.pem()))).await.unwrap();
    assert_tls(ping(at(&server, "registry.example", None)).await, "UnknownIssuer");
    assert_tls(ping(at(&server, "registry.example", Some(Authority::new().pem()))).await, "UnknownIssuer");
    // One try each: trying again does not make a certificate better.
    assert_eq!(server.connections(), 3);

    // The same CA does not vouch for a host the registry redirects to, unless an administrator approved that host.
    let cdn = authority.serve("cdn.example", 2).await;
    let target = format!("https://cdn.example:{}/", cdn.port);
    let plain = Server::start(move |_| Reply::redirect(307, &target)).await;
    let mut home = remote(&format!("http://registry.example:{}", plain.port));
    home.ca_pem = Some(authority.pem());
    assert_tls(ping(home.clone()).await, "UnknownIssuer");
    home.trusted_hosts = vec!["cdn.example".into()];
    ping(home).await.unwrap();
}

#[tokio::test]
async fn expired_and_misnamed_certificates_are_refused_and_named() {
    let authority = Authority::new();
    let expired = authority.serve("registry.example", -1).await;
    assert_tls(ping(at(&expired, "registry.example", Some(authority.pem()))).await, "expired");
    let other = authority.serve("other.example", 2).await;
    assert_tls(ping(at(&other, "registry.example", Some(authority.pem()))).await, "other.example");
}

#[tokio::test]
async fn a_self_signed_certificate_that_was_given_is_trusted_for_its_name_and_its_time() {
    for extension in ["critical,CA:TRUE", "CA:TRUE", "CA:FALSE"] {
        let authority = Authority::new();
        let server = authority.self_signed("registry.example", 2, extension).await;
        let given = std::fs::read_to_string(authority.path().join("cert.pem")).unwrap();
        ping(at(&server, "registry.example", Some(given.clone()))).await.unwrap();
        ping(at(&server, "registry.example", Some(authority.pem() + &given))).await.unwrap();
        assert_tls(ping(at(&server, "other.example", Some(given))).await, "registry.example");
        // Another one is not.
        assert_tls(ping(at(&server, "registry.example", Some(authority.pem()))).await, "certificate");
        assert_tls(ping(at(&server, "registry.example", None)).await, "certificate");

        let expired = authority.self_signed("registry.example", -1, extension).await;
        let given = std::fs::read_to_string(authority.path().join("cert.pem")).unwrap();
        assert_tls(ping(at(&expired, "registry.example", Some(given))).await, "expired");
    }
}

#[tokio::test]
async fn a_realm_on_our_own_host_is_asked_by_https() {
    let authority = Authority::new();
    for realm in
        ["http://registry.example/token", "http://registry.example:8080/token", "http://auth.example/token"]
    {
        let challenge = format!("Bearer realm=\"{realm}\"");
        let reply = Reply::new(401, &[("www-authenticate", &challenge)], "");
        let server = authority.answering("registry.example", 2, reply).await;
        let error = ping(at(&server, "registry.example", Some(authority.pem()))).await.unwrap_err();
        let asked = server.lines().iter().any(|line| line.starts_with("GET /token?"));
        assert_eq!(asked, !realm.contains("auth."), "{realm}: {error}");
        assert!(asked || error.to_string().contains("external_url"), "{error}");
    }
}

#[tokio::test]
async fn unverified_is_for_the_registry_itself_not_for_whom_it_redirects_to() {
    let authority = Authority::new();
    let server = authority.serve("other.example", 2).await;
    let mut insecure = at(&server, "registry.example", None);
    insecure.ssl_verify = false;
    ping(insecure).await.unwrap();

    let target = format!("https://cdn.example:{}/", server.port);
    let plain = Server::start(move |_| Reply::redirect(307, &target)).await;
    let mut insecure = remote(&format!("http://registry.example:{}", plain.port));
    insecure.ssl_verify = false;
    assert_tls(ping(insecure).await, "UnknownIssuer");
}

#[tokio::test]
async fn https_is_never_left_for_http() {
    let authority = Authority::new();
    let canary = Server::start(|_| Reply::ok("{}")).await;
    let target = format!("http://registry.example:{}/", canary.port);
    let server = authority.redirecting("registry.example", &target).await;
    let error = ping(at(&server, "registry.example", Some(authority.pem()))).await.unwrap_err();
    assert!(matches!(error.reason, Reason::Blocked { .. }), "{error}");
    assert_eq!(canary.connections(), 0);
}

#[tokio::test]
async fn a_server_that_does_not_speak_tls_is_an_error_not_a_downgrade() {
    let server = Server::start_wrapped(
        |_| Reply::ok("{}"),
        |mut socket| {
            Box::pin(async move {
                socket.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await.ok()?;
                None
            })
        },
    )
    .await;
    let error = ping(at(&server, "registry.example", None)).await.unwrap_err();
    assert!(matches!(error.reason, Reason::Tls(_)), "{error}");

    // A handshake that is cut off is the network's fault, and is tried again.
    let server = Server::start_wrapped(|_| Reply::ok("{}"), |_| Box::pin(async { None })).await;
    let error = ping(at(&server, "registry.example", None)).await.unwrap_err();
    assert!(matches!(error.reason, Reason::Unreachable(_)), "{error}");
    assert_eq!(server.connections(), 4);
}

#[test]
fn an_unreadable_ca_is_misconfigured() {
    use crate::registry::client::Client;
    for pem in ["", "nonsense", "-----BEGIN CERTIFICATE-----\n!!!\n-----END CERTIFICATE-----\n"] {
        let remote = Remote { ca_pem: Some(pem.into()), ..remote("https://cr.example") };
        let error = Client::new(remote).err().unwrap();
        assert!(matches!(error.reason, Reason::Misconfigured(_)), "{pem}: {error}");
    }
}
