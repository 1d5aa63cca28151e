//! GitHub: <https://docs.github.com/en/webhooks/webhook-events-and-payloads#push>.

use serde::Deserialize;

use crate::webhook::push::{self, Push, Ref};
use crate::webhook::{Content, Refusal};

pub const EVENT: &str = "x-github-event";
pub const DELIVERY: &str = "x-github-delivery";
/// `sha256=` and the HMAC of the raw body. The older `X-Hub-Signature` with SHA-1 is not looked at.
pub const SIGNATURE: &str = "x-hub-signature-256";

#[derive(Deserialize)]
struct Payload {
    r#ref: String,
    before: String,
    after: String,
    #[serde(default)]
    forced: bool,
    repository: Repository,
    head_commit: Option<Commit>,
}

#[derive(Deserialize)]
struct Repository {
    full_name: String,
}

#[derive(Deserialize)]
struct Commit {
    message: String,
    author: Option<Author>,
}

#[derive(Deserialize)]
struct Author {
    name: Option<String>,
}

/// What an event's JSON says.
pub fn parse(event: &str, body: &[u8]) -> Result<Content, Refusal> {
    match event {
        "push" => {}
        "ping" => return json::<serde::de::IgnoredAny>(body).map(|_| Content::Ping),
        other => {
            json::<serde::de::IgnoredAny>(body)?;
            return Ok(Content::Ignored(format!(
                "the event `{}` deploys nothing",
                shown(other)
            )));
        }
    }
    let payload: Payload = json(body)?;
    let Some(git_ref) = Ref::parse(&payload.r#ref) else {
        let name = shown(&payload.r#ref);
        return Ok(Content::Ignored(format!(
            "`{name}` is neither a branch nor a tag"
        )));
    };
    let commit = |text: &str| push::commit(text).map_err(Refusal::Malformed);
    let (message, author) = match payload.head_commit {
        Some(head) => (
            Some(head.message),
            head.author.and_then(|author| author.name),
        ),
        None => (None, None),
    };
    Ok(Content::Pushes(vec![Push {
        repository: payload.repository.full_name,
        git_ref,
        old: commit(&payload.before)?,
        new: commit(&payload.after)?,
        message: message.map(|text| text.lines().next().unwrap_or_default().to_owned()),
        author,
        forced: payload.forced,
    }]))
}

fn json<'a, T: Deserialize<'a>>(body: &'a [u8]) -> Result<T, Refusal> {
    // Checked apart, since skipping a value does not look at its text.
    let text = std::str::from_utf8(body)
        .map_err(|error| Refusal::Malformed(format!("the JSON is not UTF-8: {error}")))?;
    serde_json::from_str(text)
        .map_err(|error| Refusal::Malformed(format!("the JSON is wrong: {error}")))
}

/// A foreign text for a message: escaped, and not at any length.
fn shown(text: &str) -> String {
    text.escape_debug().take(100).collect()
}
