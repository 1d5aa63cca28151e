//! The settings and the state of the server's side.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering::*};

use ipnet::IpNet;
use tokio_rustls::TlsAcceptor;

use super::limits::{Limits, Places};
use crate::proxy::watch::Watches;

/// The settings and the state that all client connections share.
pub struct Server<H> {
    /// Answers the requests.
    pub handler: H,
    pub watches: Arc<Watches>,
    pub limits: Limits,
    pub places: Arc<Places>,
    /// Every connection to the plain port begins with a PROXY header.
    pub proxy_protocol: bool,
    /// The same for connections to the TLS port.
    pub proxy_protocol_tls: bool,
    pub stage: Stage,
    /// For connections to the TLS port.
    pub tls: Option<TlsAcceptor>,
    /// Proxies whose X-Forwarded-For and similar fields are trusted.
    pub trusted: Vec<IpNet>,
}

/// Where a connection comes in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Entrance {
    Plain,
    Tls,
    /// From a container on this machine, to an app by its name.
    Link,
}

impl<H> Server<H> {
    /// Whether a connection begins with a PROXY header.
    pub fn has_proxy_header(&self, entrance: Entrance) -> bool {
        match entrance {
            Entrance::Tls => self.proxy_protocol_tls,
            Entrance::Plain => self.proxy_protocol,
            Entrance::Link => false,
        }
    }

    pub fn trusts(&self, peer: IpAddr) -> bool {
        let peer = peer.to_canonical();
        self.trusted.iter().any(|net| net.contains(&peer))
    }
}

/// How far the proxy has got in shutting down.
#[derive(Default)]
pub struct Stage(AtomicU8);

impl Stage {
    /// Every response is the last one of its connection.
    const LEAVING: u8 = 1;
    /// Idle connections are closed too.
    const CLOSING: u8 = 2;

    pub fn leave(&self) {
        self.0.fetch_max(Self::LEAVING, SeqCst);
    }

    pub fn close(&self) {
        self.0.store(Self::CLOSING, SeqCst);
    }

    pub fn is_leaving(&self) -> bool {
        self.0.load(Relaxed) >= Self::LEAVING
    }

    pub fn is_closing(&self) -> bool {
        self.0.load(SeqCst) >= Self::CLOSING
    }
}
