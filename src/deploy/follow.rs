//! A deployment's log as it grows, and how it ended.

use std::io::SeekFrom;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncSeekExt};
use tokio::sync::mpsc;

use super::Agent;
use crate::ids::DeploymentId;
use crate::store::deployments::{self, Deployment};

/// Pieces that wait for a slow reader; past that the reading waits.
const QUEUE: usize = 16;
const PIECE: usize = 16 << 10;
/// How long to wait for news before looking anyway.
const LOOK: Duration = Duration::from_secs(5);

/// Sends the log from its beginning, then a last line that says how it ended: `live`, `failed: …` or
/// another rest state. Without `follow`, ends at the log's present end, with no such line.
pub fn follow(agent: Arc<Agent>, id: DeploymentId, follow: bool) -> mpsc::Receiver<Vec<u8>> {
    let (sender, receiver) = mpsc::channel(QUEUE);
    tokio::spawn(async move {
        // An error means that the reader has gone, or that there is nothing to read any more.
        let _ = send(&agent, &id, follow, &sender).await;
    });
    receiver
}

async fn send(
    agent: &Agent,
    id: &DeploymentId,
    follow: bool,
    sender: &mpsc::Sender<Vec<u8>>,
) -> Option<()> {
    let mut changes = agent.hub.changes();
    let mut offset = 0;
    loop {
        changes.mark_unchanged();
        let mut grown = agent.hub.log_length(id);
        if let Some(grown) = &mut grown {
            grown.mark_unchanged();
        }
        // Looked at before reading: what was logged before the end is then read before it is told.
        let wanted = id.clone();
        let deployment = agent
            .store
            .read(move |db| deployments::get(db, &wanted))
            .await
            .ok()??;
        offset = copy(agent, id, offset, sender).await?;
        if deployment.state.is_rest() {
            if follow {
                sender
                    .send(format!("{}\n", ending(&deployment)).into_bytes())
                    .await
                    .ok()?;
            }
            return Some(());
        }
        if !follow {
            return Some(());
        }
        let growth = async {
            match &mut grown {
                Some(grown) => drop(grown.changed().await),
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = growth => {}
            _ = changes.changed() => {}
            () = tokio::time::sleep(LOOK) => {}
            () = sender.closed() => return None,
        }
    }
}

async fn copy(
    agent: &Agent,
    id: &DeploymentId,
    mut offset: u64,
    sender: &mpsc::Sender<Vec<u8>>,
) -> Option<u64> {
    // It has not begun, or is so old that its log is not kept.
    let Ok(mut file) = tokio::fs::File::open(agent.store.log_path(id)).await else {
        return Some(offset);
    };
    file.seek(SeekFrom::Start(offset)).await.ok()?;
    loop {
        let mut piece = vec![0; PIECE];
        let length = file.read(&mut piece).await.ok()?;
        if length == 0 {
            return Some(offset);
        }
        piece.truncate(length);
        offset += length as u64;
        sender.send(piece).await.ok()?;
    }
}

/// The last line of a followed log.
pub fn ending(deployment: &Deployment) -> String {
    match &deployment.error {
        Some(error) => {
            format!(
                "{}: {}",
                deployment.state,
                error.message.replace(['\n', '\r'], " ")
            )
        }
        None => deployment.state.to_string(),
    }
}
