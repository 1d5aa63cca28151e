//! The task that empties the outbox.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;

use super::forge::answer::Problem;
use super::forge::http::Http;
use super::forge::send;
use super::forge::session::Session;
use super::forge::token::Tokens;
use crate::deploy::Agent;
use crate::ids::AppName;
use crate::store::statuses::{self, ForgeStatus};
use crate::store::{self, StoreError};

/// Requests under way at once, over all apps; of one app there is one.
const AT_ONCE: usize = 8;
/// The first pause after a failure; each further one is twice as long.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(10 * 60);
/// What could not be told for so long is not news any more.
const GIVE_UP: Duration = Duration::from_secs(3 * 24 * 3600);
/// How often it looks without having been woken, should a wake-up ever be missed.
const POLL: Duration = Duration::from_secs(60);

/// Sends for ever. Dropping it is always safe: what was not marked as told is sent again.
pub async fn start(agent: Arc<Agent>) {
    let in_force = agent.in_force();
    let config = &in_force.config;
    let reporting = config.apps.values().filter_map(|app| {
        let report = app.report.as_ref()?;
        let deployments = report.deployments && report.address.forge.has_deployments();
        Some((app.name.clone(), deployments))
    });
    let reporting: Vec<_> = reporting.collect();
    let nobody = reporting.is_empty();
    let set = move |db: &rusqlite::Connection| statuses::set_reporting(db, &reporting);
    if let Err(error) = agent.store.write(set).await {
        tracing::error!(%error, "no forge is told anything until the next start");
        return;
    }
    if nobody {
        return;
    }
    match Http::new() {
        Ok(http) => run(&agent, Arc::new((http, Tokens::default()))).await,
        Err(error) => tracing::error!("no forge is told anything until the next start: {error}"),
    }
}

/// What all requests share.
type Shared = Arc<(Http, Tokens)>;

async fn run(agent: &Arc<Agent>, shared: Shared) {
    let mut changes = agent.hub.changes();
    let mut sending = JoinSet::new();
    let mut busy = HashSet::new();
    // Apps whose forge asked for a pause, until when. Lost in a restart, which asks once too often.
    let mut held: HashMap<AppName, i64> = HashMap::new();
    loop {
        changes.mark_unchanged();
        let mut pause = POLL;
        match agent.store.read(statuses::waiting).await {
            Ok(waiting) => {
                let now = store::now();
                held.retain(|_, until| *until > now);
                for report in waiting {
                    if sending.len() >= AT_ONCE || busy.contains(&report.app) {
                        continue;
                    }
                    let until = held.get(&report.app).copied().unwrap_or_default();
                    let left = report.due_at.max(until) - now;
                    if left <= 0 {
                        busy.insert(report.app.clone());
                        sending.spawn(tell(agent.clone(), shared.clone(), report));
                    } else {
                        pause = pause.min(Duration::from_millis(left as u64));
                    }
                }
            }
            Err(error) => {
                tracing::warn!(%error, "cannot look for what the forges are to be told");
                pause = Duration::from_secs(1);
            }
        }
        tokio::select! {
            _ = changes.changed() => {}
            Some(ended) = sending.join_next() => match ended {
                Ok((app, until)) => {
                    busy.remove(&app);
                    held.extend(until.map(|until| (app, until)));
                }
                Err(error) => {
                    // Which app it was is not known any more; all of them look again.
                    tracing::error!(%error, "telling a forge broke");
                    sending.shutdown().await;
                    busy.clear();
                    tokio::time::sleep(Duration::from_secs(1)).await;
                }
            },
            () = tokio::time::sleep(pause) => {}
        }
    }
}

/// Sends one report and stores what came of it. Gives the app, and until when its forge wants to be
/// left alone.
async fn tell(agent: Arc<Agent>, shared: Shared, report: ForgeStatus) -> (AppName, Option<i64>) {
    let app = report.app.clone();
    let in_force = agent.in_force();
    let config = &in_force.config;
    let of_app = config.apps.get(&app);
    let outcome = match of_app.and_then(|of_app| Some((of_app, of_app.report.as_ref()?))) {
        Some((of_app, told)) => {
            let session = Session {
                http: &shared.0,
                tokens: &shared.1,
                app: &app,
                report: told,
            };
            send(&session, &agent.store, config, of_app, &report).await
        }
        None => Err(Problem::Refused("the app tells no forge any more".into())),
    };
    let until = match &outcome {
        Err(Problem::Later {
            wait: Some(wait), ..
        }) => Some(store::now() + wait.as_millis() as i64),
        _ => None,
    };
    if let Err(error) = record(&agent, report, outcome).await {
        // Not marked as told, so it is sent again.
        tracing::warn!(%app, %error, "cannot store what a forge was told");
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    (app, until)
}

async fn record(
    agent: &Agent,
    report: ForgeStatus,
    outcome: Result<(), Problem>,
) -> Result<(), StoreError> {
    let now = store::now();
    let (app, deployment) = (report.app.clone(), report.deployment.clone());
    let outcome = match outcome {
        Err(Problem::Later { why, .. }) if now - report.since > GIVE_UP.as_millis() as i64 => Err(
            Problem::Refused(format!("given up after three days: {why}")),
        ),
        other => other,
    };
    match outcome {
        Ok(()) => {
            let write = agent.store.write(move |db| statuses::set_told(db, &report));
            write.await
        }
        Err(Problem::Refused(why)) => {
            // The same refusal of the next phase is no news.
            if report.error.as_ref() != Some(&why) {
                tracing::warn!(%app, %deployment, kind = %report.kind, "the forge was not told: {why}");
            }
            let write = move |db: &_| statuses::set_refused(db, &report, &why);
            agent.store.write(write).await
        }
        Err(Problem::Later { wait, why }) => {
            if report.attempts == 0 {
                tracing::info!(%app, %deployment, kind = %report.kind, "the forge is told later: {why}");
            }
            let pause = wait.map_or_else(|| backoff(report.attempts), |wait| wait.max(FIRST_PAUSE));
            let due_at = now + pause.as_millis() as i64;
            let write = move |db: &_| statuses::set_later(db, &report, due_at, &why);
            agent.store.write(write).await
        }
    }
}

/// Twice as long each time, less a random part of up to a half, so that many apps do not come back
/// to a forge at one moment.
fn backoff(attempts: u32) -> Duration {
    let whole = FIRST_PAUSE.saturating_mul(1 << attempts.min(20));
    let whole = whole.min(LONGEST_PAUSE);
    let mut random = [0u8; 2];
    // Without randomness it is merely less spread out.
    let _ = getrandom::fill(&mut random);
    let share = f64::from(u16::from_le_bytes(random)) / f64::from(u16::MAX);
    whole.mul_f64(0.5 + share / 2.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_and_stay_within_bounds() {
        for attempts in 0..40 {
            let whole = FIRST_PAUSE.as_millis() << attempts.min(20);
            let whole = whole.min(LONGEST_PAUSE.as_millis());
            let pause = backoff(attempts).as_millis();
            assert!(
                (whole / 2 - 1..=whole).contains(&pause),
                "{attempts}: {pause}"
            );
        }
    }
}
