//! Requests that belong elsewhere.

use std::sync::Arc;
use std::sync::atomic::Ordering::*;

use http::{HeaderValue, Request, Response, StatusCode, header};

use super::download::ResponseBody;
use super::page;
use crate::proxy::downstream::certificates::Certificates;
use crate::proxy::downstream::handler::Connection;
use crate::proxy::route::claim::Claim;
use crate::proxy::route::counters::Outcome;
use crate::proxy::route::live::without_port;
use crate::proxy::watch::Watch;
use crate::proxy::wire::headers::FORWARDED_PROTO;

/// What is behind the TLS port.
pub struct Door {
    pub certificates: Arc<Certificates>,
    pub port: u16,
}

const CHALLENGES: &str = "/.well-known/acme-challenge/";

/// The token in the path by which an authority asks for the answer to a challenge (RFC 8555, 8.3).
pub fn challenge_token(path: &str) -> Option<&str> {
    let token = path.strip_prefix(CHALLENGES)?;
    let valid = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_';
    (token.len() <= 256 && !token.is_empty() && token.bytes().all(valid)).then_some(token)
}

/// The address with TLS of a request that came without, if its host has a certificate.
pub fn to_https<B>(
    door: &Door,
    connection: &Connection,
    host: &str,
    request: &Request<B>,
) -> Option<String> {
    if came_secure(connection, request) {
        return None;
    }
    let name = without_port(host);
    if !door.certificates.has(name) {
        return None;
    }
    let target = request.uri().path_and_query().map_or("/", |it| it.as_str());
    if !target.starts_with('/') {
        return None;
    }
    Some(match door.port {
        443 => format!("https://{name}{target}"),
        port => format!("https://{name}:{port}{target}"),
    })
}

/// Whether the client's own connection has TLS, which a trusted proxy in front may have ended.
pub fn came_secure<B>(connection: &Connection, request: &Request<B>) -> bool {
    let client = connection.client.lock();
    let said = || {
        let said = request.headers().get(FORWARDED_PROTO);
        said.is_some_and(|proto| proto.as_bytes().eq_ignore_ascii_case(b"https"))
    };
    client.secure || client.trusted && said()
}

/// Ends a request by sending its client elsewhere.
pub fn redirected(
    watch: &Watch,
    mut claim: Claim,
    answer: Response<ResponseBody>,
) -> Response<ResponseBody> {
    claim.status = answer.status().as_u16();
    claim.end(Outcome::Answered);
    watch.share.store(0, SeqCst);
    answer
}

pub fn moved(status: StatusCode, to: &str) -> Response<ResponseBody> {
    let mut answer = page::page(status, &format!("See {to}"));
    match HeaderValue::from_str(to) {
        Ok(to) => {
            let headers = answer.headers_mut();
            headers.insert(header::LOCATION, to);
            headers.remove(header::CACHE_CONTROL);
            answer
        }
        Err(_) => page::page(StatusCode::BAD_REQUEST, "Invalid request target."),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_token_is_looked_up() {
        let of = |rest: &str| challenge_token(&format!("{CHALLENGES}{rest}")).map(str::to_owned);
        assert_eq!(of("a-Z_9").as_deref(), Some("a-Z_9"));
        for other in ["", "a/b", "..", "a.pem", "%61", &"a".repeat(257)] {
            assert_eq!(of(other), None, "{other}");
        }
        assert_eq!(challenge_token("/well-known/acme-challenge/a"), None);
    }
}
