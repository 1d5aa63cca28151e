//! `git http-backend`, which speaks git's protocol on its standard input and output, as a CGI
//! program.

use std::process::Stdio;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::Request;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use axum::response::Response;
use futures_util::{Stream, StreamExt};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::sync::{OwnedSemaphorePermit, mpsc};

use super::{Refusal, Repository, Shared};

/// The most that one push or fetch may send, in bytes.
const LARGEST: u64 = 4 << 30;
/// A client that sends or reads nothing for this long is considered gone.
const SILENCE: Duration = Duration::from_secs(120);
const PIECE: usize = 32 << 10;
const CGI_HEAD: usize = 16 << 10;

/// Faults that old programs wrote into histories; every forge accepts them, and they harm no reader.
/// Anything else that `git fsck` finds is refused.
const HARMLESS: [&str; 13] = [
    "badDate",
    "badDateOverflow",
    "badEmail",
    "badName",
    "badTimezone",
    "missingEmail",
    "missingNameBeforeEmail",
    "missingSpaceBeforeDate",
    "missingSpaceBeforeEmail",
    "multipleAuthors",
    "nulInCommit",
    "zeroPaddedDate",
    "zeroPaddedFilemode",
];

/// One git process. Dropping it kills it.
pub(super) struct Backend {
    pub(super) child: Child,
    pub(super) input: ChildStdin,
    pub(super) output: ChildStdout,
    pub(super) place: OwnedSemaphorePermit,
}

impl Backend {
    /// Starts git for one request. Its environment is built here: it contains nothing of the agent's
    /// own, and no header that has not been checked.
    pub(super) async fn start(
        shared: &Shared,
        repository: &Repository,
        service: &str,
        method: &Method,
        headers: &HeaderMap,
        query: &str,
    ) -> Result<Self, Refusal> {
        let place = (shared.processes.clone().acquire_owned().await)
            .map_err(|error| Refusal::failed(error.to_string()))?;
        let mut git = Command::new("git");
        // `core.fsync`: what was pushed is on disk before the pusher is told that it was accepted.
        for setting in [
            "core.fsync=all",
            "http.receivepack=true",
            "http.uploadpack=true",
            "receive.advertisePushOptions=true",
            "receive.denyDeletes=true",
            "receive.fsckObjects=true",
            "receive.maxInputSize=4g",
        ] {
            git.args(["-c", setting]);
        }
        for oddity in HARMLESS {
            git.arg("-c").arg(format!("receive.fsck.{oddity}=ignore"));
        }
        git.arg("http-backend")
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("GIT_CONFIG_NOSYSTEM", "1")
            .env("GIT_CONFIG_GLOBAL", "/dev/null")
            .env("GIT_HTTP_EXPORT_ALL", "1")
            .env("GIT_PROJECT_ROOT", &repository.path)
            .env("PATH_INFO", format!("/{service}"))
            .env("REQUEST_METHOD", method.as_str())
            .env("QUERY_STRING", query)
            .env("REMOTE_USER", "cutover")
            .env("REMOTE_ADDR", "http");
        for (name, variable) in [
            ("content-type", "CONTENT_TYPE"),
            ("content-encoding", "HTTP_CONTENT_ENCODING"),
            ("git-protocol", "GIT_PROTOCOL"),
        ] {
            let value = headers.get(name).and_then(|value| value.to_str().ok());
            if let Some(value) = value.filter(|value| is_plain(value)) {
                git.env(variable, value);
            }
        }
        let mut child = git
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .kill_on_drop(true)
            .spawn()
            .map_err(|error| Refusal::failed(format!("failed to start `git`: {error}")))?;
        let (input, output) = (child.stdin.take(), child.stdout.take());
        let (Some(input), Some(output)) = (input, output) else {
            return Err(Refusal::failed(
                "failed to open git's input and output".into(),
            ));
        };
        Ok(Self {
            child,
            input,
            output,
            place,
        })
    }
}

