//! News of an app's image in a registry: what its registry sends, and what asking it finds.

use std::net::IpAddr;

use rusqlite::Connection;
use sha2::{Digest, Sha256};

use super::queue::{announce, wished};
use super::{Agent, Answer, Result};
use crate::config::{App, Image};
use crate::deploy::steps::image;
use crate::ids::{AppName, CommitId, DeliveryId};
use crate::principal::Requester;
use crate::store::deliveries::{self, NewDelivery};
use crate::store::deployments::{self, Deployment, Goal, NewDeployment, Trigger};
use crate::store::holds::{self, Hold};
use crate::webhook::{Notice, Pushed};

const REGISTRY: &str = "registry";
/// How many deployments back the last one of the app's own image is looked for.
const BACK: usize = 200;

/// Stores a registry's delivery with what it leads to. Each leads to a look at the registry: payloads
/// repeat word for word.
pub async fn told(
    agent: &Agent,
    app: &App,
    of: &Image,
    notice: Notice,
    from: Option<IpAddr>,
) -> Result<Answer> {
    let is_noise = notice.is_noise;
    let reason = reason(of, notice);
    let by = Requester::Webhook {
        forge: REGISTRY.to_owned(),
        user: None,
        from,
    };
    let new = match &reason {
        None => Some(wished(&app.name, None, Trigger::Webhook, by)),
        Some(_) => None,
    };
    let delivery = NewDelivery {
        app: app.name.clone(),
        forge: REGISTRY.to_owned(),
        forge_delivery: None,
        event: (if is_noise { "pull" } else { "push" }).to_owned(),
        // Of what is noise, the first one stands for all.
        body_hash: match is_noise {
            true => hex::encode(Sha256::digest("pull")),
            false => hex::encode(Sha256::digest(DeliveryId::new().as_str())),
        },
        moves: Vec::new(),
    };
    let stored = agent.store.write(move |db| {
        if is_noise && let Some(first) = deliveries::noise(db, &delivery)? {
            return Ok((first, None));
        }
        let pinned = holds::why_pinned(db, &delivery.app)?;
        let (new, reason) = match pinned.filter(|_| new.is_some()) {
            Some(pinned) => (None, Some(pinned)),
            None => (new, reason),
        };
        let queued = new.map(|new| deployments::enqueue(db, &new)).transpose()?;
        let id = queued.as_ref().map(|queued| queued.id.clone());
        let outcome = deliveries::insert(db, &delivery, id, reason)?;
        Ok((outcome, queued))
    });
    let (outcome, queued) = stored.await?;
    if let Some(queued) = &queued {
        announce(agent, queued);
    }
    Ok(Answer {
        delivery: outcome.delivery,
        deployment: outcome.deployment,
        reason: outcome.reason,
        refs: Vec::new(),
    })
}

/// Why nothing is deployed.
fn reason(of: &Image, notice: Notice) -> Option<String> {
    if let Some(digest) = &of.digest {
        return Some(format!(
            "the app's `image` is `{digest}`, whatever is pushed"
        ));
    }
    match notice.pushed {
        Err(why) => Some(why),
        Ok(pushed) if pushed.is_empty() || pushed.iter().any(|it| is_of(of, it)) => None,
        Ok(pushed) => {
            let all: Vec<_> = pushed.iter().map(named).collect();
            Some(format!(
                "`{}` was pushed; the app's `image` is `{}:{}`",
                all.join("`, `").escape_debug(),
                of.repository(),
                of.tag
            ))
        }
    }
}

fn is_of(of: &Image, pushed: &Pushed) -> bool {
    let same = |named: &String| {
        let named = named.strip_prefix("library/").unwrap_or(named);
        named.eq_ignore_ascii_case(of.repository())
    };
    pushed.tag == of.tag && pushed.repository.as_ref().is_none_or(same)
}

fn named(pushed: &Pushed) -> String {
    match &pushed.repository {
        Some(repository) => format!("{repository}:{}", pushed.tag),
        None => pushed.tag.clone(),
    }
}

/// Asks the registry, and queues a deployment if it has an image that no deployment of the app's own
/// image has been for. An error is a sentence.
pub async fn poll(agent: &Agent, app: &App, of: &Image) -> std::result::Result<(), String> {
    let digest = image::digest(agent, of).await;
    let digest = digest.map_err(|error| image::advised(&error))?;
    let Some(id) = image::id(&digest) else {
        return Err(format!("`{}` is no SHA-256 digest", digest.escape_debug()));
    };
    let name = app.name.clone();
    let new = NewDeployment {
        commit: Some(id.clone()),
        message: Some(format!("{of}@{digest}")),
        ..wished(&name, None, Trigger::Poll, Requester::Agent)
    };
    let stored = agent.store.write(move |db| {
        // Asked again once it is not pinned any more.
        let is_wanted = holds::of(db, &name, Hold::Pin)?.is_none();
        Ok(match is_wanted && is_new(db, &name, &id)? {
            true => Some(deployments::enqueue(db, &new)?),
            false => None,
        })
    });
    if let Some(queued) = stored.await.map_err(|error| error.to_string())? {
        announce(agent, &queued);
    }
    Ok(())
}

/// Whether the last deployment of what the app's name stood for was of something else. What failed or was
/// rolled back is not tried again until there is another image.
fn is_new(db: &Connection, app: &AppName, id: &CommitId) -> Result<bool> {
    let all = deployments::list(db, app, None, BACK)?;
    // One that ended before the registry had said what the name stands for tells nothing, nor does one that
    // ended for a pin.
    let is_pinned = |it: &Deployment| it.error.as_ref().is_some_and(|it| it.code == holds::PINNED);
    let tells = |it: &Deployment| it.ended_at.is_none() || it.commit.is_some() && !is_pinned(it);
    let last = all
        .into_iter()
        .find(|it| it.goal == Goal::Branch && tells(it));
    let on_its_way = |it: &Deployment| it.ended_at.is_none() && it.commit.is_none();
    Ok(last.is_none_or(|it| it.commit.as_ref() != Some(id) && !on_its_way(&it)))
}
