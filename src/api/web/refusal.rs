//! Errors as pages.

use axum::http::{HeaderMap, header};
use axum::response::{IntoResponse, Response};
use maud::html;

use super::layout::Page;
use super::parts::prose;
use super::viewer::Viewer;
use crate::api::ApiError;

/// The error of a page's handler.
pub struct Refusal(Box<(Viewer, ApiError)>);

pub type Result<T = Response> = std::result::Result<T, Refusal>;

/// Adds to an error for whom its page is.
pub trait For<T> {
    fn told(self, viewer: &Viewer) -> Result<T>;
}

impl<T, E: Into<ApiError>> For<T> for std::result::Result<T, E> {
    fn told(self, viewer: &Viewer) -> Result<T> {
        self.map_err(|error| Refusal(Box::new((viewer.clone(), error.into()))))
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let (viewer, error) = *self.0;
        page(Some(&viewer), error)
    }
}

/// What went wrong and what to do, with the way back.
pub fn page(viewer: Option<&Viewer>, error: ApiError) -> Response {
    let body = html! {
        h1 { "That did not work" }
        div.notice.bad role="alert" {
            p { (prose(error.message())) }
            @if !error.hint().is_empty() { p.hint { (prose(error.hint())) } }
        }
        p {
            @match viewer {
                Some(_) => a href="/" { "All apps" },
                None => a href="/sign-in" { "Sign in" },
            }
        }
    };
    let page = Page {
        title: "That did not work",
        viewer,
        live: None,
        body,
    };
    let mut response = (error.status(), page.whole()).into_response();
    if let Some(kind) = error.kind() {
        response.extensions_mut().insert(kind);
    }
    response
}

/// Nothing is at this path: as a page for browsers.
pub async fn not_found(headers: HeaderMap) -> Response {
    let accept = headers.get(header::ACCEPT).and_then(|it| it.to_str().ok());
    let error = crate::api::error::not_found().await;
    match accept.is_some_and(|accept| accept.contains("text/html")) {
        true => super::layout::guarded(page(None, error.but_hint("see all apps".into()))).await,
        false => error.into_response(),
    }
}
