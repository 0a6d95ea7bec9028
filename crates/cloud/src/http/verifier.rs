//! Server certificates of a tenant's own authorities, or of the system's, and of how many a server may send.

use super::clients::Trust;
use rustls::{
    CertificateError, DigitallySignedStruct, Error, OtherError, RootCertStore, SignatureScheme,
    client::{
        WebPkiServerVerifier,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::CryptoProvider,
    pki_types::{CertificateDer, ServerName, UnixTime},
};
use rustls_platform_verifier::Verifier as SystemVerifier;
use std::sync::{Arc, OnceLock};

/// Certificates beside its own that a server may send. Real chains have two or three; the time to find a way through
/// many that share one name has hardly a bound.
const MAX_INTERMEDIATES: usize = 8;

/// A server sends more certificates than that.
#[derive(Debug, thiserror::Error)]
#[error("more than {MAX_INTERMEDIATES} certificates beside its own")]
pub(super) struct TooMany;

/// Accepts what one of the two accepts. All share the system's one, which holds more than 100 certificates.
#[derive(Debug)]
pub(super) struct OwnOrSystem {
    /// `None` without own authorities.
    own: Option<Arc<WebPkiServerVerifier>>,
    /// Accepts every certificate whose key the server has.
    accepts_any: bool,
    system: Arc<SystemVerifier>,
    provider: Arc<CryptoProvider>,
}

impl OwnOrSystem {
    pub(super) fn new(trust: &Trust) -> Result<Self, Error> {
        let provider = CryptoProvider::get_default().cloned();
        let provider =
            provider.ok_or_else(|| Error::General("there is no cryptography".to_owned()))?;
        let mut roots = RootCertStore::empty();
        for authority in trust.authorities.iter() {
            roots.add(authority.clone())?;
        }
        let has_own = !roots.is_empty();
        let own = has_own.then(|| {
            WebPkiServerVerifier::builder_with_provider(roots.into(), Arc::clone(&provider)).build()
        });
        Ok(Self {
            own: own
                .transpose()
                .map_err(|error| Error::Other(OtherError(Arc::new(error))))?,
            accepts_any: trust.accept_any,
            system: system(&provider)?,
            provider,
        })
    }

    pub(super) fn provider(&self) -> &Arc<CryptoProvider> {
        &self.provider
    }
}

/// The system's verifier, as it was when first needed.
fn system(provider: &Arc<CryptoProvider>) -> Result<Arc<SystemVerifier>, Error> {
    static SYSTEM: OnceLock<Arc<SystemVerifier>> = OnceLock::new();
    if let Some(system) = SYSTEM.get() {
        return Ok(Arc::clone(system));
    }
    let system = Arc::new(SystemVerifier::new(Arc::clone(provider))?);
    Ok(Arc::clone(SYSTEM.get_or_init(|| system)))
}

impl ServerCertVerifier for OwnOrSystem {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        if self.accepts_any {
            return Ok(ServerCertVerified::assertion());
        }
        if intermediates.len() > MAX_INTERMEDIATES {
            return Err(Error::InvalidCertificate(CertificateError::Other(
                OtherError(Arc::new(TooMany)),
            )));
        }
        let verify = |by: &dyn ServerCertVerifier| {
            by.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now)
        };
        let unknown = Error::InvalidCertificate(CertificateError::UnknownIssuer);
        let Some(own) = &self.own else {
            return verify(&*self.system);
        };
        // The error is that of the one that knows the issuer.
        verify(&**own).or_else(|own| {
            verify(&*self.system).map_err(|system| if own == unknown { system } else { own })
        })
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.system.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.system.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.system.supported_verify_schemes()
    }
}
