//! What the demo and the tests run on: a folder with a bare repository of the sample app, a deploy.toml
//! and the agent's data, and a real agent that uses it.

use std::fs;
use std::path::{Path, PathBuf};

use bollard::Docker;
use serde_json::Value;

use super::agent::{Agent, Start};
use super::http::Answer;
use super::repository::Repository;
use super::sample::File;
use super::{cleanup, forge};
use crate::cli::Error;
use crate::cli::client::Client;
use crate::cli::setup::DEFAULT_HOST;
use crate::proxy::control;

/// The name of the app.
pub const APP: &str = "hello";

/// The folder and its contents.
pub struct Stage {
    pub folder: PathBuf,
    /// deploy.toml.
    pub config: PathBuf,
    pub data_dir: PathBuf,
    /// The bare repository's folder.
    pub repo: PathBuf,
    /// The webhook's secret.
    pub secret: String,
    /// The log of agent and proxy.
    pub log: PathBuf,
    repository: Repository,
}

impl Stage {
    /// Sets up a stage in `folder`, which must be empty. `settings` are the sections of deploy.toml
    /// after `[apps.hello]` with its `repo`, and may begin with more keys of that section.
    pub fn set(folder: &Path, listen: &str, http: &str, settings: &str) -> Result<Self, Error> {
        let failed = |what: &str, error: &(dyn std::error::Error + 'static)| {
            Error::failed(format!("{what} in `{}`", folder.display())).because(error)
        };
        let folder =
            fs::canonicalize(folder).map_err(|e| failed("failed to create the demo", &e))?;
        let repo = folder.join("hello.git");
        let repository =
            Repository::init(&repo).map_err(|e| failed("failed to create a repository", &e))?;
        let mut secret = [0u8; 16];
        getrandom::fill(&mut secret).map_err(|e| failed("failed to generate a secret", &e))?;
        let stage = Self {
            config: folder.join("deploy.toml"),
            data_dir: folder.join("data"),
            log: folder.join("cutover.log"),
            secret: hex::encode(secret),
            repo,
            repository,
            folder: folder.clone(),
        };
        let text = stage.configuration(listen, http, settings);
        fs::write(folder.join("hello.secret"), &stage.secret)
            .and_then(|()| close_to_others(&folder.join("hello.secret")))
            .and_then(|()| fs::write(&stage.config, text))
            .map_err(|e| failed("failed to write the configuration", &e))?;
        Ok(stage)
    }

    fn configuration(&self, listen: &str, http: &str, settings: &str) -> String {
        format!(
            "[agent]\nlisten = \"{listen}\"\ndata_dir = {data_dir:?}\n\n\
             [proxy]\nhttp = \"{http}\"\n\n\
             [docker]\nhost = \"{DEFAULT_HOST}\"\n\n\
             [apps.{APP}]\nrepo = {repo:?}\nport = 8080\n{settings}\n\
             [apps.{APP}.webhook]\nsecrets = [{{ file = \"hello.secret\" }}]\n",
            data_dir = self.data_dir,
            repo = self.repo,
        )
    }

    /// Starts the agent, which starts the proxy, and waits until both answer.
    pub async fn serve(&self, program: &Path, env: &[(&str, &str)]) -> Result<Agent, Error> {
        let start = Start {
            program,
            config: &self.config,
            data_dir: &self.data_dir,
            log: &self.log,
            env,
        };
        Agent::start(start).await
    }

    /// Commits these files to `branch`. Returns the old tip and the new one.
    pub fn commit(
        &self,
        branch: &str,
        files: &[File],
        message: &str,
    ) -> Result<(String, String), Error> {
        let made = self.repository.commit(branch, files, message);
        made.map_err(|error| Error::failed("failed to create the commit").because(&error))
    }

    /// Commits to `main` and notifies the agent as a forge does. Returns the deployment's id.
    pub async fn push(
        &self,
        agent: &Agent,
        files: &[File],
        message: &str,
    ) -> Result<String, Error> {
        let (old, new) = self.commit("main", files, message)?;
        let payload = forge::payload("refs/heads/main", &old, &new, message);
        let answer = self.deliver(agent, "push", &payload).await?;
        match answer.json()["deployment"].as_str() {
            Some(id) if answer.status == 202 => Ok(id.to_owned()),
            _ => Err(Error::failed(format!(
                "the push was rejected: {} {}",
                answer.status,
                answer.text()
            ))),
        }
    }

    /// Sends a signed delivery for the app.
    pub async fn deliver(
        &self,
        agent: &Agent,
        event: &str,
        payload: &Value,
    ) -> Result<Answer, Error> {
        forge::deliver(agent.address, APP, &self.secret, event, payload).await
    }

    /// A client for the agent's API over its Unix socket.
    pub fn client(&self) -> Client {
        Client::local(&self.data_dir)
    }

    /// Stops a proxy that was left running, and removes from Docker what the agent created there. The
    /// agent must have exited. The folder is kept.
    pub async fn clear(&self) -> Result<(), Error> {
        // After a graceful stop there is no proxy any more.
        let _ = control::Client::new(self.data_dir.join(control::SOCKET))
            .stop()
            .await;
        let docker = Docker::connect_with_host(DEFAULT_HOST)
            .map_err(|error| Error::usage("Docker does not answer").because(&error))?;
        cleanup::remove_all_of(&docker, &self.data_dir)
            .await
            .map_err(|error| Error::failed("failed to remove everything").because(&error))
    }
}

fn close_to_others(path: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(path, fs::Permissions::from_mode(0o600))
}
