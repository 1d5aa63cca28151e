//! What of an app can be adopted: the release that serves, and its containers.

use std::collections::BTreeMap;

use super::{Found, OrphanError};
use crate::deploy::Agent;
use crate::engine::inventory::{Details, FoundContainer};
use crate::ids::{AppName, ReleaseId, ServiceName};
use crate::proxy::table::{Route, Share, Table};
use crate::store::apps::Serving;
use crate::store::{app_names, apps};

/// The release of an app that serves although the database does not know it.
pub struct Candidate {
    pub release: ReleaseId,
    pub containers: Vec<(FoundContainer, Details)>,
    /// The route by which it serves; `None` if the proxy has none.
    pub route: Option<Route>,
    /// What the database said when this was found.
    pub serving: Serving,
}

/// What serves an app although the database does not know it. The inner error is the reason why there is
/// nothing to adopt.
pub async fn candidate(
    agent: &Agent,
    name: &AppName,
    found: &Found,
) -> Result<Result<Candidate, String>, OrphanError> {
    let of = name.clone();
    let read = agent.store.read(move |db| {
        let removing = app_names::is_being_removed(db, &of)?;
        Ok((apps::serving(db, &of)?, removing))
    });
    let (serving, removing) = read.await?;
    if removing {
        return Ok(Err("it is being removed".to_owned()));
    }
    let route = route(&found.table, name);
    let release = match &route {
        Some((route, share)) if serving.generation < route.generation => {
            match share.release.parse() {
                Ok(release) => Some(release),
                Err(_) => return Ok(Err("the proxy does not know its release".to_owned())),
            }
        }
        None if serving.live.is_none() => None,
        _ => return Ok(Err("what serves is in the database".to_owned())),
    };
    let mut groups: BTreeMap<ReleaseId, Vec<(FoundContainer, Details)>> = BTreeMap::new();
    for container in &found.orphans.containers {
        let is_of_app = container.app.as_ref() == Some(name);
        let (true, Some(id)) = (is_of_app, &container.release) else {
            continue;
        };
        let is_wanted = release.as_ref().is_none_or(|release| release == id);
        if !is_wanted || service_of(container).is_none() {
            continue;
        }
        let Some(details) = agent.engine.details(&container.id).await? else {
            continue;
        };
        // Only what is live is kept running.
        if release.is_some() || (details.running && details.keeps_running) {
            let group = groups.entry(id.clone()).or_default();
            group.push((container.clone(), details));
        }
    }
    let newest = groups.pop_last();
    let (release, containers) = match (release, newest) {
        (Some(release), Some((_, containers))) => (release, containers),
        (Some(release), None) => (release, Vec::new()),
        (None, Some(newest)) => newest,
        (None, None) => return Ok(Err("nothing of it serves".to_owned())),
    };
    Ok(Ok(Candidate {
        release,
        containers,
        route: route.map(|(route, _)| route.clone()),
        serving,
    }))
}

/// The route by which an app serves, and the share that has most of its traffic.
fn route<'a>(table: &'a Table, app: &AppName) -> Option<(&'a Route, &'a Share)> {
    let route = table.routes.iter().find(|it| it.app == app.as_str())?;
    let shares = route.shares.iter().filter(|it| !it.targets.is_empty());
    Some((route, shares.max_by_key(|share| share.weight)?))
}

/// The service that a container is an instance of, by its name. `None` for the container of a job.
pub fn service_of(container: &FoundContainer) -> Option<ServiceName> {
    let (app, deployment) = (container.app.as_ref()?, container.deployment.as_ref()?);
    let prefix = format!("cutover-{app}-{deployment}-");
    let rest = container.name.strip_prefix(&prefix)?;
    let is_index = |text: &str| text.parse::<u32>().is_ok();
    match rest.rsplit_once('-') {
        None if is_index(rest) => Some(ServiceName::web()),
        Some((service, index)) if is_index(index) => service.parse().ok(),
        _ => None,
    }
}
