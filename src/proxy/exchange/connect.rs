//! Connects to a target for as long as the route table leads to it.

use std::future::poll_fn;
use std::io;
use std::pin::pin;
use std::task::Poll;

use crate::proxy::route::share::LiveShare;
use crate::proxy::upstream::target::Target;
use crate::proxy::upstream::via::Via;
use crate::proxy::watch::Watch;

/// Why there is no connection. Nothing has been sent.
pub enum Unconnected {
    Failed(io::Error),
    /// A newer table no longer leads to the target.
    Displaced,
    /// The drain's deadline has passed.
    Aborted,
}

/// Connects to a target of `share`. `stays`: also if a newer table no longer leads to it.
pub async fn connect(
    share: &LiveShare,
    watch: &Watch,
    target: &Target,
    stays: bool,
) -> Result<Via, Unconnected> {
    let mut connect = pin!(Via::connect(target));
    poll_fn(|cx| {
        if let Poll::Ready(connected) = connect.as_mut().poll(cx) {
            return Poll::Ready(connected.map_err(Unconnected::Failed));
        }
        // A switch and a drain wake whoever has a request of the share.
        watch.register(cx.waker());
        match (share.is_aborted(), share.is_draining() && !stays) {
            (true, _) => Poll::Ready(Err(Unconnected::Aborted)),
            (false, true) => Poll::Ready(Err(Unconnected::Displaced)),
            (false, false) => Poll::Pending,
        }
    })
    .await
}
