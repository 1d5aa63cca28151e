//! Responses that the proxy makes itself.

use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, header};

use super::download::ResponseBody;
use crate::proxy::route::routes::Routes;
use crate::proxy::route::table::{Page, Policy};

/// The route's page for this status, else the table's, else one sentence that says why.
pub fn own(
    routes: &Routes,
    policy: Option<&Policy>,
    status: StatusCode,
    why: &str,
) -> Response<ResponseBody> {
    let of_route = policy.and_then(|s| s.pages.get(&status.as_u16()));
    if let Some(page) = of_route {
        return custom(status, page);
    }
    match routes.page(status.as_u16()) {
        Some(page) => custom(status, &page),
        None => page(status, why),
    }
}

/// A page from the route table.
pub fn custom(status: StatusCode, page: &Page) -> Response<ResponseBody> {
    let kind = HeaderValue::from_str(&page.content_type);
    let kind = kind.unwrap_or(HeaderValue::from_static("text/plain; charset=utf-8"));
    response(status, kind, page.text.clone())
}

/// The page of an app that is under maintenance or stopped, which takes a person minutes.
pub fn maintenance(page: &Page) -> Response<ResponseBody> {
    let mut response = custom(StatusCode::SERVICE_UNAVAILABLE, page);
    let wait = HeaderValue::from_static("60");
    response.headers_mut().insert(header::RETRY_AFTER, wait);
    response
}

/// A page of the proxy's own: the status and one sentence that says why.
pub fn page(status: StatusCode, why: &str) -> Response<ResponseBody> {
    let kind = HeaderValue::from_static("text/plain; charset=utf-8");
    response(status, kind, format!("{} {why}\n", status.as_u16()))
}

fn response(status: StatusCode, kind: HeaderValue, text: String) -> Response<ResponseBody> {
    let mut response = Response::new(ResponseBody::full(Bytes::from(text)));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, kind);
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    if status == StatusCode::SERVICE_UNAVAILABLE {
        headers.insert(header::RETRY_AFTER, HeaderValue::from_static("2"));
    }
    response
}

/// The same as [`page`], but the connection is closed afterwards.
pub fn last_page(status: StatusCode, why: &str) -> Response<ResponseBody> {
    last(page(status, why))
}

/// Makes any response the last one of its connection.
pub fn last(mut response: Response<ResponseBody>) -> Response<ResponseBody> {
    let close = HeaderValue::from_static("close");
    response.headers_mut().insert(header::CONNECTION, close);
    response
}
