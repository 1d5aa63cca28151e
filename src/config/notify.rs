//! `[notify.NAME]`: whom to tell what happens to apps.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::Secret;
use super::file::{Node, Section};
use super::values::secret;
use crate::ids::AppName;

/// Somebody who is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Notifier {
    pub kind: NotifierKind,
    /// Where to send. Such addresses contain what authorizes their holder.
    pub url: Secret,
    /// What signs a webhook, or the token of an ntfy server.
    pub secret: Option<Secret>,
    pub events: Vec<NotifyEvent>,
    /// `None`: all of them.
    pub apps: Option<Vec<AppName>>,
}

impl Notifier {
    pub fn wants(&self, event: NotifyEvent, app: &AppName) -> bool {
        let of_app = self.apps.as_ref().is_none_or(|apps| apps.contains(app));
        of_app && self.events.contains(&event)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NotifierKind {
    /// JSON, signed as Standard Webhooks says.
    Webhook,
    /// Slack's incoming webhooks, which Mattermost, Rocket.Chat and Discord (`…/slack`) understand too.
    Slack,
    Ntfy,
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
    /// What had failed, was rolled back or crashed works again.
    Recovered,
}

impl NotifyEvent {
    const ALL: [Self; 6] = [
        Self::Live,
        Self::Failed,
        Self::RolledBack,
        Self::Stuck,
        Self::Crashing,
        Self::Recovered,
    ];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Live => "live",
            Self::Failed => "failed",
            Self::RolledBack => "rolled_back",
            Self::Stuck => "stuck",
            Self::Crashing => "crashing",
            Self::Recovered => "recovered",
        }
    }

    /// Whether it is bad news.
    pub fn is_bad(self) -> bool {
        !matches!(self, Self::Live | Self::Recovered)
    }
}

impl fmt::Display for NotifyEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

const EVENTS: &str = "events among \"live\", \"failed\", \"rolled_back\", \"stuck\", \"crashing\" and \
                      \"recovered\"";

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
    const KINDS: &str = "\"webhook\", \"slack\" or \"ntfy\"";
    let kind = section.required("kind", KINDS, |node| match node.str(KINDS)? {
        "webhook" => Some(NotifierKind::Webhook),
        "slack" => Some(NotifierKind::Slack),
        "ntfy" => Some(NotifierKind::Ntfy),
        _ => node.wrong(KINDS),
    });
    const URL: &str =
        "where to read the address from, `{ env = \"NAME\" }` or `{ file = \"PATH\" }`";
    let url = section.required("url", URL, secret);
    let key = section.read("secret", secret);
    let events = section.read("events", |node| {
        let one = |node: Node<'_>| {
            let text = node.str(EVENTS)?;
            let found = NotifyEvent::ALL
                .into_iter()
                .find(|event| event.as_str() == text);
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
    match (kind, &key) {
        (Some(NotifierKind::Webhook), None) => {
            let name = section.key("secret");
            section.report(format!(
                "`{name}` is missing: expected where to read the key from that signs what is sent"
            ));
        }
        (Some(NotifierKind::Slack), Some(_)) => {
            let name = section.key("secret");
            section.report(format!(
                "`{name}` is not used by \"slack\": its address authorizes"
            ));
        }
        _ => {}
    }
    section.done();
    use NotifyEvent::{Crashing, Failed, Recovered, RolledBack, Stuck};
    Some(Notifier {
        kind: kind?,
        url: url?,
        secret: key,
        events: events.unwrap_or_else(|| vec![Failed, RolledBack, Stuck, Crashing, Recovered]),
        apps,
    })
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
        assert!(all["ops"].wants(NotifyEvent::Failed, &other));
        assert!(!all["ops"].wants(NotifyEvent::Live, &other));
        assert!(all["ci"].wants(NotifyEvent::Live, &hello));
        assert!(!all["ci"].wants(NotifyEvent::Live, &other));
    }

    #[test]
    fn every_mistake_is_reported() {
        let error = load(
            "[notify.a]\nkind = 'pigeon'\nurl = 'https://hooks.example/secret'\nevents = ['all']\n\
             [notify.b]\nkind = 'webhook'\nurl = { env = 'U' }\n\
             [notify.c]\nkind = 'slack'\nurl = { env = 'U' }\nsecret = { env = 'S' }\n\
             [notify.'D E']\nkind = 'ntfy'",
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
        ] {
            assert!(error.contains(word), "{word}:\n{error}");
        }
        assert!(!error.contains("hooks.example"), "{error}");
    }
}
