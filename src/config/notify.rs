//! `[notify.NAME]`: whom to tell what happens to apps.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use lettre::message::Mailbox;
use serde::{Deserialize, Serialize};

use super::Secret;
use super::file::{Node, Section};
use super::notifier_kind::{NotifierKind, check};
use super::quiet::{self, Quiet};
use super::values::{line, secret};
use crate::ids::AppName;

/// Somebody who is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Notifier {
    pub kind: NotifierKind,
    /// Where to send. Such addresses contain what authorizes their holder.
    pub url: Option<Secret>,
    /// What signs a webhook, or the token of ntfy, Telegram or Pushover.
    pub secret: Option<Secret>,
    /// Pushover's user or group.
    pub user: Option<Secret>,
    /// Telegram's chat.
    pub chat: Option<String>,
    /// The sender of e-mail.
    pub from: Option<Mailbox>,
    /// The recipients of e-mail.
    pub to: Vec<Mailbox>,
    pub events: Vec<NotifyEvent>,
    /// `None`: all of them.
    pub apps: Option<Vec<AppName>>,
    /// When only what cannot wait is sent.
    pub quiet: Option<Quiet>,
}

impl Notifier {
    /// `app` is `None` for what happens to the server.
    pub fn wants(&self, event: NotifyEvent, app: Option<&AppName>) -> bool {
        let of_app = match (&self.apps, app) {
            (None, _) => true,
            (Some(apps), Some(app)) => apps.contains(app),
            (Some(_), None) => false,
        };
        of_app && self.events.contains(&event)
    }
}

/// What somebody may want to be told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NotifyEvent {
    Live,
    Failed,
    RolledBack,
    /// An undo failed: a person has to look.
    Stuck,
    /// The live release ends by itself.
    Crashing,
    /// A run of a scheduled command failed.
    CronFailed,
    /// What had failed, was rolled back or crashed works again.
    Recovered,
    /// A name gets no certificate, or its certificate expires.
    Certificate,
    /// A disk is nearly full.
    Disk,
    /// The agent runs again after it was killed, crashed, or lost its machine.
    Restarted,
}

impl NotifyEvent {
    const ALL: [Self; 10] = [
        Self::Live,
        Self::Failed,
        Self::RolledBack,
        Self::Stuck,
        Self::Crashing,
        Self::CronFailed,
        Self::Recovered,
        Self::Certificate,
        Self::Disk,
        Self::Restarted,
    ];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Live => "live",
            Self::Failed => "failed",
            Self::RolledBack => "rolled_back",
            Self::Stuck => "stuck",
            Self::Crashing => "crashing",
            Self::CronFailed => "cron_failed",
            Self::Recovered => "recovered",
            Self::Certificate => "certificate",
            Self::Disk => "disk",
            Self::Restarted => "restarted",
        }
    }

    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|event| event.as_str() == name)
    }

    /// Whether it is bad news.
    pub fn is_bad(self) -> bool {
        !matches!(self, Self::Live | Self::Recovered)
    }

    /// Whether somebody has to be woken: what serves is broken, or is about to be. After a deployment
    /// that failed or was rolled back, the release before it serves.
    pub fn is_urgent(self) -> bool {
        matches!(self, Self::Stuck | Self::Crashing | Self::Disk)
    }
}

impl fmt::Display for NotifyEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

const EVENTS: &str = "events among \"live\", \"failed\", \"rolled_back\", \"stuck\", \"crashing\", \
                      \"cron_failed\", \"recovered\", \"certificate\", \"disk\" and \"restarted\"";

pub(super) fn notifiers(node: Node<'_>) -> Option<BTreeMap<String, Arc<Notifier>>> {
    let mut all = BTreeMap::new();
    for (name, node) in node.entries("a section for each receiver, `[notify.NAME]`")? {
        // It is shown in tables and logs.
        if let Err(error) = name.parse::<AppName>() {
            let text = error
                .to_string()
                .replace("an app name", "a receiver's name");
            node.file.report(node.start, text);
        }
        if let Some(notifier) = notifier(node.section()) {
            all.insert(name.to_owned(), Arc::new(notifier));
        }
    }
    Some(all)
}

