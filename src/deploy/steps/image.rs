//! Find out which image a name stands for, in place of fetching a commit.

use std::time::Duration;

use time::OffsetDateTime;

use crate::config::Image;
use crate::deploy::Agent;
use crate::deploy::line::{Line, Stop};
use crate::deploy::steps::standing::standing;
use crate::engine::{EngineError, advice};
use crate::ids::CommitId;
use crate::source::Commit;
use crate::store::deployments::{self, Goal, Trigger};

/// How long a registry may take.
const DEADLINE: Duration = Duration::from_secs(60);

/// The image by its digest, in the shape of a commit: its id is the beginning of the digest, and its
/// message the whole name.
pub async fn find(line: &Line<'_>, image: &Image, goal: &Goal) -> Result<Commit, Stop> {
    let wanted = match goal {
        Goal::Named(text) => {
            let other = image.other(text);
            other.map_err(|expected| {
                let what = format!("`{text}` cannot be deployed: expected {expected}");
                Stop::failed("unknown_image", what)
            })?
        }
        _ => image.clone(),
    };
    line.log.line(&format!("looking for `{wanted}`"));
    let found = digest(line.agent, &wanted)
        .await
        .map_err(|error| match error {
            EngineError::Unreachable { .. } => Stop::Interrupted(error.to_string()),
            error => Stop::failed("image", advised(&error)),
        })?;
    let commit = commit(&wanted, &found)?;
    if is_told(line).await? && standing(line).await?.as_ref() == Some(&commit.id) {
        let why = format!("`{}` is live already", commit.message);
        return Err(Stop::skipped("already_live", why));
    }
    Ok(commit)
}

/// The error with what to do about it.
pub fn advised(error: &EngineError) -> String {
    match error {
        EngineError::Unreachable { .. } => error.to_string(),
        error => format!("{error}; {}", advice::of_registry(error)),
    }
}

/// Asks the registry for the digest, unless the name has it.
pub async fn digest(agent: &Agent, image: &Image) -> Result<String, EngineError> {
    if let Some(digest) = &image.digest {
        return Ok(digest.clone());
    }
    let asked = tokio::time::timeout(DEADLINE, agent.engine.digest(image)).await;
    asked.unwrap_or_else(|_| {
        let why = format!("`{}` did not answer within 60 s", image.registry());
        Err(EngineError::Stopped(why))
    })
}

/// The id under which a digest is recorded.
pub fn id(digest: &str) -> Option<CommitId> {
    digest.strip_prefix("sha256:")?.get(..40)?.parse().ok()
}

fn commit(image: &Image, digest: &str) -> Result<Commit, Stop> {
    let whole = Image {
        digest: Some(digest.to_owned()),
        ..image.clone()
    };
    let id = id(digest).ok_or_else(|| {
        let what = format!(
            "the registry names `{image}` by `{}`, which is not SHA-256",
            digest.escape_debug()
        );
        Stop::failed("image", what)
    })?;
    Ok(Commit {
        id,
        tree: String::new(),
        message: whole.to_string(),
        author: String::new(),
        time: OffsetDateTime::UNIX_EPOCH,
    })
}

/// Whether it is not a person who asks, who may have reasons to deploy the same image again.
async fn is_told(line: &Line<'_>) -> Result<bool, Stop> {
    let id = line.id.clone();
    let row = line.agent.store.read(move |db| deployments::get(db, &id));
    let trigger = row.await?.map(|it| it.trigger);
    Ok(matches!(trigger, Some(Trigger::Webhook | Trigger::Poll)))
}
