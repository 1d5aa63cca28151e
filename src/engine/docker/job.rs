//! Runs one job: a container that ends by itself.

use bollard::query_parameters::{
    CreateContainerOptionsBuilder, LogsOptionsBuilder, WaitContainerOptionsBuilder,
};
use futures_util::StreamExt;
use tokio_util::sync::CancellationToken;

use super::output::Tail;
use super::{Docker, EngineError, Result, instance, label, status_code};
use crate::engine::{Exit, JobSpec};
use crate::store::log::Log;

/// How many of its last lines a job's end is told with.
const TAIL: usize = 20;

impl Docker {
    pub async fn run(
        &self,
        spec: &JobSpec<'_>,
        log: &Log,
        cancel: &CancellationToken,
    ) -> Result<Exit> {
        // A container left by an earlier attempt is not reused: nobody saw how it ended.
        self.remove(&spec.job.ours()).await?;
        let outcome = tokio::select! {
            outcome = self.run_to_end(spec, log) => outcome,
            () = cancel.cancelled() => Err(EngineError::Stopped("it was cancelled".into())),
            () = tokio::time::sleep(spec.deadline) => Err(EngineError::Stopped(format!(
                "`{}` did not end within {:?}",
                spec.command, spec.deadline
            ))),
        };
        self.remove(&spec.job.ours()).await?;
        outcome
    }

    async fn run_to_end(&self, spec: &JobSpec<'_>, log: &Log) -> Result<Exit> {
        let docker = self.client()?;
        let network = self.network().await?;
        let job = spec.job;
        let name = &job.name;
        let mut labels = vec![
            (label::APP, job.app.as_str()),
            (label::RELEASE, job.release.as_str()),
        ];
        labels.extend((job.deployment.iter()).map(|id| (label::DEPLOYMENT, id.as_str())));
        labels.extend((job.mark.iter()).map(|mark| (label::MARK, mark.as_str())));
        let mut body = self.body(spec.service, spec.environment, &labels, &network, None);
        body.entrypoint = Some(vec!["/bin/sh".into(), "-c".into()]);
        body.cmd = Some(vec![spec.command.to_owned()]);
        let options = CreateContainerOptionsBuilder::new().name(name).build();
        let what = || format!("run `{}`", spec.command);
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
        let mut tail = Tail::new(TAIL);
        let mut output = std::pin::pin!(docker.logs(name, Some(follow)));
        while let Some(chunk) = output.next().await {
            let chunk = chunk.map_err(self.failed(what()))?;
            tail.output(&chunk);
            log.line(&instance::plain(chunk));
        }
        let exit = |code| Exit {
            code,
            tail: tail.lines(),
        };
        let options = WaitContainerOptionsBuilder::new()
            .condition("not-running")
            .build();
        let mut wait = std::pin::pin!(docker.wait_container(name, Some(options)));
        match wait.next().await {
            Some(Ok(ended)) => Ok(exit(ended.status_code)),
            Some(Err(bollard::errors::Error::DockerContainerWaitError { code, .. })) => {
                Ok(exit(code))
            }
            Some(Err(error)) if status_code(&error) == Some(404) => Err(EngineError::Stopped(
                format!("the container `{name}` was removed"),
            )),
            Some(Err(error)) => Err(self.failed(what())(error)),
            None => Err(EngineError::Stopped(
                "Docker did not report an exit code".into(),
            )),
        }
    }
}
