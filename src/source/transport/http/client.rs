//! The client of one repository: its requests, where redirects lead them, and its token.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT, ACCEPT_ENCODING, AUTHORIZATION, CONTENT_TYPE, USER_AGENT};
use http::{HeaderValue, Request, Response, StatusCode, Uri};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use url::Url;

use super::answer;
use super::step::Step;
use super::token;
use crate::outbound::{Channel, Outbound, Unreached};
use crate::source::transport::session::{CONNECT, Failure, SILENCE, Session};

/// How many redirects are followed.
const REDIRECTS: usize = 5;
/// How much of an answer that is no pack is read, in bytes, so that the connection can be used again.
const ASIDE: usize = 64 << 10;
/// Some forges (Azure DevOps) send a client that does not begin like git to a page to log in.
const AGENT: &str = concat!("git/2.0 (cutover ", env!("CARGO_PKG_VERSION"), ")");

pub struct Client {
    session: Arc<Session>,
    outbound: Option<Outbound>,
    channel: Option<Channel>,
    at: Option<Address>,
}

struct Address {
    /// As deploy.toml says: only its host gets the token.
    configured: Url,
    /// Where the repository is, after redirects.
    base: Url,
    /// Sent from when the server has asked for it.
    authorization: Option<HeaderValue>,
}

impl Client {
    pub fn new(session: Arc<Session>) -> Self {
        Self {
            session,
            outbound: None,
            channel: None,
            at: None,
        }
    }

    /// Sets the repository's address, unless it is known already.
    pub fn open(&mut self, url: &str) -> Result<(), String> {
        if self.at.is_none() {
            let url = Url::parse(url).map_err(|error| format!("invalid address: {error}"))?;
            self.at = Some(Address {
                configured: url.clone(),
                base: url,
                authorization: None,
            });
        }
        Ok(())
    }

    pub fn close(&mut self) {
        self.channel = None;
        self.at = None;
    }

    /// Sends a request and returns the answer once it is one of git's.
    pub fn ask(&mut self, step: Step, question: &Bytes) -> Result<Response<Incoming>, Failure> {
        let mut redirects = 0;
        loop {
            let answer = self.send(step, question)?;
            let Some(at) = &mut self.at else {
                return Err(Failure::Stopped);
            };
            let headers = answer.headers();
            match answer.status() {
                StatusCode::OK => {
                    answer::check(step, headers).map_err(Failure::Unreachable)?;
                    return Ok(answer);
                }
                StatusCode::UNAUTHORIZED if at.authorization.is_none() => {
                    let token = answer::takes_a_token(headers).and_then(|()| {
                        token::header(&at.configured, &at.base, &self.session.source)
                    });
                    at.authorization = Some(token.map_err(Failure::Refused)?);
                    self.set_aside(answer)?;
                }
                status if step == Step::Refs && status.is_redirection() => {
                    let asked = step.url(&at.base);
                    let base = answer::redirected(&asked, headers).map_err(Failure::Unreachable)?;
                    redirects += 1;
                    if redirects > REDIRECTS {
                        let why = format!("it redirects more than {REDIRECTS} times");
                        return Err(Failure::Unreachable(why));
                    }
                    let has_moved = base.origin() != at.base.origin();
                    at.base = base;
                    if has_moved {
                        at.authorization = None;
                        self.channel = None;
                    }
                    self.set_aside(answer)?;
                }
                status => {
                    let headers = headers.clone();
                    let text = self.set_aside(answer)?;
                    return Err(answer::refusal(status, &headers, &text));
                }
            }
        }
    }

    fn send(&mut self, step: Step, question: &Bytes) -> Result<Response<Incoming>, Failure> {
        let Some(at) = &self.at else {
            return Err(Failure::Stopped);
        };
        let request = || request(step, at, question);
        if let Some(mut channel) = self.channel.take() {
            // A server may close a connection that it has kept; that is no failure.
            let sent = self.session.wait(SILENCE, channel.send(request()?))?;
            if let Ok(answer) = sent {
                self.channel = Some(channel);
                return Ok(answer);
            }
        }
        let outbound = match &self.outbound {
            Some(outbound) => outbound,
            None => {
                let new = Outbound::new().map_err(Failure::Unreachable)?;
                self.outbound.insert(new)
            }
        };
        let request = request()?;
        let to = request.uri().clone();
        let connected = within(&self.session, CONNECT, outbound.connect(&to));
        let mut channel = connected?.map_err(failure)?;
        let answer = self.session.wait(SILENCE, channel.send(request))?;
        self.channel = Some(channel);
        answer.map_err(failure)
    }

    /// Reads what is not for libgit2.
    fn set_aside(&mut self, answer: Response<Incoming>) -> Result<Bytes, Failure> {
        let body = Limited::new(answer.into_body(), ASIDE);
        match self.session.wait(SILENCE, body.collect()) {
            Ok(Ok(body)) => Ok(body.to_bytes()),
            Err(Failure::Stopped) => Err(Failure::Stopped),
            _ => {
                self.channel = None;
                Ok(Bytes::new())
            }
        }
    }
}

fn within<T>(
    session: &Session,
    limit: Duration,
    work: impl Future<Output = T>,
) -> Result<T, Failure> {
    session.wait(limit, work).map_err(|failure| match failure {
        Failure::Unreachable(_) => {
            let limit = limit.as_secs();
            Failure::Unreachable(format!("no connection within {limit} seconds"))
        }
        failure => failure,
    })
}

fn request(step: Step, at: &Address, question: &Bytes) -> Result<Request<Full<Bytes>>, Failure> {
    let invalid = |why: String| Failure::Unreachable(format!("invalid address: {why}"));
    let uri: Uri = (step.url(&at.base).as_str().parse())
        .map_err(|error: http::uri::InvalidUri| invalid(error.to_string()))?;
    let mut built = Request::builder()
        .uri(uri)
        .header(USER_AGENT, AGENT)
        // A pack is compressed as it is.
        .header(ACCEPT_ENCODING, "identity");
    built = match step {
        Step::Refs => built.method("GET").header(ACCEPT, "*/*"),
        Step::Pack => (built.method("POST"))
            .header(CONTENT_TYPE, "application/x-git-upload-pack-request")
            .header(ACCEPT, step.content_type()),
    };
    if let Some(authorization) = &at.authorization {
        built = built.header(AUTHORIZATION, authorization);
    }
    let built = built.body(Full::new(question.clone()));
    built.map_err(|error| invalid(error.to_string()))
}

fn failure(error: Unreached) -> Failure {
    match error {
        Unreached::Down(why) => Failure::Unreachable(why),
        Unreached::Untrusted(why) => Failure::UnknownServer {
            why,
            hint: "install the certificate authority that signed it, or correct `repo`".into(),
        },
    }
}
