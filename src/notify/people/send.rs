//! One request to a receiver. Its address is a secret: no error names it.

use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::{HeaderMap, StatusCode, Uri, header};
use http_body_util::{BodyExt, Full, Limited};

use super::kind::Sent;
use crate::outbound::Outbound;

/// From the DNS look-up to the head of the answer.
const DEADLINE: Duration = Duration::from_secs(20);
/// How long the body of an answer may take.
const BODY: Duration = Duration::from_secs(2);
/// How much of a refusal is read, in bytes.
const CAP: usize = 16 << 10;
/// The longest pause that a receiver may ask for.
const LONGEST: Duration = Duration::from_secs(2 * 3600);

/// Why a receiver was not told. The sentences are for people and contain no secrets.
#[derive(Debug, PartialEq, Eq)]
pub enum Problem {
    /// Retry later: not before `wait`, if the receiver named a time.
    Later {
        wait: Option<Duration>,
        why: String,
    },
    Refused(String),
}

impl Problem {
    pub fn why(&self) -> &str {
        match self {
            Self::Later { why, .. } | Self::Refused(why) => why,
        }
    }
}

pub async fn send(outbound: &Outbound, sent: Sent) -> Result<(), Problem> {
    let wrong = || Problem::Refused("the address is not an `http` or `https` URL".into());
    let uri: Uri = sent.url.parse().map_err(|_| wrong())?;
    if !matches!(uri.scheme_str(), Some("http" | "https")) || uri.host().is_none() {
        return Err(wrong());
    }
    let mut request = http::Request::post(uri.clone()).header(
        header::USER_AGENT,
        concat!("cutover/", env!("CARGO_PKG_VERSION")),
    );
    for (name, value) in sent.headers {
        request = request.header(name, value);
    }
    let request = request.body(Full::new(Bytes::from(sent.body)));
    let request = request
        .map_err(|_| Problem::Refused("the secret is not one line of visible characters".into()))?;
    exchange(outbound, request).await.map(drop)
}

/// Sends a request whose address is an `http` or `https` URL, and judges the answer.
pub async fn exchange(
    outbound: &Outbound,
    request: http::Request<Full<Bytes>>,
) -> Result<Bytes, Problem> {
    let uri = request.uri().clone();
    let later = |why: String| Problem::Later { wait: None, why };
    let exchange = async {
        let channel = outbound.connect(&uri).await;
        // What went wrong is said without the address, of which the host may be a secret too.
        let mut channel =
            channel.map_err(|error| later(format!("it cannot be reached: {error}")))?;
        let answer = channel.send(request).await;
        let answer = answer.map_err(|error| later(format!("it did not answer: {error}")))?;
        Ok((channel, answer))
    };
    let answered = tokio::time::timeout(DEADLINE, exchange).await;
    let late = |_| later(format!("it did not answer within {} s", DEADLINE.as_secs()));
    let (_channel, answer) = answered.map_err(late)??;
    let (head, body) = answer.into_parts();
    // What it says is of use, but no reason to send the request again.
    let body = tokio::time::timeout(BODY, Limited::new(body, CAP).collect()).await;
    let body = body
        .ok()
        .and_then(Result::ok)
        .map(|it| it.to_bytes())
        .unwrap_or_default();
    judge(head.status, &head.headers, &body).map(|()| body)
}

fn judge(status: StatusCode, headers: &HeaderMap, body: &[u8]) -> Result<(), Problem> {
    let why = format!("it answered {}", status.as_u16());
    let busy = matches!(
        status,
        StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_EARLY | StatusCode::TOO_MANY_REQUESTS
    );
    match status {
        status if status.is_success() => Ok(()),
        status if busy || status.is_server_error() => {
            let wait = headers.get(header::RETRY_AFTER);
            let wait = wait.and_then(|wait| pause(wait.to_str().ok()?));
            let wait = wait.or_else(|| asked(body)).map(|wait| wait.min(LONGEST));
            Err(Problem::Later { wait, why })
        }
        _ => Err(Problem::Refused(why)),
    }
}

/// What `Retry-After` says: seconds, of which Discord sends parts too, or a date.
fn pause(text: &str) -> Option<Duration> {
    if let Ok(seconds) = text.parse::<f64>() {
        return Duration::try_from_secs_f64(seconds).ok();
    }
    let at = httpdate::parse_http_date(text).ok()?;
    Some(at.duration_since(SystemTime::now()).unwrap_or_default())
}

/// What the body asks for, as Discord's and Telegram's do.
fn asked(body: &[u8]) -> Option<Duration> {
    let body: serde_json::Value = serde_json::from_slice(body).ok()?;
    let wait = [&body["parameters"]["retry_after"], &body["retry_after"]];
    let seconds = wait.into_iter().find_map(serde_json::Value::as_f64)?;
    Duration::try_from_secs_f64(seconds).ok()
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    /// It has been told: sending again would tell it twice.
    #[tokio::test]
    async fn a_receiver_whose_answer_does_not_end_has_been_told() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/", listener.local_addr().unwrap());
        let answer = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = [0; 4096];
            assert!(stream.read(&mut request).await.unwrap() > 0);
            let head = b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nbegun";
            stream.write_all(head).await.unwrap();
            // Until the client has gone.
            while stream.read(&mut request).await.is_ok_and(|read| read > 0) {}
        });
        let sent = Sent {
            url,
            headers: Vec::new(),
            body: "{}".into(),
        };
        let outbound = Outbound::new().unwrap();
        assert_eq!(send(&outbound, sent).await, Ok(()));
        answer.await.unwrap();
    }

    #[test]
    fn only_what_may_pass_is_sent_again() {
        let judged = |status: u16, wait: &str, body: &str| {
            let mut headers = HeaderMap::new();
            headers.insert("retry-after", wait.parse().unwrap());
            judge(
                StatusCode::from_u16(status).unwrap(),
                &headers,
                body.as_bytes(),
            )
        };
        let wait = |outcome| match outcome {
            Err(Problem::Later { wait, .. }) => Some(wait.map(|wait| wait.as_millis())),
            _ => None,
        };
        assert_eq!(judged(204, "5", ""), Ok(()));
        assert_eq!(wait(judged(429, "5", "")), Some(Some(5000)));
        assert_eq!(wait(judged(429, "0.25", "")), Some(Some(250)));
        assert_eq!(wait(judged(503, "99999", "")), Some(Some(7_200_000)));
        assert_eq!(
            wait(judged(503, "Sun, 06 Nov 1994 08:49:37 GMT", "")),
            Some(Some(0))
        );
        assert_eq!(wait(judged(500, "soon", "")), Some(None));
        let telegram = r#"{"ok":false,"parameters":{"retry_after":7}}"#;
        assert_eq!(wait(judged(429, "", telegram)), Some(Some(7000)));
        assert_eq!(
            wait(judged(429, "", r#"{"retry_after":1.5}"#)),
            Some(Some(1500))
        );
        assert_eq!(wait(judged(429, "-1", r#"{"retry_after":-1}"#)), Some(None));
        assert!(matches!(judged(404, "5", ""), Err(Problem::Refused(_))));
    }

    #[tokio::test]
    async fn no_error_names_the_address() {
        let outbound = Outbound::new().unwrap();
        for url in [
            "http://127.0.0.1:1/hunter2",
            "hunter2",
            "ftp://x/hunter2",
            "https://hunter2.invalid/x",
        ] {
            let sent = Sent {
                url: url.to_owned(),
                headers: vec![],
                body: String::new(),
            };
            let error = send(&outbound, sent).await.unwrap_err();
            assert!(!error.why().contains("hunter2"), "{error:?}");
        }
    }
}
