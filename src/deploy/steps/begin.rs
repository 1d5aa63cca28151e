//! Before the first step: count the attempt, and wait for a slot.

use crate::deploy::difference;
use crate::deploy::line::{Line, Stop};
use crate::deploy::slots::Slot;
use crate::store::{deployments, holds};

/// Counts this attempt, so that a deployment that crashes the agent each time ends. What waited while its app
/// was pinned does not begin.
pub async fn attempt(line: &Line<'_>) -> Result<(), Stop> {
    let id = line.id.clone();
    let begun = line.record(move |db| {
        let pinned = match deployments::get(db, &id)? {
            Some(deployment) => holds::stops(db, &deployment)?,
            None => None,
        };
        match pinned {
            Some(pinned) => Ok(Err(pinned)),
            None => deployments::count_attempt(db, &id).map(Ok),
        }
    });
    let attempts = begun.await?.map_err(Stop::Skipped)?;
    tracing::info!(app = %line.app.name, deployment = %line.id, attempts, "deployment begins");
    if let Some(notice) = difference::difference(line.agent).await.notice {
        line.log.line(&format!("note: {notice}"));
    }
    if attempts > 1 {
        line.log.line(&format!(
            "attempt {attempts}: the one before was interrupted"
        ));
    }
    Ok(())
}

/// Waits until few enough other apps are being fetched and built. The slot is held for fetch and build
/// only: the later steps need little processor time but may take long.
pub async fn slot(line: &Line<'_>) -> Result<Slot, Stop> {
    let slots = &line.agent.slots;
    if let Some(others) = slots.taken() {
        let others: Vec<_> = others.iter().map(|app| format!("`{app}`")).collect();
        line.log
            .line(&format!("waiting for the build of {}", others.join(" or ")));
    }
    tokio::select! {
        biased;
        () = line.cancel.cancelled() => Err(Stop::Cancelled),
        slot = slots.take(&line.app.name) => Ok(slot),
    }
}
