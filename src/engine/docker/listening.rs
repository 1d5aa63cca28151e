//! Where a container's processes accept connections.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;

use super::{Docker, Result};
use crate::engine::Listening;
use crate::store::ours::Ours;

/// Where Docker itself answers for names inside each container.
const DOCKERS_OWN: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 11));
/// The state of a socket that listens, in `/proc/net/tcp`.
const LISTEN: &str = "0A";

impl Docker {
    pub async fn listening(&self, ours: &Ours) -> Result<Listening> {
        let Some(found) = self.find(ours).await? else {
            return Ok(Listening::default());
        };
        let ports = found.config.and_then(|it| it.exposed_ports);
        let exposed = exposed(ports.unwrap_or_default().iter().map(String::as_str));
        let pid = found.state.and_then(|it| it.pid).filter(|pid| *pid > 0);
        let networks = found.network_settings.and_then(|it| it.networks);
        let address = address(networks.unwrap_or_default());
        // With an engine on another machine the number is that of another process.
        let local = self.host.starts_with("unix:") || self.host.starts_with('/');
        let sockets = match (pid.filter(|_| local), address) {
            (Some(pid), Some(address)) => {
                let read = tokio::task::spawn_blocking(move || sockets_of(pid, address));
                read.await.ok().flatten()
            }
            _ => None,
        };
        Ok(Listening { sockets, exposed })
    }
}

fn address(networks: HashMap<String, bollard::models::EndpointSettings>) -> Option<IpAddr> {
    networks
        .into_values()
        .find_map(|it| it.ip_address?.parse().ok())
}

/// The TCP ports of `80/tcp`, `53/udp`, …
pub(super) fn exposed<'a>(ports: impl Iterator<Item = &'a str>) -> Vec<u16> {
    let tcp = ports.filter_map(|port| match port.split_once('/') {
        Some((number, "tcp")) => number.parse().ok(),
        Some(_) => None,
        None => port.parse().ok(),
    });
    let mut tcp: Vec<u16> = tcp.collect();
    tcp.sort_unstable();
    tcp
}

/// The listening sockets in the network of the process, if that is the network with this address and
/// can be read. Blocks.
fn sockets_of(pid: i64, address: IpAddr) -> Option<Vec<SocketAddr>> {
    let read = |name: &str| {
        let path = PathBuf::from(format!("/proc/{pid}/net/{name}"));
        std::fs::read_to_string(path).ok()
    };
    // A remote or nested engine counts processes in its own way.
    let line = format!("|-- {address}\n");
    if !read("fib_trie")?.contains(&line) {
        return None;
    }
    let mut sockets = listening(&read("tcp")?);
    // Absent where IPv6 is off.
    sockets.extend(listening(&read("tcp6").unwrap_or_default()));
    Some(sockets)
}

/// The listening sockets of a table such as `/proc/net/tcp`.
fn listening(table: &str) -> Vec<SocketAddr> {
    let socket = |line: &str| {
        let mut fields = line.split_whitespace().skip(1);
        let (local, state) = (fields.next()?, fields.nth(1)?);
        let (address, port) = local.split_once(':')?;
        let socket = SocketAddr::new(hex_address(address)?, u16::from_str_radix(port, 16).ok()?);
        (state == LISTEN && socket.ip() != DOCKERS_OWN).then_some(socket)
    };
    table.lines().skip(1).filter_map(socket).collect()
}

/// An address as the kernel prints it: 32-bit words in the machine's own byte order.
fn hex_address(text: &str) -> Option<IpAddr> {
    let words = text.as_bytes().chunks(8).map(|word| {
        let word = std::str::from_utf8(word).ok()?;
        Some(u32::from_str_radix(word, 16).ok()?.to_ne_bytes())
    });
    let bytes: Vec<u8> = words.collect::<Option<Vec<_>>>()?.concat();
    if let Ok(four) = <[u8; 4]>::try_from(bytes.as_slice()) {
        return Some(Ipv4Addr::from(four).into());
    }
    let sixteen = <[u8; 16]>::try_from(bytes.as_slice()).ok()?;
    Some(Ipv6Addr::from(sixteen).to_canonical())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_sockets_are_found_as_the_kernel_lists_them() {
        let four = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let six = std::net::TcpListener::bind("[::1]:0");
        let read = |name| std::fs::read_to_string(format!("/proc/self/net/{name}"));
        let found = listening(&read("tcp").unwrap());
        assert!(found.contains(&four.local_addr().unwrap()), "{found:?}");
        if let Ok(six) = six {
            let found = listening(&read("tcp6").unwrap());
            assert!(found.contains(&six.local_addr().unwrap()), "{found:?}");
        }
    }

    #[test]
    fn what_does_not_listen_and_dockers_own_is_left_out() {
        let table = "  sl  local_address rem_address   st tx_queue\n\
             \x20  0: 0B00007F:A2E5 00000000:0000 0A 00000000:00000000\n\
             \x20  1: 00000000:0050 00000000:0000 0A 00000000:00000000\n\
             \x20  2: 0400C00A:0050 0100C00A:8F22 01 00000000:00000000\n\
             nonsense\n";
        let any = SocketAddr::from(([0, 0, 0, 0], 80));
        assert_eq!(listening(table), [any]);
        assert_eq!(exposed(["80/tcp", "53/udp", "22"].into_iter()), [22, 80]);
    }
}
