//! A program that a person talks to: in a container of its own, or in one that runs.

use std::pin::Pin;

use bytes::Bytes;
use futures_util::stream::BoxStream;
use tokio::io::AsyncWrite;

use super::{Engine, JobSpec, Result};
use crate::store::ours::Ours;

/// Which program.
#[derive(Debug, Clone)]
pub enum Handle {
    /// What its container runs.
    Job(Ours),
    /// By the engine's id, in a container that runs something else.
    Execution(String),
}

/// What it writes, by stream.
pub enum Piece {
    Out(Bytes),
    Err(Bytes),
}

/// A program that has been started.
pub struct Session {
    pub handle: Handle,
    /// Ends with the program.
    pub output: BoxStream<'static, Result<Piece>>,
    pub input: Pin<Box<dyn AsyncWrite + Send>>,
}

impl Engine {
    /// Makes a job's container and starts it. It is left when it ends.
    pub async fn open_job(&self, job: &JobSpec<'_>) -> Result<Session> {
        match self {
            Engine::Docker(docker) => docker.open_job(job).await,
        }
    }

    /// Starts a program in a running instance.
    pub async fn open_execution(
        &self,
        ours: &Ours,
        argv: &[String],
        terminal: bool,
    ) -> Result<Session> {
        match self {
            Engine::Docker(docker) => docker.open_execution(ours, argv, terminal).await,
        }
    }

    /// Tells a program's terminal its size.
    pub async fn resize(&self, handle: &Handle, columns: u16, rows: u16) -> Result<()> {
        match self {
            Engine::Docker(docker) => docker.resize(handle, columns, rows).await,
        }
    }

    /// Sends a signal, such as `INT`, to a program, if it runs.
    pub async fn signal(&self, handle: &Handle, signal: &str) -> Result<()> {
        match self {
            Engine::Docker(docker) => docker.signal(handle, signal).await,
        }
    }

    /// How a program ended; `None` if it runs, or is not known any more.
    pub async fn ended_with(&self, handle: &Handle) -> Result<Option<i64>> {
        match self {
            Engine::Docker(docker) => docker.ended_with(handle).await,
        }
    }
}
