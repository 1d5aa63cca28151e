//! The kinds of receivers, and which keys each has.

use super::file::Section;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NotifierKind {
    /// JSON, signed as Standard Webhooks says.
    Webhook,
    /// Slack's incoming webhooks, and what understands them.
    Slack,
    Mattermost,
    Discord,
    Teams,
    Ntfy,
    Telegram,
    Pushover,
    Email,
}

/// A key of a receiver, and what belongs there.
type Key = (&'static str, &'static str);

const URL: Key = (
    "url",
    "where to read the address from, `{ env = \"NAME\" }` or `{ file = \"PATH\" }`",
);
const SERVER: Key = (
    "url",
    "where to read the mail server's address from, such as \"smtps://USER:PASSWORD@smtp.example.com\"",
);
const SIGNS: Key = (
    "secret",
    "where to read the key from that signs what is sent",
);
const TOKEN: Key = ("secret", "where to read the token from");
const USER: Key = (
    "user",
    "where to read the key of the user or group from, `{ env = \"NAME\" }` or `{ file = \"PATH\" }`",
);
const CHAT: Key = (
    "chat",
    "the chat's number such as \"-100123456\", or \"@channel\"",
);
const FROM: Key = (
    "from",
    "the sender's address such as \"cutover@example.com\"",
);
const TO: Key = ("to", "an array of addresses such as [\"ops@example.com\"]");

impl NotifierKind {
    pub const ALL: [Self; 9] = [
        Self::Webhook,
        Self::Slack,
        Self::Mattermost,
        Self::Discord,
        Self::Teams,
        Self::Ntfy,
        Self::Telegram,
        Self::Pushover,
        Self::Email,
    ];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Webhook => "webhook",
            Self::Slack => "slack",
            Self::Mattermost => "mattermost",
            Self::Discord => "discord",
            Self::Teams => "teams",
            Self::Ntfy => "ntfy",
            Self::Telegram => "telegram",
            Self::Pushover => "pushover",
            Self::Email => "email",
        }
    }

    pub(super) fn expected() -> String {
        let names = Self::ALL.map(|it| format!("\"{}\"", it.as_str()));
        format!("one of {}", names.join(", "))
    }

    /// Whether what happens at the same time may come as one message: for people, not for programs.
    pub fn groups(self) -> bool {
        self != Self::Webhook
    }

    /// The keys that it needs, and those that it may have.
    fn keys(self) -> (&'static [Key], &'static [Key]) {
        match self {
            Self::Webhook => (&[URL, SIGNS], &[]),
            Self::Slack | Self::Mattermost | Self::Discord | Self::Teams => (&[URL], &[]),
            Self::Ntfy => (&[URL], &[TOKEN]),
            Self::Telegram => (&[TOKEN, CHAT], &[URL]),
            Self::Pushover => (&[TOKEN, USER], &[URL]),
            Self::Email => (&[SERVER, FROM, TO], &[]),
        }
    }
}

/// Reports the keys that a receiver of this kind lacks, and those that it does not use.
pub(super) fn check(kind: NotifierKind, section: &Section<'_>) {
    let (needed, possible) = kind.keys();
    for (key, expected) in needed {
        if !section.has(key) {
            let name = section.key(key);
            section.report(format!("`{name}` is missing: expected {expected}"));
        }
    }
    for key in ["url", "secret", "user", "chat", "from", "to"] {
        let mut used = needed.iter().chain(possible).map(|(used, _)| *used);
        if section.has(key) && !used.any(|used| used == key) {
            let (name, kind) = (section.key(key), kind.as_str());
            section.report(format!("`{name}` is not used by \"{kind}\": remove it"));
        }
    }
}