fn notifier(mut section: Section<'_>) -> Option<Notifier> {
    let kinds = NotifierKind::expected();
    let kind = section.required("kind", &kinds, |node| {
        let text = node.str(&kinds)?;
        let found = NotifierKind::ALL.into_iter().find(|it| it.as_str() == text);
        found.or_else(|| node.wrong(&kinds))
    });
    let url = section.read("url", secret);
    let key = section.read("secret", secret);
    let user = section.read("user", secret);
    let chat = section.read("chat", line);
    let from = section.read("from", mailbox);
    let to = section.read("to", |node| {
        let all = node.array("an array of addresses such as [\"ops@example.com\"]")?;
        match all.is_empty() {
            true => node.wrong("at least one address"),
            false => all.into_iter().map(mailbox).collect(),
        }
    });
    let events = section.read("events", |node| {
        let one = |node: Node<'_>| {
            let found = NotifyEvent::named(node.str(EVENTS)?);
            found.or_else(|| node.wrong(EVENTS))
        };
        node.array(EVENTS)?.into_iter().map(one).collect()
    });
    let apps = section.read("apps", |node| {
        const EXPECTED: &str = "an array of apps such as [\"hello\"]";
        let one = |node: Node<'_>| {
            let name = node.str(EXPECTED)?.parse();
            name.ok().or_else(|| node.wrong(EXPECTED))
        };
        node.array(EXPECTED)?.into_iter().map(one).collect()
    });
    let quiet = quiet::read(&mut section);
    if let Some(kind) = kind {
        check(kind, &section);
    }
    section.done();
    let but_live = NotifyEvent::ALL
        .into_iter()
        .filter(|it| *it != NotifyEvent::Live);
    Some(Notifier {
        kind: kind?,
        url,
        secret: key,
        user,
        chat,
        from,
        to: to.unwrap_or_default(),
        events: events.unwrap_or_else(|| but_live.collect()),
        apps,
        quiet,
    })
}

fn mailbox(node: Node<'_>) -> Option<Mailbox> {
    const EXPECTED: &str = "an address such as \"ops@example.com\" or \"Ops <ops@example.com>\"";
    let text = node.str(EXPECTED)?;
    text.parse().ok().or_else(|| node.wrong(EXPECTED))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config;

    fn load(text: &str) -> Result<config::Config, String> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("deploy.toml");
        std::fs::write(&path, text).unwrap();
        config::load(&path).map_err(|problems| problems.to_string())
    }

    #[test]
    fn a_receiver_is_told_what_it_asks_for() {
        let config = load(
            "[notify.ops]\nkind = 'slack'\nurl = { env = 'OPS_URL' }\n\
             [notify.ci]\nkind = 'webhook'\nurl = { env = 'U' }\nsecret = { env = 'S' }\n\
             events = ['live']\napps = ['hello']",
        );
        let all = config.unwrap().notify;
        let (hello, other) = ("hello".parse().unwrap(), "other".parse().unwrap());
        assert!(all["ops"].wants(NotifyEvent::Failed, Some(&other)));
        assert!(!all["ops"].wants(NotifyEvent::Live, Some(&other)));
        assert!(all["ops"].wants(NotifyEvent::Disk, None));
        assert!(all["ci"].wants(NotifyEvent::Live, Some(&hello)));
        assert!(!all["ci"].wants(NotifyEvent::Live, Some(&other)));
        assert!(!all["ci"].wants(NotifyEvent::Live, None));
    }

    #[test]
    fn every_mistake_is_reported() {
        let error = load(
            "[notify.a]\nkind = 'pigeon'\nurl = 'https://hooks.example/secret'\nevents = ['all']\n\
             [notify.b]\nkind = 'webhook'\nurl = { env = 'U' }\n\
             [notify.c]\nkind = 'slack'\nurl = { env = 'U' }\nsecret = { env = 'S' }\n\
             [notify.'D E']\nkind = 'ntfy'\n\
             [notify.m]\nkind = 'email'\nurl = { env = 'U' }\nfrom = 'nobody'\nto = []\n\
             [notify.t]\nkind = 'telegram'\nsecret = { env = 'S' }\nquiet = '25:00-7:00'\n\
             [notify.q]\nkind = 'discord'\nurl = { env = 'U' }\ntimezone = 'Mars/Base'\nuser = 'u'",
        )
        .unwrap_err();
        for word in [
            "`notify.a.kind`",
            "`notify.a.url`",
            "`notify.a.events[0]`",
            "`notify.b.secret` is missing",
            "`notify.c.secret` is not used",
            "a receiver's name",
            "url` is missing",
            "`notify.m.from`",
            "`notify.m.to`",
            "`notify.t.chat` is missing",
            "`notify.t.quiet`",
            "`notify.q.timezone`",
            "`notify.q.user`",
        ] {
            assert!(error.contains(word), "{word}:\n{error}");
        }
        assert!(!error.contains("hooks.example"), "{error}");
    }
}
