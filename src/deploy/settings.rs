//! The settings that a release of an app gets, from deploy.toml as it is in force.

use crate::config::{self, App, Process, Secret};
use crate::store::settings::{
    Container, Gpus, Health, LogDriver, Place, Settings, Value, Volume, VolumeSource,
};

/// Of a process: where it has none of its own, those of the app.
pub fn of_process(app: &App, process: &Process) -> Settings {
    let of_app = of(app);
    Settings {
        command: Some(process.command.clone()),
        overlap: process.overlap,
        memory: process.memory.or(of_app.memory),
        cpus: process.cpus.or(of_app.cpus),
        stop_grace: process.stop_grace.unwrap_or(of_app.stop_grace),
        health: health(&process.health),
        ..of_app
    }
}

pub fn of(app: &App) -> Settings {
    let run = &app.run;
    let (env, secrets) = (run.env.iter(), run.secrets.iter());
    Settings {
        command: None,
        overlap: true,
        env: env.map(|(name, it)| (name.clone(), value(it))).collect(),
        kept: Default::default(),
        env_file: run.env_file.clone(),
        secrets: secrets
            .map(|(name, it)| (name.clone(), it.as_ref().map(place)))
            .collect(),
        secret_files: run.secret_files.clone(),
        memory: run.memory,
        cpus: run.cpus,
        stop_grace: run.stop_grace,
        capabilities: run.capabilities.clone(),
        volumes: run.volumes.iter().map(volume).collect(),
        links: run.links.clone(),
        container: container(&run.container),
        health: health(&app.health),
    }
}

fn health(health: &config::Health) -> Health {
    Health {
        path: health.path.clone(),
        host: health.host.clone(),
        headers: health.headers.clone(),
        interval: health.interval,
        timeout: health.timeout,
        successes: health.successes,
        deadline: health.deadline,
        check: health.check.clone(),
    }
}

pub fn value(value: &config::Value) -> Value {
    match value {
        config::Value::Text(text) => Value::Text(text.clone()),
        config::Value::From(secret) => Value::From(place(secret)),
    }
}

fn place(secret: &Secret) -> Place {
    match secret {
        Secret::Env(name) => Place::Env(name.clone()),
        Secret::File(path) => Place::File(path.clone()),
    }
}

fn volume(volume: &config::Volume) -> Volume {
    Volume {
        source: match &volume.source {
            config::VolumeSource::Named(name) => VolumeSource::Named(name.clone()),
            config::VolumeSource::Host(path) => VolumeSource::Host(path.clone()),
        },
        target: volume.target.clone(),
        read_only: volume.read_only,
    }
}

fn container(container: &config::Container) -> Container {
    // Every field by name: a new key must not be forgotten here.
    let config::Container {
        tmpfs,
        user,
        read_only,
        init,
        stop_signal,
        ulimits,
        shm_size,
        extra_hosts,
        dns,
        labels,
        devices,
        gpus,
        networks,
        privileged,
        host_network,
        host_pid,
        log,
    } = container.clone();
    Container {
        tmpfs,
        user,
        read_only,
        init,
        stop_signal,
        ulimits,
        shm_size,
        extra_hosts,
        dns,
        labels,
        devices: devices.into_iter().map(|it| (it.host, it.target)).collect(),
        gpus: gpus.map(|gpus| match gpus {
            config::Gpus::All => Gpus::All,
            config::Gpus::Count(count) => Gpus::Count(count),
            config::Gpus::Named(names) => Gpus::Named(names),
        }),
        networks,
        privileged,
        host_network,
        host_pid,
        log: log.map(|log| LogDriver {
            driver: log.driver,
            options: log.options,
        }),
    }
}
