//! Processes that a builder has left: those that went into a group of their own, and all of them if the
//! agent was killed.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

/// The variable by which the processes of a builder are known, whatever else they are told.
const MARK: &str = "CUTOVER_BUILD";

/// One run of a builder, whose processes carry its mark.
pub(super) struct Run {
    folder: PathBuf,
    number: u64,
}

impl Run {
    /// The next one in this folder.
    pub(super) fn new(folder: PathBuf) -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        Self { folder, number }
    }

    /// The name and value of the variable.
    pub(super) fn mark(&self) -> (&'static str, String) {
        (MARK, format!("{} {}", self.number, self.folder.display()))
    }

    /// Ends its processes; those of the next run in the folder may have begun. Blocks.
    pub(super) fn end(&self) {
        let (name, value) = self.mark();
        let mark = format!("{name}={value}").into_bytes();
        end(&self.folder, |variable| variable == mark);
    }
}

/// Ends the processes of all runs in this folder, of which none may be going on. Blocks.
pub(super) fn end_all(folder: &Path) {
    let shown = folder.display().to_string();
    end(folder, |variable| {
        let value = variable.strip_prefix(MARK.as_bytes());
        let value = value.and_then(|it| it.strip_prefix(b"="));
        let mut parts = value.unwrap_or_default().splitn(2, |byte| *byte == b' ');
        let number = parts.next().unwrap_or_default();
        number.iter().all(u8::is_ascii_digit) && parts.next() == Some(shown.as_bytes())
    });
}

fn end(folder: &Path, is_mark: impl Fn(&[u8]) -> bool) {
    // What is started meanwhile is found by the next look.
    for _ in 0..3 {
        let mut ended = 0;
        for process in fs::read_dir("/proc").into_iter().flatten().flatten() {
            let name = process.file_name();
            let id = name.to_str().and_then(|name| name.parse().ok());
            if let Some(id) = id.and_then(Pid::from_raw)
                && is_marked(&process.path(), &is_mark)
                && let Ok(held) = pidfd_open(id, PidfdFlags::empty())
                // Another process may have got the number before it was held.
                && is_marked(&process.path(), &is_mark)
                && pidfd_send_signal(&held, Signal::KILL).is_ok()
            {
                ended += 1;
            }
        }
        if ended == 0 {
            return;
        }
        tracing::info!(folder = %folder.display(), count = ended, "ended processes that a builder has left");
    }
}

/// A process that has ended, or is not ours to look at, has no environment.
fn is_marked(process: &Path, is_mark: impl Fn(&[u8]) -> bool) -> bool {
    let all = fs::read(process.join("environ")).unwrap_or_default();
    all.split(|byte| *byte == 0).any(is_mark)
}
