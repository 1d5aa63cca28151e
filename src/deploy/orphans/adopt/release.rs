//! A release as its containers show it.

use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;

use super::candidate::{Candidate, service_of};
use crate::config::{App, Command, Process, Protocol};
use crate::deploy::Agent;
use crate::deploy::{services, settings, steps::fetch};
use crate::engine::inventory::{Details, FoundContainer, FoundImage, ImageTag};
use crate::engine::{Endpoint, EngineError, InstanceSpec};
use crate::ids::{CommitId, DeploymentId, ServiceName};
use crate::source::Revision;
use crate::store::instances::Instance;
use crate::store::releases::Release;
use crate::store::services::Service;
use crate::store::settings::Value;

/// How long the commit may be looked for in the repository.
const LOOK: Duration = Duration::from_secs(30);

/// The release of these containers; the error says why it cannot be recorded.
pub async fn of(
    agent: &Agent,
    app: &App,
    candidate: &Candidate,
    images: &[FoundImage],
) -> Result<Release, String> {
    let containers = &candidate.containers;
    let Some((first, _)) = containers.first() else {
        return Err("no container of it was found".to_owned());
    };
    let deployments = containers
        .iter()
        .filter_map(|(it, _)| it.deployment.clone());
    let Some(deployment) = deployments.min() else {
        return Err(format!(
            "`{}` does not say which deployment made it",
            first.name
        ));
    };
    let (commit, message, author) = commit(agent, app, first, images).await?;
    let created_at = containers.iter().map(|(it, _)| it.created_at).min();
    let created_at = created_at.unwrap_or_default();
    let image = format!("cutover/{}:{}", app.name, commit.short());
    Ok(Release {
        id: candidate.release.clone(),
        app: app.name.clone(),
        deployment,
        commit,
        message,
        author,
        provenance: None,
        services: services(app, candidate, &image),
        created_at,
        went_live: Some(created_at),
        removed_at: None,
    })
}

/// The commit, and its message and author if the repository still has it.
async fn commit(
    agent: &Agent,
    app: &App,
    container: &FoundContainer,
    images: &[FoundImage],
) -> Result<(CommitId, String, String), String> {
    let image = images.iter().find(|it| it.id == container.image_id);
    let tags = image.into_iter().flat_map(|it| &it.names);
    let short = tags.filter_map(|name| match &name.tag {
        ImageTag::Commit(short) => Some(short.clone()),
        ImageTag::Deployment(_) => None,
    });
    let short = short.min();
    let revision = match (&container.commit, &short) {
        (Some(id), _) => Revision::Commit(id.clone()),
        (None, Some(short)) => Revision::Named(short.clone()),
        (None, None) => {
            let name = &container.name;
            return Err(format!(
                "neither `{name}` nor its image says which commit it is"
            ));
        }
    };
    let mirror = fetch::mirror_of(agent, app);
    let look = tokio::task::spawn_blocking(move || {
        let deadline = Instant::now() + LOOK;
        mirror.fetch(&revision, &|_| {}, &CancellationToken::new(), deadline)
    });
    match (look.await, container.commit.clone()) {
        (Ok(Ok(found)), _) => Ok((found.id, found.message, found.author)),
        (_, Some(id)) => Ok((id, String::new(), String::new())),
        (Ok(Err(error)), None) => {
            let short = short.unwrap_or_default();
            Err(format!("its commit `{short}` cannot be found: {error}"))
        }
        (Err(_), None) => Err("the search for its commit failed".to_owned()),
    }
}

fn services(app: &App, candidate: &Candidate, image: &str) -> Vec<Service> {
    let mut services: Vec<Service> = Vec::new();
    for (container, details) in &candidate.containers {
        let Some(name) = service_of(container) else {
            continue;
        };
        match services.iter_mut().find(|it| it.name == name) {
            Some(service) => service.replicas += 1,
            None => services.push(service(app, candidate, container, details, name, image)),
        }
    }
    services.sort_by(|a, b| a.name.cmp(&b.name));
    services
}

/// The container shows what it was made with; only how its health is probed is known to deploy.toml
/// alone.
fn service(
    app: &App,
    candidate: &Candidate,
    container: &FoundContainer,
    details: &Details,
    name: ServiceName,
    image: &str,
) -> Service {
    let mut service = services::web(app, image.to_owned(), container.image_id.clone());
    let route = candidate.route.as_ref();
    let targets = route.iter().flat_map(|route| &route.shares);
    let targets = targets.flat_map(|share| &share.targets);
    let mut own = targets.filter(|target| container.addresses.contains(&target.ip()));
    let told = details.env.get("PORT").and_then(|port| port.parse().ok());
    let port = own.next().map(|target| target.port()).or(told).or(app.port);
    let processes = app.processes.as_ref();
    // Without processes in deploy.toml, the repository's Procfile named it.
    let command = details.command.clone().map(Command::Program);
    if name == ServiceName::web() {
        service.settings.command = match processes {
            Some(processes) => processes.web.clone(),
            None => command,
        };
    } else if let Some(process) = processes.and_then(|it| it.others.get(&name)) {
        service.settings = settings::of_process(app, process);
    } else if let Some(command) = command {
        service.settings = settings::of_process(app, &Process::of(command));
    }
    let settings = &mut service.settings;
    // No more than deploy.toml has in the open: some of what a container was told is secret.
    for (name, value) in &mut settings.env {
        if let (Value::Text(text), Some(own)) = (value, details.env.get(name)) {
            *text = own.clone();
        }
    }
    settings.memory = details.memory;
    settings.cpus = details.cpus;
    settings.stop_grace = details.stop_grace;
    if let Some(route) = route {
        service.protocol = match route.policy.h2c {
            true => Protocol::H2c,
            false => Protocol::Http1,
        };
    }
    service.replicas = 1;
    service.port = port.filter(|_| name == ServiceName::web());
    service.name = name;
    service
}

/// The row of a container, which is connected to the agent's network if it is not on it: an agent whose
/// id was lost has a network of another name.
pub async fn instance(
    agent: &Agent,
    release: &Release,
    container: &FoundContainer,
    details: &Details,
    recorded: &[Endpoint],
) -> Result<Instance, EngineError> {
    let name = service_of(container).unwrap_or_else(ServiceName::web);
    let service = release.service(&name);
    let service = service.ok_or_else(|| {
        EngineError::Stopped(format!(
            "the release `{}` has no service `{name}`",
            release.id
        ))
    })?;
    let deployment = container.deployment.clone();
    let mut instance = Instance {
        name: container.name.clone(),
        app: release.app.clone(),
        release: release.id.clone(),
        service: name,
        deployment: deployment.unwrap_or_else(|| DeploymentId::clone(&release.deployment)),
        endpoint: None,
        mark: container.mark.clone(),
        engine: agent.tend.engine_id(),
    };
    let Some(port) = service.port else {
        return Ok(instance);
    };
    instance.endpoint = match details.address {
        Some(address) => Some(Endpoint::new(address, port)),
        None => {
            let spec = InstanceSpec {
                instance: &instance,
                service,
                commit: &release.commit,
                volumes: &[],
                recorded,
                environment: &Err("it is only connected to its network".to_owned()),
            };
            agent.engine.rejoin(&spec).await?
        }
    };
    Ok(instance)
}
