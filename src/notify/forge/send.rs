//! Sends one status to a forge.

use super::answer::Problem;
use super::fact::Fact;
use super::link;
use super::session::Session;
use crate::config::{App, Config};
use crate::store::deployments::{self, Deployment};
use crate::store::statuses::{self, ForgeStatus, StatusKind, StatusPhase};
use crate::store::{Store, StoreError};

/// Sends the commit's status, or that of the forge's own deployment.
pub async fn send(
    session: &Session<'_>,
    store: &Store,
    config: &Config,
    app: &App,
    status: &ForgeStatus,
) -> Result<(), Problem> {
    let id = status.deployment.clone();
    let found = store.read(move |db| deployments::get(db, &id)).await;
    let Some(deployment) = found.map_err(unstored)? else {
        return Err(Problem::Refused("the deployment was deleted".into()));
    };
    let fact = fact(session, config, app, status, &deployment);
    let address = &session.report.address;
    match status.kind {
        StatusKind::Commit => {
            let request = address.forge.status(address, &fact);
            session.ask(&request).await.map(drop)
        }
        StatusKind::Deployment => own_deployment(session, store, status, &fact).await,
    }
}

/// Sets the status of the forge's own deployment, which is created first if there is none.
async fn own_deployment(
    session: &Session<'_>,
    store: &Store,
    status: &ForgeStatus,
    fact: &Fact,
) -> Result<(), Problem> {
    let address = &session.report.address;
    let id = match &status.forge_id {
        Some(id) => id.clone(),
        None => match made(session, store, status, fact).await? {
            Some(made) => made,
            None => return Ok(()),
        },
    };
    match address.forge.progress(address, fact, &id) {
        Some(request) => session.ask(&request).await.map(drop),
        None => Ok(()),
    }
}

/// Creates the forge's own deployment and returns its id. The intent is stored before the request
/// and the id after it: if no response came, the deployment is looked up instead of created twice.
async fn made(
    session: &Session<'_>,
    store: &Store,
    status: &ForgeStatus,
    fact: &Fact,
) -> Result<Option<String>, Problem> {
    let address = &session.report.address;
    let forge = address.forge;
    let keep = async |id: String| {
        let (row, kept) = (status.clone(), id.clone());
        let write = store.write(move |db| statuses::set_forge_id(db, &row, &kept));
        write.await.map_err(unstored)?;
        Ok(Some(id))
    };
    if status.asked
        && let Some(request) = forge.find(address, fact)
        && let Some(id) = forge.found(&session.ask(&request).await?, fact)
    {
        return keep(id).await;
    }
    let Some(request) = forge.deployment(address, fact) else {
        return Ok(None);
    };
    if let Some(look) = forge.environment(address, fact)
        && let Some(correct) = forge.correction(address, fact, &session.ask(&look).await?)
    {
        session.ask(&correct).await?;
    }
    let row = status.clone();
    let write = store.write(move |db| statuses::set_asked(db, &row));
    write.await.map_err(unstored)?;
    let answer = session.ask(&request).await?;
    match forge.made(&answer) {
        Some(id) => keep(id).await,
        None => Err(Problem::Refused(format!(
            "{forge} created a deployment but did not return its id"
        ))),
    }
}

fn unstored(error: StoreError) -> Problem {
    Problem::later(error.to_string())
}

fn fact(
    session: &Session<'_>,
    config: &Config,
    app: &App,
    status: &ForgeStatus,
    deployment: &Deployment,
) -> Fact {
    let named = deployment.git_ref.as_deref();
    let tag = named.and_then(|name| name.strip_prefix("refs/tags/"));
    let branch = named.and_then(|name| name.strip_prefix("refs/heads/"));
    let error = deployment.error.as_ref();
    let step = error.and_then(|error| error.step.clone());
    Fact {
        app: status.app.clone(),
        deployment: status.deployment.clone(),
        commit: status.commit.clone(),
        git_ref: tag.or(branch).unwrap_or(&app.branch).to_owned(),
        is_tag: tag.is_some(),
        phase: status.phase,
        step: step.filter(|_| status.phase == StatusPhase::Failed),
        environment: session.report.environment.clone(),
        environment_url: link::environment(config, app),
        log_url: link::page(config, &status.deployment),
    }
}
