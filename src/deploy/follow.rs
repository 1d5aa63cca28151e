//! A deployment's log as it grows, and how it ended.

use std::io::SeekFrom;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncSeekExt};
use tokio::sync::mpsc;

use super::Agent;
use super::ending::{Ending, is_watched};
use crate::ids::DeploymentId;
use crate::state::{State, Step};
use crate::store::deployments::{self, Deployment};
use crate::store::log::CUT_OUT;
use crate::store::{Result, apps, releases, steps};

/// How many pieces may wait for a slow reader before reading from the log waits too.
const QUEUE: usize = 16;
const PIECE: usize = 16 << 10;
/// How long to wait for a change before looking anyway.
const LOOK: Duration = Duration::from_secs(5);

/// How far a log is followed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Until {
    /// Its present end.
    Now,
    /// The switch: from then on requests go to the new release.
    Switch,
    /// The deployment's rest state.
    End,
}

impl Until {
    fn is_reached(self, state: State) -> bool {
        match self {
            Self::Now => true,
            Self::Switch => state.is_rest() || state.is_serving(),
            Self::End => state.is_rest(),
        }
    }
}

/// What a reader of a log gets.
pub enum Piece {
    Log(Vec<u8>),
    /// How the deployment ended, or that it serves. Nothing comes after it.
    End(Box<Ending>),
}

impl Piece {
    fn text(self) -> Vec<u8> {
        match self {
            Self::Log(bytes) => bytes,
            Self::End(ending) => format!("{}\n", ending.line()).into_bytes(),
        }
    }

    /// With the ending in words.
    fn words(self) -> Vec<u8> {
        match self {
            Self::Log(bytes) => bytes,
            Self::End(ending) => format!("{}\n", ending.said_to_pusher()).into_bytes(),
        }
    }
}

/// Sends the log from its beginning, then a last line that says how the deployment ended. Until now,
/// ends with no such line.
pub fn follow(agent: Arc<Agent>, id: DeploymentId, until: Until) -> mpsc::Receiver<Vec<u8>> {
    start(agent, id, 0, until, Piece::text, true)
}

/// The same with the ending in the words of the command line, for people who push. Does not wait for the start
/// of an app that is stopped.
pub fn follow_in_words(
    agent: Arc<Agent>,
    id: DeploymentId,
    until: Until,
) -> mpsc::Receiver<Vec<u8>> {
    start(agent, id, 0, until, Piece::words, false)
}

/// The same in pieces from `offset` on, in bytes.
pub fn pieces(
    agent: Arc<Agent>,
    id: DeploymentId,
    offset: u64,
    until: Until,
) -> mpsc::Receiver<Piece> {
    start(agent, id, offset, until, |piece| piece, true)
}

fn start<T: Send + 'static>(
    agent: Arc<Agent>,
    id: DeploymentId,
    offset: u64,
    until: Until,
    shape: fn(Piece) -> T,
    is_patient: bool,
) -> mpsc::Receiver<T> {
    let (sender, receiver) = mpsc::channel(QUEUE);
    let reader = Reader {
        sender,
        shape,
        is_patient,
    };
    tokio::spawn(async move {
        // `None` means that the reader has gone, or that there is nothing left to read.
        let _ = send(&agent, &id, offset, until, &reader).await;
    });
    receiver
}

/// The reader, and the form in which it wants the pieces.
struct Reader<T> {
    sender: mpsc::Sender<T>,
    shape: fn(Piece) -> T,
    /// Whether it waits until a stopped app is started.
    is_patient: bool,
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
    until: Until,
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
        let read = agent.store.read(move |db| {
            let Some(found) = deployments::get(db, &wanted)? else {
                return Ok(None);
            };
            let is_held = found.state == State::Queued && apps::stopped(db, &found.app)?.is_some();
            Ok(Some((found, is_held)))
        });
        let (deployment, is_held) = read.await.ok()??;
        offset = copy(agent, id, offset, reader).await?;
        // One that has just ended may still have its last lines to say.
        let speaks = until != Until::Now && deployment.state.is_rest() && grown.is_some();
        let gives_up = is_held && !reader.is_patient;
        if (until.is_reached(deployment.state) || gives_up) && !speaks {
            if until != Until::Now {
                let read = agent.store.read(move |db| ending(db, deployment));
                reader.send(Piece::End(Box::new(read.await.ok()?))).await?;
            }
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

/// How a deployment ended, or that it serves.
pub fn ending(db: &rusqlite::Connection, deployment: Deployment) -> Result<Ending> {
    let steps = steps::of(db, &deployment.id)?;
    let switch = steps.iter().find(|it| it.name == Step::Switch.as_str());
    let switched = switch.and_then(|switch| switch.ended_at);
    let release = match &deployment.release {
        Some(id) => releases::get(db, id)?,
        None => None,
    };
    let web = release.as_ref().and_then(|release| release.main());
    let (code, why) = match deployment.error {
        Some(error) => (error.code, error.message),
        None => Default::default(),
    };
    Ok(Ending {
        id: deployment.id.into(),
        app: deployment.app.into(),
        state: deployment.state.to_string(),
        code,
        why,
        image: web.map(|web| web.image.clone()),
        live_after: switched
            .and_then(|at| (at - deployment.created_at).try_into().ok())
            .map(Duration::from_millis),
        watched: switch.is_some_and(|it| it.detail.as_deref().is_some_and(is_watched)),
    })
}
