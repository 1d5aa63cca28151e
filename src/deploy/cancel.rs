//! Cancels a deployment for a person. The request is stored first: if the agent dies before the undo
//! has committed, the next one finds it.

use super::{Agent, Result};
use crate::ids::DeploymentId;
use crate::principal::Requester;
use crate::state::{Event, State};
use crate::store::actions;
use crate::store::deployments::{self, Deployment};

/// Ends a waiting deployment; for a running one that has not switched, stores the request. Returns the
/// deployment as it is afterwards; `None` if it does not exist.
pub async fn cancel(
    agent: &Agent,
    id: &DeploymentId,
    by: &Requester,
) -> Result<Option<Deployment>> {
    let (wanted, by) = (id.clone(), by.clone());
    let stored = agent.store.write(move |db| {
        let Some(found) = deployments::get(db, &wanted)? else {
            return Ok(None);
        };
        if !is_too_late(found.state) {
            if found.cancelled_by.is_none() {
                let detail =
                    serde_json::json!({ "deployment": wanted, "state": found.state.as_str() });
                actions::insert(db, actions::Kind::Cancel, Some(&found.app), &detail, &by)?;
            }
            deployments::set_cancelled_by(db, &wanted, &by)?;
        }
        if found.state == State::Queued {
            deployments::end(db, &wanted, Event::Cancel, None)?;
            tracing::info!(app = %found.app, deployment = %wanted, "cancelled");
        }
        deployments::get(db, &wanted)
    });
    let stored = stored.await?;
    if stored
        .as_ref()
        .is_some_and(|it| !is_too_late(it.state) || it.state == State::Cancelled)
    {
        agent.hub.cancel(id);
        agent.hub.changed();
    }
    Ok(stored)
}

/// Whether a deployment can no longer be cancelled.
pub fn is_too_late(state: State) -> bool {
    state.is_switched() || state.is_rest()
}
