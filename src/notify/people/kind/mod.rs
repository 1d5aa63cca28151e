//! A message as each kind of receiver expects it. Pure.

use super::message::Message;
use crate::config::NotifierKind;

mod discord;
mod mattermost;
mod ntfy;
mod pushover;
mod slack;
mod teams;
mod telegram;
mod webhook;

/// What a receiver's keys hold now.
#[derive(Debug, Default)]
pub struct Keys {
    pub url: Option<String>,
    pub secret: Option<String>,
    pub user: Option<String>,
    pub chat: Option<String>,
}

/// A request: POST.
#[derive(Debug, PartialEq, Eq)]
pub struct Sent {
    /// A secret: it contains what authorizes its holder.
    pub url: String,
    pub headers: Vec<(&'static str, String)>,
    pub body: String,
}

impl Sent {
    fn json(url: &str, body: &serde_json::Value) -> Self {
        Self {
            url: url.to_owned(),
            headers: vec![("content-type", "application/json".into())],
            body: body.to_string(),
        }
    }
}

/// The request that tells a receiver over HTTP; `now` is in seconds since 1970. An error is one sentence.
pub fn request(
    kind: NotifierKind,
    message: &Message,
    keys: &Keys,
    now: i64,
) -> Result<Sent, String> {
    let url = keys.url.as_deref().unwrap_or_default();
    let secret = keys.secret.as_deref();
    let token = secret.unwrap_or_default();
    Ok(match kind {
        NotifierKind::Webhook => return webhook::request(message, url, token, now),
        NotifierKind::Slack => slack::request(message, url),
        NotifierKind::Mattermost => mattermost::request(message, url),
        NotifierKind::Discord => discord::request(message, url),
        NotifierKind::Teams => teams::request(message, url),
        NotifierKind::Ntfy => ntfy::request(message, url, secret),
        NotifierKind::Telegram => {
            let chat = keys.chat.as_deref().unwrap_or_default();
            telegram::request(message, keys.url.as_deref(), token, chat)
        }
        NotifierKind::Pushover => {
            let user = keys.user.as_deref().unwrap_or_default();
            pushover::request(message, keys.url.as_deref(), token, user)
        }
        NotifierKind::Email => return Err("e-mail is not sent over HTTP".into()),
    })
}

/// What Markdown makes something of, escaped.
fn plain(text: &str, special: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    for c in text.chars() {
        if special.contains(c) {
            plain.push('\\');
        }
        plain.push(c);
        // Nobody is mentioned, also where a backslash does not keep from it.
        if c == '@' {
            plain.push('\u{200b}');
        }
    }
    plain
}

#[cfg(test)]
pub fn example() -> Message {
    Message {
        text: "<!channel> & <b> @everyone *x* (a_b)".into(),
        link: Some("https://deploy.example/deployments/d1".into()),
        is_bad: true,
        ..Message::test(1_000)
    }
}
