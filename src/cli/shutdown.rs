//! The signals that end a process.

use tokio::signal::unix::{SignalKind, signal};

/// Returns on SIGTERM or SIGINT.
pub async fn shutdown() {
    let (Ok(mut terminate), Ok(mut interrupt)) = (
        signal(SignalKind::terminate()),
        signal(SignalKind::interrupt()),
    ) else {
        return std::future::pending().await;
    };
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
}
