//! Sending one request, maybe more than once: find a connection, send, and send again only what was
//! certainly not processed.

use std::sync::Arc;
use std::sync::atomic::Ordering::*;

use http::{HeaderValue, Method, Request, Response, StatusCode};

use super::download::ResponseBody;
use super::extended_connect::Upgrade;
use super::send::{Sent, send};
use crate::proxy::route::counters::Outcome;
use crate::proxy::route::routes::Routes;
use crate::proxy::route::share::Claim;
use crate::proxy::upstream::request_body::RequestBody;
use crate::proxy::upstream::via::{Spare, Via};
use crate::proxy::watch::Watch;

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

impl Attempt<'_> {
    /// Returns what the client gets.
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
                Err(status) => {
                    let why = self.unreachable();
                    return self.failed(Outcome::Connect, status, why);
                }
            };
            let spare = Spare::of(&via, &mut request, replayable);
            match send(self.claim.served(), self.watch, via, &mut request).await {
                Sent::Answer(answer, via) => {
                    return self.answered(answer, via, on_upgrade).await;
                }
                Sent::Unsent => {
                    spare.restore(&mut request);
                }
                Sent::Failed(error) => {
                    if !spare.failed(&error, &mut request) {
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

    /// A connection to the claimed route's least loaded target. If none accepts, and the route has
    /// been replaced meanwhile, the newer one is claimed: nothing was sent yet.
    async fn connection(
        &mut self,
        path: &str,
        replayable: bool,
        fresh_only: bool,
    ) -> Result<Via, StatusCode> {
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
            if !fresh_only && let Some(via) = Via::idle(target, replayable) {
                return Ok(via);
            }
            match Via::connect(target).await {
                Ok(via) => return Ok(via),
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

    fn unreachable(&self) -> &'static str {
        match self.claim.served().targets.is_empty() {
            true => "Nothing has been deployed here yet.",
            false => "The app cannot be reached right now.",
        }
    }

    fn count_retry(&self) {
        let counters = &self.claim.served().counters;
        counters.retried.fetch_add(1, Relaxed);
    }
}

fn is_idempotent(method: &Method) -> bool {
    use Method as M;
    [M::GET, M::HEAD, M::OPTIONS, M::TRACE, M::PUT, M::DELETE].contains(method)
}
