//! Rows for tests.

use std::time::Duration;

use super::deployments::{self, Goal, NewDeployment, Trigger};
use super::releases::{self, Release};
use super::services::Service;
use super::settings::{Health, Settings};
use super::{Result, now};
use crate::config::Protocol;
use crate::ids::{ReleaseId, ServiceName};
use crate::principal::Requester;

/// A deployment of the app `hello` that is to be queued.
pub fn asked(trigger: Trigger, goal: Goal) -> NewDeployment {
    NewDeployment {
        app: "hello".parse().expect("an app name"),
        trigger,
        goal,
        git_ref: None,
        commit: None,
        message: None,
        author: None,
        no_cache: false,
        pull: false,
        requested_by: Requester::Agent,
    }
}

/// A queued deployment of the app `hello`, and its release with `replicas` instances of `web`.
pub fn release(db: &rusqlite::Connection, replicas: u32) -> Result<Release> {
    let new = asked(Trigger::Cli, Goal::Branch);
    let deployment = deployments::enqueue(db, &new)?;
    let service = Service {
        name: ServiceName::web(),
        image: "cutover/hello:aaaaaaaaaaaa".into(),
        image_id: "sha256:1".into(),
        image_digest: None,
        settings: Settings {
            command: None,
            overlap: true,
            env: Default::default(),
            kept: Default::default(),
            env_file: None,
            secrets: Default::default(),
            secret_files: Default::default(),
            memory: None,
            cpus: None,
            stop_grace: Duration::from_secs(1),
            capabilities: vec![],
            volumes: Vec::new(),
            links: Vec::new(),
            container: Default::default(),
            health: Health {
                path: "/".into(),
                host: None,
                headers: Default::default(),
                interval: Duration::from_millis(50),
                timeout: Duration::from_secs(1),
                successes: 1,
                deadline: Duration::from_secs(5),
                check: Default::default(),
            },
        },
        replicas,
        port: Some(8080),
        protocol: Protocol::Http1,
    };
    let release = Release {
        id: ReleaseId::new(),
        app: new.app,
        deployment: deployment.id,
        commit: "a".repeat(40).parse().expect("a commit id"),
        message: "First".into(),
        author: "Ada".into(),
        provenance: None,
        services: vec![service],
        created_at: now(),
        went_live: None,
        removed_at: None,
    };
    releases::insert(db, &release)?;
    Ok(release)
}
