//! Bitbucket Data Center: `repo:refs_changed`, with a change for each ref.

use serde::Deserialize;

use super::payload::{self, Account, Capped, Commit};
use super::{Content, Push, Ref, Refusal, content};
use crate::webhook::push::{commit, points_to, text};

#[derive(Deserialize)]
struct Payload {
    changes: Capped<Change>,
    repository: Option<Repository>,
    #[serde(default)]
    actor: Account,
    /// Since Bitbucket 8.15: the new commit, with its message.
    #[serde(rename = "toCommit")]
    to_commit: Option<Commit>,
}

#[derive(Deserialize)]
struct Repository {
    slug: Option<String>,
    project: Option<Project>,
}

#[derive(Deserialize)]
struct Project {
    key: Option<String>,
}

#[derive(Deserialize)]
struct Change {
    r#ref: Named,
    #[serde(rename = "fromHash")]
    from: Option<String>,
    #[serde(rename = "toHash")]
    to: Option<String>,
    r#type: Option<String>,
}

#[derive(Deserialize)]
struct Named {
    id: String,
}

pub(super) fn push(json: &[u8]) -> Result<Content, Refusal> {
    let payload: Payload = payload::read(json)?;
    let Capped(changes, cut) = payload.changes;
    if cut {
        return Err(Refusal::malformed("the push changes more than 4096 refs"));
    }
    let repository = payload.repository.map(|it| {
        let project = it.project.and_then(|project| project.key);
        format!(
            "{}/{}",
            project.unwrap_or_default(),
            it.slug.unwrap_or_default()
        )
    });
    let repository = text(&repository.unwrap_or_default(), 300).unwrap_or_default();
    let mut pushes = Vec::new();
    for change in &changes {
        let Some(git_ref) = Ref::parse(&change.r#ref.id)? else {
            continue;
        };
        let deleted = change.r#type.as_deref() == Some("DELETE");
        let new = match deleted {
            true => None,
            false => commit(change.to.as_deref())?,
        };
        if !deleted && change.to.is_none() {
            return Err(Refusal::malformed("a change has no `toHash`"));
        }
        let head = payload.to_commit.as_ref().filter(|head| {
            new.as_ref()
                .is_some_and(|new| head.id.as_deref() == Some(new.as_str()))
        });
        let author = head.and_then(|head| head.author.as_ref()?.name.as_deref());
        // For an annotated tag, `toHash` is the id of the tag object.
        let points_to = points_to(&git_ref, &new, None)?;
        pushes.push(Some(Push {
            repository: repository.clone(),
            git_ref,
            old: commit(change.from.as_deref())?,
            new,
            commit: points_to,
            message: head.and_then(|head| text(head.message.as_deref()?, 8192)),
            author: author.and_then(|name| text(name, 200)),
            pusher: payload.actor.0.clone(),
            forced: false,
            skip: false,
        }));
    }
    Ok(content(pushes))
}
