//! Telling a forge one thing.

use super::answer::Problem;
use super::session::Session;
use super::{Fact, Kind, Phase, link};
use crate::config::{App, Config};
use crate::store::deployments::{self, Deployment};
use crate::store::reports::Report;
use crate::store::{Store, StoreError};

/// Sends what is true now as `report` says it.
pub async fn send(
    session: &Session<'_>,
    store: &Store,
    config: &Config,
    app: &App,
    report: &Report,
) -> Result<(), Problem> {
    let id = report.deployment.clone();
    let found = store.read(move |db| deployments::get(db, &id)).await;
    let Some(deployment) = found.map_err(unstored)? else {
        return Err(Problem::Refused("the deployment is gone".into()));
    };
    let fact = fact(session, config, app, report, &deployment);
    let address = &session.report.address;
    match report.kind {
        Kind::Status => session.ask(&address.forge.status(address, &fact)).await?,
        Kind::Deployment => return Ok(()),
    };
    Ok(())
}

fn unstored(error: StoreError) -> Problem {
    Problem::later(error.to_string())
}

fn fact(
    session: &Session<'_>,
    config: &Config,
    app: &App,
    report: &Report,
    deployment: &Deployment,
) -> Fact {
    let named = deployment.git_ref.as_deref();
    let tag = named.and_then(|name| name.strip_prefix("refs/tags/"));
    let branch = named.and_then(|name| name.strip_prefix("refs/heads/"));
    let step = deployment
        .error
        .as_ref()
        .and_then(|error| error.step.clone());
    Fact {
        app: report.app.clone(),
        deployment: report.deployment.clone(),
        commit: report.commit.clone(),
        git_ref: tag.or(branch).unwrap_or(&app.branch).to_owned(),
        is_tag: tag.is_some(),
        phase: report.phase,
        step: step.filter(|_| report.phase == Phase::Failed),
        environment: session.report.environment.clone(),
        environment_url: link::environment(config, app),
        log_url: link::log(config, &report.deployment),
    }
}
