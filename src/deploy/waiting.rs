//! What a deployment waits for, as its own log says it: another deployment in front, Docker.

use std::time::Duration;

use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::Agent;
use crate::ids::{AppName, DeploymentId};
use crate::store::deployments;
use crate::store::log::Log;

/// How often it is looked which deployment waits: a newer one may have taken its place.
const LOOK: Duration = Duration::from_millis(200);

/// Which deployment waits.
pub(super) enum Waiting<'a> {
    This(&'a DeploymentId),
    /// The app's next one, whichever that is by then.
    NextOf(&'a AppName),
}

impl Agent {
    /// Waits until Docker answers; logs once that it does not.
    pub async fn wait_for_engine(&self) {
        let mut pause = Duration::from_millis(100);
        let mut said = false;
        while let Err(error) = self.engine.ping().await {
            self.tend.engine_is_away();
            if !said {
                tracing::warn!(%error, "Docker is not reachable; deployments wait");
                said = true;
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(Duration::from_secs(2));
        }
        self.tend.engine_is_back();
        if said {
            tracing::info!("Docker is reachable again");
        }
    }

    /// The same; the deployment that waits says so in its log.
    pub(super) async fn wait_for_engine_with(&self, waiting: Waiting<'_>) {
        let mut told = None;
        let tell = async {
            loop {
                tokio::time::sleep(LOOK).await;
                let Some(since) = self.tend.engine_away_since() else {
                    continue;
                };
                let id = match waiting {
                    Waiting::This(id) => Some(id.clone()),
                    Waiting::NextOf(app) => self.next_of(app).await,
                };
                if let Some(id) = id.filter(|id| told.as_ref() != Some(id)) {
                    let since = clock(since);
                    let what = format!("waiting for Docker, which has not answered since {since}");
                    self.say(&id, &what);
                    told = Some(id);
                }
            }
        };
        tokio::select! {
            () = self.wait_for_engine() => {}
            () = tell => {}
        }
        if let Some(id) = &told {
            self.say(id, "Docker answers again");
        }
    }

    async fn next_of(&self, app: &AppName) -> Option<DeploymentId> {
        let app = app.clone();
        let read = move |db: &_| deployments::next_in_queue(db, &app);
        let next = self.store.read(read).await.ok()?;
        next.map(|next| next.id)
    }

    /// Adds a line to the log of a deployment that need not be running.
    pub(super) fn say(&self, id: &DeploymentId, what: &str) {
        let log = self
            .hub
            .log(id)
            .map_or_else(|| Log::open(&self.store.log_path(id)), Ok);
        match log {
            Ok(log) => log.line(what),
            Err(error) => tracing::warn!(deployment = %id, %error, "cannot write to its log"),
        }
        self.hub.changed();
    }

    /// Says which deployment of the app a new one waits for.
    pub(super) fn say_what_is_in_front(&self, app: &AppName, waiting: &DeploymentId) {
        if let Some(front) = self.hub.running_of(app).filter(|front| front != waiting) {
            let what = format!("waiting for deployment `{front}` to finish");
            self.say(waiting, &what);
        }
    }
}

fn clock(ms: i64) -> String {
    OffsetDateTime::from_unix_timestamp(ms / 1000)
        .ok()
        .and_then(|at| at.format(&Rfc3339).ok())
        .unwrap_or_default()
}
