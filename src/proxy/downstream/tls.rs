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
    use std::io::ErrorKind;
    use std::time::Duration;

    use rustls::pki_types::{PrivateKeyDer, ServerName};
    use rustls::{ClientConfig, RootCertStore, ServerConfig};
    use tokio::io::{AsyncWriteExt, DuplexStream};
    use tokio::time::{sleep, timeout};
    use tokio_rustls::{TlsConnector, client, server};

    use super::*;
    use crate::proxy::downstream::certificates::Folders;
    use crate::proxy::downstream::client_io::ClientIo;
    use crate::proxy::downstream::limits::{Limits, Places};
    use crate::proxy::watch::Watches;

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

    type Ends = (
        server::TlsStream<DuplexStream>,
        client::TlsStream<DuplexStream>,
    );

    async fn connected() -> Ends {
        let made = rcgen::generate_simple_self_signed(vec!["a.test".to_owned()]).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let key = PrivateKeyDer::Pkcs8(made.signing_key.serialize_der().into());
        let server = ServerConfig::builder_with_provider(provider.clone())
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![made.cert.der().clone()], key);
        let mut roots = RootCertStore::empty();
        roots.add(made.cert.der().clone()).unwrap();
        let client = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        let (ours, theirs) = tokio::io::duplex(16 << 10);
        let acceptor = TlsAcceptor::from(Arc::new(server.unwrap()));
        let connector = TlsConnector::from(Arc::new(client));
        let name = ServerName::try_from("a.test").unwrap();
        let (server, client) = tokio::join!(acceptor.accept(ours), connector.connect(name, theirs));
        (server.unwrap(), client.unwrap())
    }

    /// It would hold its place for ever.
    #[tokio::test]
    async fn a_client_that_reads_nothing_is_not_waited_for_with_the_closing_message() {
        let (mut stream, _client) = connected().await;
        let piece = Duration::from_millis(100);
        while timeout(piece, stream.write_all(&[0; 4096])).await.is_ok() {}
        let limits = Limits {
            head_ms: 1_000,
            idle_ms: 60_000,
            write_ms: 100,
            head: 16 << 10,
        };
        let (place, watches) = (Places::new(1, 1).take().unwrap(), Watches::default());
        let watch = watches.add();
        let mut io = ClientIo::new(stream, Vec::new(), true, place, watch, limits);
        let sweeps = async {
            loop {
                watches.sweep();
                sleep(Duration::from_millis(10)).await;
            }
        };
        let ended = tokio::select! {
            ended = io.shutdown() => ended.map_err(|error| error.kind()),
            () = sweeps => Ok(()),
            () = sleep(Duration::from_secs(10)) => Ok(()),
        };
        assert_eq!(ended, Err(ErrorKind::TimedOut));
    }
}
