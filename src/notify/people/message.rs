//! What happened, in words. Pure.

use serde_json::json;

use crate::config::NotifyEvent;
use crate::deploy::words::subject;
use crate::printable::cut;
use crate::store::deployments::Deployment;
use crate::store::events::Said;

/// How many things one message for several lists.
const LISTED: usize = 15;
/// How many characters of each reason.
const WHY: usize = 200;

/// What a receiver is told.
#[derive(Debug, Clone)]
pub struct Message {
    /// The same each time that it is sent, so that a receiver can leave out what comes twice.
    pub id: String,
    pub title: String,
    pub text: String,
    pub link: Option<String>,
    pub is_bad: bool,
    pub is_urgent: bool,
    /// In milliseconds since 1970.
    pub at: i64,
    /// What it is, for programs, and the data of it.
    pub kind: String,
    pub data: serde_json::Value,
}

impl Message {
    /// About a deployment, or what it made live.
    pub fn new(
        id: String,
        what: NotifyEvent,
        of: &Deployment,
        at: i64,
        link: Option<String>,
    ) -> Self {
        let app = &of.app;
        let title = match what {
            NotifyEvent::Live => format!("{app} is live"),
            NotifyEvent::Failed => format!("{app}: a deployment failed"),
            NotifyEvent::RolledBack => format!("{app} was rolled back"),
            NotifyEvent::Stuck => format!("{app} is stuck"),
            NotifyEvent::Crashing => format!("{app} keeps crashing"),
            NotifyEvent::Recovered => format!("{app} works again"),
            other => format!("{app}: {other}"),
        };
        let commit = of.commit.as_ref().map(|commit| commit.short().to_owned());
        let mut text = match (&of.message, &commit) {
            (Some(message), Some(commit)) => format!("{} ({commit})", subject(message)),
            (Some(message), None) => subject(message),
            (None, Some(commit)) => commit.clone(),
            (None, None) => of.id.to_string(),
        };
        if let Some(author) = &of.author {
            text += &format!(" by {author}");
        }
        if let Some(error) = of.error.as_ref().filter(|_| what.is_bad()) {
            let step = error.step.as_ref().map(|step| format!("{step}: "));
            text += &format!("\n{}{}", step.unwrap_or_default(), error.message);
        }
        let data = json!({
            "app": app, "deployment": of.id, "state": of.state, "trigger": of.trigger,
            "ref": of.git_ref, "commit": of.commit, "message": of.message, "author": of.author,
            "error": of.error.as_ref().map(|error| json!({
                "code": error.code, "message": error.message, "step": error.step,
            })),
            "url": link,
        });
        Self {
            id,
            title,
            text,
            link,
            is_bad: what.is_bad(),
            is_urgent: what.is_urgent(),
            at,
            kind: format!("deployment.{what}"),
            data,
        }
    }

    /// About what no deployment did; `app` is `None` for the whole server.
    pub fn said(
        id: String,
        what: NotifyEvent,
        said: &Said,
        app: Option<&str>,
        at: i64,
        link: Option<String>,
    ) -> Self {
        Self {
            id,
            title: said.title.clone(),
            text: said.text.clone(),
            is_bad: what.is_bad(),
            is_urgent: what.is_urgent(),
            at,
            kind: match app {
                Some(_) => format!("app.{what}"),
                None => format!("server.{what}"),
            },
            data: json!({
                "app": app, "about": said.about, "title": said.title, "text": said.text, "url": link,
            }),
            link,
        }
    }

    /// What happened at the same time, as one; `all` is not empty.
    pub fn group(mut all: Vec<Self>, link: Option<String>) -> Self {
        if all.len() == 1 {
            return all.remove(0);
        }
        let bad = all.iter().filter(|it| it.is_bad).count();
        let title = match bad {
            0 => format!("{} events", all.len()),
            bad => format!("{} events, {bad} bad", all.len()),
        };
        let mut text = String::new();
        for one in all.iter().take(LISTED) {
            let mut lines = one.text.lines();
            let line = match lines.next().unwrap_or_default() {
                "" => one.title.clone(),
                more => format!("{}: {more}", one.title),
            };
            text += &format!("- {line}\n");
            // Why, of what went wrong.
            if let Some(why) = lines.next().filter(|_| one.is_bad) {
                text += &format!("  {}\n", cut(why, WHY));
            }
        }
        if all.len() > LISTED {
            text += &format!("and {} more\n", all.len() - LISTED);
        }
        Self {
            id: format!("{}_{}", all[0].id, all.len()),
            title,
            text: text.trim_end().to_owned(),
            link,
            is_bad: bad > 0,
            is_urgent: all.iter().any(|it| it.is_urgent),
            at: all.iter().map(|it| it.at).max().unwrap_or_default(),
            kind: "group".to_owned(),
            data: json!(all.into_iter().map(|it| it.data).collect::<Vec<_>>()),
        }
    }

    /// For `cutover notify test`.
    pub fn test(at: i64) -> Self {
        Self {
            id: format!("msg_test_{at}"),
            title: "Cutover can reach you".to_owned(),
            text: "Somebody ran `cutover notify test`.".to_owned(),
            link: None,
            is_bad: false,
            is_urgent: false,
            at,
            kind: "test".to_owned(),
            data: json!({}),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_happens_at_the_same_time_is_one_message() {
        let one = |n: usize| Message {
            title: format!("app{n} is stuck"),
            text: "Fix it (aaaaaaa) by Ada\nbuild: no space\nmore".into(),
            is_bad: n == 0,
            ..Message::test(n as i64)
        };
        assert_eq!(Message::group(vec![one(0)], None).title, "app0 is stuck");
        let group = Message::group((0..20).map(one).collect(), None);
        assert_eq!(group.title, "20 events, 1 bad");
        assert!(
            group.text.starts_with(
                "- app0 is stuck: Fix it (aaaaaaa) by Ada\n  build: no space\n- app1 "
            )
        );
        assert!(group.text.ends_with("\nand 5 more"), "{}", group.text);
        assert!(group.is_bad && !group.is_urgent);
    }
}
