//! Signing in, with a token or a one-time link, and out.

use std::time::Instant;

use axum::extract::{Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Redirect, Response};
use maud::{Markup, html};

use super::fields::Fields;
use super::layout::Page;
use super::refusal::{self, For, Result};
use super::session::{self, cookie, read, set};
use super::viewer::{Viewer, is_own};
use crate::api::auth::{hashed, random};
use crate::api::error::Kind;
use crate::api::{Api, ApiError, Shared, peer};
use crate::principal::Role;
use crate::store::actions;
use crate::store::sessions::{self, Holder};

/// As long as a session can last, in seconds.
const LONGEST: u32 = 30 * 24 * 3600;
/// How long the form may be open.
const FORM: u32 = 3600;

/// Before anybody is signed in, the form's secret belongs to a cookie of its own.
fn form_cookie(api: &Api) -> String {
    format!("{}_form", cookie(api))
}

pub async fn form(State(api): Shared, headers: HeaderMap, fields: Fields) -> Response {
    shown(&api, &headers, fields.get("next"), None)
        .unwrap_or_else(|error| refusal::page(None, error))
}

fn shown(
    api: &Api,
    headers: &HeaderMap,
    next: Option<&str>,
    wrong: Option<&ApiError>,
) -> std::result::Result<Response, ApiError> {
    let name = form_cookie(api);
    let value = match read(headers, &name) {
        Some(value) => value,
        None => random()?,
    };
    let page = Page {
        title: "Sign in",
        viewer: None,
        live: None,
        body: body(&hashed(&value), own(next), wrong),
    };
    let cookie = set(headers, &name, &value, FORM);
    Ok(([(header::SET_COOKIE, cookie)], page.whole()).into_response())
}

fn body(csrf: &str, next: &str, wrong: Option<&ApiError>) -> Markup {
    html! {
        form.sign-in method="post" action="/sign-in" {
            h1 { "Sign in" }
            @if let Some(wrong) = wrong {
                p.notice.bad #wrong role="alert" { (super::parts::prose(wrong.message())) }
            }
            input type="hidden" name="csrf" value=(csrf);
            input type="hidden" name="next" value=(next);
            label for="token" { "Token" }
            input #token name="token" type="password" required autofocus
                autocomplete="current-password" spellcheck="false"
                aria-describedby=(if wrong.is_some() { "wrong where" } else { "where" });
            p.hint #where {
                "On the server, " code { "cutover token" } " prints the token, and "
                code { "cutover open" } " a link that signs you in."
            }
            button.main { "Sign in" }
        }
    }
}

/// A path of this site: somebody else may have made the link.
fn own(next: Option<&str>) -> &str {
    let is_own = |next: &&str| {
        next.starts_with('/') && !next.starts_with("//") && !next.contains(['\\', '\r', '\n', '\t'])
    };
    next.filter(is_own).unwrap_or("/")
}

pub async fn sign_in(State(api): Shared, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let address = client(&api, &parts);
    let headers = parts.headers.clone();
    let fields = match Fields::read(Request::from_parts(parts, body)).await {
        Ok((fields, _)) => fields,
        Err(error) => return refusal::page(None, error),
    };
    match signed_in(&api, &headers, &fields, &address).await {
        Ok(response) => response,
        Err(error) => refused(&api, &headers, fields.get("next"), error),
    }
}

fn client(api: &Api, parts: &axum::http::request::Parts) -> String {
    let address = peer::address(&api.agent.in_force().config, parts);
    address.map_or(String::new(), |address| address.to_string())
}

async fn signed_in(
    api: &Api,
    headers: &HeaderMap,
    fields: &Fields,
    address: &str,
) -> std::result::Result<Response, ApiError> {
    let form = read(headers, &form_cookie(api)).unwrap_or_default();
    if !is_own(fields.get("csrf"), &hashed(&form)) {
        let status = StatusCode::FORBIDDEN;
        let message = "the form has expired, or this browser refuses cookies: try once more";
        return Err(ApiError::new(status, "forged", message, ""));
    }
    let token = fields.get("token").unwrap_or_default();
    if api.tokens.principal(token).await.is_none() {
        let status = StatusCode::UNAUTHORIZED;
        let wrong = "this is not a token that is accepted here";
        return Err(ApiError::new(status, "unauthorized", wrong, "").refusing(Kind::Token));
    }
    let holder = Holder::Token(hashed(token));
    let value = session::begin(api, holder, headers, address).await?;
    Ok(welcome(api, headers, &value, own(fields.get("next"))))
}

