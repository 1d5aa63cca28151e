//! What all pages have in common.

use axum::http::{HeaderValue, header};
use axum::response::{Html, Response};
use maud::{DOCTYPE, Markup, html};

use super::assets::{ICON, SCRIPT, STYLE};
use super::viewer::Viewer;

pub struct Page<'a> {
    pub title: &'a str,
    pub viewer: Option<&'a Viewer>,
    /// The path of the events that keep it up to date.
    pub live: Option<String>,
    pub body: Markup,
}

impl Page<'_> {
    pub fn whole(self) -> Html<String> {
        let Self {
            title,
            viewer,
            live,
            body,
        } = self;
        Html(html! {
            (DOCTYPE)
            html lang="en" {
                (head(title))
                body data-live=[live] {
                    a.skip href="#main" { "Skip to the content" }
                    header.top {
                        nav aria-label="Main" {
                            a.brand href="/" { "Cutover" }
                            @if viewer.is_some() {
                                a href="/" { "Apps" }
                                a href="/server" { "Server" }
                            }
                        }
                        @if let Some(viewer) = viewer {
                            form method="post" action="/sign-out" {
                                (csrf(viewer))
                                span.quiet.wide title={ "role " (viewer.principal.role.as_str()) } {
                                    (super::parts::prose(&viewer.principal.who.to_string()))
                                }
                                @if viewer.session.is_some() { button.plain { "Sign out" } }
                            }
                        }
                    }
                    p #away role="status" hidden {
                        "The agent does not answer: what you see is from before. What is live serves on; \
                         this page comes back by itself."
                    }
                    main #main tabindex="-1" { (body) }
                    (super::parts::marks())
                }
            }
        }.into_string())
    }
}

fn head(title: &str) -> Markup {
    html! {
        head {
            meta charset="utf-8";
            meta name="viewport" content="width=device-width, initial-scale=1";
            meta name="color-scheme" content="light dark";
            title { (title) " · Cutover" }
            link rel="icon" href=(ICON.path()) type="image/svg+xml";
            link rel="stylesheet" href=(STYLE.path());
            script src=(SCRIPT.path()) defer {}
        }
    }
}

/// The field by which a form is known to be ours.
pub fn csrf(viewer: &Viewer) -> Markup {
    html! { input type="hidden" name="csrf" value=(viewer.csrf); }
}

/// A page that asks for `path` once more.
pub fn again(path: &str) -> Html<String> {
    Html(
        html! {
            (DOCTYPE)
            html lang="en" {
                head {
                    meta charset="utf-8";
                    meta http-equiv="refresh" content={ "0; url=" (path) };
                    title { "Cutover" }
                }
                body { a href=(path) { "Go on" } }
            }
        }
        .into_string(),
    )
}

const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; \
                      connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'";

/// Adds the headers by which browsers protect pages.
pub async fn guarded(mut response: Response) -> Response {
    let headers = response.headers_mut();
    for (name, value) in [
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::X_FRAME_OPTIONS, "DENY"),
        (header::REFERRER_POLICY, "no-referrer"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    let no_store = HeaderValue::from_static("no-store");
    headers.entry(header::CACHE_CONTROL).or_insert(no_store);
    response
}
