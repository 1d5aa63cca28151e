//! Holds on a share, which a drain waits for.

use std::sync::Arc;
use std::time::Instant;

use super::counters::Outcome;
use super::share::LiveShare;
use super::visit::Visit;
use crate::proxy::access_log::{AccessLog, Entry};
use crate::proxy::spans::Open;
use crate::proxy::upstream::target::Target;

/// One request's hold on a share. Its holder must end it with [`Claim::end`]; if it is dropped without
/// that, the client counts as gone.
pub struct Claim {
    share: Arc<LiveShare>,
    started: Instant,
    /// The status that was sent to the client; 0 if none was.
    pub status: u16,
    target: Option<usize>,
    open: bool,
    /// For the share's tally.
    pub visit: Option<Visit>,
    /// The access log and the entry to be written to it.
    pub log: Option<(Arc<AccessLog>, Box<Entry>)>,
    /// Present if the request is one of those that are traced.
    pub span: Option<Box<Open>>,
}

impl Claim {
    /// Must be called under the lock that the switch takes, so that a drain waits for this claim.
    pub fn new(share: &Arc<LiveShare>) -> Self {
        share.begin_request();
        Self {
            share: share.clone(),
            started: Instant::now(),
            status: 0,
            target: None,
            open: true,
            visit: None,
            log: None,
            span: None,
        }
    }

    pub fn share(&self) -> &Arc<LiveShare> {
        &self.share
    }

    /// The target in use.
    pub fn target(&self) -> Option<&Target> {
        self.target.map(|i| &self.share.targets[i])
    }

    /// Takes the target with this number, and leaves the one used before.
    pub fn use_target(&mut self, target: usize) {
        self.leave_target();
        self.share.targets[target].enter();
        self.target = Some(target);
    }

    fn leave_target(&mut self) {
        if let Some(target) = self.target.take() {
            self.share.targets[target].leave();
        }
    }

    /// Counts the request and releases the share.
    pub fn end(&mut self, outcome: Outcome) {
        if std::mem::take(&mut self.open) {
            let took = self.started.elapsed();
            self.share.counters.count(outcome, self.status, took);
            if let Some(visit) = &self.visit {
                self.share.record.count(visit, outcome, self.status);
            }
            self.leave_target();
            self.share.end_request();
            if let Some((log, mut entry)) = self.log.take() {
                entry.status = self.status;
                entry.outcome = outcome.name();
                entry.took_us = took.as_micros() as u64;
                log.write(entry);
            }
            if let Some(span) = self.span.take() {
                span.end(self.status, outcome.name(), took);
            }
        }
    }

    /// Releases the share without counting: the request continues under another claim.
    pub fn abandon(mut self) {
        self.release();
    }

    /// The same, if another claim is to take this one's place later.
    pub fn release(&mut self) {
        if std::mem::take(&mut self.open) {
            self.leave_target();
            self.share.end_request();
        }
    }

    /// The request has become a tunnel, which now holds the share.
    pub fn into_tunnel(mut self) -> Tunnel {
        self.share.begin_tunnel();
        self.end(Outcome::Answered);
        Tunnel(self.share.clone())
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        self.end(Outcome::Client);
    }
}

/// A WebSocket's hold on a share.
pub struct Tunnel(Arc<LiveShare>);

impl Tunnel {
    pub fn share(&self) -> &Arc<LiveShare> {
        &self.0
    }
}

impl Drop for Tunnel {
    fn drop(&mut self) {
        self.0.end_tunnel();
    }
}
