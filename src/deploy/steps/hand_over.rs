//! Start the processes that must not run beside those of the old release: these have to end first. Part
//! of the drain, after the switch: what fails here is rolled back.

use std::time::Duration;

use tokio::time::Instant;

use crate::deploy::Result;
use crate::deploy::line::{Line, Stop, in_step};
use crate::deploy::steps::alone::{self, Old};
use crate::deploy::steps::{probe, start};
use crate::state::Step;
use crate::store::deployments::Failure;
use crate::store::releases::Release;

/// How long the old ones may take, in addition to their grace.
const PATIENCE: Duration = Duration::from_secs(10 * 60);
/// How long to wait for a change before looking anyway.
const LOOK: Duration = Duration::from_secs(1);

/// Returns when they run and are healthy, or why they do not. Can be repeated.
pub async fn hand_over(
    line: &Line<'_>,
    release: &Release,
) -> Result<std::result::Result<(), Failure>> {
    if release.services.iter().all(|it| it.settings.overlap) {
        return Ok(Ok(()));
    }
    if let Some(failure) = until_old_ones_ended(line, release).await? {
        return Ok(Err(failure));
    }
    loop {
        match start_late(line, release).await {
            Ok(()) => return Ok(Ok(())),
            Err(Stop::Failed(failure)) => return Ok(Err(failure)),
            Err(stop) => {
                tracing::warn!(deployment = %line.id, ?stop, "interrupted; starting again")
            }
        }
        line.agent.wait_for_engine().await;
        tokio::time::sleep(LOOK).await;
    }
}

async fn until_old_ones_ended(line: &Line<'_>, release: &Release) -> Result<Option<Failure>> {
    let (begun, mut grace) = (Instant::now(), Duration::ZERO);
    let mut changes = line.agent.hub.changes();
    let mut said = false;
    loop {
        let of = release.clone();
        let waits = line
            .agent
            .store
            .read(move |db| alone::waits(db, &of))
            .await?;
        let Some(Old { name, .. }) = waits.values().next() else {
            return Ok(None);
        };
        // All of them began to stop before this; one that has ended counts as well.
        grace = waits.values().map(|it| it.grace).fold(grace, Duration::max);
        if begun.elapsed() > grace + PATIENCE {
            let what = format!("an earlier instance of the process `{name}` does not end");
            return Ok(Some(Failure::new("old_process_runs", what)));
        }
        if !said {
            said = true;
            line.log
                .line(&format!("[drain] waiting for the end of the old `{name}`"));
        }
        tokio::select! {
            _ = changes.changed() => {}
            () = tokio::time::sleep(LOOK) => {}
        }
    }
}

async fn start_late(line: &Line<'_>, release: &Release) -> std::result::Result<(), Stop> {
    let started = start::late(line, release).await;
    let started = started.map_err(|stop| in_step(Step::Start, stop, &line.log))?;
    if started.is_empty() {
        return Ok(());
    }
    let probed = probe::probe(line, release, &started).await;
    probed.map_err(|stop| in_step(Step::Probe, stop, &line.log))?;
    for instance in &started {
        line.agent
            .engine
            .keep_running(&instance.ours(), true)
            .await?;
    }
    line.log.line("[drain] the new processes took over");
    line.agent.tend.switched.notify_one();
    Ok(())
}
