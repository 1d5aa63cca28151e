//! Answers one request: claims a route, sends the request to a target, returns the response.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering::*;

use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use http_body::Body;
use hyper::body::Incoming;

use super::answer::{refuse, refuse_as, too_large};
use super::app_request::{app_request, is_grpc};
use super::attempt::Attempt;
use super::basic_auth::challenged;
use super::compress::{Wish, compress};
use super::cookie_path;
use super::download::{Download, ResponseBody};
use super::extended_connect::into_upgrade;
use super::front::{Proxies, Stopped, Visitor, change_answer, client_address, stopped};
use super::logged::entry;
use super::page::{self, last_page};
use super::redirect::{Door, came_secure, challenge_token, moved, redirected, to_https};
use super::traced;
use crate::log_limit::limited;
use crate::proxy::access_log::AccessLog;
use crate::proxy::downstream::handler::{Connection, Handler};
use crate::proxy::route::claim::Claim;
use crate::proxy::route::counters::Outcome;
use crate::proxy::route::live::{NoRoute, without_port};
use crate::proxy::route::routes::Routes;
use crate::proxy::route::share::LiveShare;
use crate::proxy::route::table::{Page, linked};
use crate::proxy::route::visit::{Visit, client_key};
use crate::proxy::upstream::request_body::RequestBody;
use crate::proxy::upstream::upload::UploadError;
use crate::proxy::wire::framing::LongHead;
use crate::proxy::wire::request_id;
use crate::proxy::wire::request_target;

/// The longest request target (path and query), in bytes. The size of the whole head is checked
/// earlier.
const MAX_TARGET: usize = 16 << 10;

/// How many header fields are added to most requests.
const ADDED: usize = 6;

/// Answers requests by forwarding them to the apps in the live table.
pub struct Gateway {
    pub routes: Arc<Routes>,
    /// Gets a line for each request.
    pub access_log: Option<Arc<AccessLog>>,
    pub proxies: Proxies,
    /// Where what does not fit into memory is kept.
    pub folder: PathBuf,
    /// Absent without TLS.
    pub door: Option<Door>,
}

impl Handler for Gateway {
    type Stream = Download;

    fn handle(
        &self,
        connection: &Connection,
        request: Request<Incoming>,
    ) -> impl Future<Output = Response<ResponseBody>> + Send {
        forward(self, connection, request)
    }

    fn refused(&self, head: &LongHead) {
        let app = self.routes.count_long_head(&head.host, &head.path);
        limited!(
            warn,
            "the header of a request is too long",
            app,
            size = head.size,
            "the header of a request is too long: at least {} KiB; `proxy.header_limit` raises the limit",
            head.size >> 10
        );
    }
}

