//! Rollback: a recorded deployment that starts from a kept release.

use std::collections::HashSet;

use super::intake::{self, Queued};
use super::steps::image;
use super::{Agent, Result};
use crate::engine::EngineError;
use crate::ids::{AppName, ReleaseId};
use crate::principal::Requester;
use crate::store::deployments::{self, Deployment, Goal, NewDeployment, Trigger};
use crate::store::idempotency::Once;
use crate::store::releases::{self, Release};
use crate::store::{StoreError, actions, apps, former_secrets, secrets};

mod automatic;

pub use automatic::automatic;

/// The releases that one can go back to from the live one, the next one first: what was live before it
/// first went live, what was before that, and so on. Those that failed in their own bake are left out,
/// and those that are no longer kept.
fn earlier(db: &rusqlite::Connection, live: &Release) -> Result<Vec<Release>> {
    let mut found = Vec::new();
    let mut seen = HashSet::from([live.id.clone()]);
    let mut next = releases::before(db, live)?;
    // Each was live before the one that it follows, but a damaged database must not be walked in circles.
    while let Some(release) = next.filter(|release| seen.insert(release.id.clone())) {
        next = releases::before(db, &release)?;
        let is_kept = release.went_live.is_some() && release.removed_at.is_none();
        if is_kept && !deployments::was_rolled_back(db, &release.id)? {
            found.push(release);
        }
    }
    Ok(found)
}

/// The live release of an app.
pub(super) fn live(db: &rusqlite::Connection, app: &AppName) -> Result<Option<Release>> {
    match apps::serving(db, app)?.live {
        Some(live) => releases::get(db, &live),
        None => Ok(None),
    }
}

/// The release that is `steps` different ones before the live one. One that runs like the one after it,
/// because a commit was deployed again or the app was scaled, is none of them; with `secrets` it is, if it started with others.
fn back(db: &rusqlite::Connection, app: &AppName, steps: usize, secrets: bool) -> Result<Release> {
    let live = live(db, app)?
        .ok_or_else(|| StoreError::Refused(format!("nothing of `{app}` is live yet")))?;
    let mut different = Vec::new();
    let mut after = live.clone();
    for release in earlier(db, &live)? {
        let differs = !release.runs_like(&after)
            || secrets
                && former_secrets::versions(db, &release.id)?
                    != former_secrets::versions(db, &after.id)?;
        if differs {
            after = release.clone();
            different.push(release);
        }
    }
    let count = different.len();
    different.into_iter().nth(steps - 1).ok_or_else(|| {
        StoreError::Refused(match count {
            0 => format!("`{app}` has no earlier release to roll back to"),
            1 => format!("`{app}` can be rolled back by 1 release only"),
            count => format!("`{app}` can be rolled back by {count} releases at most"),
        })
    })
}

