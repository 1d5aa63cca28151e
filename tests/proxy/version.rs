//! An app that says its version; killed, it is gone with all its connections.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::*};
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

pub struct App {
    pub address: SocketAddr,
    /// Applied.
    pub posts: Arc<AtomicU64>,
    task: JoinHandle<()>,
}

impl App {
    pub async fn start(version: u64) -> Self {
        Self::speaking(version, false).await
    }

    /// `http2`: that, and nothing else.
    pub async fn speaking(version: u64, http2: bool) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let posts = Arc::new(AtomicU64::new(0));
        let counted = posts.clone();
        let task = tokio::spawn(async move {
            // Dropped with the task, and with it every connection: like a process that exits.
            let mut connections = tokio::task::JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let posts = counted.clone();
                let service = service_fn(move |request| answer(request, version, posts.clone()));
                connections.spawn(async move {
                    let io = TokioIo::new(stream);
                    let _ = match http2 {
                        false => {
                            let http1 = hyper::server::conn::http1::Builder::new();
                            http1.serve_connection(io, service).await
                        }
                        true => {
                            let executor = hyper_util::rt::TokioExecutor::new();
                            let http2 = hyper::server::conn::http2::Builder::new(executor);
                            http2.serve_connection(io, service).await
                        }
                    };
                });
            }
        });
        Self {
            address,
            task,
            posts,
        }
    }

    pub async fn kill(self) {
        self.task.abort();
        let _ = self.task.await;
    }
}

async fn answer(
    request: Request<Incoming>,
    version: u64,
    posts: Arc<AtomicU64>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    if request.uri().path() == "/slow" {
        tokio::time::sleep(Duration::from_millis(150)).await;
    }
    if request.method() == Method::POST {
        let body = request.into_body().collect().await;
        if body.is_ok() {
            posts.fetch_add(1, SeqCst);
        }
    }
    Ok(Response::new(Full::new(Bytes::from(version.to_string()))))
}
