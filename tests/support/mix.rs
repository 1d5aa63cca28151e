//! Everything that a switch can break, at once: GETs, POSTs, slow requests and downloads (the demo's
//! load), and uploads, WebSockets and event streams.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::*};
use std::time::{Duration, Instant};

use crate::support::demo::load::{self, Load, Plan, Report};
use bytes::Bytes;
use futures_util::{SinkExt, StreamExt, stream};
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Empty, StreamBody, combinators::BoxBody};
use hyper::body::{Frame, Incoming};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;

/// Of each kind.
const WORKERS: usize = 2;
const UPLOAD: usize = 200_000;
/// Longer than anything takes; what hangs is a failure too.
const PATIENCE: Duration = Duration::from_secs(30);
/// After this time a stream that nothing has ended is begun anew.
const LIFE: Duration = Duration::from_secs(10);

pub struct Mix {
    load: Load,
    shared: Arc<Shared>,
    workers: JoinSet<()>,
}

struct Shared {
    address: SocketAddr,
    host: String,
    stop: AtomicBool,
    /// Releases older than this may not answer what begins from now on.
    floor: AtomicU64,
    uploads: AtomicU64,
    echoes: AtomicU64,
    going_away: AtomicU64,
    events: AtomicU64,
    events_ended: AtomicU64,
    wrong: parking_lot::Mutex<Vec<String>>,
}

/// What came of it.
#[derive(Debug)]
pub struct Mixed {
    pub report: Report,
    pub uploads: u64,
    /// Messages that came back over a WebSocket.
    pub echoes: u64,
    /// WebSockets that were closed with 1001, and then the connection in order.
    pub going_away: u64,
    pub events: u64,
    /// Event streams that were ended between two events.
    pub events_ended: u64,
    pub wrong: Vec<String>,
}

impl Mix {
    /// Against whatever serves the sample app's releases, whose versions are numbers.
    pub fn start(address: SocketAddr, host: &str) -> Self {
        let plan = Plan {
            slow: Duration::from_millis(150),
            ..Plan::new(address, host)
        };
        let shared = Arc::new(Shared {
            address,
            host: host.to_owned(),
            stop: AtomicBool::new(false),
            floor: AtomicU64::new(0),
            uploads: AtomicU64::new(0),
            echoes: AtomicU64::new(0),
            going_away: AtomicU64::new(0),
            events: AtomicU64::new(0),
            events_ended: AtomicU64::new(0),
            wrong: Default::default(),
        });
        let mut workers = JoinSet::new();
        for _ in 0..WORKERS {
            workers.spawn(repeat(shared.clone(), "upload", upload));
            workers.spawn(repeat(shared.clone(), "WebSocket", websocket));
            workers.spawn(repeat(shared.clone(), "event stream", event_stream));
            workers.spawn(repeat(shared.clone(), "GET", version));
        }
        Self {
            load: load::start(plan),
            shared,
            workers,
        }
    }

    /// Until each kind has done something more.
    pub async fn until_more(&self) {
        let shared = &self.shared;
        let count = || [&shared.uploads, &shared.echoes, &shared.events].map(|n| n.load(SeqCst));
        let before = count();
        let more = || count().iter().zip(before).all(|(now, then)| *now > then);
        self.load.until_more(20).await;
        while !more() && shared.wrong.lock().is_empty() {
            sleep(Duration::from_millis(2)).await;
        }
    }

    /// From now on the releases before `version` may answer nothing.
    pub fn switched_to(&self, version: u64) {
        self.shared.floor.store(version, SeqCst);
    }

    /// Sends no more, and waits for what is under way.
    pub async fn stop(mut self) -> Mixed {
        self.shared.stop.store(true, SeqCst);
        let report = self.load.stop().await;
        while let Some(ended) = self.workers.join_next().await {
            ended.unwrap();
        }
        let shared = &self.shared;
        Mixed {
            report,
            uploads: shared.uploads.load(SeqCst),
            echoes: shared.echoes.load(SeqCst),
            going_away: shared.going_away.load(SeqCst),
            events: shared.events.load(SeqCst),
            events_ended: shared.events_ended.load(SeqCst),
            wrong: std::mem::take(&mut shared.wrong.lock()),
        }
    }
}

impl Mixed {
    /// Panics unless everything went well and nothing was left out.
    pub fn assert_whole(&self) {
        assert!(self.report.failures.is_empty(), "{}", self.report);
        assert_eq!(self.wrong, Vec::<String>::new());
        let counts = [self.uploads, self.echoes, self.events];
        assert!(counts.iter().all(|&n| n > 0), "{self:?}");
    }
}

async fn repeat<F: Future<Output = Result<(), String>>>(
    shared: Arc<Shared>,
    name: &str,
    once: fn(Arc<Shared>) -> F,
) {
    while !shared.stop.load(SeqCst) {
        let wrong = match timeout(PATIENCE, once(shared.clone())).await {
            Ok(Ok(())) => continue,
            Ok(Err(why)) => format!("{name}: {why}"),
            Err(_) => format!("{name}: hangs"),
        };
        shared.wrong.lock().push(wrong);
        sleep(Duration::from_millis(10)).await;
    }
}

fn text(error: impl std::error::Error) -> String {
    format!("{error} ({error:?})")
}

