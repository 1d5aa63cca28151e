//! Sends one request: finds a connection, sends it, and sends it again only if it was certainly not
//! processed or if repeating it does no harm.

use std::sync::Arc;
use std::sync::atomic::Ordering::*;

use http::{HeaderValue, Method, Request, Response, StatusCode};

use super::connect::{Unconnected, connect};
use super::download::ResponseBody;
use super::extended_connect::Upgrade;
use super::send::{Sent, send};
use crate::proxy::route::claim::Claim;
use crate::proxy::route::counters::Outcome;
use crate::proxy::route::hold::patience;
use crate::proxy::route::routes::Routes;
use crate::proxy::upstream::request_body::RequestBody;
use crate::proxy::upstream::via::{Spare, Via};
use crate::proxy::watch::Watch;

/// How often a request is sent at most, and how many targets are tried for each time.
const MAX_TRIES: u32 = 8;

/// A request that is being sent, possibly more than once.
pub struct Attempt<'a> {
    pub routes: &'a Arc<Routes>,
    pub watch: &'a Arc<Watch>,
    pub claim: Claim,
    pub host: HeaderValue,
    /// Whether the client of an event stream may be one that asks again by itself: an EventSource only sends GET.
    pub resumes: bool,
    /// Targets of the claimed share that refused a connection.
    pub tried: Vec<usize>,
    /// The ids of the shares whose targets have all refused a connection.
    pub left: Vec<u64>,
}

