//! Times and releases in the words of logs and of the command line.

use std::time::Duration;

use crate::ids::ServiceName;
use crate::printable::cut;
use crate::store::now;
use crate::store::releases::Release;

/// A branch or tag as people call it.
pub fn short_ref(git_ref: &str) -> &str {
    let branch = git_ref.strip_prefix("refs/heads/");
    branch
        .or(git_ref.strip_prefix("refs/tags/"))
        .unwrap_or(git_ref)
}

/// `420 ms`, `1.42 s`, `3 min 5 s`.
pub fn took(time: Duration) -> String {
    match time.as_millis() {
        millis @ 0..=999 => format!("{millis} ms"),
        millis @ 1000..=9_999 => format!("{}.{:02} s", millis / 1000, millis % 1000 / 10),
        millis @ 10_000..=119_999 => format!("{}.{} s", millis / 1000, millis % 1000 / 100),
        millis => format!("{} min {} s", millis / 60_000, millis % 60_000 / 1000),
    }
}

/// `60 s`; `1.5 s` where a setting is no whole number of seconds.
pub fn seconds(time: Duration) -> String {
    format!("{} s", time.as_secs_f64())
}

/// `3 min ago`
pub fn ago(time: Duration) -> String {
    about(time).map_or("just now".to_owned(), |time| format!("{time} ago"))
}

/// `in 3 min`, of a time to come.
pub fn ahead(time: Duration) -> String {
    about(time).map_or("now".to_owned(), |time| format!("in {time}"))
}

/// `3 min`; `None` for less than two seconds.
fn about(time: Duration) -> Option<String> {
    match time.as_secs() {
        0..=1 => None,
        seconds @ 2..=119 => Some(format!("{seconds} s")),
        seconds @ 120..=7199 => Some(format!("{} min", seconds / 60)),
        seconds @ 7200..=172_799 => Some(format!("{} h", seconds / 3600)),
        seconds => Some(format!("{} days", seconds / 86_400)),
    }
}

/// A receiver of notifications that cannot be reached.
pub fn unreached(receiver: &str, since: Duration, error: &str, waiting: u64) -> String {
    let time = about(since).unwrap_or("a moment".to_owned());
    let waiting = match waiting {
        0 => String::new(),
        1 => "; 1 is waiting".to_owned(),
        count => format!("; {count} are waiting"),
    };
    format!("notifications to `{receiver}` have been failing for {time}: {error}{waiting}")
}

/// How a release differs from one of the same image: `changed: env LOG_LEVEL, memory`.
pub fn changed(settings: &[String]) -> String {
    match settings {
        [] => "the same again".to_owned(),
        all => format!("changed: {}", all.join(", ")),
    }
}

/// `1 request`, `2 requests`
pub fn counted(count: u64, what: &str) -> String {
    match count {
        1 => format!("1 {what}"),
        _ => format!("{count} {what}s"),
    }
}

/// An instance of the new version, as the subject of a sentence: `the new version's process `worker``;
/// of `web` its `container`, or just the version.
pub fn who(service: &ServiceName, container: &str) -> String {
    match (service.as_str(), container) {
        ("web", "") => "the new version".to_owned(),
        ("web", container) => format!("the new version's {container}"),
        (process, _) => format!("the new version's process `{process}`"),
    }
}

/// The first line of a commit's message, at most 50 characters of it.
pub fn subject(message: &str) -> String {
    cut(message.lines().next().unwrap_or_default(), 50)
}

/// A release as people know it: its id, commit, subject and age.
pub fn release(release: &Release) -> String {
    let since = release.went_live.unwrap_or(release.created_at);
    let age = Duration::from_millis((now() - since).try_into().unwrap_or(0));
    described(
        release.id.as_str(),
        release.commit.short(),
        &release.message,
        &ago(age),
    )
}

/// The same of what the API says about it; `ago` is when it last went live.
pub fn described(id: &str, commit: &str, message: &str, ago: &str) -> String {
    let subject = subject(message);
    format!("`{id}` (commit {commit}, \"{subject}\", live {ago})")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_keep_the_digits_that_matter() {
        let said = [3, 999, 1420, 12_340, 185_000].map(|ms| took(Duration::from_millis(ms)));
        assert_eq!(said, ["3 ms", "999 ms", "1.42 s", "12.3 s", "3 min 5 s"]);
        let said = [500, 60_000].map(|ms| seconds(Duration::from_millis(ms)));
        assert_eq!(said, ["0.5 s", "60 s"]);
        assert_eq!(counted(1, "request"), "1 request");
        assert_eq!(counted(0, "request"), "0 requests");
        let said = [1, 119, 7000, 180_000].map(|seconds| ago(Duration::from_secs(seconds)));
        assert_eq!(said, ["just now", "119 s ago", "116 min ago", "2 days ago"]);
        let said = [1, 119, 7200].map(|seconds| ahead(Duration::from_secs(seconds)));
        assert_eq!(said, ["now", "in 119 s", "in 2 h"]);
    }

    #[test]
    fn a_subject_is_cut_between_characters() {
        assert_eq!(subject("one\ntwo"), "one");
        assert_eq!(subject(&"ä".repeat(51)), format!("{}…", "ä".repeat(49)));
    }
}
