//! Sending one request, maybe more than once: find a connection, send, and send again only what was
//! certainly not processed.

use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::Ordering::*;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use http::{HeaderValue, Method, Request, Response, StatusCode};
use hyper::body::Incoming;
use hyper::client::conn::TrySendError;
use hyper::upgrade::OnUpgrade;

use super::body::{RequestBody, ResponseBody};
use super::counters::Outcome;
use super::pool::Upstream;
use super::routes::Routes;
use super::served::{Claim, Served};
use super::watch::Watch;

/// A request that may have an effect goes only onto a connection that has been idle for less than
/// this. Should the app be closing an idle connection just then, nobody could tell whether it has
/// processed the request, and it must not be sent twice. No app in use closes after so short a
/// time, and a new connection costs some 50 us.
const FRESH_ENOUGH: Duration = Duration::from_millis(50);

/// Tries in all, over all targets and tables.
const MAX_TRIES: u32 = 8;

/// A request that is being sent, maybe more than once.
pub struct Attempt<'a> {
    pub routes: &'a Arc<Routes>,
    pub watch: &'a Arc<Watch>,
    pub claim: Claim,
    pub host: HeaderValue,
    /// Targets of the claimed route that refused a connection, by bit.
    pub tried: u64,
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
    /// Returns what the client gets.
    pub async fn run(
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
        let route = &self.claim.served().route;
        let asked = match route.settings.strip_prefix {
            true => format!("{}{path}", route.path_prefix.trim_end_matches('/')),
            false => path.into(),
        };
        match self.routes.claim(host, &asked) {
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
