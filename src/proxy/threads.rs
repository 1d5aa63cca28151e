//! The threads that handle requests: each accepts its own connections and serves them to their end.

use std::io;
use std::net::TcpListener;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use tokio::sync::watch;

use super::downstream::listen::accept;
use super::downstream::server::{Entrance, Server};
use super::exchange::forward::Gateway;
use super::sockets::Sockets;
use super::worker;

/// Starts a thread with its own event loop that accepts its own connections.
pub fn start(
    slot: usize,
    sockets: Sockets,
    server: &Arc<Server<Gateway>>,
    stop: watch::Receiver<bool>,
    grace: Duration,
) -> io::Result<JoinHandle<()>> {
    let server = server.clone();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    std::thread::Builder::new()
        .name(format!("proxy-{slot}"))
        .spawn(move || {
            worker::set_slot(slot);
            runtime.block_on(async {
                let sockets = sockets
                    .plain
                    .into_iter()
                    .map(|socket| (socket, Entrance::Plain))
                    .chain(
                        sockets
                            .tls
                            .into_iter()
                            .map(|socket| (socket, Entrance::Tls)),
                    );
                let accepting = sockets.filter_map(|(socket, entrance)| {
                    let socket = listener(socket)?;
                    Some(accept(socket, entrance, server.clone(), stop.clone()))
                });
                join_all(accepting).await;
                // This thread's connections live in its runtime, so the thread stays until they have
                // ended.
                let mut deadline = Instant::now() + grace;
                while is_busy(&server) && Instant::now() < deadline {
                    if !server.stage.is_closing() {
                        deadline = Instant::now() + grace;
                    }
                    server.watches.wake_all();
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
            });
        })
}

fn listener(listener: TcpListener) -> Option<tokio::net::TcpListener> {
    tokio::net::TcpListener::from_std(listener)
        .inspect_err(|error| tracing::error!("failed to listen in a thread: {error}"))
        .ok()
}

/// Whether any client is connected, or a request or tunnel is in progress.
pub fn is_busy(server: &Server<Gateway>) -> bool {
    server.places.taken() > 0 || server.handler.routes.under_way() > 0
}