/// Why a rollback is not queued.
#[derive(Debug, thiserror::Error)]
pub enum RollbackError {
    #[error("the image `{image}` of the release `{release}` is gone from Docker")]
    Gone {
        image: String,
        release: ReleaseId,
        /// What to do next.
        hint: String,
    },
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Engine(#[from] EngineError),
}

impl RollbackError {
    /// What to do next.
    pub fn hint(&self) -> &str {
        match self {
            Self::Gone { hint, .. } => hint,
            _ => "",
        }
    }
}

/// How a release whose image is gone gets it again.
pub fn rebuild(release: &Release) -> String {
    let Release {
        app, id, commit, ..
    } = release;
    let rebuild = format!("`cutover rollback {app} --to {id} --rebuild`");
    match digest(release) {
        Some(_) => format!("pull it again: {rebuild}"),
        None => format!(
            "build its commit again: {rebuild} or `cutover deploy {app} --ref {}`",
            commit.short()
        ),
    }
}

/// The digest of its image, if that came from a registry.
fn digest(release: &Release) -> Option<&str> {
    let (_, digest) = release.message.rsplit_once('@')?;
    (image::id(digest)? == release.commit).then_some(digest)
}

/// What a rollback is to do.
#[derive(Debug, Default)]
pub struct Wish {
    /// What names the release; `None`: the one that was live before.
    pub to: Option<String>,
    /// Build and deploy its commit again.
    pub rebuild: bool,
    /// Give the secrets that Cutover keeps the values that it started with.
    pub secrets: bool,
}

/// Queues a rollback of `app`. What came before is answered first: the release that it went back to may be the
/// live one now.
pub async fn ask(
    agent: &Agent,
    app: &AppName,
    wish: Wish,
    by: Requester,
    once: Option<Once>,
) -> std::result::Result<Queued, RollbackError> {
    if let Some(once) = once.clone() {
        let before = agent.store.read(move |db| intake::before(db, &once));
        if let Some(before) = before.await? {
            return Ok(before);
        }
    }
    let (name, again, secrets) = (app.clone(), wish.rebuild, wish.secrets);
    let find = (agent.store).read(move |db| target(db, &name, &wish));
    let release = find.await?;
    if !again {
        has_images(agent, &release).await?;
    }
    let mut new = back_to(app, &release, Trigger::Rollback, by);
    if again {
        new.goal = Goal::Named(match digest(&release) {
            Some(digest) => format!("@{digest}"),
            None => release.commit.to_string(),
        });
    }
    let queue = move |db: &_| {
        let changed = match secrets {
            true => bring_back_secrets(db, &release, &new.requested_by)?,
            false => false,
        };
        if let Some(restarts) = with_secrets_only(db, &release, secrets, changed, &new)? {
            return Ok(Queued::New(restarts));
        }
        match underway(db, &new)? {
            Some(underway) if changed => Err(StoreError::Refused(format!(
                "a rollback to the release `{}` is under way, with the secrets of now: nothing was changed; \
                 wait for it, or cancel it (`cutover cancel {}`), and ask again",
                release.id, underway.id
            ))),
            Some(underway) => Ok(Queued::Joined(underway)),
            None => deployments::enqueue(db, &new).map(Queued::New),
        }
    };
    let of = app.clone();
    let write = (agent.store).write(move |db| {
        let running = deployments::running_push(db, &of)?;
        Ok((intake::queued_once(db, once, queue)?, running))
    });
    let (queued, running) = write.await?;
    if let Queued::New(stored) = &queued {
        // Who goes back does not want what is on its way. It goes on if it has switched already.
        if let Some(running) = running.filter(|_| !again) {
            agent.hub.supersede(&running.id, &stored.id);
        }
        intake::announce(agent, stored);
    }
    Ok(queued)
}

/// From now on the app's secrets have the values that the release started with. Returns whether any had
/// another.
fn bring_back_secrets(
    db: &rusqlite::Connection,
    release: &Release,
    by: &Requester,
) -> Result<bool> {
    let (app, id) = (&release.app, &release.id);
    let restored = secrets::restore(db, app, id, by)?;
    let detail = serde_json::json!({
        "release": id, "set": restored.set, "unset": restored.unset,
    });
    actions::insert(db, actions::Kind::Secrets, Some(app), &detail, by)?;
    Ok(!restored.set.is_empty() || !restored.unset.is_empty())
}

/// The live release is started again if only its secrets are to be those of then.
fn with_secrets_only(
    db: &rusqlite::Connection,
    release: &Release,
    secrets: bool,
    changed: bool,
    new: &NewDeployment,
) -> Result<Option<Deployment>> {
    let (app, id) = (&release.app, &release.id);
    let is_live = apps::serving(db, app)?.live.as_ref() == Some(id);
    match secrets && is_live && matches!(new.goal, Goal::Release(_)) {
        false => Ok(None),
        true if changed => intake::again(db, app, Trigger::Api, new.requested_by.clone()),
        true => Err(StoreError::Refused(format!(
            "the release `{id}` is live already, with the secrets that it started with"
        ))),
    }
}

/// The release that a rollback makes live: the one that is named, or the one that was live before. It may be the
/// live one if that is built anew or gets other secrets.
pub fn target(db: &rusqlite::Connection, app: &AppName, wish: &Wish) -> Result<Release> {
    let release = match &wish.to {
        Some(text) => named(db, app, text, wish.secrets)?,
        None => back(db, app, 1, wish.secrets)?,
    };
    let any = wish.rebuild || wish.secrets;
    let serving = apps::serving(db, app)?;
    if !any && serving.live.as_ref() == Some(&release.id) {
        let id = &release.id;
        return Err(StoreError::Refused(format!(
            "the release `{id}` is live already"
        )));
    }
    Ok(release)
}

/// A rollback to the same release that nothing newer follows: two people who press the button at once
/// want one.
fn underway(db: &rusqlite::Connection, new: &NewDeployment) -> Result<Option<Deployment>> {
    let newest = deployments::open_of(db, &new.app)?.pop();
    Ok(newest.filter(|newest| {
        matches!(new.goal, Goal::Release(_))
            && newest.goal == new.goal
            && newest.cancelled_by.is_none()
    }))
}

/// An error if an image of the release is gone. If Docker does not answer, that is found out later.
async fn has_images(agent: &Agent, release: &Release) -> std::result::Result<(), RollbackError> {
    for service in &release.services {
        match agent.engine.has_image(&service.image_id).await {
            Ok(true) | Err(EngineError::Unreachable { .. }) => {}
            Ok(false) => {
                return Err(RollbackError::Gone {
                    image: service.image.clone(),
                    release: release.id.clone(),
                    hint: rebuild(release),
                });
            }
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// The fewest digits of a commit that name it, as in git.
const FEWEST_DIGITS: usize = 7;

/// Finds a kept release by `-1`, `-2` and so on, by its image's name or tag, or by the beginning of its
/// own id, of its deployment's or of its commit's.
fn named(db: &rusqlite::Connection, app: &AppName, text: &str, secrets: bool) -> Result<Release> {
    let refused = |why: String| Err(StoreError::Refused(why));
    if let Some(steps) = text.strip_prefix('-') {
        return match steps.parse() {
            Ok(steps @ 1..) => back(db, app, steps, secrets),
            _ => refused(format!(
                "`{}` is not a number of releases to go back, such as `-1`",
                text.escape_debug()
            )),
        };
    }
    // A renamed app has images under its former name.
    let tag = match text.rsplit_once(':') {
        Some((image, tag)) if image.starts_with("cutover/") => tag,
        _ => text,
    };
    if let Some(found) = with_image(db, app, text, tag)? {
        return Ok(found);
    }
    let shown = text.escape_debug();
    let lower = tag.to_ascii_lowercase();
    if lower.len() < FEWEST_DIGITS {
        return refused(format!(
            "`{shown}` does not name a release of `{app}`: give an image's tag, or at least \
             {FEWEST_DIGITS} characters of a commit, a release or a deployment"
        ));
    }
    let found = releases::beginning_with(db, app, &lower)?;
    let Some(first) = found.first() else {
        return refused(format!("`{shown}` does not name a release of `{app}`"));
    };
    // A commit that was deployed several times stands for its last release; everything else for one.
    let is_commit = |release: &Release| release.commit.as_str().starts_with(&lower);
    let is_one = |release: &Release| match is_commit(first) {
        true => release.commit == first.commit,
        false => release.id == first.id,
    };
    if !found.iter().all(is_one) {
        return refused(format!(
            "`{shown}` is ambiguous: more than one release of `{app}` is meant; give more characters"
        ));
    }
    let (id, commit) = (&first.id, first.commit.short());
    if first.went_live.is_none() {
        return refused(format!(
            "the release `{id}` (commit {commit}) never went live; `cutover deploy {app} --ref \
             {commit}` tries it again"
        ));
    }
    if first.removed_at.is_some() {
        return refused(format!(
            "the image of the release `{id}` (commit {commit}) is no longer kept; `cutover deploy {app} \
             --ref {commit}` builds it again"
        ));
    }
    Ok(first.clone())
}

/// The kept release with an image of this name, or with this tag.
fn with_image(
    db: &rusqlite::Connection,
    app: &AppName,
    name: &str,
    tag: &str,
) -> Result<Option<Release>> {
    let kept = releases::kept(db, app)?.into_iter();
    let mut live = kept.filter(|found| found.went_live.is_some());
    Ok(live.find(|found| {
        let mut images = found.services.iter().map(|service| service.image.as_str());
        images.any(|image| image == name || image.rsplit_once(':').is_some_and(|it| it.1 == tag))
    }))
}

fn back_to(app: &AppName, release: &Release, trigger: Trigger, by: Requester) -> NewDeployment {
    NewDeployment {
        app: app.clone(),
        trigger,
        goal: Goal::Release(release.id.clone()),
        git_ref: None,
        commit: Some(release.commit.clone()),
        message: Some(release.message.clone()),
        author: Some(release.author.clone()),
        no_cache: false,
        pull: false,
        requested_by: by,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{Store, fixture, scales};

    #[tokio::test]
    async fn a_scale_alone_is_no_release_to_go_back_to() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path()).unwrap();
        let write = store.write(|db| {
            let live = |image: &str, replicas| {
                let mut release = fixture::release(db, 1)?;
                release.id = ReleaseId::new();
                release.services[0].image_id = image.to_owned();
                release.services[0].replicas = replicas;
                releases::insert(db, &release)?;
                releases::set_went_live(db, &release.id)?;
                apps::set_live(db, &release.app, &release.id)?;
                Ok::<_, StoreError>(release)
            };
            let good = live("sha256:good", 1)?;
            live("sha256:bad", 1)?;
            live("sha256:bad", 3)?;
            let scaled_back = live("sha256:bad", 1)?;
            let app = &scaled_back.app;
            assert_eq!(target(db, app, &Wish::default())?.id, good.id);
            scales::set(db, app, &scaled_back.services[0].name, Some(1))?;
            assert_eq!(target(db, app, &Wish::default())?.id, good.id);
            Ok(())
        });
        write.await.unwrap();
    }
}