/// Answers one request.
async fn forward(
    gateway: &Gateway,
    connection: &Connection,
    mut request: Request<Incoming>,
) -> Response<ResponseBody> {
    let (routes, watch) = (&gateway.routes, &connection.watch);
    if request.method() == Method::CONNECT && !into_upgrade(&mut request) {
        return last_page(StatusCode::METHOD_NOT_ALLOWED, "CONNECT is not supported.");
    }
    if request
        .uri()
        .path_and_query()
        .is_some_and(|t| t.as_str().len() > MAX_TARGET)
    {
        return last_page(StatusCode::URI_TOO_LONG, "The request target is too long.");
    }
    let Some(mut host) = request_target::host(&request) else {
        return last_page(StatusCode::BAD_REQUEST, "Missing or invalid Host header.");
    };
    if !request_target::is_valid(&request) {
        return last_page(StatusCode::BAD_REQUEST, "Invalid request target.");
    }
    // The server sends `100 Continue` itself when the body is first read, which is after the connection
    // to the app has been established. No other expectation is supported.
    if let Some(expected) = request.headers_mut().remove(header::EXPECT)
        && !expected.as_bytes().eq_ignore_ascii_case(b"100-continue")
    {
        return last_page(
            StatusCode::EXPECTATION_FAILED,
            "The value of the Expect header is not supported.",
        );
    }
    if let Some(door) = &gateway.door
        && let Some(token) = challenge_token(request.uri().path()).map(str::to_owned)
        && let Some(answer) = door.certificates.answer(&token).await
    {
        return page::custom(StatusCode::OK, &Page::from(&*answer));
    }
    // What the client calls the host, where the route has another name for it.
    let mut called = None;
    if connection.client.lock().linked {
        let name = without_port(host.to_str().unwrap_or("")).to_ascii_lowercase();
        let Ok(route) = HeaderValue::try_from(linked(&name)) else {
            return last_page(StatusCode::BAD_REQUEST, "Missing or invalid Host header.");
        };
        called = Some(std::mem::replace(&mut host, route));
    }
    let name = host.to_str().unwrap_or("");
    let claim = match routes
        .claim_or_wait(name, request.uri().path(), watch)
        .await
    {
        Ok(claim) => claim,
        Err(why) => {
            watch.share.store(0, SeqCst);
            let why = match why {
                NoRoute::UnknownHost => "No app is configured for this host.",
                NoRoute::UnknownPath => "No app is configured for this path.",
            };
            return page::own(routes, None, StatusCode::NOT_FOUND, why);
        }
    };
    // The drain finds the request by this: see `Watches::wake_share`.
    watch.share.store(claim.share().id, SeqCst);
    watch.client.clear();
    let mut claim = claim;
    // Once for all the fields that are added here and below.
    request.headers_mut().reserve(ADDED);
    request_id::ensure(request.headers_mut());
    if let Some(log) = &gateway.access_log {
        let entry = entry(&gateway.proxies, connection, &claim, name, &request);
        claim.log = entry.map(|entry| (log.clone(), entry));
    }
    if routes.spans.picks() {
        let host = called.as_ref().unwrap_or(&host);
        let span = traced::begin(&routes.spans, connection, &claim, host, &mut request);
        claim.span = Some(span);
    }
    let policy = &claim.share().policy;
    if policy.https_redirect
        && let Some(door) = &gateway.door
        && let Some(to) = to_https(door, connection, name, &request)
    {
        return redirected(watch, claim, moved(StatusCode::PERMANENT_REDIRECT, &to));
    }
    let front = policy.front.clone();
    let mut secure = false;
    if let Some(front) = &front {
        secure = came_secure(connection, &request);
        let visitor = Visitor {
            address: client_address(&gateway.proxies, connection, &request),
            host: name,
            secure,
        };
        let door = gateway.door.as_ref();
        let door = door.filter(|_| secure || policy.https_redirect);
        match stopped(front, &claim.share().app, &visitor, door, &request) {
            Some(Stopped::Elsewhere(answer)) => return redirected(watch, claim, answer),
            Some(Stopped::Refused(answer)) => return refuse(watch, claim, answer),
            None => {}
        }
        if let Some(auth) = &front.basic_auth {
            let (client, path) = (client_key(visitor.address, None), request.uri().path());
            // Boxed, since it is rare.
            let asked = challenged(auth, &claim.share().app, client, path, request.headers());
            if let Some(answer) = Box::pin(asked).await {
                return refuse(watch, claim, answer);
            }
        }
    }
    claim.visit = Some(visit(gateway, connection, &request));
    let policy = &claim.share().policy;
    if let Some(page) = &policy.maintenance {
        let answer = page::maintenance(page);
        return refuse_as(Outcome::Maintenance, watch, claim, answer);
    }
    let cap = policy.max_body.unwrap_or(u64::MAX);
    if request.body().size_hint().lower() > cap {
        let answer = too_large(routes, policy);
        return refuse(watch, claim, answer);
    }
    let wish = front.as_ref().filter(|front| front.compress);
    let wish = wish.map(|_| Wish::of(request.method(), request.version(), request.headers()));
    let scoped = front.as_ref().filter(|front| front.scope_cookie_paths);
    let scoped = scoped.map(|_| claim.share().clone());
    let prefix = &claim.share().path_prefix;
    let (mut request, on_upgrade) = app_request(
        connection,
        request,
        called.as_ref().unwrap_or(&host),
        policy,
        prefix,
    );
    if let Some(front) = &front {
        front.request_headers.apply(request.headers_mut());
    }
    if let Some(most) = front.as_ref().and_then(|front| front.buffer_requests) {
        // Boxed, since it is rare and large.
        let share = claim.share().clone();
        let taken = Box::pin(take_in(&gateway.folder, most, &share, &mut request));
        let taken = {
            let _taking_in = share.taking_in();
            taken.await
        };
        if let Err(error) = taken {
            let policy = &claim.share().policy;
            let answer = match error {
                UploadError::TooLarge => too_large(routes, policy),
                UploadError::ClientIdle => {
                    watch.client.clear();
                    let why = "Timed out while reading the request body.";
                    last_page(StatusCode::REQUEST_TIMEOUT, why)
                }
                _ => last_page(StatusCode::BAD_REQUEST, "The request body ended early."),
            };
            watch.too_large.store(false, Relaxed);
            return refuse(watch, claim, answer);
        }
    }
    if let Some(most) = front.as_ref().and_then(|front| front.max_connections)
        && claim.share().connections() > most
    {
        let answer = full(routes, &claim);
        return refuse(watch, claim, answer);
    }
    let attempt = Attempt {
        routes,
        watch,
        claim,
        host,
        resumes: request.method() == Method::GET,
        tried: Vec::new(),
        left: Vec::new(),
    };
    let mut answer = attempt.run(request, on_upgrade).await;
    if let Some(share) = scoped {
        cookie_path::scope(answer.headers_mut(), &share.path_prefix);
    }
    if let Some(wish) = wish {
        compress(&wish, &mut answer);
    }
    if let Some(front) = &front {
        change_answer(front, secure, answer.headers_mut());
    }
    answer
}

/// Takes a request's body in before the app is asked. A stream of messages is none that ends.
async fn take_in(
    folder: &Path,
    most: u64,
    share: &LiveShare,
    request: &mut Request<RequestBody>,
) -> Result<(), UploadError> {
    if is_grpc(request.headers()) {
        return Ok(());
    }
    let RequestBody::Stream(upload) = request.body_mut() else {
        return Ok(());
    };
    upload.take_in(most, folder, || share.is_aborted()).await?;
    let length = upload.size_hint().exact();
    let headers = request.headers_mut();
    if let Some(length) = length
        && headers.remove(header::TRANSFER_ENCODING).is_some()
    {
        headers.insert(header::CONTENT_LENGTH, length.into());
    }
    Ok(())
}

/// The answer when the release has as many requests as it takes.
fn full(routes: &Routes, claim: &Claim) -> Response<ResponseBody> {
    let share = claim.share();
    limited!(
        warn,
        "an app has as many requests as it takes",
        app = share.app,
        "an app has as many requests as it takes (`max_connections`); more get 503"
    );
    let why = "The app has as many requests as it takes at a time.";
    page::own(
        routes,
        Some(&share.policy),
        StatusCode::SERVICE_UNAVAILABLE,
        why,
    )
}

fn visit(gateway: &Gateway, connection: &Connection, request: &Request<Incoming>) -> Visit {
    let client = connection.client.lock();
    let named = match client.trusted {
        true => gateway.proxies.named(request.headers()),
        false => None,
    };
    let key = client_key(client.address, named);
    Visit::new(request.uri().path(), key)
}
