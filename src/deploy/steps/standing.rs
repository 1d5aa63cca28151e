//! What a new deployment is compared with: what is live, as long as it stays so.

use crate::deploy::line::{Line, Stop};
use crate::ids::CommitId;
use crate::state::State;
use crate::store::{apps, deployments, releases};

/// What is live, unless another deployment is about to replace it: then it is not yet known what a newer one
/// has to change.
pub async fn standing(line: &Line<'_>) -> Result<Option<CommitId>, Stop> {
    let (id, app) = (line.id.clone(), line.app.name.clone());
    let read = line.agent.store.read(move |db| {
        let live = match apps::serving(db, &app)?.live {
            Some(live) => releases::get(db, &live)?.map(|release| release.commit),
            None => None,
        };
        let running = deployments::running(db, &app)?;
        let replaces = running.is_some_and(|running| {
            running.id != id && running.state < State::Switching && running.commit != live
        });
        Ok(live.filter(|_| !replaces))
    });
    Ok(read.await?)
}
