//! Writes log lines to stderr, with level `info` or what `RUST_LOG` says.

use std::io::{IsTerminal, stderr};

use tracing_subscriber::EnvFilter;

/// Starts logging in this process; a second call changes nothing. Compact and coloured in a terminal,
/// one JSON object on each line for a log collector if `CUTOVER_LOG=json`, otherwise plain lines.
pub fn start() {
    let mut filter = EnvFilter::builder()
        .with_default_directive(tracing::Level::INFO.into())
        .from_env_lossy();
    // Any client can cause warnings of rustls, as often as it likes.
    let asked = std::env::var(EnvFilter::DEFAULT_ENV).is_ok_and(|it| it.contains("rustls"));
    if !asked {
        filter = filter.add_directive("rustls=error".parse().expect("a directive"));
    }
    let lines = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(stderr);
    let _ = if std::env::var("CUTOVER_LOG").is_ok_and(|format| format == "json") {
        lines.json().try_init()
    } else if stderr().is_terminal() {
        lines.compact().with_target(false).try_init()
    } else {
        lines.with_ansi(false).try_init()
    };
}
