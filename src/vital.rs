//! Tasks without which the agent must not keep running.

use std::fmt::Display;

/// Runs `work` and ends the process if it panics. An agent that has lost a worker would answer
/// `/healthz` but deploy nothing. The service manager starts a new agent, which recovers what this one
/// left unfinished. The proxy is a separate process and keeps serving.
pub async fn vital<T>(name: impl Display, work: impl Future<Output = T>) -> T {
    let _guard = EndOnPanic(name);
    work.await
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
