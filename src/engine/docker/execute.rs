//! Runs a program in a container that runs.

use std::time::Duration;

use bollard::exec::StartExecResults;
use bollard::models::ExecConfig;
use futures_util::StreamExt;

use super::output::Tail;
use super::{Docker, EngineError, Result};
use crate::engine::Exit;
use crate::store::ours::Ours;

/// How many of its last lines are told.
const TAIL: usize = 5;

impl Docker {
    pub async fn execute(
        &self,
        ours: &Ours,
        argv: &[String],
        limit: Duration,
    ) -> Result<Option<Exit>> {
        let run = self.execute_to_end(ours, argv);
        tokio::time::timeout(limit, run).await.ok().transpose()
    }

    async fn execute_to_end(&self, ours: &Ours, argv: &[String]) -> Result<Exit> {
        let what = || format!("run a program in the container `{}`", ours.name);
        let gone = || EngineError::Stopped(format!("`{}` is not there any more", ours.name));
        let id = self.id(ours).await?.ok_or_else(gone)?;
        let docker = self.client()?;
        let config = ExecConfig {
            attach_stdout: Some(true),
            attach_stderr: Some(true),
            cmd: Some(argv.to_vec()),
            ..Default::default()
        };
        let made = docker.create_exec(&id, config).await;
        let made = made.map_err(self.failed(what()))?.id;
        let started = docker.start_exec(&made, None).await;
        let mut tail = Tail::new(TAIL);
        if let StartExecResults::Attached { mut output, .. } =
            started.map_err(self.failed(what()))?
        {
            while let Some(piece) = output.next().await {
                tail.output(&piece.map_err(self.failed(what()))?);
            }
        }
        let ended = docker.inspect_exec(&made).await;
        let code = ended.map_err(self.failed(what()))?.exit_code;
        Ok(Exit {
            code: code.unwrap_or(-1),
            tail: tail.lines(),
        })
    }
}
