//! A command that runs once in a new image: the app's tests, or its migrations.

use bollard::query_parameters::{
    CreateContainerOptionsBuilder, LogsOptionsBuilder, WaitContainerOptionsBuilder,
};
use futures_util::StreamExt;
use tokio_util::sync::CancellationToken;

use super::{Docker, EngineError, Result, instance, label, status_code};
use crate::engine::Command;
use crate::store::log::Log;

impl Docker {
    /// Runs it to its end with its output in the log, and gives its exit code. Its container is gone
    /// afterwards, also when it was cancelled.
    pub async fn run(
        &self,
        command: &Command<'_>,
        log: &Log,
        cancel: &CancellationToken,
    ) -> Result<i64> {
        // What an earlier attempt left is not taken up: nobody saw how it ended.
        self.remove(&command.name).await?;
        let outcome = tokio::select! {
            outcome = self.run_to_end(command, log) => outcome,
            () = cancel.cancelled() => Err(EngineError::Stopped("it was cancelled".into())),
            () = tokio::time::sleep(command.deadline) => Err(EngineError::Stopped(format!(
                "`{}` ran for longer than {:?}",
                command.line, command.deadline
            ))),
        };
        self.remove(&command.name).await?;
        outcome
    }

    async fn run_to_end(&self, command: &Command<'_>, log: &Log) -> Result<i64> {
        let docker = self.client()?;
        let name = &command.name;
        let labels = [
            (label::APP, command.release.app.as_str()),
            (label::RELEASE, command.release.id.as_str()),
            (label::DEPLOYMENT, command.deployment.as_str()),
        ];
        let mut body = self.body(command.service, &labels, command.network, None);
        body.entrypoint = Some(vec!["/bin/sh".into(), "-c".into()]);
        body.cmd = Some(vec![command.line.to_owned()]);
        let options = CreateContainerOptionsBuilder::new().name(name).build();
        let what = || format!("run `{}`", command.line);
        docker
            .create_container(Some(options), body)
            .await
            .map_err(self.failed(what()))?;
        docker
            .start_container(name, None)
            .await
            .map_err(self.failed(what()))?;

        let follow = LogsOptionsBuilder::new()
            .follow(true)
            .stdout(true)
            .stderr(true)
            .build();
        let mut output = std::pin::pin!(docker.logs(name, Some(follow)));
        while let Some(chunk) = output.next().await {
            log.line(&instance::plain(chunk.map_err(self.failed(what()))?));
        }
        let options = WaitContainerOptionsBuilder::new()
            .condition("not-running")
            .build();
        let mut wait = std::pin::pin!(docker.wait_container(name, Some(options)));
        match wait.next().await {
            Some(Ok(ended)) => Ok(ended.status_code),
            Some(Err(bollard::errors::Error::DockerContainerWaitError { code, .. })) => Ok(code),
            Some(Err(error)) if status_code(&error) == Some(404) => Err(EngineError::Stopped(
                format!("somebody removed the container `{name}`"),
            )),
            Some(Err(error)) => Err(self.failed(what())(error)),
            None => Err(EngineError::Stopped(
                "Docker did not say how it ended".into(),
            )),
        }
    }
}
