//! One request's way: claim a route, find a connection, send, hand the answer back.

use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::Ordering::*;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Uri, Version, header};
use http_body::Body;
use hyper::body::Incoming;
use hyper::client::conn::TrySendError;
use hyper::upgrade::OnUpgrade;
use parking_lot::Mutex;

use super::access_log::Entry;
use super::answer::{last_page, page};
use super::body::{Download, RequestBody, ResponseBody, Upload};
use super::counters::Outcome;
use super::headers::{Client, strip_hop_by_hop};
use super::pool::Upstream;
use super::routes::{NoRoute, Routes};
use super::served::{Claim, Served};
use super::tunnel;
use super::watch::Watch;

/// A request that may have an effect goes only onto a connection that has been idle for less than
/// this. Should the app be closing an idle connection just then, nobody could tell whether it has
/// processed the request, and it must not be sent twice. No app in use closes after so short a
/// time, and a new connection costs some 50 us.
const FRESH_ENOUGH: Duration = Duration::from_millis(50);

/// Tries in all, over all targets and tables.
const MAX_TRIES: u32 = 8;

/// The client's connection that requests come over.
pub struct Connection {
    pub routes: Arc<Routes>,
    pub client: Mutex<Client>,
    pub watch: Arc<Watch>,
}

/// Answers one request.
pub async fn forward(
    connection: &Connection,
    mut request: Request<Incoming>,
) -> Response<ResponseBody> {
    let Connection { routes, watch, .. } = connection;
    if request.method() == Method::CONNECT {
        return last_page(
            StatusCode::METHOD_NOT_ALLOWED,
            "This is not a forward proxy.",
        );
    }
    let Some(host) = host(&request) else {
        return last_page(StatusCode::BAD_REQUEST, "The request names no host.");
    };
    let name = host.to_str().unwrap_or("");
    let claim = match routes.claim_or_wait(name, request.uri().path()).await {
        Ok(claim) => claim,
        Err(NoRoute::UnknownHost) => {
            return page(StatusCode::NOT_FOUND, "No app has this host name.");
        }
        Err(NoRoute::UnknownPath) => {
            return page(StatusCode::NOT_FOUND, "No app has this path.");
        }
    };
    // Seen by the drain's wake-up: see `Watches::wake_route`.
    watch.route.store(claim.served().id, SeqCst);
    watch.client.clear();
    let mut claim = claim;
    if let Some(log) = &routes.access_log {
        claim.log = Some((log.clone(), entry(connection, &claim, name, &request)));
    }
    let settings = &claim.served().route.settings;
    if let Some(text) = &settings.maintenance {
        let text = text.clone();
        return refuse(claim, StatusCode::SERVICE_UNAVAILABLE, &text);
    }
    let cap = settings.max_body.unwrap_or(u64::MAX);
    if request.body().size_hint().lower() > cap {
        return refuse(claim, StatusCode::PAYLOAD_TOO_LARGE, TOO_LARGE);
    }

    let upgrading = strip_hop_by_hop(request.headers_mut());
    let on_upgrade = upgrading.then(|| hyper::upgrade::on(&mut request));
    let (mut head, incoming) = request.into_parts();
    head.headers.insert(header::HOST, host.clone());
    if head.version == Version::HTTP_2 {
        join_cookies(&mut head.headers);
    }
    // The server answers `Expect: 100-continue` itself when the body is first asked for, which is
    // when the app's connection stands.
    head.headers.remove(header::EXPECT);
    connection.client.lock().introduce(&mut head.headers, &host);
    let body = match incoming.is_end_stream() {
        true => RequestBody::Empty,
        false => {
            if incoming.size_hint().exact().is_none() {
                let chunked = HeaderValue::from_static("chunked");
                head.headers.insert(header::TRANSFER_ENCODING, chunked);
            }
            watch.too_large.store(false, Relaxed);
            RequestBody::Stream(Upload {
                incoming,
                watch: watch.clone(),
                left: cap,
                idle_ms: settings.body_idle_timeout_ms,
                first_byte_ms: settings.first_byte_timeout_ms,
            })
        }
    };
    if upgrading {
        let connection = HeaderValue::from_static("upgrade");
        head.headers.insert(header::CONNECTION, connection);
    } else {
        head.headers.remove(header::UPGRADE);
    }
    head.uri = origin_form(head.uri, &claim.served().route);
    head.version = Version::HTTP_11;
    head.extensions.clear();
    let outgoing = Request::from_parts(head, body);

    Attempt {
        routes,
        watch,
        claim,
        host,
        tried: 0,
    }
    .run(outgoing, on_upgrade)
    .await
}

