//! Compares deploy.toml as it is now with the configuration in force, to warn whoever acts on the agent.

use std::sync::Arc;

use time::OffsetDateTime;

use super::{Agent, InForce};
use crate::config::Since;
use crate::config::changes::{self, Change};

/// How many keys one sentence names; the rest are counted.
const NAMED: usize = 3;

/// How the file differs from the configuration in force.
#[derive(Debug, Default)]
pub struct Difference {
    /// Keys that a reload would change.
    pub changes: Vec<Change>,
    /// Why the file cannot be loaded as it is, one mistake per line.
    pub mistakes: Vec<String>,
    /// Keys that were reloaded but take effect only after a restart.
    pub needs_restart: Vec<String>,
    /// All of it in one line for people; `None` if there is no difference.
    pub notice: Option<String>,
}

/// Reads the file.
pub async fn difference(agent: &Agent) -> Difference {
    let in_force = agent.in_force();
    let started_with = agent.started_with.clone();
    let read = tokio::task::spawn_blocking(move || compare(&in_force, &started_with));
    read.await.unwrap_or_default()
}

fn compare(in_force: &Arc<InForce>, started_with: &str) -> Difference {
    let loaded = &in_force.loaded;
    let mut difference = Difference::default();
    match loaded.since() {
        Since::Same => {}
        Since::Changed(changes) => difference.changes = changes,
        Since::Wrong(problems) => {
            difference.mistakes = problems.to_string().lines().map(str::to_owned).collect();
        }
    }
    let waiting = changes::waiting_for_restart(started_with, &loaded.text);
    difference.needs_restart = waiting.into_iter().map(|change| change.key).collect();
    let name = loaded.path.file_name().unwrap_or_default();
    let name = name.to_string_lossy();
    let at = clock(loaded.at.into(), OffsetDateTime::now_utc());
    difference.notice = sentence(&difference, &name, &at);
    difference
}

fn sentence(difference: &Difference, file: &str, at: &str) -> Option<String> {
    let file = file.escape_debug();
    let mut parts = Vec::new();
    if !difference.changes.is_empty() {
        let keys = difference.changes.iter().map(|change| change.key.as_str());
        let keys = listed(&keys.collect::<Vec<_>>());
        parts.push(format!(
            "the agent runs the `{file}` of {at}; the file now differs in {keys}: run `cutover reload`"
        ));
    }
    if !difference.mistakes.is_empty() {
        parts.push(format!(
            "the agent runs the `{file}` of {at}; the file has changed since, and cannot be loaded: \
             run `cutover check`"
        ));
    }
    if !difference.needs_restart.is_empty() {
        let keys: Vec<_> = difference
            .needs_restart
            .iter()
            .map(String::as_str)
            .collect();
        let keys = listed(&keys);
        parts.push(format!(
            "{keys} takes effect after a restart of the agent and its proxy"
        ));
    }
    (!parts.is_empty()).then(|| parts.join("; "))
}

fn listed(keys: &[&str]) -> String {
    let named: Vec<String> = keys
        .iter()
        .take(NAMED)
        .map(|key| format!("`{key}`"))
        .collect();
    match keys.len().saturating_sub(NAMED) {
        0 => named.join(", "),
        more => format!("{} and {more} more", named.join(", ")),
    }
}

/// `10:31 UTC`, with the date unless it is today.
fn clock(at: OffsetDateTime, now: OffsetDateTime) -> String {
    let time = format!("{:02}:{:02} UTC", at.hour(), at.minute());
    match at.date() == now.date() {
        true => time,
        false => format!("{} {time}", at.date()),
    }
}

#[cfg(test)]
mod tests {
    use time::macros::datetime;

    use super::*;

    #[test]
    fn the_difference_is_one_sentence_without_values() {
        let keys = |new: &str| changes::changes("[apps.a]\nrepo = 'x'", new);
        let mut difference = Difference {
            changes: keys("[apps.a]\nrepo = 'secret'"),
            ..Default::default()
        };
        let said = |it: &Difference| sentence(it, "deploy.toml", "10:31 UTC").unwrap_or_default();
        assert_eq!(
            said(&difference),
            "the agent runs the `deploy.toml` of 10:31 UTC; the file now differs in `apps.a.repo`: \
             run `cutover reload`"
        );
        difference.changes = keys("agent.domain = '1'\n[apps.b]\n[apps.c]\n[apps.d]\n[apps.e]");
        assert!(said(&difference).contains("`agent.domain`, `apps.a`, `apps.b` and 3 more"));
        difference = Difference::default();
        assert_eq!(said(&difference), "");
        difference.needs_restart = vec!["agent.listen".into()];
        assert!(said(&difference).starts_with("`agent.listen` takes effect after"));
    }

    #[test]
    fn the_day_is_named_where_it_was_not_today() {
        let at = datetime!(2026-03-04 09:05 UTC);
        assert_eq!(clock(at, datetime!(2026-03-04 23:59 UTC)), "09:05 UTC");
        assert_eq!(
            clock(at, datetime!(2026-03-05 00:00 UTC)),
            "2026-03-04 09:05 UTC"
        );
    }
}
