//! The listening sockets: for each port one per thread, so that a connection wakes only the thread that
//! accepts it. The kernel distributes new connections among them (SO_REUSEPORT, socket(7)).

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use listenfd::ListenFd;
use socket2::{Domain, SockRef, Socket, TcpKeepalive, Type};
use thiserror::Error;

use super::options::Options;

/// How long to wait for a port that is still used by a proxy that is shutting down.
const LET_GO: Duration = Duration::from_secs(1);

/// Why the proxy cannot listen.
#[derive(Debug, Error)]
#[error("`{key}`: failed to listen on {address}: {source}{}", listen_hint(.source))]
pub struct ListenError {
    /// As in deploy.toml.
    key: &'static str,
    address: SocketAddr,
    source: io::Error,
}

/// What to do about an address that cannot be listened on, as the end of a sentence.
pub fn listen_hint(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::AddrInUse => {
            "; another program uses the port (`ss -ltnp` names it): stop it, or choose another port"
        }
        io::ErrorKind::PermissionDenied => {
            "; ports below 1024 need CAP_NET_BIND_SERVICE: start as root or by the systemd unit, or choose \
             another port"
        }
        io::ErrorKind::AddrNotAvailable => {
            "; this machine does not have the address (`ip address` lists those that it has)"
        }
        _ => "",
    }
}

/// All sockets of the proxy, or those that one thread accepts from.
pub struct Sockets {
    pub plain: Vec<TcpListener>,
    pub tls: Vec<TcpListener>,
}

impl Sockets {
    /// Takes the sockets that systemd or the previous proxy has opened, the plain ones first, and opens
    /// those that are missing. `strict`: sockets with an address other than the configured one are not
    /// used.
    pub async fn open(
        inherited: Vec<TcpListener>,
        strict: bool,
        options: &Options,
    ) -> Result<Self, ListenError> {
        let of_first = inherited.first().and_then(|s| s.local_addr().ok());
        let is_plain = |socket: &TcpListener| socket.local_addr().ok() == of_first;
        let (mut plain, mut tls): (Vec<_>, Vec<_>) = inherited.into_iter().partition(is_plain);
        if strict {
            plain.retain(|socket| is_at(socket, options.http));
            tls.retain(|socket| options.https.is_some_and(|https| is_at(socket, https)));
        }
        if plain.is_empty() {
            plain = listen("proxy.http", options.http, options.threads).await?;
        }
        match options.https {
            Some(address) if tls.is_empty() => {
                tls = listen("proxy.https", address, options.threads).await?;
            }
            Some(_) => {}
            None => tls.clear(),
        }
        plain.iter().chain(&tls).for_each(prepare);
        Ok(Self { plain, tls })
    }

    /// The addresses of the plain port and, if there is one, of the TLS port.
    pub fn addresses(&self) -> io::Result<(SocketAddr, Option<SocketAddr>)> {
        let none = || io::Error::from(io::ErrorKind::NotConnected);
        let plain = self.plain.first().ok_or_else(none)?.local_addr()?;
        let tls = self.tls.first().map(TcpListener::local_addr).transpose()?;
        Ok((plain, tls))
    }

    /// The sockets for this thread. Each socket belongs to some thread; if there are fewer sockets than
    /// threads, some threads share one.
    pub fn of_thread(&self, thread: usize, threads: usize) -> io::Result<Self> {
        let of = |sockets: &[TcpListener]| {
            let count = sockets.len();
            let its = (0..count).filter(|n| n % threads == thread % count);
            let copies = its.map(|n| sockets[n].try_clone());
            copies.collect::<io::Result<Vec<_>>>()
        };
        Ok(Self {
            plain: of(&self.plain)?,
            tls: of(&self.tls)?,
        })
    }

    /// Copies of all sockets, the plain ones first.
    pub fn copies(&self) -> io::Result<Vec<OwnedFd>> {
        let all = self.plain.iter().chain(&self.tls);
        all.map(|socket| Ok(socket.try_clone()?.into())).collect()
    }
}

