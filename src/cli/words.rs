//! Times and texts as people read them.

use std::time::Duration;

use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

pub use crate::deploy::ending::took;

/// `3 min ago`; the text itself if it is not a time in RFC 3339.
pub fn ago(time: &str) -> String {
    let Ok(then) = OffsetDateTime::parse(time, &Rfc3339) else {
        return time.to_owned();
    };
    let seconds = (OffsetDateTime::now_utc() - then).whole_seconds().max(0);
    match seconds {
        0..=1 => "just now".to_owned(),
        2..=119 => format!("{seconds} s ago"),
        120..=7199 => format!("{} min ago", seconds / 60),
        7200..=172_799 => format!("{} h ago", seconds / 3600),
        _ => format!("{} days ago", seconds / 86_400),
    }
}

/// The time between two RFC 3339 times.
pub fn between(from: &str, to: &str) -> Option<Duration> {
    let from = OffsetDateTime::parse(from, &Rfc3339).ok()?;
    let to = OffsetDateTime::parse(to, &Rfc3339).ok()?;
    (to - from).try_into().ok()
}

/// The first twelve digits of a commit id, as in an image's tag.
pub fn short(commit: &str) -> &str {
    commit.get(..12).unwrap_or(commit)
}

/// The first line of a commit's message, at most 50 characters of it.
pub fn subject(message: &str) -> String {
    let line = message.lines().next().unwrap_or_default();
    match line.char_indices().nth(50) {
        Some((cut, _)) => format!("{}…", &line[..cut]),
        None => line.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_is_the_time_between_two_times() {
        let took = between("2026-01-01T00:00:00Z", "2026-01-01T00:00:01.5Z");
        assert_eq!(took, Some(Duration::from_millis(1500)));
    }

    #[test]
    fn a_subject_is_cut_between_characters() {
        assert_eq!(subject("one\ntwo"), "one");
        assert_eq!(subject(&"ä".repeat(51)), format!("{}…", "ä".repeat(50)));
    }
}
