//! GitHub: `push`.

use serde::Deserialize;

use super::payload::{self, Account, Commit, Repository};
use super::{Content, Push, Ref, Refusal, content};
use crate::webhook::push::{commit, points_to, text};

#[derive(Deserialize)]
struct Payload {
    r#ref: String,
    before: Option<String>,
    after: Option<String>,
    forced: Option<bool>,
    head_commit: Option<Commit>,
    repository: Option<Repository>,
    #[serde(default)]
    pusher: Account,
}

pub(super) fn push(json: &[u8]) -> Result<Content, Refusal> {
    let payload: Payload = payload::read(json)?;
    let Some(git_ref) = Ref::parse(&payload.r#ref)? else {
        return Ok(content(vec![]));
    };
    if payload.after.is_none() {
        return Err(Refusal::malformed("the payload has no `after`"));
    }
    let new = commit(payload.after.as_deref())?;
    let head = payload.head_commit;
    // For an annotated tag, `after` is the id of the tag object.
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
        new: points_to.clone().or(new),
        commit: points_to,
        message: head
            .as_ref()
            .and_then(|head| text(head.message.as_deref()?, 8192)),
        author: author.and_then(|name| text(name, 200)),
        pusher: payload.pusher.0,
        forced: payload.forced.unwrap_or(false),
        skip: false,
    })]))
}
