//! One build's connections to the engine, which all end with it.

use std::io;

use bollard::Docker;
use bollard::errors::Error;
use bollard::models::BuildInfo;
use bollard::query_parameters::BuildImageOptions;
use bytes::Bytes;
use futures_util::{Stream, StreamExt, stream};
use tokio::runtime;
use tokio::sync::mpsc;

/// How many status messages may wait for a slow disk.
const MESSAGES: usize = 64;

/// Starts a build; dropping the stream ends it on the engine.
///
/// bollard serves the session (it carries registry credentials to BuildKit) from a detached task, and
/// the engine never closes its end: each build would leak a socket. The build's own runtime takes the
/// task with it when it ends. bollard keeps no idle connections, so none that others use can belong
/// to that runtime.
pub(super) fn build(
    docker: Docker,
    options: BuildImageOptions,
    body: impl Stream<Item = io::Result<Bytes>> + Send + 'static,
) -> io::Result<impl Stream<Item = Result<BuildInfo, Error>>> {
    let runtime = runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let (messages, receiver) = mpsc::channel(MESSAGES);
    std::thread::Builder::new()
        .name("build".into())
        .spawn(move || {
            runtime.block_on(async {
                let body = Some(bollard::body_try_stream(body));
                let mut answer = std::pin::pin!(docker.build_image(options, None, body));
                let pass_on = async {
                    while let Some(message) = answer.next().await {
                        if messages.send(message).await.is_err() {
                            break;
                        }
                    }
                };
                tokio::select! {
                    () = messages.closed() => {}
                    () = pass_on => {}
                }
            });
            runtime.shutdown_background();
        })?;
    Ok(stream::unfold(receiver, |mut receiver| async {
        receiver.recv().await.map(|message| (message, receiver))
    }))
}

/// A new random name by which BuildKit finds a build's session, the connection through which it
/// gets the credentials for registries.
pub(super) fn id() -> String {
    let mut random = [0u8; 16];
    getrandom::fill(&mut random).expect("the operating system provides random bytes");
    format!("cutover-{}", hex::encode(random))
}
