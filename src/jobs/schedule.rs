//! Runs scheduled commands when their time has come.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;

use crate::deploy::{Agent, cron};
use crate::log_limit::limited;
use crate::store::jobs::Job;
use crate::store::{Result, now};

/// How often the schedules are looked at without a wake-up: the clock may be set.
const LOOK: Duration = Duration::from_secs(20);
/// How long to wait after a schedule could not be recorded, and before a run is stopped once more.
const AGAIN: Duration = Duration::from_secs(1);

pub async fn schedule(agent: Arc<Agent>) {
    let started = now();
    let mut running = JoinSet::new();
    // The containers whose run is attended to.
    let mut names = HashSet::new();
    let mut stopping = JoinSet::new();
    let mut stopped = HashSet::new();
    loop {
        let pause = match pass(&agent, started).await {
            Ok((runs, stops, next)) => {
                for job in runs {
                    if names.insert(job.name.clone()) {
                        let agent = agent.clone();
                        running.spawn(async move {
                            let name = job.name.clone();
                            cron::run(&agent, job).await;
                            name
                        });
                    }
                }
                for job in stops {
                    if stopped.insert(job.name.clone()) {
                        let agent = agent.clone();
                        stopping.spawn(async move {
                            cron::stop(&agent, &job).await;
                            tokio::time::sleep(AGAIN).await;
                            job.name
                        });
                    }
                }
                next
            }
            Err(error) => {
                limited!(warn, "schedules", %error, "the schedules cannot be looked at");
                AGAIN
            }
        };
        tokio::select! {
            Some(ended) = running.join_next() => if let Ok(name) = ended {
                names.remove(&name);
                stopped.remove(&name);
            },
            // Once more if it still runs when the schedules are looked at next.
            Some(ended) = stopping.join_next() => if let Ok(name) = ended {
                stopped.remove(&name);
            },
            () = agent.scheduling.notified() => {}
            () = tokio::time::sleep(pause) => {}
        }
    }
}

type Pass = (Vec<Job>, Vec<Job>, Duration);

/// What is to run, those that an earlier agent began included, what is to be stopped, and how long to
/// wait.
async fn pass(agent: &Agent, started: i64) -> Result<Pass> {
    let due = cron::due(agent, started).await?;
    let open = cron::unfinished(agent).await?;
    let wait = due.next.map(|next| (next - now()).max(0) as u64);
    let wait = wait.map_or(LOOK, Duration::from_millis).min(LOOK);
    Ok((open, due.stop, wait))
}
