//! The listening sockets: for each port one per thread, so that a connection wakes only the thread that
//! accepts it. The kernel distributes new connections among them (SO_REUSEPORT, socket(7)).

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};
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
        let is_plain = |socket: &TcpListener| {
            let address = socket.local_addr().ok();
            address.zip(of_first).is_some_and(|(a, b)| is_alike(a, b))
        };
        let (mut plain, mut tls): (Vec<_>, Vec<_>) = inherited.into_iter().partition(is_plain);
        if strict {
            plain.retain(|socket| is_at(socket, options.http));
            tls.retain(|socket| options.https.is_some_and(|https| is_at(socket, https)));
        }
        listen(
            "proxy.http",
            options.http,
            options.threads,
            &mut plain,
            strict,
        )
        .await?;
        match options.https {
            Some(https) => {
                listen("proxy.https", https, options.threads, &mut tls, strict).await?;
            }
            None => tls.clear(),
        }
        plain.iter().chain(&tls).for_each(prepare);
        Ok(Self { plain, tls })
    }

    /// The addresses of the plain port and, if there is one, of the TLS port.
    pub fn addresses(&self) -> io::Result<(SocketAddr, Option<SocketAddr>)> {
        let none = || io::Error::from(io::ErrorKind::NotConnected);
        // With both families, the last one's stands for both.
        let of = |sockets: &[TcpListener]| sockets.last().map(TcpListener::local_addr).transpose();
        Ok((of(&self.plain)?.ok_or_else(none)?, of(&self.tls)?))
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

/// Whether a socket is one of those that listen at the configured address.
fn is_at(socket: &TcpListener, address: SocketAddr) -> bool {
    let is_one = |its: SocketAddr| its == address || takes_both(address) && is_alike(its, address);
    address.port() == 0 || socket.local_addr().is_ok_and(is_one)
}

/// Whether both are the same port, at the same address or at any.
fn is_alike(a: SocketAddr, b: SocketAddr) -> bool {
    let any = a.ip().is_unspecified() && b.ip().is_unspecified();
    a.port() == b.port() && (any || a.ip() == b.ip())
}

/// Whether an address stands for all those of the machine, of both families.
fn takes_both(address: SocketAddr) -> bool {
    address.ip() == IpAddr::from(Ipv6Addr::UNSPECIFIED)
}

/// Sockets that systemd has opened for us: in the unit's order, plain first, then TLS.
pub fn activated() -> Vec<TcpListener> {
    let mut sockets = ListenFd::from_env();
    (0..sockets.len())
        .filter_map(|n| sockets.take_tcp_listener(n).ok().flatten())
        .filter(|socket| socket.set_nonblocking(true).is_ok())
        .collect()
}

/// Listens at the address, in addition to the sockets that there are already. Waits a moment if a proxy that is
/// shutting down still uses the port. `completes`: what there is may lack a family that is configured.
async fn listen(
    key: &'static str,
    address: SocketAddr,
    count: usize,
    sockets: &mut Vec<TcpListener>,
    completes: bool,
) -> Result<(), ListenError> {
    let deadline = Instant::now() + LET_GO;
    let lacks = |sockets: &[TcpListener]| {
        let mut all = sockets.iter().filter_map(|it| it.local_addr().ok());
        completes && takes_both(address) && all.all(|its| its.is_ipv4())
    };
    loop {
        let bound = match sockets.first().map(TcpListener::local_addr) {
            None => bind(address, count.max(1)),
            Some(Ok(its)) if lacks(sockets) => bind_six(its.port(), count.max(1)),
            Some(_) => return Ok(()),
        };
        match bound {
            Ok(bound) => sockets.extend(bound),
            Err(error) if error.kind() == io::ErrorKind::AddrInUse && Instant::now() < deadline => {
                tokio::time::sleep(Duration::from_millis(10)).await;
                continue;
            }
            // What serves goes on.
            Err(error) if !sockets.is_empty() => {
                tracing::warn!("`{key}`: failed to listen on {address} over IPv6: {error}");
            }
            Err(source) => {
                return Err(ListenError {
                    key,
                    address,
                    source,
                });
            }
        }
        return Ok(());
    }
}

/// Sockets for the address; for `[::]` those of both families, of which the machine may lack either. One socket
/// of both would show IPv4 addresses mapped to IPv6, and conflict with those of an older proxy.
fn bind(address: SocketAddr, count: usize) -> io::Result<Vec<TcpListener>> {
    if !takes_both(address) {
        return bind_one(address, count);
    }
    let mut four = match bind_one((Ipv4Addr::UNSPECIFIED, address.port()).into(), count) {
        Err(error) if is_unsupported(&error) => Vec::new(),
        bound => bound?,
    };
    let port = match four.first() {
        Some(socket) => socket.local_addr()?.port(),
        None => address.port(),
    };
    four.extend(bind_six(port, count)?);
    match four.is_empty() {
        true => Err(io::ErrorKind::AddrNotAvailable.into()),
        false => Ok(four),
    }
}

/// Sockets for all IPv6 addresses; none if the machine has no IPv6.
fn bind_six(port: u16, count: usize) -> io::Result<Vec<TcpListener>> {
    match bind_one((Ipv6Addr::UNSPECIFIED, port).into(), count) {
        Err(error) if is_unsupported(&error) => Ok(Vec::new()),
        bound => bound,
    }
}

/// Whether the machine does not have the address's family.
fn is_unsupported(error: &io::Error) -> bool {
    let known = [
        rustix::io::Errno::AFNOSUPPORT,
        rustix::io::Errno::ADDRNOTAVAIL,
    ];
    let code = error.raw_os_error();
    known.iter().any(|errno| code == Some(errno.raw_os_error()))
}

fn bind_one(mut address: SocketAddr, count: usize) -> io::Result<Vec<TcpListener>> {
    let mut sockets = Vec::new();
    for n in 0..count {
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
        if address.is_ipv6() {
            socket.set_only_v6(true)?;
        }
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
pub fn prepare(listener: &TcpListener) {
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
    fn both_families_are_one_address_and_what_is_taken_over_is_completed() {
        let all = "[::]:0".parse().unwrap();
        let sockets = bind(all, 2).unwrap();
        let port = ports(&sockets)[0];
        assert_eq!(ports(&sockets), vec![port; sockets.len()]);
        let has_six = bind_one("[::1]:0".parse().unwrap(), 1).is_ok();
        assert_eq!(sockets.len(), if has_six { 4 } else { 2 });
        assert!(std::net::TcpStream::connect(("127.0.0.1", port)).is_ok());
        assert_eq!(std::net::TcpStream::connect(("::1", port)).is_ok(), has_six);
        let configured = |text: &str| text.replace('P', &port.to_string()).parse().unwrap();
        assert!(sockets.iter().all(|it| is_at(it, configured("[::]:P"))));
        let of_four = sockets
            .iter()
            .filter(|it| is_at(it, configured("0.0.0.0:P")));
        assert_eq!(of_four.count(), 2);
        drop(sockets);
        // As an older proxy hands them over.
        let mut four = bind_one(configured("0.0.0.0:P"), 2).unwrap();
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let listens = listen("proxy.http", configured("[::]:P"), 2, &mut four, true);
        runtime.block_on(listens).unwrap();
        assert_eq!(four.len(), if has_six { 4 } else { 2 });
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