fn entry(
    connection: &Connection,
    claim: &Claim,
    host: &str,
    request: &Request<Incoming>,
) -> Box<Entry> {
    let route = &claim.served().route;
    let now = time::OffsetDateTime::now_utc();
    let format = &time::format_description::well_known::Rfc3339;
    Box::new(Entry {
        time: now.format(format).unwrap_or_default(),
        app: route.app.clone(),
        release: route.release.clone(),
        client: connection.client.lock().address,
        host: host.into(),
        method: request.method().to_string(),
        path: request.uri().path().into(),
        status: 0,
        outcome: "",
        took_us: 0,
    })
}

/// HTTP/2 may send a cookie in parts; HTTP/1.1 knows one line of them.
fn join_cookies(headers: &mut HeaderMap) {
    let parts: Vec<_> = headers.get_all(header::COOKIE).iter().collect();
    if parts.len() > 1 {
        let parts: Vec<_> = parts.iter().map(|part| part.as_bytes()).collect();
        if let Ok(line) = HeaderValue::from_bytes(&parts.join(&b"; "[..])) {
            headers.insert(header::COOKIE, line);
        }
    }
}

const TOO_LARGE: &str = "The request body is larger than this app allows.";

/// The name asked for: the target's, where the request line has it, else the Host header.
fn host(request: &Request<Incoming>) -> Option<HeaderValue> {
    if let Some(authority) = request.uri().authority() {
        return HeaderValue::from_str(authority.as_str()).ok();
    }
    match request.headers().get(header::HOST) {
        Some(host) => Some(host.clone()),
        None if request.version() == Version::HTTP_10 => Some(HeaderValue::from_static("")),
        None => None,
    }
}

/// The path and query alone, less the route's prefix if it is to be stripped.
fn origin_form(uri: Uri, route: &super::table::Route) -> Uri {
    let prefix = route.path_prefix.trim_end_matches('/');
    let strip = route.settings.strip_prefix && !prefix.is_empty();
    if uri.authority().is_none() && !strip {
        return uri;
    }
    let text = uri.path_and_query().map_or("/", |p| p.as_str());
    let text = match strip {
        true => text.strip_prefix(prefix).unwrap_or(text),
        false => text,
    };
    let text = match text.starts_with('/') || text == "*" {
        true => text.into(),
        false => format!("/{text}"),
    };
    text.parse().unwrap_or(uri)
}

fn refuse(mut claim: Claim, status: StatusCode, why: &str) -> Response<ResponseBody> {
    claim.status = status.as_u16();
    claim.end(Outcome::Client);
    match status {
        // Nothing of it is left unread.
        StatusCode::SERVICE_UNAVAILABLE => page(status, why),
        _ => last_page(status, why),
    }
}

/// A request that is being sent, maybe more than once.
struct Attempt<'a> {
    routes: &'a Arc<Routes>,
    watch: &'a Arc<Watch>,
    claim: Claim,
    host: HeaderValue,
    /// Targets of the claimed route that refused a connection, by bit.
    tried: u64,
}

/// How one sending of a request ended.
enum Sent {
    Answer(Response<Incoming>, Box<Upstream>),
    /// Not one byte of it was written.
    Unsent(Request<RequestBody>),
    Failed(hyper::Error),
    Ended(Outcome),
}

