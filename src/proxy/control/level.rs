//! What the proxy logs, shown or changed for a while.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::log_level::{self, Change, LONGEST};

/// Another level than now.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// `None`: the usual one again.
    pub level: Option<String>,
    pub for_ms: u64,
}

#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub struct Level {
    pub usual: String,
    pub change: Option<Change>,
}

/// Changes the level, if so asked, and returns what applies now; an error is one sentence.
pub fn level(wanted: Option<Wanted>) -> Result<Level, String> {
    if let Some(Wanted { level, for_ms }) = wanted {
        if let Some(level) = &level {
            log_level::check(level)?;
        }
        let time = Duration::from_millis(for_ms).min(LONGEST);
        if !log_level::set_for(level.clone(), time) {
            return Err("this proxy's log cannot be changed as it runs".into());
        }
        let level = level.as_deref().unwrap_or("usual");
        tracing::info!(level, "the log's level was changed");
    }
    let (usual, change) = log_level::now();
    Ok(Level { usual, change })
}
