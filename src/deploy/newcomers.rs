//! Looks at the deployments that arrive while another one of the app is running. One that has nothing
//! to deploy (a mistyped ref, a branch that does not exist, a commit that asks to be skipped) ends here
//! and changes nothing. Only one whose commit has been found takes the place of those that were waiting,
//! stops the running one if both are pushes, or ends its bake.

use std::convert::Infallible;
use std::time::Duration;

use super::line::{Line, Stop, in_step};
use super::{Agent, Result, steps, undo};
use crate::config::App;
use crate::ids::DeploymentId;
use crate::log_limit::limited;
use crate::source::Commit;
use crate::state::{State, Step};
use crate::store::deployments::{self, Deployment, Goal};

/// How often to check without a wake-up, in case one is missed.
const POLL: Duration = Duration::from_secs(10);
/// How long to wait after a failure of ours before trying again.
const RETRY: Duration = Duration::from_secs(1);

/// Runs `running` to its end, and looks at newcomers meanwhile; `turn` is the deployment that it runs.
/// One that is still being looked at when it ends is the next to run, which looks again.
pub async fn beside<T>(
    agent: &Agent,
    app: &App,
    turn: Option<&DeploymentId>,
    running: impl Future<Output = T>,
) -> T {
    tokio::select! {
        biased;
        done = running => done,
        never = watch(agent, app, turn) => match never {},
    }
}

async fn watch(agent: &Agent, app: &App, turn: Option<&DeploymentId>) -> Infallible {
    let waker = agent.hub.waker(&app.name);
    loop {
        // A wake-up between the check and the wait is not lost.
        let woken = waker.notified();
        let (name, turn) = (app.name.clone(), turn.cloned());
        let newest = move |db: &_| deployments::newest_unfound(db, &name, turn.as_ref());
        let newest = agent.store.read(newest);
        // The configuration as it is now, and not as the running deployment began with it.
        let configured = agent.app(&app.name);
        let looked = match newest.await.map(|newest| newest.zip(configured)) {
            Ok(Some((newcomer, app))) => look(agent, &app, newcomer).await,
            Ok(None) => {
                let _ = tokio::time::timeout(POLL, woken).await;
                continue;
            }
            Err(error) => Err(error),
        };
        if let Err(error) = looked {
            limited!(
                warn,
                "a waiting deployment",
                app = %app.name,
                %error,
                "failed to look at a waiting deployment"
            );
            tokio::time::sleep(RETRY).await;
        }
    }
}

async fn look(agent: &Agent, app: &App, newcomer: Deployment) -> Result<()> {
    let line = Line::enter(agent, app, newcomer.id.clone())?;
    agent.hub.waits(&line.id);
    // A fetch that is no longer waited for must not keep the next one from the mirror.
    let _stop = line.cancel.clone().drop_guard();
    let (goal, git_ref) = (&newcomer.goal, newcomer.git_ref.as_deref());
    let found = steps::fetch::find(&line, goal, git_ref, None).await;
    let stop = match found {
        Ok(commit) => match admit(agent, app, newcomer, &commit).await? {
            None => {
                agent.hub.found(&app.name, &line.id, &commit.id);
                return Ok(());
            }
            Some(stop) => stop,
        },
        Err(Stop::Interrupted(_)) => {
            tokio::time::sleep(RETRY).await;
            return Ok(());
        }
        Err(stop) => in_step(Step::Fetch, stop, &line.log),
    };
    undo::undo(&line, line.told(stop)).await
}

/// Lets a newcomer count. Gives the reason if it has nothing to do after all.
async fn admit(
    agent: &Agent,
    app: &App,
    newcomer: Deployment,
    commit: &Commit,
) -> Result<Option<Stop>> {
    let is_push = matches!(newcomer.goal, Goal::Pushed(_));
    let (id, commit) = (newcomer.id.clone(), commit.id.clone());
    let admitted = agent.store.write(move |db| {
        // It was cancelled meanwhile, or a rollback took its place.
        let waits = deployments::get(db, &newcomer.id)?;
        if waits.is_none_or(|now| now.state != State::Queued) {
            return Ok(Admitted::Ended);
        }
        let running = deployments::running_push(db, &newcomer.app)?.filter(|_| is_push);
        match running {
            Some(running)
                if running.commit.as_ref() == Some(&commit)
                    && running.git_ref == newcomer.git_ref
                    && !(newcomer.no_cache || newcomer.pull) =>
            {
                Ok(Admitted::Double(running.id))
            }
            running => {
                deployments::set_found(db, &newcomer)?;
                Ok(Admitted::Before(running.map(|running| running.id)))
            }
        }
    });
    match admitted.await? {
        Admitted::Ended => return Ok(None),
        Admitted::Double(running) => {
            let why = format!("`{running}` is deploying this commit already");
            return Ok(Some(Stop::superseded("already_deploying", why)));
        }
        Admitted::Before(Some(running)) => supersede(agent, app, &running, &id),
        Admitted::Before(None) => {}
    }
    agent.hub.changed();
    Ok(None)
}

enum Admitted {
    /// It is in a rest state already.
    Ended,
    /// A running deployment deploys the same.
    Double(DeploymentId),
    /// It counts; a push is running.
    Before(Option<DeploymentId>),
}

/// Stops a push for a newer one, unless it has switched. A deployment that a person requested is never
/// stopped this way. The newer one is stored by now: if the agent is killed here, it finds the newer one
/// waiting at the next start, and supersedes the older one.
fn supersede(agent: &Agent, app: &App, older: &DeploymentId, newer: &DeploymentId) {
    // With `paths` the newer one may change nothing that the older one does not: if every push to a
    // busy repository stopped the older one, it would never finish.
    if app.deploy.supersede && app.paths.is_none() {
        agent.hub.supersede(older, newer);
    }
}
