//! Clients that ask again and again.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::*};

use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt, Full};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

/// Until told to stop; returns how many were answered with success, and what went wrong.
pub async fn ask(
    proxy: SocketAddr,
    request: fn() -> Request<Full<Bytes>>,
    keep_alive: bool,
    stop: Arc<AtomicBool>,
) -> (u64, Vec<String>) {
    let (mut answered, mut wrong) = (0, Vec::new());
    let mut sender = None;
    while !stop.load(SeqCst) {
        let mut open = match sender.take() {
            Some(open) => open,
            None => {
                let stream = TcpStream::connect(proxy).await.unwrap();
                let io = TokioIo::new(stream);
                let (open, connection) = hyper::client::conn::http1::handshake(io).await.unwrap();
                tokio::spawn(connection);
                open
            }
        };
        let result = async {
            let response = open.send_request(request()).await?;
            let status = response.status();
            let body = response.into_body().collect().await?.to_bytes();
            Ok::<_, hyper::Error>((status, body))
        };
        match result.await {
            Ok((status, _)) if status.is_success() => answered += 1,
            other => wrong.push(format!("{other:?}")),
        }
        if keep_alive && open.ready().await.is_ok() {
            sender = Some(open);
        }
    }
    (answered, wrong)
}

pub fn get() -> Request<Full<Bytes>> {
    let request = Request::get("/").header("host", "a.test");
    request.body(Full::default()).unwrap()
}

pub fn slow() -> Request<Full<Bytes>> {
    let request = Request::get("/slow").header("host", "a.test");
    request.body(Full::default()).unwrap()
}

pub fn post() -> Request<Full<Bytes>> {
    let request = Request::post("/").header("host", "a.test");
    request.body(Full::from("once and only once")).unwrap()
}
