//! One request to an LFS server, or to where it keeps files.

use bytes::Bytes;
use http::header::{HeaderMap, USER_AGENT};
use http::{HeaderValue, Method, Request, StatusCode, Uri};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use serde::Deserialize;
use url::Url;

use crate::outbound::{Channel, Outbound, Unreached};
use crate::source::resolve::line;
use crate::source::transport::{CONNECT, Failure, SILENCE, Session, is_limit};

const AGENT: &str = concat!("git-lfs/3.0 (cutover ", env!("CARGO_PKG_VERSION"), ")");

/// The longest explanation, in bytes.
const LONGEST: usize = 64 << 10;

#[derive(Deserialize)]
struct Said {
    message: String,
}

pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    body: Incoming,
    // Keeps the connection while the body is read.
    _channel: Channel,
}

impl Answer {
    /// The next piece of the body.
    pub(super) fn piece(&mut self, session: &Session) -> Result<Option<Bytes>, Failure> {
        let broken = |error: hyper::Error| Failure::Unreachable(format!("it broke off: {error}"));
        match session.wait(SILENCE, self.body.frame())? {
            None => Ok(None),
            Some(frame) => Ok(Some(frame.map_err(broken)?.into_data().unwrap_or_default())),
        }
    }

    pub(super) fn collect(&mut self, session: &Session, most: usize) -> Result<Vec<u8>, Failure> {
        let mut all = Vec::new();
        while let Some(piece) = self.piece(session)? {
            if all.len() + piece.len() > most {
                return Err(Failure::Unreachable("its answer is too long".into()));
            }
            all.extend_from_slice(&piece);
        }
        Ok(all)
    }
}

impl Answer {
    /// What an answer that gives nothing means; servers say in JSON why.
    pub(super) fn refusal(&mut self, session: &Session) -> Failure {
        let said = self.collect(session, LONGEST).unwrap_or_default();
        let said = serde_json::from_slice::<Said>(&said).ok();
        let said = said.map(|said| line(&said.message));
        let said = said.filter(|said| !said.is_empty());
        let said = said.map_or_else(String::new, |said| format!(": {said}"));
        let status = self.status;
        meaning(status, format!("its Git LFS answers with `{status}`{said}"))
    }
}

/// What a status means that is not a success.
pub(super) fn meaning(status: StatusCode, why: String) -> Failure {
    match status {
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => Failure::Refused(why),
        _ if is_limit(status) => Failure::Limited(why),
        _ => Failure::Unreachable(why),
    }
}

/// Sends a request on a connection of its own.
pub(super) fn send(
    session: &Session,
    method: Method,
    url: &Url,
    headers: &HeaderMap,
    body: Bytes,
) -> Result<Answer, Failure> {
    let failure = |error| match error {
        Unreached::Down(why) => Failure::Unreachable(why),
        Unreached::Untrusted(why) => Failure::UnknownServer {
            why,
            hint: "install the certificate authority that signed it".into(),
        },
    };
    let invalid = || Failure::Unreachable("its Git LFS names an invalid address".into());
    let uri: Uri = url.as_str().parse().map_err(|_| invalid())?;
    let mut request = Request::new(Full::new(body));
    *request.method_mut() = method;
    *request.uri_mut() = uri.clone();
    *request.headers_mut() = headers.clone();
    (request.headers_mut()).insert(USER_AGENT, HeaderValue::from_static(AGENT));
    let outbound = Outbound::new().map_err(Failure::Unreachable)?;
    let connected = session.wait(CONNECT, outbound.connect(&uri))?;
    let mut channel = connected.map_err(failure)?;
    let answer = session.wait(SILENCE, channel.send(request))?;
    let (parts, body) = answer.map_err(failure)?.into_parts();
    Ok(Answer {
        status: parts.status,
        headers: parts.headers,
        body,
        _channel: channel,
    })
}
