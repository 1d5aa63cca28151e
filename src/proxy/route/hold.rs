//! Requests that wait for their route: while it has no target, or while it is paused.

use std::sync::atomic::Ordering::*;
use std::time::Duration;

use super::claim::Claim;
use super::live::NoRoute;
use super::routes::Routes;
use super::share::LiveShare;
use crate::proxy::watch::{HELD, Watch};

/// The most requests that wait at the same time; further ones are not held.
const MAX_HELD: usize = 16_384;

impl Routes {
    /// Like [`Routes::claim`], but waits for as long as the route allows while the route has no target
    /// or is paused. After that the request is handled as if it had not waited.
    pub async fn claim_or_wait(
        &self,
        host: &str,
        path: &str,
        watch: &Watch,
    ) -> Result<Claim, NoRoute> {
        let claim = self.claim(host, path)?;
        match patience(claim.share()) {
            Some(limit) => {
                // Released while waiting, because a drain need not wait for this request.
                claim.abandon();
                Box::pin(self.wait(host, path, watch, limit)).await
            }
            None => Ok(claim),
        }
    }

    async fn wait(
        &self,
        host: &str,
        path: &str,
        watch: &Watch,
        limit: Duration,
    ) -> Result<Claim, NoRoute> {
        let _held = match Held::new(self) {
            Some(held) => held,
            None => return self.claim(host, path),
        };
        // The client is not idle: it waits for the proxy.
        watch.share.store(HELD, SeqCst);
        let mut switched = self.switched.subscribe();
        let found = async {
            loop {
                let claim = self.claim(host, path)?;
                if patience(claim.share()).is_none() {
                    return Ok(claim);
                }
                claim.abandon();
                let _ = switched.changed().await;
            }
        };
        match tokio::time::timeout(limit, found).await {
            Ok(found) => found,
            Err(_) => self.claim(host, path),
        }
    }
}

/// How long a request of this route may have to wait. `None`: it need not wait.
pub fn patience(share: &LiveShare) -> Option<Duration> {
    let policy = &share.policy;
    let hold_ms = match share.targets.is_empty() {
        true => policy.hold_ms,
        false => 0,
    };
    let ms = hold_ms.max(policy.pause_ms);
    let waits = ms > 0 && policy.maintenance.is_none();
    waits.then(|| Duration::from_millis(ms))
}

/// One held request, counted towards [`MAX_HELD`].
struct Held<'a>(&'a Routes);

impl<'a> Held<'a> {
    fn new(routes: &'a Routes) -> Option<Self> {
        let held = Self(routes);
        (routes.held.fetch_add(1, Relaxed) < MAX_HELD).then_some(held)
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        self.0.held.fetch_sub(1, Relaxed);
    }
}
