//! A deployment that went live although the database says that it is on its way: a copy that was made
//! meanwhile was brought back. What serves is not undone.

use crate::deploy::steps::start;
use crate::deploy::{Agent, Result, routes};
use crate::engine::{Endpoint, Look};
use crate::state::{Event, State, Step};
use crate::store::deployments::{self, Deployment, Goal};
use crate::store::{StoreError, apps, instances, releases, steps};

/// Whether the proxy serves the release of a deployment that has made instances but has not switched.
pub async fn has(agent: &Agent, deployment: &Deployment) -> Result<bool> {
    let has_instances = matches!(deployment.state, State::Starting | State::Probing);
    let (true, Some(release)) = (has_instances, deployment.release.clone()) else {
        return Ok(false);
    };
    let table = routes::routed(agent).await;
    let of_app = table.routes.iter();
    // A route's generation is in the database before the proxy gets it.
    let app = deployment.app.clone();
    let serving = agent.store.read(move |db| apps::serving(db, &app)).await?;
    let of_app = of_app.filter(|route| {
        route.app == deployment.app.as_str() && serving.generation < route.generation
    });
    let mut shares = of_app.flat_map(|route| &route.shares);
    let serves = shares.any(|it| it.release == release.as_str() && !it.targets.is_empty());
    let of_release = agent
        .store
        .read(move |db| instances::of_release(db, &release));
    Ok(serves && !of_release.await?.is_empty())
}

/// Records the switch.
pub async fn record(agent: &Agent, deployment: &Deployment) -> Result<Deployment> {
    let (id, app) = (deployment.id.clone(), deployment.app.clone());
    tracing::warn!(%app, deployment = %id,
        "the proxy serves its release already: the database is an old copy, made before the switch");
    agent.wait_for_engine().await;
    let generation = routes::routed(agent).await.generation;
    let of = deployment.release.clone();
    let (release, made) = agent
        .store
        .read(move |db| {
            let release = of.map(|id| releases::get(db, &id)).transpose()?.flatten();
            let made = match &release {
                Some(release) => instances::of_release(db, &release.id)?,
                None => Vec::new(),
            };
            Ok((release, made))
        })
        .await?;
    let missing = || StoreError::Refused(format!("`{id}` serves but has no release"));
    let mut release = release.ok_or_else(missing)?;
    let mut endpoints = Vec::new();
    for instance in made {
        let look = agent.engine.look(&instance.ours()).await;
        let port = release.service(&instance.service).and_then(|it| it.port);
        if let (
            Ok(Look {
                address: Some(ip), ..
            }),
            Some(port),
        ) = (look, port)
        {
            endpoints.push((instance.name, Endpoint::new(ip, port)));
        }
    }
    let starting = deployment.state == State::Starting;
    let goes_live = deployment.clone();
    let write = agent.store.write(move |db| {
        for (name, endpoint) in &endpoints {
            instances::set_endpoint(db, name, Some(*endpoint))?;
        }
        if starting {
            steps::done(db, &id, Step::Start, "it runs")?;
            deployments::apply(db, &id, Event::Begin(Step::Probe))?;
            steps::started(db, &id, Step::Probe)?;
        }
        steps::done(db, &id, Step::Probe, "it serves")?;
        deployments::apply(db, &id, Event::Begin(Step::Switch))?;
        steps::started(db, &id, Step::Switch)?;
        if let Goal::Release(_) = goes_live.goal {
            start::keep_scale(db, &goes_live, &mut release)?;
            releases::set_replicas(db, &release)?;
        }
        releases::set_went_live(db, &release.id)?;
        // Above every table that the proxy has had.
        apps::next_generation(db, generation)?;
        apps::set_live(db, &app, &release.id)?;
        let now = deployments::get(db, &id)?;
        now.ok_or_else(|| StoreError::Refused(format!("`{id}` is gone")))
    });
    write.await
}
