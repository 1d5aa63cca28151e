//! Runs jobs: containers that end by themselves.

use bollard::models::ContainerStateStatusEnum;
use bollard::query_parameters::{
    CreateContainerOptionsBuilder, LogsOptionsBuilder, WaitContainerOptionsBuilder,
};
use futures_util::StreamExt;
use tokio_util::sync::CancellationToken;

use super::output::{self, Tail};
use super::{Docker, EngineError, Result, label, status_code};
use crate::engine::{Ended, Exit, JobSpec};
use crate::join::{Join, Line};
use crate::store::log::Log;
use crate::store::ours::Ours;

/// How many of its last lines a job's end is told with.
const TAIL: usize = 20;
/// How much of a very long line is logged, in bytes.
const LONGEST: usize = 16 << 10;

impl Docker {
    pub async fn run(
        &self,
        spec: &JobSpec<'_>,
        log: &Log,
        cancel: &CancellationToken,
    ) -> Result<Ended> {
        let ours = spec.job.ours();
        // A container left by an earlier attempt is not reused: nobody saw how it ended.
        self.remove(&ours).await?;
        let run = async {
            self.make_job(spec).await?;
            let gone = || {
                let what = format!("the container `{}` was removed", ours.name);
                EngineError::Stopped(what)
            };
            let exit = self.attend(&ours, log).await?.ok_or_else(gone)?;
            let collected = match spec.collect {
                Some(path) => self.collect(&ours.name, path).await?,
                None => Ok(Vec::new()),
            };
            Ok(Ended { exit, collected })
        };
        let outcome = tokio::select! {
            outcome = run => outcome,
            () = cancel.cancelled() => Err(EngineError::Stopped("it was cancelled".into())),
            () = tokio::time::sleep(spec.deadline) => Err(EngineError::Stopped(format!(
                "`{}` did not end within {:?}",
                spec.command, spec.deadline
            ))),
        };
        self.remove(&ours).await?;
        outcome
    }

    pub async fn make_job(&self, spec: &JobSpec<'_>) -> Result<()> {
        let docker = self.client()?;
        let job = spec.job;
        let network = match spec.apart {
            true => self.test_network(&job.app).await?,
            false => self.network(&job.app).await?,
        };
        let name = &job.name;
        let mut labels = vec![
            (label::APP, job.app.as_str()),
            (label::RELEASE, job.release.as_str()),
        ];
        labels.extend((job.deployment.iter()).map(|id| (label::DEPLOYMENT, id.as_str())));
        labels.extend((job.mark.iter()).map(|mark| (label::MARK, mark.as_str())));
        let mut body = self.body(spec.service, spec.environment, &labels, &network, None);
        body.entrypoint = Some(spec.command.argv());
        if let Some(terminal) = spec.terminal {
            body.tty = Some(terminal);
            body.open_stdin = Some(true);
            body.stdin_once = Some(true);
            body.attach_stdin = Some(true);
        }
        let options = CreateContainerOptionsBuilder::new().name(name).build();
        match docker.create_container(Some(options), body).await {
            Ok(_) => {}
            Err(error)
                if status_code(&error) == Some(409) && self.find(&job.ours()).await?.is_some() => {}
            Err(error) => return Err(self.failed(format!("run `{}`", spec.command))(error)),
        }
        self.join(name, &spec.service.settings.container.networks)
            .await
    }

    pub async fn attend(&self, ours: &Ours, log: &Log) -> Result<Option<Exit>> {
        let name = &ours.name;
        let what = || format!("run the container `{name}`");
        let Some(found) = self.find(ours).await? else {
            return Ok(None);
        };
        let docker = self.client()?;
        let state = found.state.and_then(|it| it.status);
        if state == Some(ContainerStateStatusEnum::CREATED) {
            let started = docker.start_container(name, None).await;
            started.map_err(self.failed(what()))?;
        }
        let follow = LogsOptionsBuilder::new()
            .follow(true)
            .stdout(true)
            .stderr(true)
            .build();
        let mut tail = Tail::new(TAIL);
        let mut open = [Join::default(), Join::default()];
        let mut pieces = std::pin::pin!(docker.logs(name, Some(follow)));
        while let Some(chunk) = pieces.next().await {
            let chunk = chunk.map_err(self.failed(what()))?;
            tail.output(&chunk);
            for line in open[output::stream(&chunk)].take(chunk.as_ref(), LONGEST) {
                log.line(&text(&line));
            }
        }
        for line in open.iter_mut().filter_map(Join::rest) {
            log.line(&text(&line));
        }
        let code = self.exit_code(ours).await?;
        Ok(code.map(|code| Exit {
            code,
            tail: tail.lines(),
        }))
    }

    /// Waits for a container's end; `None` if it does not exist.
    pub(super) async fn exit_code(&self, ours: &Ours) -> Result<Option<i64>> {
        let what = || format!("wait for the container `{}`", ours.name);
        let options = WaitContainerOptionsBuilder::new()
            .condition("not-running")
            .build();
        let docker = self.client()?;
        let mut wait = std::pin::pin!(docker.wait_container(&ours.name, Some(options)));
        match wait.next().await {
            Some(Ok(ended)) => Ok(Some(ended.status_code)),
            Some(Err(bollard::errors::Error::DockerContainerWaitError { code, .. })) => {
                Ok(Some(code))
            }
            Some(Err(error)) if status_code(&error) == Some(404) => Ok(None),
            Some(Err(error)) => Err(self.failed(what())(error)),
            None => Err(EngineError::Stopped(
                "Docker did not report an exit code".into(),
            )),
        }
    }
}

fn text(line: &Line) -> String {
    String::from_utf8_lossy(&line.head).trim_end().to_owned() + &line.note()
}