impl Attempt<'_> {
    async fn run(
        mut self,
        mut request: Request<RequestBody>,
        on_upgrade: Option<OnUpgrade>,
    ) -> Response<ResponseBody> {
        let idempotent = is_idempotent(request.method());
        let replayable = idempotent && matches!(request.body(), RequestBody::Empty);
        let mut fresh_only = false;
        for _ in 0..MAX_TRIES {
            let path = request.uri().path();
            let upstream = match self.connection(path, idempotent, fresh_only).await {
                Ok(upstream) => upstream,
                Err(status) => return self.failed(Outcome::Connect, status, UNREACHABLE),
            };
            let reused = upstream.reused;
            let copy = (reused && replayable).then(|| copy(&request));
            match self.send(upstream, request).await {
                Sent::Answer(answer, upstream) => {
                    return self.answered(answer, upstream, on_upgrade).await;
                }
                Sent::Unsent(back) => request = back,
                Sent::Failed(error) => match copy {
                    // The app had closed the connection before it saw the request, or while it
                    // did: it may be asked again, since asking twice is the same as once.
                    Some(copy) => request = copy,
                    None => return self.broken(error),
                },
                Sent::Ended(outcome) => return self.ended(outcome),
            }
            fresh_only = true;
            self.count_retry();
        }
        self.failed(
            Outcome::Closed,
            StatusCode::BAD_GATEWAY,
            "The app keeps closing its connections.",
        )
    }

    /// A connection to the claimed route's least loaded target. If none accepts, and the route has
    /// been replaced meanwhile, the newer one is claimed: nothing was sent yet.
    async fn connection(
        &mut self,
        path: &str,
        idempotent: bool,
        fresh_only: bool,
    ) -> Result<Box<Upstream>, StatusCode> {
        for _ in 0..MAX_TRIES {
            let served = self.claim.served().clone();
            let Some(number) = served.pick(self.tried) else {
                if !served.is_draining() || !self.claim_again(path) {
                    return Err(StatusCode::SERVICE_UNAVAILABLE);
                }
                continue;
            };
            self.claim.use_target(number);
            let target = &served.targets[number];
            let settings = &served.route.settings;
            if !fresh_only {
                let limit = Duration::from_millis(settings.keep_alive_ms);
                let limit = match idempotent {
                    true => limit,
                    false => limit.min(FRESH_ENOUGH),
                };
                if let Some(upstream) = target.pool.take(limit) {
                    return Ok(upstream);
                }
            }
            let limit = Duration::from_millis(settings.connect_timeout_ms);
            match Upstream::connect(target.address, limit).await {
                Ok(upstream) => return Ok(upstream),
                Err(error) => {
                    tracing::debug!(
                        app = served.route.app,
                        target = %target.address,
                        "a target did not accept a connection: {error}"
                    );
                    target.eject();
                    self.tried |= 1 << number;
                    let left = served.pick(self.tried).is_some();
                    if left || served.is_draining() {
                        self.count_retry();
                    }
                }
            }
        }
        Err(StatusCode::SERVICE_UNAVAILABLE)
    }

    fn claim_again(&mut self, path: &str) -> bool {
        let host = self.host.to_str().unwrap_or("");
        match self.routes.claim(host, path) {
            // Only within the app: another one has not been asked.
            Ok(newer)
                if newer.served().id != self.claim.served().id
                    && newer.served().route.app == self.claim.served().route.app =>
            {
                self.watch.route.store(newer.served().id, SeqCst);
                let mut older = std::mem::replace(&mut self.claim, newer);
                self.claim.log = older.log.take();
                older.abandon();
                self.tried = 0;
                self.count_retry();
                true
            }
            _ => false,
        }
    }

    fn count_retry(&self) {
        let counters = &self.claim.served().counters;
        counters.retried.fetch_add(1, Relaxed);
    }

    async fn send(&self, mut upstream: Box<Upstream>, request: Request<RequestBody>) -> Sent {
        let (served, watch) = (self.claim.served(), self.watch);
        if matches!(request.body(), RequestBody::Empty) {
            let limit = served.route.settings.first_byte_timeout_ms;
            watch.upstream.set_in(limit);
        }
        let Upstream {
            sender, connection, ..
        } = &mut *upstream;
        let mut answer = pin!(sender.try_send_request(request));
        let result = std::future::poll_fn(|cx| {
            let done = Pin::new(&mut *connection).poll(cx).is_ready();
            // Only the connection, which was just polled, brings an answer: nothing else need wake
            // this task.
            let mut noop = Context::from_waker(Waker::noop());
            if let Poll::Ready(answer) = answer.as_mut().poll(&mut noop) {
                return Poll::Ready(Ok(answer));
            }
            if done {
                return Poll::Ready(Err(Outcome::Closed));
            }
            watch.register(cx.waker());
            match waiting_ends(served, watch) {
                Some(outcome) => Poll::Ready(Err(outcome)),
                None => Poll::Pending,
            }
        })
        .await;
        watch.upstream.clear();
        match result {
            Ok(Ok(response)) => Sent::Answer(response, upstream),
            Ok(Err(error)) => unsent_or_failed(error),
            Err(outcome) => Sent::Ended(outcome),
        }
    }

    async fn answered(
        mut self,
        answer: Response<Incoming>,
        upstream: Box<Upstream>,
        on_upgrade: Option<OnUpgrade>,
    ) -> Response<ResponseBody> {
        let (mut head, incoming) = answer.into_parts();
        self.claim.status = head.status.as_u16();
        if head.status == StatusCode::SWITCHING_PROTOCOLS {
            let Some(on_upgrade) = on_upgrade else {
                return self.failed(
                    Outcome::Malformed,
                    StatusCode::BAD_GATEWAY,
                    "The app changed the protocol unasked.",
                );
            };
            self.watch.tunnel.store(true, SeqCst);
            self.watch.route.store(0, SeqCst);
            let connection = HeaderValue::from_static("upgrade");
            let websocket = is_websocket(&head.headers);
            strip_hop_by_hop(&mut head.headers);
            head.headers.insert(header::CONNECTION, connection);
            tunnel::open(on_upgrade, upstream, self.claim.into_tunnel(), websocket);
            return Response::from_parts(head, ResponseBody::empty());
        }
        strip_hop_by_hop(&mut head.headers);
        head.headers.remove(header::UPGRADE);
        if on_upgrade.is_some() {
            // What follows on this connection was not looked at: see `ClientIo`.
            let close = HeaderValue::from_static("close");
            head.headers.insert(header::CONNECTION, close);
        }
        // The app's version says nothing about this connection.
        head.version = Version::HTTP_11;
        let kind = head.headers.get(header::CONTENT_TYPE);
        let starts = |text: &str| {
            kind.is_some_and(|k| {
                let k = k.as_bytes();
                k.len() >= text.len() && k[..text.len()].eq_ignore_ascii_case(text.as_bytes())
            })
        };
        let events = starts("text/event-stream");
        let idle_ms = match events || starts("application/grpc") {
            true => 0,
            false => self.claim.served().route.settings.body_idle_timeout_ms,
        };
        let watch = self.watch.clone();
        let download = Download::new(incoming, upstream, self.claim, watch, idle_ms, events);
        Response::from_parts(head, ResponseBody::Stream(Box::new(download)))
    }

    fn broken(self, error: hyper::Error) -> Response<ResponseBody> {
        tracing::debug!(
            app = self.claim.served().route.app,
            "no answer from the app: {error}"
        );
        if self.watch.too_large.swap(false, Relaxed) {
            return refuse(self.claim, StatusCode::PAYLOAD_TOO_LARGE, TOO_LARGE);
        }
        if self.watch.client.has_passed() {
            self.watch.client.clear();
            return refuse(
                self.claim,
                StatusCode::REQUEST_TIMEOUT,
                "The request body stopped coming.",
            );
        }
        let (outcome, why) = match error.is_parse() || error.is_parse_too_large() {
            true => (Outcome::Malformed, "The app's answer is not valid HTTP."),
            false => (
                Outcome::Closed,
                "The app closed the connection before it answered.",
            ),
        };
        self.failed(outcome, StatusCode::BAD_GATEWAY, why)
    }

    fn ended(self, outcome: Outcome) -> Response<ResponseBody> {
        let (status, why) = match outcome {
            Outcome::Timeout => (
                StatusCode::GATEWAY_TIMEOUT,
                "The app did not answer in time.",
            ),
            Outcome::Drained => (
                StatusCode::GATEWAY_TIMEOUT,
                "The app was replaced, and this request took longer than that waits.",
            ),
            _ => (
                StatusCode::BAD_GATEWAY,
                "The app closed the connection before it answered.",
            ),
        };
        self.failed(outcome, status, why)
    }

    fn failed(mut self, outcome: Outcome, status: StatusCode, why: &str) -> Response<ResponseBody> {
        self.claim.status = status.as_u16();
        self.claim.end(outcome);
        self.watch.route.store(0, SeqCst);
        page(status, why)
    }
}

const UNREACHABLE: &str = "The app cannot be reached right now.";

fn waiting_ends(served: &Served, watch: &Watch) -> Option<Outcome> {
    if served.is_aborted() {
        return Some(Outcome::Drained);
    }
    watch.upstream.has_passed().then_some(Outcome::Timeout)
}

fn unsent_or_failed(mut error: TrySendError<Request<RequestBody>>) -> Sent {
    match error.take_message() {
        Some(request) => Sent::Unsent(request),
        None => Sent::Failed(error.into_error()),
    }
}

fn is_idempotent(method: &Method) -> bool {
    use Method as M;
    [M::GET, M::HEAD, M::OPTIONS, M::TRACE, M::PUT, M::DELETE].contains(method)
}

fn copy(request: &Request<RequestBody>) -> Request<RequestBody> {
    let mut copy = Request::new(RequestBody::Empty);
    *copy.method_mut() = request.method().clone();
    *copy.uri_mut() = request.uri().clone();
    *copy.headers_mut() = request.headers().clone();
    *copy.version_mut() = request.version();
    copy
}

fn is_websocket(headers: &HeaderMap) -> bool {
    headers
        .get(header::UPGRADE)
        .is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"websocket"))
}
