//! Tasks without which the agent must not keep running.

use std::fmt::Display;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;

/// Runs `work` and ends the process if it panics. An agent that has lost a worker would answer
/// `/healthz` but deploy nothing. The service manager starts a new agent, which recovers what this one
/// left unfinished. The proxy is a separate process and keeps serving.
///
/// Boxed, so that tokio's code for a task is compiled once for all of them.
pub fn vital<T>(
    name: impl Display + Send + 'static,
    work: impl Future<Output = T> + Send + 'static,
) -> BoxFuture<'static, T> {
    let guarded = async move {
        let _guard = EndOnPanic(name);
        work.await
    };
    guarded.boxed()
}

struct EndOnPanic<N: Display>(N);

impl<N: Display> Drop for EndOnPanic<N> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            tracing::error!("{} panicked; ending the agent", self.0);
            std::process::exit(1);
        }
    }
}
