//! Which of the messages that wait for a receiver are sent next. Pure.

use crate::config::Notifier;
use crate::store::events::Event;
use crate::store::outbox::Message;

/// How often sending may fail before later messages no longer wait.
const PATIENCE: u32 = 3;

/// What is to be done for a receiver.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Choice {
    /// To be sent now, as one message if they are several.
    pub batch: Vec<Message>,
    /// When to look again, if nothing else happens, in milliseconds since 1970.
    pub next: Option<i64>,
}

/// Chooses among what waits for a receiver, oldest first. While it asked for a pause, until `held`,
/// nothing is sent.
pub fn choose(waiting: Vec<Message>, to: Option<&Notifier>, held: i64, now: i64) -> Choice {
    let quiet = to.and_then(|to| to.quiet.as_ref()?.until(now));
    let mut next: Option<i64> = None;
    let mut later = |at: i64| next = Some(next.map_or(at, |next| next.min(at)));
    let mut may = Vec::new();
    for message in waiting {
        match quiet {
            Some(until) if !is_urgent(&message) => later(until),
            _ => may.push(message),
        }
    }
    let (new, mut stale): (Vec<_>, Vec<_>) = may.into_iter().partition(|it| it.attempts < PATIENCE);
    let mut batch = Vec::new();
    // What has failed is tried again together with what came meanwhile.
    if let Some(at) = new.iter().map(|it| it.due_at).max() {
        match at.max(held) {
            at if at <= now => batch = new,
            at => later(at),
        }
    }
    // What fails again and again is tried each by its own time, the longest overdue first.
    stale.sort_by_key(|it| it.due_at);
    if let Some(at) = stale.first().map(|it| it.due_at.max(held)) {
        match at <= now && batch.is_empty() {
            true => batch.extend(stale.into_iter().filter(|it| it.due_at <= now)),
            false => later(at.max(now + 1000)),
        }
    }
    if to.is_some_and(|to| !to.kind.groups()) {
        batch.truncate(1);
    }
    Choice { batch, next }
}

fn is_urgent(message: &Message) -> bool {
    let event = serde_json::from_str::<Event>(&message.payload);
    event.is_ok_and(|event| event.what.is_urgent())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config;
    use crate::store::outbox;

    const NOW: i64 = 1_782_864_000_000; // 2026-07-01T00:00:00Z

    fn receiver(keys: &str) -> std::sync::Arc<Notifier> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("deploy.toml");
        let app = "[apps.a]\nrepo = 'a.git'\nport = 80\ndomains = ['a.test']\n";
        let url = "url = { env = 'U' }\nsecret = { env = 'S' }\n";
        std::fs::write(&path, format!("{app}[notify.ops]\n{url}{keys}")).unwrap();
        let config = config::load(&path).unwrap_or_else(|problems| panic!("{problems}"));
        config.notify["ops"].clone()
    }

    fn waiting(all: &[(&str, i64, u32)]) -> Vec<Message> {
        let one = |(what, due_at, attempts): &(&str, i64, u32)| {
            let payload = format!(r#"{{"what":"{what}","at":0}}"#);
            outbox::example(payload, NOW + due_at, *attempts)
        };
        all.iter().map(one).collect()
    }

    fn chosen(to: &Notifier, all: &[(&str, i64, u32)], held: i64) -> (Vec<String>, Option<i64>) {
        let choice = choose(waiting(all), Some(to), NOW + held, NOW);
        let what = |it: &Message| it.payload.split('"').nth(3).unwrap().to_owned();
        let next = choice.next.map(|at| at - NOW);
        (choice.batch.iter().map(what).collect(), next)
    }

    #[test]
    fn people_get_what_waits_at_once_and_programs_one_by_one() {
        let all = [("live", -1, 0), ("failed", 0, 0)];
        let people = receiver("kind = 'ntfy'");
        assert_eq!(
            chosen(&people, &all, 0),
            (vec!["live".into(), "failed".into()], None)
        );
        assert_eq!(chosen(&people, &all, 500), (vec![], Some(500)));
        let program = receiver("kind = 'webhook'");
        assert_eq!(chosen(&program, &all, 0), (vec!["live".into()], None));
    }

    #[test]
    fn what_failed_is_waited_for_until_patience_is_lost() {
        let to = receiver("kind = 'webhook'");
        let all = [("failed", 9000, 2), ("live", 0, 0)];
        assert_eq!(chosen(&to, &all, 0), (vec![], Some(9000)));
        let all = [("failed", 9000, 3), ("live", 0, 0)];
        assert_eq!(chosen(&to, &all, 0), (vec!["live".into()], Some(9000)));
        let all = [("failed", 9000, 3), ("live", -5, 4), ("stuck", -9, 3)];
        assert_eq!(chosen(&to, &all, 0).0, ["stuck"]);
    }

    #[test]
    fn at_night_only_what_cannot_wait_is_sent() {
        let to = receiver("kind = 'ntfy'\nquiet = '22:00-07:00'");
        let all = [("failed", -1, 0), ("crashing", 0, 0), ("recovered", 0, 0)];
        let morning = Some(7 * 3_600_000);
        assert_eq!(chosen(&to, &all, 0), (vec!["crashing".into()], morning));
        assert_eq!(chosen(&to, &all[..1], 0), (vec![], morning));
    }
}
