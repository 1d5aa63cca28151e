//! Who looks at the pages: by the session that a cookie names, or over the Unix socket.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::{HeaderMap, Method, StatusCode, header, request::Parts};
use axum::middleware::Next;
use axum::response::{IntoResponse, Redirect, Response};

use super::fields::Fields;
use super::viewer::{Viewer, forged, is_own};
use super::{layout, refusal};
use crate::api::auth::{Local, hashed, random, unauthorized};
use crate::api::{Api, ApiError, peer};
use crate::principal::{Principal, Requester};
use crate::store::actions;
use crate::store::sessions::{self, Holder, Session};

/// The cookie's name. A browser sends a cookie to every port of a host: two agents on one machine need
/// different names.
pub fn cookie(api: &Api) -> String {
    format!("cutover_{}", api.agent.id)
}

/// What the forms of this session carry.
fn csrf(value: &str) -> String {
    hashed(&format!("form {value}"))
}

/// The value of a cookie.
pub fn read(headers: &HeaderMap, name: &str) -> Option<String> {
    let lines = headers.get_all(header::COOKIE).iter();
    let mut pairs = lines
        .filter_map(|line| line.to_str().ok())
        .flat_map(|line| line.split(';'))
        .filter_map(|pair| pair.trim().split_once('='));
    let (_, value) = pairs.find(|(key, _)| *key == name)?;
    Some(value.to_owned())
}

/// A `Set-Cookie` that no script can read and that no other site's request carries. Over HTTPS, which
/// only a proxy in front of the agent speaks, it never goes over plain HTTP.
pub fn set(headers: &HeaderMap, name: &str, value: &str, seconds: u32) -> String {
    let proto = headers.get("x-forwarded-proto");
    let secure = match proto.is_some_and(|proto| proto == "https") {
        true => "; Secure",
        false => "",
    };
    format!("{name}={value}; Path=/; Max-Age={seconds}; HttpOnly; SameSite=Strict{secure}")
}

/// Begins a session; returns the cookie's value.
pub async fn begin(
    api: &Api,
    holder: Holder,
    headers: &HeaderMap,
    address: &str,
) -> Result<String, ApiError> {
    let who = principal(api, &holder).await.map(|it| it.who);
    let who = who.ok_or_else(unauthorized)?;
    let who = who.at(address.parse().ok());
    let value = random()?;
    let browser = headers.get(header::USER_AGENT);
    let browser = browser
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default();
    let session = Session::new(hashed(&value), holder, browser, address);
    let write = api.agent.store.write(move |db| {
        let detail = serde_json::json!({ "browser": session.browser });
        actions::insert(db, actions::Kind::SignIn, None, &detail, &who)?;
        sessions::insert(db, &session)
    });
    write.await?;
    Ok(value)
}

/// The principal of a session. It is what its token is now: one that was revoked has none.
pub async fn principal(api: &Api, holder: &Holder) -> Option<Principal> {
    match holder {
        Holder::Token(hash) => api.tokens.with_hash(hash).await,
        Holder::Local(uid) => Some(Principal::admin(Requester::Local { uid: *uid })),
    }
}

async fn viewer(api: &Api, parts: &Parts) -> Result<Option<Viewer>, ApiError> {
    if let Some(Local { uid }) = parts.extensions.get::<Local>() {
        return Ok(Some(Viewer {
            principal: Principal::admin(Requester::Local { uid: *uid }),
            csrf: csrf("local"),
            session: None,
        }));
    }
    let Some(value) = read(&parts.headers, &cookie(api)) else {
        return Ok(None);
    };
    let hash = hashed(&value);
    let wanted = hash.clone();
    let found = api.agent.store.read(move |db| sessions::get(db, &wanted));
    let Some(found) = found.await? else {
        return Ok(None);
    };
    let Some(mut principal) = principal(api, &found.holder).await else {
        return Ok(None);
    };
    principal.who = principal.who.at(peer::client(&parts.extensions));
    if found.is_seen_anew() {
        let hash = hash.clone();
        let seen = api
            .agent
            .store
            .write(move |db| sessions::set_seen(db, &hash));
        seen.await?;
    }
    Ok(Some(Viewer {
        principal,
        csrf: csrf(&value),
        session: Some(hash),
    }))
}

/// Lets in who is signed in, with forms that were made for them; sends others to the form for it.
pub async fn enter(State(api): State<Arc<Api>>, request: Request, next: Next) -> Response {
    let (mut parts, body) = request.into_parts();
    let viewer = match viewer(&api, &parts).await {
        Ok(Some(viewer)) => viewer,
        Ok(None) if parts.method == Method::GET => return sign_in(&parts),
        Ok(None) => return ended(),
        Err(error) => return refusal::page(None, error),
    };
    parts.extensions.insert(viewer.principal.clone());
    parts.extensions.insert(viewer.clone());
    let mut request = Request::from_parts(parts, body);
    if request.method() != Method::GET {
        let fields = match Fields::read(request).await {
            Ok((fields, rest)) => {
                request = rest;
                fields
            }
            Err(error) => return refusal::page(Some(&viewer), error),
        };
        if !is_own(fields.get("csrf"), &viewer.csrf) {
            return refusal::page(Some(&viewer), forged());
        }
        request.extensions_mut().insert(fields);
    }
    next.run(request).await
}

/// A link on another site, such as a forge's, leads here without the cookie. Asked again by a page of
/// this site, the browser sends it.
fn sign_in(parts: &Parts) -> Response {
    let asked = parts.uri.path_and_query();
    let asked = asked.map_or("/", |asked| asked.as_str());
    let site = parts.headers.get("sec-fetch-site");
    if site.is_some_and(|site| site == "cross-site") {
        return layout::again(asked).into_response();
    }
    let next: String = url::form_urlencoded::byte_serialize(asked.as_bytes()).collect();
    Redirect::to(&format!("/sign-in?next={next}")).into_response()
}

fn ended() -> Response {
    let message = "your session has ended, so nothing was done";
    let hint = "sign in, open the page again and press the button there";
    let error = ApiError::new(StatusCode::UNAUTHORIZED, "signed_out", message, hint);
    refusal::page(None, error)
}
