//! Starting one instance of a release.

use crate::deploy::Agent;
use crate::deploy::environment::{self, Purpose};
use crate::deploy::line::Stop;
use crate::engine::{Endpoint, InstanceSpec, Status};
use crate::store::instances::Instance;
use crate::store::releases::Release;
use crate::store::services::Service;

pub(super) enum Started {
    Before,
    Now(Option<Endpoint>),
}

/// Starts an instance, unless it runs.
pub(super) async fn start_one(
    agent: &Agent,
    release: &Release,
    instance: &Instance,
    recorded: &[Endpoint],
) -> Result<Started, Stop> {
    let engine = &agent.engine;
    let service = service_of(release, instance)?;
    let reachable = service.port.is_none() || instance.endpoint.is_some();
    if reachable && engine.status(&instance.ours()).await? == Status::Running {
        return Ok(Started::Before);
    }
    let name = &instance.name;
    let environment = environment::of(agent, release, service, name, Purpose::App).await?;
    let spec = InstanceSpec {
        instance,
        service,
        commit: &release.commit,
        volumes: &[],
        recorded,
        environment: &Ok(environment),
    };
    Ok(Started::Now(engine.start(&spec).await?))
}

/// The service that `instance` runs. Missing from its release only if the database was damaged.
pub(super) fn service_of<'a>(
    release: &'a Release,
    instance: &Instance,
) -> Result<&'a Service, Stop> {
    release.service(&instance.service).ok_or_else(|| {
        let what = format!(
            "the release `{}` has no service `{}`",
            release.id, instance.service
        );
        Stop::failed("no_service", what)
    })
}
