//! An event in words, and as each kind of receiver expects it. Pure.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::json;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::config::{NotifierKind, NotifyEvent};
use crate::deploy::words::subject;
use crate::store::deployments::Deployment;
use crate::webhook::signature;

/// What a receiver is told.
#[derive(Debug, Clone)]
pub struct Message {
    /// The same each time that it is sent, so that a receiver can leave out what comes twice.
    pub id: String,
    pub title: String,
    pub text: String,
    pub link: Option<String>,
    pub is_bad: bool,
    /// For programs.
    pub data: serde_json::Value,
    kind: String,
    at: i64,
}

/// A request, but for its address.
#[derive(Debug, PartialEq, Eq)]
pub struct Sent {
    pub headers: Vec<(&'static str, String)>,
    pub body: String,
}

impl Message {
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
            data,
            kind: format!("deployment.{what}"),
            at,
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
            data: json!({}),
            kind: "test".to_owned(),
            at,
        }
    }

    /// As this kind of receiver expects it; `now` is in seconds since 1970. An error is one sentence.
    pub fn sent(&self, kind: NotifierKind, secret: Option<&str>, now: i64) -> Result<Sent, String> {
        match kind {
            NotifierKind::Webhook => self.webhook(secret.unwrap_or_default(), now),
            NotifierKind::Slack => Ok(self.slack()),
            NotifierKind::Ntfy => Ok(self.ntfy(secret)),
        }
    }

    /// <https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md>
    fn webhook(&self, secret: &str, now: i64) -> Result<Sent, String> {
        let at = OffsetDateTime::from_unix_timestamp_nanos(i128::from(self.at) * 1_000_000);
        let at = at.ok().and_then(|at| at.format(&Rfc3339).ok());
        let body = json!({ "type": self.kind, "timestamp": at, "data": self.data }).to_string();
        let timestamp = now.to_string();
        let mac =
            signature::sign_standard(secret.as_bytes(), &self.id, &timestamp, body.as_bytes());
        let mac = mac.ok_or("the secret begins with `whsec_` and is not base64 after it")?;
        Ok(Sent {
            headers: vec![
                ("content-type", "application/json".into()),
                ("webhook-id", self.id.clone()),
                ("webhook-timestamp", timestamp),
                ("webhook-signature", format!("v1,{}", STANDARD.encode(mac))),
            ],
            body,
        })
    }

    /// <https://docs.slack.dev/messaging/formatting-message-text>
    fn slack(&self) -> Sent {
        // What others write must neither format nor mention anybody.
        let escaped = |text: &str| {
            let text = text.replace('&', "&amp;");
            text.replace('<', "&lt;").replace('>', "&gt;")
        };
        let mut text = format!("*{}*\n{}", escaped(&self.title), escaped(&self.text));
        if let Some(link) = &self.link {
            text += &format!("\n<{link}|Look>");
        }
        Sent {
            headers: vec![("content-type", "application/json".into())],
            body: json!({ "text": text }).to_string(),
        }
    }

    /// <https://docs.ntfy.sh/publish/>
    fn ntfy(&self, token: Option<&str>) -> Sent {
        let mut headers = vec![
            ("title", self.title.clone()),
            (
                "priority",
                if self.is_bad { "high" } else { "default" }.into(),
            ),
            (
                "tags",
                if self.is_bad {
                    "warning"
                } else {
                    "white_check_mark"
                }
                .into(),
            ),
        ];
        headers.extend(self.link.clone().map(|link| ("click", link)));
        headers.extend(token.map(|token| ("authorization", format!("Bearer {token}"))));
        Sent {
            headers,
            body: self.text.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::{Duration, UNIX_EPOCH};

    fn message() -> Message {
        Message {
            text: "<!channel> & <b>".into(),
            link: Some("https://deploy.example/deployments/d1".into()),
            ..Message::test(1_000)
        }
    }

    #[test]
    fn a_webhook_is_signed_as_the_standard_says() {
        let secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
        let sent = message()
            .sent(NotifierKind::Webhook, Some(secret), 1_700_000_000)
            .unwrap();
        let header = |name: &str| {
            let found = sent.headers.iter().find(|(key, _)| *key == name);
            found.unwrap().1.as_str()
        };
        let parts = (
            header("webhook-id"),
            header("webhook-timestamp"),
            header("webhook-signature"),
        );
        let now = UNIX_EPOCH + Duration::from_secs(1_700_000_000);
        let secrets = [secret.as_bytes().to_vec()];
        assert!(signature::standard(
            &secrets,
            parts,
            sent.body.as_bytes(),
            now
        ));
        assert!(
            sent.body.contains("\"timestamp\":\"1970-01-01T00:00:01Z\""),
            "{}",
            sent.body
        );
        let wrong = message().sent(NotifierKind::Webhook, Some("whsec_%"), 0);
        assert!(wrong.is_err());
    }

    #[test]
    fn what_others_write_formats_nothing() {
        let sent = message().sent(NotifierKind::Slack, None, 0).unwrap();
        assert!(
            sent.body.contains("&lt;!channel&gt; &amp; &lt;b&gt;"),
            "{}",
            sent.body
        );
        assert!(
            sent.body
                .contains("<https://deploy.example/deployments/d1|Look>")
        );
        let sent = message().sent(NotifierKind::Ntfy, Some("tk_1"), 0).unwrap();
        assert_eq!(sent.body, "<!channel> & <b>");
        assert!(
            sent.headers
                .contains(&("authorization", "Bearer tk_1".into()))
        );
    }
}