impl Attempt<'_> {
    /// Sends the request and returns the response for the client.
    pub async fn run(
        mut self,
        mut request: Request<RequestBody>,
        on_upgrade: Option<Upgrade>,
    ) -> Response<ResponseBody> {
        let empty = matches!(request.body(), RequestBody::Empty);
        let replayable = empty && is_idempotent(request.method());
        let mut fresh_only = false;
        for _ in 0..MAX_TRIES {
            let path = request.uri().path();
            let via = match self.connection(path, replayable, fresh_only).await {
                Ok(via) => via,
                Err(Outcome::Connect) => {
                    let why = self.unreachable();
                    return self.failed(Outcome::Connect, StatusCode::SERVICE_UNAVAILABLE, why);
                }
                Err(outcome) => return self.ended(outcome),
            };
            let spare = Spare::of(&via, &mut request, replayable);
            match send(self.claim.share(), self.watch, via, &mut request).await {
                Sent::Answer(answer, via) => {
                    return self.respond(answer, via, on_upgrade).await;
                }
                Sent::Unsent => {
                    spare.restore(&mut request);
                }
                Sent::Failed(error) => {
                    let repeats = spare.may_repeat(&error);
                    if !(repeats || replayable) || !spare.restore(&mut request) {
                        return self.broken(error);
                    }
                    if !repeats && !self.claim_warm(request.uri().path()) {
                        return self.broken(error);
                    }
                }
                Sent::Stalled => return self.stalled(),
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

    /// A connection to the claimed share's least loaded target. If no target accepts, claims another
    /// share of the same app, or one that has replaced it in the meantime: nothing has been sent yet.
    async fn connection(
        &mut self,
        path: &str,
        replayable: bool,
        fresh_only: bool,
    ) -> Result<Via, Outcome> {
        let mut stays = false;
        for _ in 0..MAX_TRIES {
            let share = self.claim.share().clone();
            let Some(number) = share.next_target(&self.tried) else {
                if !self.claim_other(path) {
                    return Err(Outcome::Connect);
                }
                continue;
            };
            self.claim.use_target(number);
            let target = &share.targets[number];
            if !fresh_only && let Some(via) = Via::idle(target, replayable) {
                return Ok(via);
            }
            match connect(&share, self.watch, target, stays).await {
                Ok(via) => return Ok(via),
                Err(Unconnected::Failed(error)) => {
                    tracing::debug!(
                        app = share.app,
                        target = %target.address,
                        "failed to connect to a target: {error}"
                    );
                    target.eject();
                    self.tried.push(number);
                    if share.next_target(&self.tried).is_some() {
                        self.count_retry();
                    }
                }
                // Boxed, since it is rare and large.
                Err(Unconnected::Displaced) => stays = !Box::pin(self.claim_anew(path)).await,
                Err(Unconnected::Aborted) => return Err(Outcome::Drained),
            }
        }
        Err(Outcome::Connect)
    }

    fn claim_other(&mut self, path: &str) -> bool {
        let share = self.claim.share().clone();
        self.left.push(share.id);
        // Only within the app: the request is not meant for any other one.
        let requested = self.requested(path);
        let other = self
            .routes
            .claim_other(self.name(), &requested, &share.app, &self.left);
        self.count_failed(other.as_ref());
        other.is_some_and(|other| self.goes_on(other))
    }

    /// Claims the release before, while it is warm: the new one broke the connection.
    fn claim_warm(&mut self, path: &str) -> bool {
        let share = self.claim.share().clone();
        let requested = self.requested(path);
        let warm = (self.routes).claim_warm(self.name(), &requested, &share.app, share.id);
        self.count_failed(warm.as_ref());
        warm.is_some_and(|warm| self.goes_on(warm))
    }

    /// Claims what the newest table leads to; waits for a target if the route lets requests wait.
    /// False: nothing of this app.
    async fn claim_anew(&mut self, path: &str) -> bool {
        let share = self.claim.share().clone();
        let requested = self.requested(path);
        let same_app = |next: Claim| match next.share().app == share.app {
            true => Some(next),
            false => {
                next.abandon();
                None
            }
        };
        let next = self.routes.claim(self.name(), &requested).ok();
        let Some(next) = next.and_then(same_app) else {
            return false;
        };
        self.goes_on(next);
        if patience(self.claim.share()).is_none() {
            return true;
        }
        // No drain need wait for a request that waits.
        self.claim.release();
        let name = self.name().to_owned();
        let next = (self.routes).claim_or_wait(&name, &requested, self.watch);
        let next = next.await.ok().and_then(same_app);
        next.is_some_and(|next| self.goes_on(next))
    }

    /// If another release has to answer, this one has failed, even though no client sees it.
    fn count_failed(&self, other: Option<&Claim>) {
        let share = self.claim.share();
        if other.is_none_or(|other| other.share().release == share.release) {
            return;
        }
        share.counters.rescued.fetch_add(1, Relaxed);
        if let Some(visit) = &self.claim.visit {
            share.record.count(visit, Outcome::Connect, 0);
        }
    }

    /// Goes on with another claim in place of the present one.
    fn goes_on(&mut self, other: Claim) -> bool {
        self.count_retry();
        self.watch.share.store(other.share().id, SeqCst);
        let mut before = std::mem::replace(&mut self.claim, other);
        self.claim.log = before.log.take();
        self.claim.span = before.span.take();
        self.claim.visit = before.visit.take();
        before.abandon();
        self.tried.clear();
        true
    }

    fn name(&self) -> &str {
        self.host.to_str().unwrap_or("")
    }

    /// The path as the client requested it.
    fn requested(&self, path: &str) -> String {
        let share = self.claim.share();
        match share.policy.strip_prefix {
            true => format!("{}{path}", share.path_prefix.trim_end_matches('/')),
            false => path.into(),
        }
    }

    fn unreachable(&self) -> &'static str {
        match self.claim.share().release.is_empty() {
            true => "Nothing has been deployed here yet.",
            false => "The app is not reachable right now.",
        }
    }

    fn count_retry(&self) {
        let counters = &self.claim.share().counters;
        counters.retried.fetch_add(1, Relaxed);
    }
}

fn is_idempotent(method: &Method) -> bool {
    use Method as M;
    [M::GET, M::HEAD, M::OPTIONS, M::TRACE, M::PUT, M::DELETE].contains(method)
}
