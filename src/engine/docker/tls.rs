//! TLS towards Docker Engine: its private CA, our client certificate, ring.

use std::path::Path;
use std::sync::Arc;

use rustls::{
    ClientConfig, RootCertStore,
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
};

use crate::engine::fault::{Class, Fault};

/// The most certificates read from one file.
const MAX_CERTIFICATES: usize = 100;

/// A TLS configuration from a folder with `ca.pem`, `cert.pem` and `key.pem`, as `docker` expects in
/// `DOCKER_CERT_PATH`. Only that CA is trusted: an engine's certificate comes from the lab's own.
pub(crate) fn client_config(folder: &Path) -> Result<ClientConfig, Fault> {
    let mut roots = RootCertStore::empty();
    let authority = certificates(&folder.join("ca.pem"))?;
    if roots.add_parsable_certificates(authority).0 == 0 {
        return Err(unusable(&folder.join("ca.pem"), "it has no usable certificate"));
    }
    let chain = certificates(&folder.join("cert.pem"))?;
    let key_file = folder.join("key.pem");
    let key =
        PrivateKeyDer::from_pem_file(&key_file).map_err(|error| unusable(&key_file, &error.to_string()))?;
    ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .and_then(|builder| builder.with_root_certificates(roots).with_client_auth_cert(chain, key))
        .map_err(|error| unusable(folder, &error.to_string()))
}

fn certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>, Fault> {
    CertificateDer::pem_file_iter(file)
        .and_then(|found| found.take(MAX_CERTIFICATES).collect())
        .map_err(|error| unusable(file, &error.to_string()))
}

fn unusable(file: &Path, why: &str) -> Fault {
    let message = format!(
        "{}: {why}; DOCKER_CERT_PATH names a folder with ca.pem, cert.pem and key.pem",
        file.display()
    );
    Fault::new(Class::Other, message)
}
