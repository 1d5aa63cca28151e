//! Work without which the agent must not go on.

use std::fmt::Display;

/// Runs `work`; where that panics, the process ends. An agent that has lost a worker would answer
/// `/healthz` and deploy nothing: the service manager starts a whole one, which takes up what this one
/// left. The proxy is another process and serves on.
pub async fn vital<T>(name: impl Display, work: impl Future<Output = T>) -> T {
    let _guard = EndOnPanic(name);
    work.await
}

struct EndOnPanic<N: Display>(N);

impl<N: Display> Drop for EndOnPanic<N> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            tracing::error!("{} panicked; the agent ends", self.0);
            std::process::exit(1);
        }
    }
}
