//! Azure DevOps service hooks: `git.push`, with an update for each ref.

use serde::Deserialize;

use super::payload::{self, Account, Capped};
use super::{Content, Push, Ref, Refusal, content};
use crate::webhook::push::{commit, points_to, text};

#[derive(Deserialize)]
struct Event {
    #[serde(rename = "eventType")]
    event: String,
}

#[derive(Deserialize)]
struct Payload {
    resource: Resource,
}

#[derive(Deserialize)]
struct Resource {
    #[serde(rename = "refUpdates")]
    updates: Capped<Update>,
    #[serde(default)]
    commits: Capped<Commit>,
    repository: Option<Repository>,
    #[serde(default, rename = "pushedBy")]
    pusher: Account,
}

#[derive(Deserialize)]
struct Update {
    name: String,
    #[serde(rename = "oldObjectId")]
    old: Option<String>,
    #[serde(rename = "newObjectId")]
    new: Option<String>,
}

#[derive(Deserialize)]
struct Commit {
    #[serde(rename = "commitId")]
    id: Option<String>,
    comment: Option<String>,
    author: Option<payload::Person>,
}

#[derive(Deserialize)]
struct Repository {
    name: Option<String>,
    project: Option<payload::Person>,
}

/// Azure names the event only in the body.
pub(super) fn event(json: &[u8]) -> Result<String, Refusal> {
    let event = payload::read::<Event>(json)?.event;
    Ok(text(&event, 200).unwrap_or_default())
}

pub(super) fn push(json: &[u8]) -> Result<Content, Refusal> {
    let resource = payload::read::<Payload>(json)?.resource;
    let Capped(updates, cut) = resource.updates;
    if cut {
        return Err(Refusal::malformed("the push changes more than 4096 refs"));
    }
    let repository = resource.repository.map(|it| {
        let project = it.project.and_then(|project| project.name);
        format!(
            "{}/{}",
            project.unwrap_or_default(),
            it.name.unwrap_or_default()
        )
    });
    let repository = text(&repository.unwrap_or_default(), 300).unwrap_or_default();
    let mut pushes = Vec::new();
    for update in &updates {
        let Some(git_ref) = Ref::parse(&update.name)? else {
            continue;
        };
        if update.new.is_none() {
            return Err(Refusal::malformed("an update has no `newObjectId`"));
        }
        let mut listed = resource.commits.0.iter();
        let head = listed.find(|commit| commit.id.is_some() && commit.id == update.new);
        let author = head.and_then(|head| head.author.as_ref()?.name.as_deref());
        let new = commit(update.new.as_deref())?;
        // For an annotated tag, `newObjectId` is the id of the tag object.
        let points_to = points_to(&git_ref, &new, None)?;
        pushes.push(Some(Push {
            repository: repository.clone(),
            git_ref,
            old: commit(update.old.as_deref())?,
            new,
            commit: points_to,
            message: head.and_then(|head| text(head.comment.as_deref()?, 8192)),
            author: author.and_then(|name| text(name, 200)),
            pusher: resource.pusher.0.clone(),
            forced: false,
            skip: false,
        }));
    }
    Ok(content(pushes))
}
