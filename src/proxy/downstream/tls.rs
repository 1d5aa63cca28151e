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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proxy::downstream::certificates::Folders;

    /// Whoever learns the key of a ticket can read what came before it was replaced.
    #[test]
    fn sessions_are_resumed_by_tickets_whose_key_is_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let folders = Folders::new(folder.path().into(), folder.path());
        let acceptor = acceptor(Certificates::load(folders)).unwrap();
        let tickets = &acceptor.config().ticketer;
        assert!(tickets.enabled());
        let hours = tickets.lifetime() / 3600;
        assert!((1..=24).contains(&hours), "{hours}");
        let sealed = tickets.encrypt(b"session").unwrap();
        assert_eq!(tickets.decrypt(&sealed).unwrap(), b"session");
    }
}
