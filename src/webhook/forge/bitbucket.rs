//! Bitbucket Cloud: `repo:push`, with a change for each ref.

use serde::Deserialize;

use super::payload::{self, Account, Capped, Repository};
use super::{Content, Push, Ref, Refusal, content};
use crate::webhook::push::{commit, text};

#[derive(Deserialize)]
struct Payload {
    push: Changes,
    #[serde(default)]
    actor: Account,
    repository: Option<Repository>,
}

#[derive(Deserialize)]
struct Changes {
    changes: Capped<Change>,
}

#[derive(Deserialize)]
struct Change {
    old: Option<Side>,
    new: Option<Side>,
    forced: Option<bool>,
}

#[derive(Deserialize)]
struct Side {
    r#type: String,
    name: String,
    target: Option<Target>,
}

#[derive(Deserialize)]
struct Target {
    hash: Option<String>,
    message: Option<String>,
    author: Option<Author>,
}

#[derive(Deserialize)]
struct Author {
    raw: Option<String>,
}

pub(super) fn push(json: &[u8]) -> Result<Content, Refusal> {
    let payload: Payload = payload::read(json)?;
    let Capped(changes, cut) = payload.push.changes;
    if cut {
        return Err(Refusal::malformed("the push changes more than 4096 refs"));
    }
    let repository = payload.repository.and_then(|it| it.full_name);
    let repository = text(&repository.unwrap_or_default(), 300).unwrap_or_default();
    let pusher = payload.actor.0;
    let pushes = changes
        .iter()
        .map(|change| one(change, &repository, pusher.as_deref()));
    Ok(content(pushes.collect::<Result<_, _>>()?))
}

fn one(change: &Change, repository: &str, pusher: Option<&str>) -> Result<Option<Push>, Refusal> {
    let Some(named) = change.new.as_ref().or(change.old.as_ref()) else {
        return Err(Refusal::malformed("a change has neither `old` nor `new`"));
    };
    let full = match named.r#type.as_str() {
        "branch" | "named_branch" | "bookmark" => format!("refs/heads/{}", named.name),
        "tag" | "annotated_tag" => format!("refs/tags/{}", named.name),
        _ => return Ok(None),
    };
    let hash = |side: &Option<Side>| {
        let target = side.as_ref().and_then(|side| side.target.as_ref());
        commit(target.and_then(|target| target.hash.as_deref()))
    };
    let new = hash(&change.new)?;
    if change.new.is_some() && new.is_none() {
        return Err(Refusal::malformed("a change's `new` has no commit"));
    }
    let old = hash(&change.old)?;
    let head = change.new.as_ref().and_then(|side| side.target.as_ref());
    // `Jane Doe <jane@example.com>`
    let author = head
        .and_then(|head| head.author.as_ref()?.raw.as_deref())
        .map(|raw| raw.split('<').next().unwrap_or(raw).trim());
    Ok(Ref::parse(&full)?.map(|git_ref| Push {
        repository: repository.to_owned(),
        git_ref,
        old: old.clone(),
        new: new.clone(),
        commit: new.clone(),
        message: head.and_then(|head| text(head.message.as_deref()?, 8192)),
        author: author.and_then(|name| text(name, 200)),
        pusher: pusher.map(str::to_owned),
        forced: change.forced.unwrap_or(false),
        skip: false,
    }))
}