fn welcome(api: &Api, headers: &HeaderMap, value: &str, next: &str) -> Response {
    let cookie = set(headers, &cookie(api), value, LONGEST);
    ([(header::SET_COOKIE, cookie)], Redirect::to(next)).into_response()
}

fn refused(api: &Api, headers: &HeaderMap, next: Option<&str>, error: ApiError) -> Response {
    let mut response = match shown(api, headers, next, Some(&error)) {
        Ok(response) => response,
        Err(error) => return refusal::page(None, error),
    };
    *response.status_mut() = error.status();
    if let Some(kind) = error.kind() {
        response.extensions_mut().insert(kind);
    }
    response
}

/// Signs in by a one-time link.
pub async fn open(State(api): Shared, fields: Fields, request: Request) -> Response {
    let (parts, _) = request.into_parts();
    let Some(holder) = api
        .links
        .take(fields.get("code").unwrap_or_default(), Instant::now())
    else {
        let message = "this link has been used, or is older than two minutes";
        let hint = "`cutover open` prints another one";
        let error = ApiError::new(StatusCode::UNAUTHORIZED, "used", message, hint);
        return refusal::page(None, error.refusing(Kind::Token));
    };
    let address = client(&api, &parts);
    match session::begin(&api, holder, &parts.headers, &address).await {
        Ok(value) => welcome(&api, &parts.headers, &value, "/"),
        Err(error) => refusal::page(None, error),
    }
}

pub async fn sign_out(State(api): Shared, viewer: Viewer, headers: HeaderMap) -> Result {
    if let Some(hash) = viewer.session.clone() {
        let by = viewer.principal.who.clone();
        let end = api.agent.store.write(move |db| {
            let nothing = serde_json::json!({});
            actions::insert(db, actions::Kind::SignOut, None, &nothing, &by)?;
            sessions::delete(db, &hash)
        });
        end.await.told(&viewer)?;
    }
    let cookie = set(&headers, &cookie(&api), "", 0);
    Ok(([(header::SET_COOKIE, cookie)], Redirect::to("/sign-in")).into_response())
}

/// Ends one of the viewer's sessions; those of everybody, if they may do everything.
pub async fn end(State(api): Shared, viewer: Viewer, fields: Fields) -> Result {
    let hash = fields.get("session").unwrap_or_default().to_owned();
    let wanted = hash.clone();
    let found = api.agent.store.read(move |db| sessions::get(db, &wanted));
    if let Some(found) = found.await.told(&viewer)? {
        let holder = session::principal(&api, &found.holder).await;
        let whose = holder.as_ref().map(|holder| holder.who.to_string());
        let is_own = holder.is_some_and(|holder| holder.who.is_same(&viewer.principal.who));
        if !is_own {
            crate::api::auth::check_server(&viewer.principal, Role::Admin).told(&viewer)?;
        }
        let by = viewer.principal.who.clone();
        let end = api.agent.store.write(move |db| {
            let detail = serde_json::json!({ "session_of": whose, "from": found.address });
            actions::insert(db, actions::Kind::SignOut, None, &detail, &by)?;
            sessions::delete(db, &hash)
        });
        end.await.told(&viewer)?;
    }
    Ok(Redirect::to("/server#sessions").into_response())
}

#[cfg(test)]
mod tests {
    use super::own;

    #[test]
    fn the_way_on_stays_on_this_site() {
        assert_eq!(own(Some("/apps/a?x=1")), "/apps/a?x=1");
        for evil in [
            "//evil.example",
            "https://evil.example",
            "/\\evil",
            "evil",
            "",
            "/a\r\nb",
            "/\t/evil.example",
        ] {
            assert_eq!(own(Some(evil)), "/", "{evil:?}");
        }
    }
}
