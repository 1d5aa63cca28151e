//! Before the first step: count the attempt, and wait for a slot.

use tokio::sync::OwnedSemaphorePermit;

use crate::deploy::difference;
use crate::deploy::line::{Line, Stop};
use crate::store::deployments;

/// Counts this attempt, so that a deployment that crashes the agent each time ends.
pub async fn attempt(line: &Line<'_>) -> Result<(), Stop> {
    let id = line.id.clone();
    let attempts = line
        .record(move |db| deployments::count_attempt(db, &id))
        .await?;
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
pub async fn slot(line: &Line<'_>) -> Result<OwnedSemaphorePermit, Stop> {
    let slots = line.agent.slots.clone();
    if slots.available_permits() == 0 {
        line.log.line("waiting for other apps' builds");
    }
    tokio::select! {
        biased;
        () = line.cancel.cancelled() => Err(Stop::Cancelled),
        slot = slots.acquire_owned() => {
            slot.map_err(|_| Stop::Interrupted("the agent is stopping".into()))
        }
    }
}
