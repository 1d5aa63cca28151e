//! Requests to a forge. Redirects are not followed: the token is for the configured address only.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, StatusCode};
use http_body_util::{BodyExt, Full, Limited};

use super::api::Request;
use crate::outbound::Outbound;

/// From the DNS look-up to the last byte of the answer.
const DEADLINE: Duration = Duration::from_secs(20);
/// The largest response, in bytes.
const CAP: usize = 1 << 20;

/// A response.
#[derive(Debug)]
pub struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl Answer {
    /// The body as JSON; `null` if it is not JSON.
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_default()
    }
}

/// A client of forges.
pub struct Http(Outbound);

impl Http {
    /// Creates the client. An error is one sentence.
    pub fn new() -> Result<Self, String> {
        Outbound::new().map(Self)
    }

    /// Sends `request` to the API at `api` and reads the answer. An error is a sentence without the
    /// headers' values.
    pub async fn send(
        &self,
        api: &str,
        request: &Request,
        headers: &[(&'static str, String)],
    ) -> Result<Answer, String> {
        match tokio::time::timeout(DEADLINE, self.exchange(api, request, headers)).await {
            Ok(answer) => answer,
            Err(_) => Err(format!(
                "`{api}` did not answer in {} s",
                DEADLINE.as_secs()
            )),
        }
    }

    async fn exchange(
        &self,
        api: &str,
        request: &Request,
        headers: &[(&'static str, String)],
    ) -> Result<Answer, String> {
        let mut built = http::Request::builder()
            .method(request.method.clone())
            .uri(format!("{api}{}", request.path))
            .header("user-agent", concat!("cutover/", env!("CARGO_PKG_VERSION")));
        for (name, value) in headers {
            built = built.header(*name, value);
        }
        let body = match &request.body {
            Some(body) => {
                built = built.header("content-type", "application/json");
                body.to_string()
            }
            None => String::new(),
        };
        let built = built
            .body(Full::new(Bytes::from(body)))
            .map_err(|_| "the token is not one line of visible characters".to_owned())?;
        // Deployments are far apart: a connection kept from the last one would be dead.
        let unreached = |error| format!("failed to reach `{api}`: {error}");
        let channel = self.0.connect(built.uri()).await;
        let answer = channel.map_err(unreached)?.send(built).await;
        let answer = answer.map_err(unreached)?;
        let (head, body) = answer.into_parts();
        let body = Limited::new(body, CAP).collect().await;
        let body =
            body.map_err(|error| format!("failed to read the answer of `{api}`: {error}"))?;
        Ok(Answer {
            status: head.status,
            headers: head.headers,
            body: body.to_bytes(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    use hyper_util::client::proxy::matcher::Matcher;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    #[tokio::test]
    async fn the_proxy_of_the_environment_is_asked_for_all_but_the_excepted() {
        let proxy = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = format!("http://ada:secret@{}", proxy.local_addr().unwrap());
        let proxies = Matcher::builder().https(address).no("127.0.0.1").build();
        let http = Http(Outbound::through(proxies).unwrap());
        let asked = tokio::spawn(async move {
            let (mut stream, _) = proxy.accept().await.unwrap();
            let mut head = vec![0; 4096];
            let read = stream.read(&mut head).await.unwrap();
            let refusal = "HTTP/1.1 502 Bad Gateway\r\ncontent-length: 0\r\n\r\n";
            stream.write_all(refusal.as_bytes()).await.unwrap();
            String::from_utf8_lossy(&head[..read]).to_lowercase()
        });
        let request = Request {
            method: http::Method::GET,
            path: "/x".into(),
            body: None,
        };
        let token = [("authorization", "Bearer t0ken".to_owned())];
        // Nothing listens at that address, and the proxy, which would otherwise get the request, gets
        // none.
        let error = http.send("https://127.0.0.1:1", &request, &token).await;
        assert!(error.unwrap_err().contains("refused"));
        let error = http.send("https://forge.invalid", &request, &token).await;
        assert!(error.unwrap_err().contains("https://forge.invalid"));
        let head = asked.await.unwrap();
        assert!(head.starts_with("connect forge.invalid:443 "), "{head}");
        assert!(
            head.contains("proxy-authorization: basic ywrhonnly3jlda=="),
            "{head}"
        );
        assert!(!head.contains("t0ken"), "{head}");
    }
}
