//! What a new release of an app runs: the services that deploy.toml or the repository's Procfile names.

use std::collections::BTreeMap;

use super::line::{Line, Stop};
use super::settings;
use super::steps::fetch;
use crate::build::{self, BuildError};
use crate::config::{App, Command, Process, Processes, procfile};
use crate::ids::ServiceName;
use crate::source::Commit;
use crate::store::services::Service;
use crate::store::{scales, variables};

/// What an app's commit is to run.
pub struct Wanted {
    processes: Processes,
    /// The Procfile's command that runs before a release.
    pub release: Option<Command>,
    /// How many instances a person asked for.
    asked: BTreeMap<ServiceName, u32>,
    /// The variables that Cutover keeps.
    kept: BTreeMap<String, String>,
}

/// Reads it from deploy.toml or, where that names no processes, from the commit's Procfile.
pub async fn wanted(line: &Line<'_>, commit: &Commit) -> Result<Wanted, Stop> {
    let app = line.app;
    let name = app.name.clone();
    let read = move |db: &_| Ok((scales::of_app(db, &name)?, variables::values(db, &name)?));
    let (asked, kept) = line.agent.store.read(read).await?;
    if let Some(processes) = app.processes.clone() {
        return Ok(Wanted {
            processes,
            release: None,
            asked,
            kept,
        });
    }
    let (processes, release) = match app.procfile {
        true => of_procfile(line, commit).await?,
        false => Default::default(),
    };
    Ok(Wanted {
        processes,
        release,
        asked,
        kept,
    })
}

async fn of_procfile(
    line: &Line<'_>,
    commit: &Commit,
) -> Result<(Processes, Option<Command>), Stop> {
    let (mirror, commit) = (fetch::mirror(line), commit.clone());
    let context = line.app.build.context.clone();
    let read =
        tokio::task::spawn_blocking(move || build::procfile(&mirror, &commit, &context)).await;
    let text = match read {
        Ok(Ok(Some(text))) => text,
        // The build says what is wrong with the folder.
        Ok(Ok(None) | Err(BuildError::NoContext(_) | BuildError::Outside(_))) => {
            return Ok(Default::default());
        }
        Ok(Err(error)) => {
            return Err(Stop::failed(
                error.code(),
                format!("{error}; {}", error.hint()),
            ));
        }
        Err(error) => return Err(Stop::failed("procfile", error.to_string())),
    };
    let found = procfile::parse(&text).map_err(|why| {
        let what = format!(
            "{why}; correct it and push again, or set `procfile = false` for an app that does not use it"
        );
        Stop::failed("procfile", what)
    })?;
    let names: Vec<_> = (found.web.iter().map(|_| "web"))
        .chain(found.others.keys().map(ServiceName::as_str))
        .collect();
    line.log
        .line(&format!("[build] the Procfile names {}", names.join(", ")));
    let others = found.others.into_iter();
    let processes = Processes {
        web: found.web,
        others: others.map(|(name, it)| (name, Process::of(it))).collect(),
    };
    Ok((processes, found.release))
}

/// The services, ordered by name. `from`: the image in a registry that theirs is made from or was pushed to, if any.
pub fn services(
    app: &App,
    wanted: &Wanted,
    image: &str,
    image_id: &str,
    from: Option<&str>,
) -> Vec<Service> {
    let replicas = |name: &ServiceName, file| wanted.asked.get(name).copied().unwrap_or(file);
    let web = app.port.map(|_| {
        let mut web = web(app, image.to_owned(), image_id.to_owned());
        web.settings.command = wanted.processes.web.clone();
        web.replicas = replicas(&web.name, web.replicas);
        web
    });
    let others = wanted.processes.others.iter();
    let others = others.map(|(name, process)| Service {
        name: name.clone(),
        image: image.to_owned(),
        image_id: image_id.to_owned(),
        image_digest: None,
        settings: settings::of_process(app, process),
        replicas: replicas(name, process.replicas),
        port: None,
        protocol: app.protocol,
    });
    let mut all: Vec<_> = web.into_iter().chain(others).collect();
    for service in &mut all {
        service.settings.kept = wanted.kept.clone();
        service.image_digest = from.map(str::to_owned);
    }
    all.sort_by(|a, b| a.name.cmp(&b.name));
    all
}

/// The service that takes the requests.
pub fn web(app: &App, image: String, image_id: String) -> Service {
    Service {
        name: ServiceName::web(),
        image,
        image_id,
        image_digest: None,
        settings: settings::of(app),
        replicas: app.run.replicas,
        port: app.port,
        protocol: app.protocol,
    }
}

/// How many instances of a service deploy.toml asks for; 1 of one that only a Procfile names.
pub fn configured(app: &App, service: &ServiceName) -> u32 {
    if *service == ServiceName::web() {
        return app.run.replicas;
    }
    let named = app.processes.as_ref();
    let named = named.and_then(|it| it.others.get(service));
    named.map_or(1, |process| process.replicas)
}
