//! A program that a person talks to.

use std::pin::Pin;

use bollard::container::LogOutput;
use bollard::exec::{ResizeExecOptions, StartExecOptions, StartExecResults};
use bollard::models::ExecConfig;
use bollard::query_parameters::{
    AttachContainerOptionsBuilder, KillContainerOptionsBuilder, ResizeContainerTTYOptionsBuilder,
};
use futures_util::{Stream, StreamExt};
use rustix::process::{Pid, Signal, kill_process};

use super::{Docker, EngineError, Result, gone_is_done, status_code};
use crate::engine::JobSpec;
use crate::engine::session::{Handle, Piece, Session};
use crate::store::ours::Ours;

/// What nobody types: Docker's own keys to detach would hold back Ctrl-P.
const DETACH: &str = "ctrl-_,ctrl-_,ctrl-_,ctrl-@";

type Output =
    Pin<Box<dyn Stream<Item = std::result::Result<LogOutput, bollard::errors::Error>> + Send>>;

impl Docker {
    pub async fn open_job(&self, spec: &JobSpec<'_>) -> Result<Session> {
        self.make_job(spec).await?;
        let name = &spec.job.name;
        let what = || format!("run `{}`", spec.command);
        let docker = self.client()?;
        let options = AttachContainerOptionsBuilder::new()
            .stream(true)
            .stdin(true)
            .stdout(true)
            .stderr(true)
            .detach_keys(DETACH);
        // Before it is started, so that nothing that it writes is missed.
        let attached = docker.attach_container(name, Some(options.build())).await;
        let attached = attached.map_err(self.failed(what()))?;
        let started = docker.start_container(name, None).await;
        started.map_err(self.failed(what()))?;
        Ok(Session {
            handle: Handle::Job(spec.job.ours()),
            output: self.pieces(attached.output, what()),
            input: attached.input,
        })
    }

    pub async fn open_execution(
        &self,
        ours: &Ours,
        argv: &[String],
        terminal: bool,
    ) -> Result<Session> {
        let what = || format!("run a program in the container `{}`", ours.name);
        let gone = || EngineError::Stopped(format!("`{}` is not there any more", ours.name));
        let id = self.id(ours).await?.ok_or_else(gone)?;
        let docker = self.client()?;
        let config = ExecConfig {
            attach_stdin: Some(true),
            attach_stdout: Some(true),
            attach_stderr: Some(true),
            tty: Some(terminal),
            detach_keys: Some(DETACH.to_owned()),
            cmd: Some(argv.to_vec()),
            ..Default::default()
        };
        let made = docker.create_exec(&id, config).await;
        let made = made.map_err(self.failed(what()))?.id;
        let options = StartExecOptions {
            detach: false,
            tty: terminal,
            output_capacity: None,
        };
        let started = docker.start_exec(&made, Some(options)).await;
        match started.map_err(self.failed(what()))? {
            StartExecResults::Attached { output, input } => Ok(Session {
                handle: Handle::Execution(made),
                output: self.pieces(output, what()),
                input,
            }),
            StartExecResults::Detached => Err(EngineError::Stopped(
                "Docker does not pass the program's output on".into(),
            )),
        }
    }

    fn pieces(
        &self,
        output: Output,
        what: String,
    ) -> futures_util::stream::BoxStream<'static, Result<Piece>> {
        let docker = self.clone();
        let piece = move |piece| match piece {
            Ok(LogOutput::StdErr { message }) => Ok(Piece::Err(message)),
            Ok(
                LogOutput::StdOut { message }
                | LogOutput::Console { message }
                | LogOutput::StdIn { message },
            ) => Ok(Piece::Out(message)),
            Err(error) => Err(docker.failed(what.clone())(error)),
        };
        output.map(piece).boxed()
    }

    pub async fn resize(&self, handle: &Handle, columns: u16, rows: u16) -> Result<()> {
        let docker = self.client()?;
        let resized = match handle {
            Handle::Job(ours) => {
                let size = ResizeContainerTTYOptionsBuilder::new()
                    .w(columns.into())
                    .h(rows.into());
                docker.resize_container_tty(&ours.name, size.build()).await
            }
            Handle::Execution(id) => {
                let size = ResizeExecOptions {
                    width: columns,
                    height: rows,
                };
                docker.resize_exec(id, size).await
            }
        };
        gone_is_done(resized).map_err(self.failed("set the size of a terminal"))
    }

    pub async fn signal(&self, handle: &Handle, signal: &str) -> Result<()> {
        let docker = self.client()?;
        let what = "send a signal to a program";
        let id = match handle {
            Handle::Job(ours) => {
                let Some(id) = self.id(ours).await? else {
                    return Ok(());
                };
                let options = KillContainerOptionsBuilder::new().signal(&format!("SIG{signal}"));
                let sent = docker.kill_container(&id, Some(options.build())).await;
                return match gone_is_done(sent) {
                    // 409: it does not run.
                    Err(error) if status_code(&error) == Some(409) => Ok(()),
                    other => other.map_err(self.failed(what)),
                };
            }
            Handle::Execution(id) => id,
        };
        // Docker has no request for it, but tells the process.
        let found = docker.inspect_exec(id).await.map_err(self.failed(what))?;
        let signal = match signal {
            "INT" => Signal::INT,
            "HUP" => Signal::HUP,
            "QUIT" => Signal::QUIT,
            "TERM" => Signal::TERM,
            _ => Signal::KILL,
        };
        if let (Some(true), Some(pid), Some(container)) =
            (found.running, found.pid, found.container_id)
            && is_in(pid, &container)
            && let Some(pid) = Pid::from_raw(pid as i32)
        {
            // It may have ended this moment.
            let _ = kill_process(pid, signal);
        }
        Ok(())
    }

    pub async fn ended_with(&self, handle: &Handle) -> Result<Option<i64>> {
        match handle {
            Handle::Job(ours) => self.exit_code(ours).await,
            Handle::Execution(id) => {
                let found = self.client()?.inspect_exec(id).await;
                let found = found.map_err(self.failed("ask how a program ended"))?;
                Ok(found.exit_code.filter(|_| found.running != Some(true)))
            }
        }
    }
}

/// Whether a process of this machine is one of the container: the engine may run elsewhere.
fn is_in(pid: i64, container: &str) -> bool {
    let groups = std::fs::read_to_string(format!("/proc/{pid}/cgroup"));
    groups.is_ok_and(|groups| groups.contains(container))
}
