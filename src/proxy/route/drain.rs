//! Waits for the old release's requests, so that stopping it cuts nothing off.

use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use thiserror::Error;
use tokio::time::timeout;

use super::counters::Snapshot;
use super::routes::Routes;
use super::share::{Displaced, LiveShare};

/// How long aborted requests may take to end. Those that wait for a client that does not read do not
/// end by themselves.
const ABORTING: Duration = Duration::from_millis(200);
/// How long closed connections may take to end. A task that takes longer is a bug.
const GONE: Duration = Duration::from_secs(5);
/// How long both ends of a WebSocket have to reply to the close frame.
pub const CLOSE_GRACE: Duration = Duration::from_secs(1);

/// Why nothing was drained.
#[derive(Debug, Error)]
pub enum DrainError {
    #[error(
        "a route of `{app}` older than generation {before} is still live: publish the newer table \
         first"
    )]
    StillServing { app: String, before: u64 },
    #[error("{0} requests of `{1}` did not end after their deadline")]
    Stuck(u64, String),
}

/// What a switch cost: the requests to the old and the new release from the switch to the end of the
/// drain.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[cfg_attr(not(fuzzing), derive(utoipa::ToSchema))]
pub struct Receipt {
    pub requests: u64,
    /// Requests that did not get the app's whole response.
    pub failed: u64,
    /// Requests that were sent again, because they were certainly not processed or because repeating
    /// them does no harm.
    pub retried: u64,
    /// Requests that one of the releases failed and the other answered, so that no client saw it.
    #[serde(default)]
    #[cfg_attr(not(fuzzing), schema(required))]
    pub rescued: u64,
    /// Requests to the old release that were in flight at the switch.
    pub drained: u64,
    pub websockets_closed: u64,
    /// How long the drain took, in milliseconds.
    pub drain_ms: u64,
}

impl Receipt {
    /// The sum of two receipts, of two proxies that shared the work.
    pub fn and(self, other: Self) -> Self {
        Self {
            requests: self.requests + other.requests,
            failed: self.failed + other.failed,
            retried: self.retried + other.retried,
            rescued: self.rescued + other.rescued,
            drained: self.drained + other.drained,
            websockets_closed: self.websockets_closed + other.websockets_closed,
            drain_ms: self.drain_ms.max(other.drain_ms),
        }
    }
}

/// Waits until nothing is in progress that was claimed on `app`'s routes older than `before`. Requests
/// have `requests` to finish; WebSockets and event streams are told to end one after the other over
/// `websockets`. The receipt covers the time from the switch on.
pub async fn drain(
    routes: &Routes,
    app: &str,
    before: u64,
    requests: Duration,
    websockets: Duration,
) -> Result<Receipt, DrainError> {
    let old = routes
        .retired(app, before)
        .ok_or_else(|| DrainError::StillServing {
            app: app.into(),
            before,
        })?;
    for share in &old {
        if let Some(displaced) = share.displaced.lock().as_mut() {
            displaced.drained_for.get_or_insert(before);
        }
    }
    let ends = old
        .iter()
        .map(|share| empty(routes, share, requests, websockets));
    futures_util::future::join_all(ends).await;
    let left: u64 = old.iter().map(|s| s.in_flight() + s.websockets()).sum();
    if left > 0 {
        return Err(DrainError::Stuck(left, app.into()));
    }
    Ok(receipt(&old, before))
}

async fn empty(routes: &Routes, share: &Arc<LiveShare>, requests: Duration, websockets: Duration) {
    let from = Instant::now();
    share.close_streams(websockets);
    routes.watches.wake_share(share.id);
    let finish = async {
        if timeout(requests, share.requests_done()).await.is_err() {
            share.set_aborted();
            routes.watches.wake_share(share.id);
        }
    };
    finish.await;
    if share.is_aborted() && timeout(ABORTING, share.requests_done()).await.is_err() {
        routes.watches.kill_share(share.id);
    }
    let left = websockets.saturating_sub(from.elapsed()) + CLOSE_GRACE + GONE;
    let _ = timeout(left, share.empty()).await;
    if let Some(displaced) = share.displaced.lock().as_mut() {
        displaced.empty_at.get_or_insert_with(Instant::now);
    }
}

fn receipt(old: &[Arc<LiveShare>], before: u64) -> Receipt {
    let mut receipt = Receipt::default();
    let mut add = |now: Snapshot, then: Snapshot| {
        receipt.requests += now.requests - then.requests;
        receipt.failed += now.failed - then.failed;
        receipt.retried += now.retried - then.retried;
        receipt.rescued += now.rescued - then.rescued;
        receipt.websockets_closed += now.websockets_closed - then.websockets_closed;
    };
    let (mut drained, mut drain_ms) = (0, 0);
    let mut counted = Vec::new();
    for share in old {
        let displaced = share.displaced.lock();
        // What an earlier switch cost is in that switch's receipt.
        let its = |d: &&Displaced| d.drained_for == Some(before);
        let Some(displaced) = displaced.as_ref().filter(its) else {
            continue;
        };
        add(share.counters.snapshot(), displaced.counted);
        drained += displaced.in_flight;
        let took = displaced
            .empty_at
            .map_or(Duration::ZERO, |t| t - displaced.at);
        drain_ms = drain_ms.max(took.as_millis() as u64);
        for (successor, then) in &displaced.successors {
            if !counted.contains(&successor.id) {
                counted.push(successor.id);
                add(successor.counters.snapshot(), *then);
            }
        }
    }
    Receipt {
        drained,
        drain_ms,
        ..receipt
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::pin::pin;
    use std::task::Poll;

    use super::super::claim::Claim;
    use super::super::counters::Outcome;
    use super::super::table::tests::route;
    use super::super::table::{Route, Share, Table};
    use super::*;

    /// One route with shares `(release, generation, weight)`.
    fn table(generation: u64, shares: &[(&str, u64, u32)]) -> Table {
        let share = |&(release, generation, weight): &(&str, u64, u32)| Share {
            weight,
            ..Share::whole(release, generation, Vec::new())
        };
        let route = Route {
            shares: shares.iter().map(share).collect(),
            ..route("a", &[], "/", generation)
        };
        Table::new(generation, vec![route])
    }

    #[tokio::test]
    async fn a_share_that_leaves_is_waited_for_and_one_that_stays_is_not() {
        let routes = Routes::new(table(2, &[("old", 1, 90), ("new", 2, 10)]), Arc::default());
        let claims: Vec<_> = (0..100).map(|_| routes.claim("", "/").unwrap()).collect();
        let is_new = |claim: &_| claim_release(claim) == "new";
        let (new, old): (Vec<_>, Vec<_>) = claims.into_iter().partition(is_new);
        assert_eq!((new.len(), old.len()), (10, 90));
        let long = Duration::from_secs(60);
        let early = drain(&routes, "a", 3, long, long).await;
        assert!(matches!(early, Err(DrainError::StillServing { .. })));

        routes.switch(table(3, &[("old", 1, 100)]));
        let mut drained = pin!(drain(&routes, "a", 3, long, long));
        let first = poll_fn(|cx| Poll::Ready(drained.as_mut().poll(cx).is_ready())).await;
        assert!(!first, "the new release's requests are under way");
        new.into_iter().for_each(|mut claim| {
            claim.status = 200;
            claim.end(Outcome::Answered);
        });
        let receipt = drained.await.unwrap();
        assert_eq!((receipt.requests, receipt.drained), (10, 10));
        assert!(old.iter().all(|claim| !claim.share().is_draining()));
    }

    fn claim_release(claim: &Claim) -> &str {
        &claim.share().release
    }
}
