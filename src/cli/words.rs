//! Times and texts as people read them.

use std::time::Duration;

use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

pub use crate::deploy::words::{changed, counted, described, subject, took, unreached};

/// `3 min ago`; the text itself if it is not a time in RFC 3339.
pub fn ago(time: &str) -> String {
    since(time).map_or_else(|| time.to_owned(), crate::deploy::words::ago)
}

/// How long ago it was; `None` if it is not a time in RFC 3339.
pub fn since(time: &str) -> Option<Duration> {
    let then = OffsetDateTime::parse(time, &Rfc3339).ok()?;
    Some(
        (OffsetDateTime::now_utc() - then)
            .try_into()
            .unwrap_or_default(),
    )
}

/// `in 3 h`, or `now` if that time has come; `None` if it is not a time in RFC 3339.
pub fn until(time: &str) -> Option<String> {
    let then = OffsetDateTime::parse(time, &Rfc3339).ok()?;
    let left = (then - OffsetDateTime::now_utc()).whole_seconds();
    Some(match left {
        ..=0 => "now".to_owned(),
        1..120 => format!("in {left} s"),
        120..7_200 => format!("in {} min", left / 60),
        7_200..172_800 => format!("in {} h", left / 3_600),
        _ => format!("in {} days", left / 86_400),
    })
}

/// The time between two RFC 3339 times.
pub fn between(from: &str, to: &str) -> Option<Duration> {
    let from = OffsetDateTime::parse(from, &Rfc3339).ok()?;
    let to = OffsetDateTime::parse(to, &Rfc3339).ok()?;
    (to - from).try_into().ok()
}

/// `512 B`, `24 KiB`, `3 MiB`, `1.5 GiB`.
pub fn size(bytes: u64) -> String {
    match bytes {
        ..1024 => format!("{bytes} B"),
        1024..1_048_576 => format!("{} KiB", bytes >> 10),
        1_048_576..1_073_741_824 => format!("{} MiB", bytes >> 20),
        _ => format!("{:.1} GiB", bytes as f64 / f64::from(1 << 30)),
    }
}

/// The first twelve digits of a commit id, as in an image's tag.
pub fn short(commit: &str) -> &str {
    commit.get(..12).unwrap_or(commit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_is_the_time_between_two_times() {
        let took = between("2026-01-01T00:00:00Z", "2026-01-01T00:00:01.5Z");
        assert_eq!(took, Some(Duration::from_millis(1500)));
    }
}
