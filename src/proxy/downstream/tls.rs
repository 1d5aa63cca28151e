//! TLS towards clients.

use std::sync::Arc;

use tokio_rustls::TlsAcceptor;

use super::certificates::{CHALLENGE, Certificates};

/// A TLS server with these certificates that offers HTTP/2.
pub fn acceptor(certificates: Arc<Certificates>) -> Result<TlsAcceptor, rustls::Error> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_cert_resolver(certificates);
    config.alpn_protocols = [b"h2", &b"http/1.1"[..], CHALLENGE].map(Vec::from).into();
    // Sessions are resumed by tickets, whose key is replaced every six hours.
    config.ticketer = rustls::crypto::ring::Ticketer::new()?;
    Ok(TlsAcceptor::from(Arc::new(config)))
}
