//! The SSH agents that `RUN --mount=type=ssh` reaches: each connection of a step becomes one to the
//! agent's socket on this machine.

use std::collections::BTreeMap;
use std::path::PathBuf;

use bollard::moby::sshforward::v1::ssh_server::Ssh;
use bollard::moby::sshforward::v1::{BytesMessage, CheckAgentRequest, CheckAgentResponse};
use futures_util::StreamExt;
use futures_util::stream::{self, BoxStream};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tonic::{Request, Response, Status, Streaming};

/// What BuildKit calls the one that a mount without an id asks for.
const DEFAULT: &str = "default";
const ID: &str = "buildkit.ssh.id";
/// Of one message, in bytes.
const CHUNK: usize = 32 << 10;

/// The sockets by id.
pub(super) struct Agents(pub(super) BTreeMap<String, PathBuf>);

impl Agents {
    fn socket(&self, id: &str) -> Result<&PathBuf, Status> {
        let id = if id.is_empty() { DEFAULT } else { id };
        let unknown = || Status::not_found(format!("unset ssh forward key {id}"));
        self.0.get(id).ok_or_else(unknown)
    }
}

#[tonic::async_trait]
impl Ssh for Agents {
    type ForwardAgentStream = BoxStream<'static, Result<BytesMessage, Status>>;

    async fn check_agent(
        &self,
        request: Request<CheckAgentRequest>,
    ) -> Result<Response<CheckAgentResponse>, Status> {
        // The step goes on without it, unless it says `required`.
        self.socket(&request.get_ref().id)?;
        Ok(Response::new(CheckAgentResponse {}))
    }

    async fn forward_agent(
        &self,
        request: Request<Streaming<BytesMessage>>,
    ) -> Result<Response<Self::ForwardAgentStream>, Status> {
        let id = request.metadata().get(ID).and_then(|id| id.to_str().ok());
        let socket = self.socket(id.unwrap_or_default())?;
        let agent = UnixStream::connect(socket).await.map_err(|error| {
            Status::unavailable(format!("no ssh agent at `{}`: {error}", socket.display()))
        })?;
        let (read, mut write) = agent.into_split();
        let mut sent = request.into_inner();
        tokio::spawn(async move {
            while let Some(Ok(message)) = sent.next().await {
                if write.write_all(&message.data).await.is_err() {
                    break;
                }
            }
        });
        let answers = stream::try_unfold(read, |mut read| async move {
            let mut data = vec![0; CHUNK];
            match read.read(&mut data).await? {
                0 => Ok(None),
                length => {
                    data.truncate(length);
                    Ok(Some((BytesMessage { data }, read)))
                }
            }
        });
        Ok(Response::new(answers.boxed()))
    }
}
