//! TLS towards registries: ring, TLS 1.2 and up, and trust that differs by host.
//!
//! A registry's private CA, or its "don't verify" setting, applies to its own host and the hosts that an
//! administrator approved for it. A CDN it redirects to must have a certificate the system trusts.

use std::sync::{Arc, OnceLock};

use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, Error as TlsError, OtherError, RootCertStore,
    SignatureScheme,
    client::{
        WebPkiServerVerifier,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
        verify_server_name,
    },
    crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature},
    pki_types::{CertificateDer, ServerName, UnixTime, pem::PemObject as _},
    server::ParsedCertificate,
};

use crate::registry::error::Reason;

/// Most certificates read from a registry's CA file.
const MAX_CA: usize = 1000;

/// Makes the TLS settings of one registry. `own` are the host names they apply to.
///
/// # Errors
/// [`Reason::Misconfigured`] when the CA text holds no usable certificate.
pub(crate) fn client_config(
    own: Vec<String>,
    verify: bool,
    ca_pem: Option<&str>,
) -> Result<ClientConfig, Reason> {
    let provider = Arc::new(ring::default_provider());
    let system = verifier(system_roots().clone(), &provider)?;
    let private = match ca_pem {
        Some(pem) => verifier(with_ca(pem)?, &provider)?,
        None => system.clone(),
    };
    let given = ca_pem.map(certificates).transpose()?.unwrap_or_default();
    let trust = Trust { own, verify, given, private, system, provider: provider.clone() };
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| Reason::Misconfigured(error.to_string()))?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(trust))
        .with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(config)
}

/// The machine's trust store, read once (`SSL_CERT_FILE` and `SSL_CERT_DIR` are honoured). Where there is none, as in
/// a container with nothing but this binary, it is Mozilla's list.
pub(crate) fn system_roots() -> &'static RootCertStore {
    static ROOTS: OnceLock<RootCertStore> = OnceLock::new();
    ROOTS.get_or_init(|| {
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        if roots.is_empty() {
            roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
        }
        roots
    })
}

/// The machine's trust store, plus the certificates in this PEM text.
///
/// # Errors
/// [`Reason::Misconfigured`] when the text holds no usable certificate.
pub(crate) fn with_ca(pem: &str) -> Result<RootCertStore, Reason> {
    let mut roots = system_roots().clone();
    if roots.add_parsable_certificates(certificates(pem)?).0 == 0 {
        return Err(Reason::Misconfigured("the CA file holds no usable certificate".into()));
    }
    Ok(roots)
}

fn certificates(pem: &str) -> Result<Vec<CertificateDer<'static>>, Reason> {
    CertificateDer::pem_slice_iter(pem.as_bytes())
        .take(MAX_CA)
        .collect::<Result<_, _>>()
        .map_err(|_| Reason::Misconfigured("the CA certificate is not readable PEM".into()))
}

fn verifier(
    roots: RootCertStore,
    provider: &Arc<CryptoProvider>,
) -> Result<Arc<WebPkiServerVerifier>, Reason> {
    WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider.clone())
        .build()
        .map_err(|error| Reason::Misconfigured(error.to_string()))
}

/// Decides by host name which roots apply.
#[derive(Debug)]
struct Trust {
    own: Vec<String>,
    verify: bool,
    /// The certificates that an administrator gave.
    given: Vec<CertificateDer<'static>>,
    private: Arc<WebPkiServerVerifier>,
    system: Arc<WebPkiServerVerifier>,
    provider: Arc<CryptoProvider>,
}

impl Trust {
    fn is_own(&self, name: &ServerName<'_>) -> bool {
        let name = name.to_str().to_ascii_lowercase();
        self.own.iter().any(|own| *own == name.strip_suffix('.').unwrap_or(&name))
    }
}

impl ServerCertVerifier for Trust {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, TlsError> {
        let own = self.is_own(server_name);
        if own && !self.verify {
            return Ok(ServerCertVerified::assertion());
        }
        let verifier = if own { &self.private } else { &self.system };
        let outcome = verifier.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now);
        match outcome {
            // A self-signed certificate that may sign others is refused as a server's own, after its dates were
            // checked and before its name was. One that an administrator gave is trusted as it is.
            Err(error) if own && is_authority(&error) && self.given.contains(end_entity) => {
                verify_server_name(&ParsedCertificate::try_from(end_entity)?, server_name)?;
                Ok(ServerCertVerified::assertion())
            }
            outcome => outcome,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, TlsError> {
        verify_tls12_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, TlsError> {
        verify_tls13_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

/// Whether a certificate was refused only because it is an authority's.
fn is_authority(error: &TlsError) -> bool {
    matches!(
        error,
        TlsError::InvalidCertificate(CertificateError::Other(OtherError(cause)))
            if cause.downcast_ref() == Some(&webpki::Error::CaUsedAsEndEntity)
    )
}

/// Explains a failed handshake in an operator's words, with the remedy if there is one.
pub(crate) fn explain(error: &TlsError) -> String {
    match error {
        TlsError::InvalidCertificate(CertificateError::UnknownIssuer) => {
            "no trusted CA signed its certificate (UnknownIssuer); give the registry its CA certificate"
                .into()
        }
        TlsError::InvalidCertificate(CertificateError::Expired | CertificateError::ExpiredContext { .. }) => {
            "its certificate has expired; renew it".into()
        }
        TlsError::InvalidCertificate(
            CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. },
        ) => "its certificate is not valid yet; see that both clocks are right".into(),
        _ if is_authority(error) => {
            "its certificate is a self-signed authority's; give the registry this very certificate as its CA"
                .into()
        }
        TlsError::InvalidMessage(_) => "it does not speak TLS; is it http:// perhaps?".into(),
        TlsError::InvalidCertificate(why) => format!("its certificate is refused: {why}"),
        other => other.to_string(),
    }
}
