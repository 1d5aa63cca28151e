//! A deployment's log as it grows, and how it ended.

use std::io::SeekFrom;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncSeekExt};
use tokio::sync::mpsc;

use super::Agent;
use crate::ids::DeploymentId;
use crate::store::deployments::{self, Deployment};
use crate::store::log::CUT_OUT;

/// How many pieces may wait for a slow reader before reading from the log waits too.
const QUEUE: usize = 16;
const PIECE: usize = 16 << 10;
/// How long to wait for a change before looking anyway.
const LOOK: Duration = Duration::from_secs(5);

/// What a reader of a log gets.
pub enum Piece {
    Log(Vec<u8>),
    /// How the deployment ended: `live`, `failed: …` or another rest state. Nothing comes after it.
    End(String),
}

impl Piece {
    fn text(self) -> Vec<u8> {
        match self {
            Self::Log(bytes) => bytes,
            Self::End(state) => format!("{state}\n").into_bytes(),
        }
    }
}

/// Sends the log from its beginning, then a last line that says how the deployment ended. Without
/// `follow`, ends at the log's present end, with no such line.
pub fn follow(agent: Arc<Agent>, id: DeploymentId, follow: bool) -> mpsc::Receiver<Vec<u8>> {
    start(agent, id, 0, follow, Piece::text)
}

/// The same from `offset` on, in bytes.
pub fn pieces(
    agent: Arc<Agent>,
    id: DeploymentId,
    offset: u64,
    follow: bool,
) -> mpsc::Receiver<Piece> {
    start(agent, id, offset, follow, |piece| piece)
}

fn start<T: Send + 'static>(
    agent: Arc<Agent>,
    id: DeploymentId,
    offset: u64,
    follow: bool,
    shape: fn(Piece) -> T,
) -> mpsc::Receiver<T> {
    let (sender, receiver) = mpsc::channel(QUEUE);
    let reader = Reader { sender, shape };
    tokio::spawn(async move {
        // `None` means that the reader has gone, or that there is nothing left to read.
        let _ = send(&agent, &id, offset, follow, &reader).await;
    });
    receiver
}

/// The reader, and the form in which it wants the pieces.
struct Reader<T> {
    sender: mpsc::Sender<T>,
    shape: fn(Piece) -> T,
}

impl<T> Reader<T> {
    async fn send(&self, piece: Piece) -> Option<()> {
        self.sender.send((self.shape)(piece)).await.ok()
    }
}

async fn send<T>(
    agent: &Agent,
    id: &DeploymentId,
    mut offset: u64,
    follow: bool,
    reader: &Reader<T>,
) -> Option<()> {
    let mut changes = agent.hub.changes();
    loop {
        changes.mark_unchanged();
        let mut grown = agent.hub.log_length(id);
        if let Some(grown) = &mut grown {
            grown.mark_unchanged();
        }
        // Checked before reading, so that everything logged before the end is sent before the ending.
        let wanted = id.clone();
        let deployment = agent
            .store
            .read(move |db| deployments::get(db, &wanted))
            .await
            .ok()??;
        offset = copy(agent, id, offset, reader).await?;
        if deployment.state.is_rest() {
            if follow {
                reader.send(Piece::End(ending(&deployment))).await?;
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
            () = reader.sender.closed() => return None,
        }
    }
}

async fn copy<T>(
    agent: &Agent,
    id: &DeploymentId,
    mut offset: u64,
    reader: &Reader<T>,
) -> Option<u64> {
    // The deployment has not begun, or is so old that its log was removed.
    let Ok(mut file) = tokio::fs::File::open(agent.store.log_path(id)).await else {
        return Some(offset);
    };
    let length = file.metadata().await.ok()?.len();
    // A log that exceeds its limit is cut: what was read last is now at a smaller offset.
    while offset > length {
        offset = offset.saturating_sub(CUT_OUT);
    }
    file.seek(SeekFrom::Start(offset)).await.ok()?;
    loop {
        let mut piece = vec![0; PIECE];
        let length = file.read(&mut piece).await.ok()?;
        if length == 0 {
            return Some(offset);
        }
        piece.truncate(length);
        offset += length as u64;
        reader.send(Piece::Log(piece)).await?;
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
