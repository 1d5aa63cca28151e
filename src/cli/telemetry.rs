//! Writes log lines to stderr, with level `info` or what `RUST_LOG` says.

use std::io::{IsTerminal, stderr};

use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, fmt, reload};

use crate::log_level;

/// Starts logging in this process; a second call changes nothing. Compact and coloured in a terminal,
/// one JSON object on each line for a log collector if `CUTOVER_LOG=json`, otherwise plain lines; systemd's journal
/// has the time of each itself.
pub fn start() {
    let mut filter = EnvFilter::builder()
        .with_default_directive(tracing::Level::INFO.into())
        .from_env_lossy();
    // Any client can cause warnings of rustls, as often as it likes.
    let asked = std::env::var(EnvFilter::DEFAULT_ENV).is_ok_and(|it| it.contains("rustls"));
    if !asked {
        filter = filter.add_directive("rustls=error".parse().expect("a directive"));
    }
    let usual = filter.to_string();
    let (filter, handle) = reload::Layer::new(filter);
    let all = tracing_subscriber::registry().with(filter);
    let lines = fmt::layer().with_writer(stderr);
    let begun = if std::env::var("CUTOVER_LOG").is_ok_and(|format| format == "json") {
        all.with(lines.json()).try_init()
    } else if stderr().is_terminal() {
        all.with(lines.compact().with_target(false)).try_init()
    } else if is_journal() {
        all.with(lines.with_ansi(false).without_time()).try_init()
    } else {
        all.with(lines.with_ansi(false)).try_init()
    };
    if begun.is_ok() {
        log_level::install(usual, move |filter| handle.reload(filter).is_ok());
    }
}

/// Whether stderr is systemd's journal, by the device and inode that systemd names.
fn is_journal() -> bool {
    let named = std::env::var("JOURNAL_STREAM").unwrap_or_default();
    rustix::fs::fstat(stderr()).is_ok_and(|it| named == format!("{}:{}", it.st_dev, it.st_ino))
}
