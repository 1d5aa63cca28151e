//! One worker: sends one request after the other over hyper's low-level connection, so that nothing is
//! retried without the report showing it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};

use super::{Failure, Kind, Shared};

/// Longer than any switch; a request that hangs counts as failed too.
const DEADLINE: Duration = Duration::from_secs(30);

type Connection = SendRequest<Full<Bytes>>;

pub async fn work(kind: Kind, number: usize, shared: Arc<Shared>) {
    let mut connection: Option<Connection> = None;
    for round in 0u64.. {
        if *shared.stop.borrow() {
            return;
        }
        let body = match kind {
            Kind::Post => format!("{:08x}-{number}-{round}", shared.id),
            _ => String::new(),
        };
        let begun = Instant::now();
        let sent = once(kind, &body, &shared, &mut connection);
        let ended = match timeout(DEADLINE, sent).await {
            Ok(ended) => ended,
            Err(_) => Err(format!("no answer within {} s", DEADLINE.as_secs())),
        };
        if ended.is_err() || kind == Kind::NewConnection {
            connection = None;
        }
        record(&shared, kind, begun, body, ended);
        sleep(shared.plan.pause).await;
    }
}

/// Sends one request and reads its whole response. Returns the version that answered.
async fn once(
    kind: Kind,
    body: &str,
    shared: &Shared,
    connection: &mut Option<Connection>,
) -> Result<String, String> {
    // A connection that was closed between two requests is not a failure: nothing was sent on it.
    let open = match connection.take() {
        Some(used) => still_open(used).await,
        None => None,
    };
    let mut sender = match open {
        Some(open) => open,
        None => connect(shared).await?,
    };
    let plan = &shared.plan;
    let slow = plan.slow.as_millis();
    let path = match kind {
        Kind::KeepAlive | Kind::NewConnection => "/".to_owned(),
        Kind::Post => "/count".to_owned(),
        Kind::Slow => format!("/slow?ms={slow}"),
        Kind::Stream => format!("/stream?bytes={}&ms={slow}", plan.stream),
    };
    let mut request = Request::builder()
        .uri(path)
        .header("host", &plan.host)
        .method(if kind == Kind::Post { "POST" } else { "GET" });
    if kind == Kind::NewConnection {
        request = request.header("connection", "close");
    }
    let request = request
        .body(Full::from(body.to_owned()))
        .map_err(|error| chain(&error))?;
    let response = sender
        .send_request(request)
        .await
        .map_err(|error| format!("no answer: {}", chain(&error)))?;
    let (head, answer) = response.into_parts();
    let answer = answer
        .collect()
        .await
        .map_err(|error| format!("the answer was cut off: {}", chain(&error)))?
        .to_bytes();
    *connection = Some(sender);
    if head.status != StatusCode::OK {
        let text = String::from_utf8_lossy(&answer);
        let first = text.lines().next().unwrap_or_default();
        return Err(format!("{}: {first}", head.status));
    }
    if kind == Kind::Post && answer != body.as_bytes() {
        return Err("the answer differs from what was posted".to_owned());
    }
    if kind == Kind::Stream && answer.len() as u64 != plan.stream {
        let expected = plan.stream;
        return Err(format!("{} of {expected} bytes arrived", answer.len()));
    }
    let version = head.headers.get("x-version").and_then(|v| v.to_str().ok());
    Ok(version.unwrap_or_default().to_owned())
}

async fn still_open(mut connection: Connection) -> Option<Connection> {
    connection.ready().await.is_ok().then_some(connection)
}

async fn connect(shared: &Shared) -> Result<Connection, String> {
    let stream = TcpStream::connect(shared.plan.address)
        .await
        .map_err(|error| format!("failed to connect: {error}"))?;
    let _ = stream.set_nodelay(true);
    let (sender, connection) = http1::handshake(TokioIo::new(stream))
        .await
        .map_err(|error| chain(&error))?;
    tokio::spawn(connection);
    Ok(sender)
}

fn record(
    shared: &Shared,
    kind: Kind,
    begun: Instant,
    body: String,
    ended: Result<String, String>,
) {
    let mut report = shared.report.lock();
    let tally = report.ended(kind, begun.elapsed());
    match ended {
        Ok(version) => {
            report.answered_by(&version);
            if kind == Kind::Post {
                report.posted.push(body);
            }
            shared.version.send_if_modified(|seen| {
                let changed = *seen != version;
                *seen = version;
                changed
            });
        }
        Err(cause) => {
            tally.failed += 1;
            report.failures.push(Failure {
                kind,
                at: shared.begun.elapsed(),
                cause,
            });
        }
    }
}

fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        text = format!("{text}: {cause}");
        next = cause.source();
    }
    text
}
