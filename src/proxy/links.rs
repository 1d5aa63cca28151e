//! The addresses at which containers of this machine reach apps by their names: one for each network
//! whose apps have links. The agent says which; they come and go with its tables.

use std::collections::BTreeMap;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Duration;

use socket2::{Domain, Socket, Type};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::downstream::listen::accept;
use super::downstream::server::{Entrance, Server};
use super::exchange::forward::Gateway;
use super::sockets::{listen_hint, prepare};

/// How often to try again where listening failed: after a reboot the network may come later than the
/// proxy.
const AGAIN: Duration = Duration::from_secs(1);

/// Listens where the table says, until `stop`.
pub async fn serve(server: Arc<Server<Gateway>>, mut stop: watch::Receiver<bool>) {
    let routes = server.handler.routes.clone();
    let mut changes = routes.changes();
    let mut open: BTreeMap<SocketAddr, JoinHandle<()>> = BTreeMap::new();
    loop {
        changes.mark_unchanged();
        let table = routes.table();
        open.retain(|address, accepting| {
            let stays = table.links.contains(address) && !accepting.is_finished();
            if !stays {
                accepting.abort();
            }
            stays
        });
        let mut closed = BTreeMap::new();
        for address in &table.links {
            if open.contains_key(address) {
                continue;
            }
            match listen(*address) {
                Ok(listener) => {
                    let accepting = accept(listener, Entrance::Link, server.clone(), stop.clone());
                    open.insert(*address, tokio::spawn(accepting));
                }
                Err(error) => drop(closed.insert(*address, told(*address, &error))),
            }
        }
        let wait = !closed.is_empty();
        routes.links_are_closed(closed.into_values().collect());
        tokio::select! {
            _ = stop.wait_for(|stop| *stop) => return,
            changed = changes.changed() => if changed.is_err() { return },
            () = tokio::time::sleep(AGAIN), if wait => {}
        }
    }
}

fn told(address: SocketAddr, error: &io::Error) -> String {
    let hint = listen_hint(error);
    format!("`run.links`: failed to listen on {address} for linked apps: {error}{hint}")
}

fn listen(address: SocketAddr) -> io::Result<tokio::net::TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
    socket.set_reuse_address(true)?;
    // Beside the proxy's own socket for every address of the port, and beside the proxy that this one
    // takes over from.
    socket.set_reuse_port(true)?;
    socket.bind(&address.into())?;
    socket.listen(4096)?;
    socket.set_nonblocking(true)?;
    let listener = TcpListener::from(socket);
    prepare(&listener);
    tokio::net::TcpListener::from_std(listener)
}
