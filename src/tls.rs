//! What Cutover trusts as a client over TLS, of git servers as of forges: the system's certificates, or
//! those that `SSL_CERT_FILE` and `SSL_CERT_DIR` name.

use std::sync::Arc;

use rustls::pki_types::CertificateDer;
use rustls::{ClientConfig, RootCertStore};

/// A client without a certificate of its own.
pub fn client() -> Result<ClientConfig, rustls::Error> {
    client_trusting(Vec::new())
}

/// The same, which trusts these authorities too.
pub fn client_trusting(more: Vec<CertificateDer<'_>>) -> Result<ClientConfig, rustls::Error> {
    let mut roots = RootCertStore::empty();
    for authority in more {
        roots.add(authority)?;
    }
    // A single root that cannot be read must not lock every server out.
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(config)
}
