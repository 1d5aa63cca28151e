//! WebSockets over HTTP/2 (RFC 8441): converts between an extended CONNECT and an HTTP/1.1 upgrade, on
//! the client's side and on the app's. The tunnel in between is the same for both.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, header};
use http_body::Body;
use hyper::ext::Protocol;
use hyper::upgrade::OnUpgrade;
use sha1::{Digest, Sha1};

const KEY: HeaderName = header::SEC_WEBSOCKET_KEY;
const ACCEPT: HeaderName = header::SEC_WEBSOCKET_ACCEPT;
/// What every server appends to the key (RFC 6455, 1.3).
const GUID: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// The client's connection, or its HTTP/2 stream, once it has left HTTP.
pub struct Upgrade {
    pub on: OnUpgrade,
    /// Requested by an extended CONNECT.
    pub connect: bool,
}

/// Converts an extended CONNECT for a WebSocket into an upgrade request. Returns whether it was one.
pub fn into_upgrade<B>(request: &mut Request<B>) -> bool {
    let protocol = request.extensions().get::<Protocol>();
    if protocol.is_none_or(|protocol| protocol.as_str() != "websocket") {
        return false;
    }
    let mut nonce = [0; 16];
    // The key only proves to a client that the app understood its handshake, and this client sent no
    // key: a failure here does no harm.
    let _ = getrandom::fill(&mut nonce);
    let key = HeaderValue::try_from(BASE64_STANDARD.encode(nonce));
    *request.method_mut() = Method::GET;
    let headers = request.headers_mut();
    headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
    headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert(KEY, key.expect("base64 is visible ASCII"));
    let version = HeaderValue::from_static("13");
    headers
        .entry(header::SEC_WEBSOCKET_VERSION)
        .or_insert(version);
    true
}

/// Converts the head of the app's 101 into the head of a response to the CONNECT.
pub fn accept(status: &mut StatusCode, headers: &mut HeaderMap) {
    *status = StatusCode::OK;
    headers.remove(header::CONNECTION);
    headers.remove(header::UPGRADE);
    headers.remove(ACCEPT);
}

/// Whether a request, or the response to one, switches to the WebSocket protocol.
pub fn is_websocket(headers: &HeaderMap) -> bool {
    headers
        .get(header::UPGRADE)
        .is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"websocket"))
}

/// Whether this request can begin a WebSocket.
pub fn asks_for_websocket<B: Body>(request: &Request<B>) -> bool {
    let empty = request.body().is_end_stream();
    request.method() == Method::GET && is_websocket(request.headers()) && empty
}

/// Converts a WebSocket upgrade request into an extended CONNECT. Returns the request's key.
pub fn into_connect<B>(request: &mut Request<B>) -> HeaderValue {
    *request.method_mut() = Method::CONNECT;
    let websocket = Protocol::from_static("websocket");
    request.extensions_mut().insert(websocket);
    let key = request.headers_mut().remove(KEY);
    key.unwrap_or(HeaderValue::from_static(""))
}

/// Converts the head of the app's response to the CONNECT into that of a response to an upgrade with
/// this key.
pub fn switch<B>(key: &HeaderValue, answer: &mut Response<B>) {
    let proof = Sha1::new().chain_update(key).chain_update(GUID).finalize();
    let proof = HeaderValue::try_from(BASE64_STANDARD.encode(proof));
    *answer.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = answer.headers_mut();
    headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert(ACCEPT, proof.expect("base64 is visible ASCII"));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_proof_is_that_of_the_specification() {
        // The example in RFC 6455, 1.3.
        let key = HeaderValue::from_static("dGhlIHNhbXBsZSBub25jZQ==");
        let mut answer = Response::new(());
        switch(&key, &mut answer);
        assert_eq!(answer.status(), StatusCode::SWITCHING_PROTOCOLS);
        assert_eq!(answer.headers()[ACCEPT], "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    }
}