fn is_at(socket: &TcpListener, address: SocketAddr) -> bool {
    address.port() == 0 || socket.local_addr().is_ok_and(|its| its == address)
}

/// Sockets that systemd has opened for us: in the unit's order, plain first, then TLS.
pub fn activated() -> Vec<TcpListener> {
    let mut sockets = ListenFd::from_env();
    (0..sockets.len())
        .filter_map(|n| sockets.take_tcp_listener(n).ok().flatten())
        .filter(|socket| socket.set_nonblocking(true).is_ok())
        .collect()
}

/// Listens at the address. Waits a moment if a proxy that is shutting down still uses the port.
async fn listen(
    key: &'static str,
    address: SocketAddr,
    count: usize,
) -> Result<Vec<TcpListener>, ListenError> {
    let deadline = Instant::now() + LET_GO;
    loop {
        match bind(address, count.max(1)) {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse && Instant::now() < deadline => {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            bound => {
                return bound.map_err(|source| ListenError {
                    key,
                    address,
                    source,
                });
            }
        }
    }
}

fn bind(mut address: SocketAddr, count: usize) -> io::Result<Vec<TcpListener>> {
    let mut sockets = Vec::new();
    for n in 0..count {
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
        socket.set_reuse_address(true)?;
        // The first socket does not share its port until it has it: a port in use is an error, even if
        // its user would share it.
        socket.set_reuse_port(n > 0)?;
        socket.bind(&address.into())?;
        socket.set_reuse_port(true)?;
        address = socket.local_addr()?.as_socket().unwrap_or(address);
        sockets.push(socket);
    }
    for socket in &sockets {
        // The kernel reduces this to net.core.somaxconn.
        socket.listen(4096)?;
        socket.set_nonblocking(true)?;
    }
    Ok(sockets.into_iter().map(Into::into).collect())
}

/// Accepted connections inherit these options, which saves a system call for each. Without keep-alive,
/// a WebSocket whose client has vanished would stay open for ever.
fn prepare(listener: &TcpListener) {
    let keep_alive = TcpKeepalive::new()
        .with_time(Duration::from_secs(60))
        .with_interval(Duration::from_secs(15))
        .with_retries(4);
    let socket = SockRef::from(listener);
    if let Err(error) = socket.set_tcp_nodelay(true) {
        tracing::warn!("failed to set TCP_NODELAY, short responses may be delayed: {error}");
    }
    if let Err(error) = socket.set_tcp_keepalive(&keep_alive) {
        tracing::warn!("failed to set TCP keep-alive, vanished clients are not detected: {error}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ports(sockets: &[TcpListener]) -> Vec<u16> {
        let ports = sockets.iter().map(|s| s.local_addr().unwrap().port());
        ports.collect()
    }

    #[test]
    fn a_port_is_shared_with_nobody_else() {
        let sockets = bind("127.0.0.1:0".parse().unwrap(), 3).unwrap();
        let address = sockets[0].local_addr().unwrap();
        assert_eq!(ports(&sockets), [address.port(); 3]);
        let error = bind(address, 3).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
        drop(sockets);
        bind(address, 3).unwrap();
    }

    #[test]
    fn every_socket_is_some_threads_and_every_thread_has_one() {
        for (sockets, threads) in [(1, 3), (3, 3), (4, 3), (8, 3), (2, 3)] {
            let of = |count: usize| -> Vec<TcpListener> {
                let bind = |_| TcpListener::bind("127.0.0.1:0").unwrap();
                (0..count).map(bind).collect()
            };
            let all = Sockets {
                plain: of(sockets),
                tls: vec![],
            };
            let mut taken = Vec::new();
            for thread in 0..threads {
                let its = all.of_thread(thread, threads).unwrap();
                assert!(!its.plain.is_empty() && its.tls.is_empty());
                taken.extend(ports(&its.plain));
            }
            taken.sort();
            let shared = taken.len();
            taken.dedup();
            let mut expected = ports(&all.plain);
            expected.sort();
            assert_eq!(taken, expected);
            assert_eq!(shared, sockets.max(threads));
        }
    }
}
