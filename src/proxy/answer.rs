//! What the proxy says itself.

use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, header};

use super::body::ResponseBody;

/// A page of the proxy's own: the status and one sentence that says why.
pub fn page(status: StatusCode, why: &str) -> Response<ResponseBody> {
    let text = format!("{} {why}\n", status.as_u16());
    let mut response = Response::new(ResponseBody::full(Bytes::from(text)));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("text/plain; charset=utf-8"),
    );
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    if status == StatusCode::SERVICE_UNAVAILABLE {
        headers.insert(header::RETRY_AFTER, HeaderValue::from_static("2"));
    }
    response
}

/// The same, and the connection is closed after it.
pub fn last_page(status: StatusCode, why: &str) -> Response<ResponseBody> {
    let mut response = page(status, why);
    let close = HeaderValue::from_static("close");
    response.headers_mut().insert(header::CONNECTION, close);
    response
}