/// Passes a request through to git, and git's response back.
pub(super) async fn pass(
    shared: &Shared,
    repository: &Repository,
    service: &str,
    method: Method,
    request: Request,
) -> Result<Response, Refusal> {
    let query = request.uri().query().unwrap_or_default().to_owned();
    let headers = request.headers();
    let mut git = Backend::start(shared, repository, service, &method, headers, &query).await?;
    let body = request.into_body().into_data_stream();
    let (sender, receiver) = mpsc::channel(4);
    let input = git.input;
    let sending = tokio::spawn(send(Vec::new(), body, input));
    let (head, first) = head(&mut git.output).await.map_err(Refusal::failed)?;
    tokio::spawn(async move {
        let _place = git.place;
        let mut piece = first;
        while sender
            .send(Ok::<_, std::io::Error>(Bytes::from(piece)))
            .await
            .is_ok()
        {
            match read(&mut git.output).await {
                Ok(next) if !next.is_empty() => piece = next,
                _ => break,
            }
        }
        sending.abort();
        let _ = git.child.wait().await;
    });
    Ok(head.answer(Body::from_stream(stream(receiver))))
}

/// The status and the headers of git's response.
pub(super) struct Head {
    status: StatusCode,
    headers: HeaderMap,
}

impl Head {
    pub(super) fn is_success(&self) -> bool {
        self.status.is_success()
    }

    pub(super) fn answer(self, body: Body) -> Response {
        let mut response = Response::new(body);
        *response.status_mut() = self.status;
        *response.headers_mut() = self.headers;
        response
    }
}

/// Reads the CGI head. Also returns what followed it in the same read.
pub(super) async fn head(output: &mut (impl AsyncRead + Unpin)) -> Result<(Head, Vec<u8>), String> {
    let mut bytes = Vec::new();
    let end = loop {
        if let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") {
            break end;
        }
        let piece = read(output).await?;
        if piece.is_empty() || bytes.len() > CGI_HEAD {
            return Err("git did not answer; is `git http-backend` installed?".into());
        }
        bytes.extend_from_slice(&piece);
    };
    let rest = bytes.split_off(end + 4);
    let mut head = Head {
        status: StatusCode::OK,
        headers: HeaderMap::new(),
    };
    for line in String::from_utf8_lossy(&bytes).lines() {
        let Some((name, value)) = line.split_once(": ") else {
            continue;
        };
        if name.eq_ignore_ascii_case("status") {
            let code = value.split(' ').next().and_then(|code| code.parse().ok());
            head.status = code.unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        } else if let (Ok(name), Ok(value)) =
            (name.parse::<HeaderName>(), HeaderValue::from_str(value))
        {
            head.headers.insert(name, value);
        }
    }
    Ok((head, rest))
}

/// The next piece of git's response; empty at its end.
pub(super) async fn read(output: &mut (impl AsyncRead + Unpin)) -> Result<Vec<u8>, String> {
    let mut piece = Vec::with_capacity(PIECE);
    let read = output.read_buf(&mut piece).await;
    read.map_err(|error| format!("failed to read git's answer: {error}"))?;
    Ok(piece)
}

/// Sends a request's body to git, then closes git's input.
pub(super) async fn send<E>(
    first: Vec<u8>,
    mut body: impl Stream<Item = Result<Bytes, E>> + Unpin,
    mut input: impl AsyncWrite + Unpin,
) -> Result<(), &'static str> {
    let gone = |_| "git stopped reading";
    input.write_all(&first).await.map_err(gone)?;
    let mut sent = first.len() as u64;
    loop {
        let next = tokio::time::timeout(SILENCE, body.next()).await;
        let Some(chunk) = next.map_err(|_| "the push stalled")? else {
            return input.shutdown().await.map_err(gone);
        };
        let chunk = chunk.map_err(|_| "the connection closed during the push")?;
        sent += chunk.len() as u64;
        if sent > LARGEST {
            return Err("the push is larger than 4 GiB");
        }
        input.write_all(&chunk).await.map_err(gone)?;
    }
}

pub(super) fn stream<T>(receiver: mpsc::Receiver<T>) -> impl Stream<Item = T> {
    futures_util::stream::unfold(receiver, |mut receiver| async {
        receiver.recv().await.map(|piece| (piece, receiver))
    })
}

fn is_plain(value: &str) -> bool {
    value.len() <= 100
        && (value.bytes()).all(|b| b.is_ascii_alphanumeric() || b"/-+.=:_".contains(&b))
}
