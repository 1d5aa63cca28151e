//! Wait for the old release's requests; it is not stopped before they end.

use crate::deploy::Result;
use crate::deploy::checkpoint::Checkpoint;
use crate::deploy::line::{Done, Line};
use crate::deploy::words::counted;
use crate::state::Step;
use crate::store::releases::Release;
use crate::store::{apps, deployments, instances};

/// From here on the old release's processes, which take no requests, are stopped.
pub async fn begin(line: &Line<'_>, release: &Release) -> Result<()> {
    let (app, live) = (line.app.name.clone(), release.id.clone());
    let retire = move |db: &_| instances::retire_processes(db, &app, &live);
    if line.begin(Step::Drain, retire).await? > 0 {
        line.agent.retiring.notify_one();
    }
    Ok(())
}

pub async fn drain(line: &Line<'_>) -> Result<()> {
    let app = line.app.name.clone();
    let serving = line
        .agent
        .store
        .read(move |db| apps::serving(db, &app))
        .await?;
    let limit = line.app.deploy.drain;
    let receipt = line
        .insist("drain the old version", || {
            let name = line.app.name.as_str();
            line.agent
                .proxy
                .drain(name, serving.generation, limit, limit)
        })
        .await;
    if let Some(was) = &line.app.was {
        // Requests that began before the app was renamed.
        line.insist("drain the old version", || {
            let proxy = &line.agent.proxy;
            proxy.drain(was.as_str(), serving.generation, limit, limit)
        })
        .await;
    }
    Checkpoint::Effected(Step::Drain).reach();
    let detail = format!(
        "{} served, {} failed, {} drained in {} ms",
        counted(receipt.requests, "request"),
        receipt.failed,
        receipt.drained,
        receipt.drain_ms
    );
    line.log.line(&format!("[drain] {detail}"));
    let id = line.id.clone();
    let done = Done::new((), detail);
    line.note(
        Step::Drain,
        done.recording(move |db| {
            // A drain repeated after a crash finds no requests left; the first receipt is the
            // accurate one.
            match deployments::get(db, &id)?.and_then(|deployment| deployment.receipt) {
                Some(_) => Ok(()),
                None => deployments::set_receipt(db, &id, &receipt),
            }
        }),
    );
    Ok(())
}
