//! A proxy in the test's own process and apps on loopback sockets.

use std::future::Future;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

// As the files of the demo name it.
pub use cutover::proxy::control;
use cutover::proxy::control::Client;
use cutover::proxy::table::{Route, Share, Table};
use cutover::proxy::{ADDRESSES, Options, run};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;
use tokio::task::JoinHandle;

use crate::support::wait::soon;

pub struct Proxy {
    pub address: SocketAddr,
    pub https: Option<SocketAddr>,
    pub client: Client,
    pub folder: PathBuf,
    stop: Arc<Notify>,
    task: JoinHandle<()>,
    _temp: Option<tempfile::TempDir>,
}

impl Proxy {
    pub async fn start() -> Self {
        Self::start_with(|_| {}).await
    }

    pub async fn start_with(change: impl FnOnce(&mut Options)) -> Self {
        let temp = tempfile::tempdir().unwrap();
        let mut proxy = Self::start_in(temp.path().into(), change).await;
        proxy._temp = Some(temp);
        proxy
    }

    pub async fn start_in(folder: PathBuf, change: impl FnOnce(&mut Options)) -> Self {
        let http = "127.0.0.1:0".parse().unwrap();
        let mut options = Options::new(http, None, folder.clone());
        options.grace = Duration::from_secs(5);
        change(&mut options);
        let _ = std::fs::remove_file(folder.join(ADDRESSES));
        let stop = Arc::new(Notify::new());
        let told = stop.clone();
        let task = tokio::spawn(async move {
            run(options, async move { told.notified().await })
                .await
                .unwrap();
        });
        let (address, https) = loop {
            if let Ok(text) = std::fs::read_to_string(folder.join(ADDRESSES)) {
                let json: serde_json::Value = serde_json::from_str(&text).unwrap();
                let address = |key: &str| json[key].as_str().map(|a| a.parse().unwrap());
                break (address("http").unwrap(), address("https"));
            }
            assert!(!task.is_finished(), "the proxy ended at start");
            tokio::time::sleep(Duration::from_millis(2)).await;
        };
        Self {
            address,
            https,
            client: Client::new(folder.join("proxy.sock")),
            folder,
            stop,
            task,
            _temp: None,
        }
    }

    pub async fn publish(&self, generation: u64, targets: &[SocketAddr]) {
        let table = Table::new(generation, vec![route("app", generation, targets)]);
        assert_eq!(self.client.publish(&table).await.unwrap(), generation);
    }

    /// Waits for its end, which something else brings about.
    pub async fn left(self) {
        self.task.await.unwrap();
    }

    pub async fn stop(self) {
        self.stop.notify_one();
        self.task.await.unwrap();
    }

    /// Sends `request` over a connection of its own and reads until the other side closes.
    pub async fn raw(&self, request: &str) -> String {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        let read = stream.read_to_end(&mut answer);
        let done = tokio::time::timeout(Duration::from_secs(10), read).await;
        let text = String::from_utf8_lossy(&answer).into_owned();
        assert!(done.is_ok(), "no end of the answer after {text:?}");
        text
    }

    pub async fn get(&self, path: &str) -> String {
        self.raw(&format!(
            "GET {path} HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\n\r\n"
        ))
        .await
    }
}

pub fn route(app: &str, generation: u64, targets: &[SocketAddr]) -> Route {
    Route {
        app: app.into(),
        generation,
        shares: vec![Share::whole(
            format!("r{generation}"),
            generation,
            targets.to_vec(),
        )],
        ..Default::default()
    }
}

/// A server on a loopback port that gives each connection to `handle`.
pub async fn app<F>(handle: impl Fn(TcpStream) -> F + Send + Sync + 'static) -> SocketAddr
where
    F: Future<Output = ()> + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(handle(stream));
        }
    });
    address
}

/// One that reads one head and then writes `answer`, keeping the connection open for `then`.
pub async fn says(answer: &'static str, then: Duration) -> SocketAddr {
    app(move |mut stream| async move {
        read_head(&mut stream).await;
        let _ = stream.write_all(answer.as_bytes()).await;
        tokio::time::sleep(then).await;
    })
    .await
}

/// Until a request of the first route is on its way.
pub async fn until_busy(proxy: &Proxy) {
    assert!(soon(async || proxy.client.stats().await.unwrap()[0].in_flight > 0).await);
}

/// Up to and with the empty line, and maybe more.
pub async fn read_head(stream: &mut TcpStream) -> String {
    let mut head = Vec::new();
    let mut buffer = [0; 4096];
    while !head.windows(4).any(|w| w == b"\r\n\r\n") {
        match stream.read(&mut buffer).await {
            Ok(n) if n > 0 => head.extend_from_slice(&buffer[..n]),
            _ => break,
        }
    }
    String::from_utf8_lossy(&head).into_owned()
}
