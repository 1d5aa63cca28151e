//! Any sender that signs according to Standard Webhooks. The payload is `{"type": "push", "data":
//! {…}}` with `repository`, `ref`, `old`, `new`, `message`, `author`, `pusher` and `forced`, all
//! but `ref` and `new` optional.

use std::time::SystemTime;

use http::HeaderMap;
use serde::Deserialize;

use super::payload::Account;
use super::{Content, Push, Ref, Refusal, content, header, payload, signature};
use crate::webhook::push::{commit, points_to, text};

pub(super) const NAMES: [&str; 3] = ["webhook-id", "webhook-timestamp", "webhook-signature"];

#[derive(Deserialize)]
struct Event {
    r#type: String,
}

#[derive(Deserialize)]
struct Payload {
    data: Data,
}

#[derive(Deserialize)]
struct Data {
    repository: Option<String>,
    r#ref: String,
    old: Option<String>,
    /// Null means that the ref was deleted, so the key is required and cannot be left out by accident.
    #[serde(deserialize_with = "Option::deserialize")]
    new: Option<String>,
    message: Option<String>,
    author: Option<String>,
    #[serde(default)]
    pusher: Account,
    forced: Option<bool>,
}

/// Whether a delivery carries a Standard Webhooks signature, valid or not.
pub(super) fn present(headers: &HeaderMap) -> bool {
    NAMES.iter().any(|name| headers.contains_key(*name))
}

pub(super) fn signed(
    now: SystemTime,
    secrets: &[Vec<u8>],
    headers: &HeaderMap,
    body: &[u8],
) -> bool {
    let [id, timestamp, given] = NAMES.map(|name| header::one(headers, name));
    match (id, timestamp, given) {
        (Some(id), Some(timestamp), Some(given)) => {
            signature::standard(secrets, (id, timestamp, given), body, now)
        }
        _ => false,
    }
}

pub(super) fn event(json: &[u8]) -> Result<String, Refusal> {
    let event = payload::read::<Event>(json)?.r#type;
    Ok(text(&event, 200).unwrap_or_default())
}

pub(super) fn push(json: &[u8]) -> Result<Content, Refusal> {
    let data = payload::read::<Payload>(json)?.data;
    let Some(git_ref) = Ref::parse(&data.r#ref)? else {
        return Ok(content(vec![]));
    };
    let new = commit(data.new.as_deref())?;
    let points_to = points_to(&git_ref, &new, None)?;
    Ok(content(vec![Some(Push {
        repository: text(&data.repository.unwrap_or_default(), 300).unwrap_or_default(),
        git_ref,
        old: commit(data.old.as_deref())?,
        new,
        commit: points_to,
        message: data.message.and_then(|message| text(&message, 8192)),
        author: data.author.and_then(|author| text(&author, 200)),
        pusher: data.pusher.0,
        forced: data.forced.unwrap_or(false),
        skip: false,
    })]))
}
