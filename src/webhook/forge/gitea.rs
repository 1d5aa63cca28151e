//! Gitea, Forgejo and Gogs: `push`.

use http::HeaderMap;
use serde::Deserialize;

use super::payload::{self, Account, Capped, Commit, Repository};
use super::{Content, Push, Ref, Refusal, content, header, signature};
use crate::webhook::push::{commit, points_to, text};

#[derive(Deserialize)]
struct Payload {
    r#ref: String,
    before: Option<String>,
    after: Option<String>,
    #[serde(default)]
    commits: Capped<Commit>,
    /// Gogs does not send it.
    head_commit: Option<Commit>,
    repository: Option<Repository>,
    #[serde(default)]
    pusher: Account,
}

/// The signature is bare hex over the JSON, even if the JSON is inside a form.
pub(super) fn signed(secrets: &[Vec<u8>], headers: &HeaderMap, name: &str, body: &[u8]) -> bool {
    let Some(given) = header::one(headers, name) else {
        return false;
    };
    // Only the form is decoded before the signature is verified; that neither allocates more than
    // the body nor interprets the JSON.
    payload::json(headers, body).is_ok_and(|json| signature::hex(secrets, &json, given))
}

pub(super) fn push(json: &[u8]) -> Result<Content, Refusal> {
    let payload: Payload = payload::read(json)?;
    let Some(git_ref) = Ref::parse(&payload.r#ref)? else {
        return Ok(content(vec![]));
    };
    let Some(after) = payload.after else {
        return Err(Refusal::malformed("the payload has no `after`"));
    };
    let first = payload.head_commit;
    let listed = payload.commits.0.into_iter();
    // For an annotated tag, `after` is the id of the tag object; `head_commit` is the commit.
    let head = match &git_ref {
        Ref::Tag(_) => first,
        Ref::Branch(_) => {
            (first.into_iter().chain(listed)).find(|commit| commit.id.as_deref() == Some(&after))
        }
    };
    let new = commit(Some(&after))?;
    let tagged = head.as_ref().and_then(|head| head.id.as_deref());
    let points_to = points_to(&git_ref, &new, tagged)?;
    let repository = payload.repository.and_then(|it| it.full_name);
    let author = head
        .as_ref()
        .and_then(|head| head.author.as_ref()?.name.as_deref());
    Ok(content(vec![Some(Push {
        repository: text(&repository.unwrap_or_default(), 300).unwrap_or_default(),
        git_ref,
        old: commit(payload.before.as_deref())?,
        new,
        commit: points_to,
        message: head
            .as_ref()
            .and_then(|head| text(head.message.as_deref()?, 8192)),
        author: author.and_then(|name| text(name, 200)),
        pusher: payload.pusher.0,
        forced: false,
        skip: false,
    })]))
}
