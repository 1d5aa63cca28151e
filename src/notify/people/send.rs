//! One request to a receiver. Its address is a secret: no error names it.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, StatusCode, Uri, header};
use http_body_util::Full;

use super::message::Sent;
use crate::outbound::Outbound;

/// From the DNS look-up to the head of the answer.
const DEADLINE: Duration = Duration::from_secs(20);
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

pub async fn send(outbound: &Outbound, url: &str, sent: Sent) -> Result<(), Problem> {
    let wrong = || Problem::Refused("the address is not an `http` or `https` URL".into());
    let uri: Uri = url.parse().map_err(|_| wrong())?;
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
    let later = |why: String| Problem::Later { wait: None, why };
    let exchange = async {
        let channel = outbound.connect(&uri).await;
        // What went wrong is said without the address, of which the host may be a secret too.
        let mut channel =
            channel.map_err(|error| later(format!("it cannot be reached: {error}")))?;
        let answer = channel.send(request).await;
        let answer = answer.map_err(|error| later(format!("it did not answer: {error}")))?;
        judge(answer.status(), answer.headers())
    };
    match tokio::time::timeout(DEADLINE, exchange).await {
        Ok(outcome) => outcome,
        Err(_) => Err(later(format!(
            "it did not answer in {} s",
            DEADLINE.as_secs()
        ))),
    }
}

fn judge(status: StatusCode, headers: &HeaderMap) -> Result<(), Problem> {
    let why = format!("it answered {}", status.as_u16());
    let busy = matches!(
        status,
        StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_EARLY | StatusCode::TOO_MANY_REQUESTS
    );
    match status {
        status if status.is_success() => Ok(()),
        status if busy || status.is_server_error() => {
            let wait = headers.get(header::RETRY_AFTER);
            let wait = wait.and_then(|wait| wait.to_str().ok()?.parse().ok());
            let wait = wait.map(|seconds| Duration::from_secs(seconds).min(LONGEST));
            Err(Problem::Later { wait, why })
        }
        _ => Err(Problem::Refused(why)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_may_pass_is_sent_again() {
        let judged = |status: u16, wait: &str| {
            let mut headers = HeaderMap::new();
            headers.insert("retry-after", wait.parse().unwrap());
            judge(StatusCode::from_u16(status).unwrap(), &headers)
        };
        let wait = |outcome| match outcome {
            Err(Problem::Later { wait, .. }) => Some(wait.map(|wait| wait.as_secs())),
            _ => None,
        };
        assert_eq!(judged(204, "5"), Ok(()));
        assert_eq!(wait(judged(429, "5")), Some(Some(5)));
        assert_eq!(wait(judged(503, "99999")), Some(Some(7200)));
        assert_eq!(wait(judged(500, "soon")), Some(None));
        assert!(matches!(judged(404, "5"), Err(Problem::Refused(_))));
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
                headers: vec![],
                body: String::new(),
            };
            let error = send(&outbound, url, sent).await.unwrap_err();
            assert!(!error.why().contains("hunter2"), "{error:?}");
        }
    }
}
