//! WebSockets over HTTP/2 (RFC 8441): an extended CONNECT on this side is an upgrade of HTTP/1.1 on the
//! app's, and the same tunnel in between.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, StatusCode, header};
use hyper::ext::Protocol;
use hyper::upgrade::OnUpgrade;

const KEY: HeaderName = header::SEC_WEBSOCKET_KEY;
const ACCEPT: HeaderName = header::SEC_WEBSOCKET_ACCEPT;

/// The client's connection, or its stream, once it has left HTTP.
pub struct Upgrade {
    pub on: OnUpgrade,
    /// Asked for by an extended CONNECT.
    pub connect: bool,
}

/// Makes a request for a WebSocket out of a CONNECT that asks for one. False: it asks for something
/// else.
pub fn into_upgrade<B>(request: &mut Request<B>) -> bool {
    let protocol = request.extensions().get::<Protocol>();
    if protocol.is_none_or(|protocol| protocol.as_str() != "websocket") {
        return false;
    }
    let mut nonce = [0; 16];
    // It proves to a client that the app understood it; here the client has not asked.
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

/// The head of the app's 101 as an answer to the CONNECT.
pub fn accept(status: &mut StatusCode, headers: &mut HeaderMap) {
    *status = StatusCode::OK;
    headers.remove(header::CONNECTION);
    headers.remove(header::UPGRADE);
    headers.remove(ACCEPT);
}