impl Shared {
    async fn connect(&self) -> Result<TcpStream, String> {
        let stream = TcpStream::connect(self.address).await.map_err(text)?;
        stream.set_nodelay(true).map_err(text)?;
        Ok(stream)
    }

    async fn ask(
        &self,
        request: http::request::Builder,
        body: BoxBody<Bytes, Infallible>,
    ) -> Result<Response<Incoming>, String> {
        let io = TokioIo::new(self.connect().await?);
        let handshake = hyper::client::conn::http1::handshake(io).await;
        let (mut sender, connection) = handshake.map_err(text)?;
        tokio::spawn(connection);
        let request = request.header("host", &self.host).body(body).unwrap();
        let answer = sender.send_request(request).await.map_err(text)?;
        match answer.status() {
            StatusCode::OK => Ok(answer),
            status => Err(format!("status {status}")),
        }
    }

    /// What began when `floor` was the oldest release allowed was answered by `version`.
    fn check(&self, floor: u64, version: &str) -> Result<(), String> {
        match version.parse::<u64>() {
            Ok(version) if version >= floor => Ok(()),
            _ => Err(format!("release {version:?} answered, after {floor}")),
        }
    }

    fn check_header(&self, floor: u64, answer: &Response<Incoming>) -> Result<(), String> {
        let version = answer.headers().get("x-version");
        self.check(floor, version.map_or("", |v| v.to_str().unwrap()))
    }
}

async fn version(shared: Arc<Shared>) -> Result<(), String> {
    let floor = shared.floor.load(SeqCst);
    let empty = Empty::new().boxed();
    let answer = shared.ask(Request::get("/"), empty).await?;
    shared.check_header(floor, &answer)?;
    answer.into_body().collect().await.map_err(text)?;
    sleep(Duration::from_millis(5)).await;
    Ok(())
}

/// Bit by bit, now with its length and now in chunks.
async fn upload(shared: Arc<Shared>) -> Result<(), String> {
    let parts = 20;
    let body = stream::iter(0..parts).then(move |_| async move {
        sleep(Duration::from_millis(8)).await;
        Ok(Frame::data(Bytes::from(vec![b'x'; UPLOAD / parts])))
    });
    let floor = shared.floor.load(SeqCst);
    let mut request = Request::post("/upload");
    if shared.uploads.load(SeqCst).is_multiple_of(2) {
        request = request.header("content-length", UPLOAD);
    }
    let body = BodyExt::boxed(StreamBody::new(Box::pin(body)));
    let answer = shared.ask(request, body).await?;
    shared.check_header(floor, &answer)?;
    let body = answer.into_body().collect().await.map_err(text)?.to_bytes();
    if body != UPLOAD.to_string() {
        return Err(format!("{body:?} of {UPLOAD} bytes arrived"));
    }
    shared.uploads.fetch_add(1, SeqCst);
    Ok(())
}

/// Until it is closed: with 1001, and after that in order. Anything else is a failure.
async fn websocket(shared: Arc<Shared>) -> Result<(), String> {
    let floor = shared.floor.load(SeqCst);
    let url = format!("ws://{}/ws", shared.host);
    let stream = shared.connect().await?;
    let opened = tokio_tungstenite::client_async(url, stream).await;
    let (mut socket, _) = opened.map_err(text)?;
    let first = socket.next().await.ok_or("closed at once")?;
    let first = first.map_err(text)?;
    shared.check(floor, first.to_text().map_err(text)?)?;
    let begun = Instant::now();
    for number in 0.. {
        let stopping = shared.stop.load(SeqCst) || begun.elapsed() > LIFE;
        let length = if number % 10 == 9 {
            70_000
        } else {
            number % 300
        };
        let message = match stopping {
            true => Message::Close(None),
            false => Message::binary(vec![number as u8; length]),
        };
        socket.send(message.clone()).await.map_err(text)?;
        match socket.next().await {
            Some(Ok(Message::Close(_))) if stopping => return Ok(()),
            Some(Ok(echo)) if echo == message => {
                shared.echoes.fetch_add(1, SeqCst);
            }
            Some(Ok(Message::Close(Some(close)))) if close.code == CloseCode::Away => break,
            other => return Err(format!("instead of its message {number}: {other:?}")),
        }
        sleep(Duration::from_millis(5)).await;
    }
    match socket.next().await {
        None => {
            shared.going_away.fetch_add(1, SeqCst);
            Ok(())
        }
        other => Err(format!("after the close: {other:?}")),
    }
}

/// Until it ends, which it must in order and between two events.
async fn event_stream(shared: Arc<Shared>) -> Result<(), String> {
    let floor = shared.floor.load(SeqCst);
    let empty = Empty::new().boxed();
    let answer = shared.ask(Request::get("/events?ms=20"), empty).await?;
    shared.check_header(floor, &answer)?;
    let mut body = answer.into_body();
    let begun = Instant::now();
    let mut last = Vec::new();
    while let Some(frame) = body.frame().await {
        last = frame
            .map_err(text)?
            .into_data()
            .unwrap_or_default()
            .to_vec();
        shared.events.fetch_add(1, SeqCst);
        if shared.stop.load(SeqCst) || begun.elapsed() > LIFE {
            return Ok(());
        }
    }
    if !last.ends_with(b"\n\n") {
        return Err(format!("ended after {last:?}"));
    }
    shared.events_ended.fetch_add(1, SeqCst);
    Ok(())
}
