//! The watch after the switch: the old release is still warm, and errors of the new one roll it
//! back. What its traffic says is compared with the old release's; whatever the traffic, an instance
//! that ends or fails three probes in a row is proof enough.

use std::time::{Duration, Instant};

use futures_util::StreamExt;

use super::Result;
use super::checkpoint::Checkpoint;
use super::line::{Done, Line};
use super::words;
use crate::engine::{Look, Run};
use crate::proxy::control::{RouteStats, Tally};
use crate::state::{State, Step};
use crate::store::deployments::{self, Failure};
use crate::store::instances::{self, Instance};
use crate::store::releases::Release;
use crate::store::steps;

mod compare;
mod probes;

use compare::Count;

/// How often the release is checked.
const LOOK: Duration = Duration::from_millis(500);
/// How long the engine may take to say what became of an instance: the way back does not wait for it.
const ANSWER: Duration = Duration::from_secs(1);
/// How long the engine may take to notice that a process has ended.
const NOTICE: Duration = Duration::from_millis(100);

pub enum Verdict {
    Good,
    Bad(Box<Proof>),
}

/// Why a release is rolled back.
pub struct Proof {
    /// Without the last lines of a log: who goes back does not wait for them.
    pub failure: Failure,
    /// When that became known.
    pub at: Instant,
    /// The instance that it concerns, if it is one alone.
    pub instance: Option<Instance>,
}

impl Proof {
    /// What is known already, with the last lines.
    pub fn of(failure: Failure) -> Self {
        Self {
            failure,
            at: Instant::now(),
            instance: None,
        }
    }

    fn new(at: Instant, instance: Option<Instance>, code: &str, message: String) -> Self {
        let failure = Failure {
            step: Some(Step::Bake.to_string()),
            ..Failure::new(code, message)
        };
        Self {
            failure,
            at,
            instance,
        }
    }
}

/// How long the release is watched; `None` if it is not.
pub fn time(line: &Line<'_>, release: &Release) -> Option<Duration> {
    // A release that was live before was watched then, and what it replaces is not better.
    let is_rollback = release.deployment != line.id;
    Some(line.app.deploy.bake).filter(|time| !time.is_zero() && !is_rollback)
}

/// Watches for the configured time. Ends early, and successfully, when another deployment is waiting.
pub async fn bake(line: &Line<'_>, release: &Release, reached: State) -> Result<Verdict> {
    let Some(time) = time(line, release) else {
        return Ok(Verdict::Good);
    };
    let begun = match reached {
        State::Baking => began(line).await?,
        _ => {
            line.begin(Step::Bake, |_| Ok(())).await?;
            crate::store::now()
        }
    };
    let verdict = tokio::select! {
        verdict = watch(line, release, begun + time.as_millis() as i64) => verdict?,
        why = probes::fail_in_a_row(line, release) => Err(unhealthy(line, release, why?).await),
    };
    Checkpoint::Effected(Step::Bake).reach();
    let detail = match &verdict {
        Ok(detail) => detail.clone(),
        Err(proof) => proof.failure.message.clone(),
    };
    line.log.line(&format!("[bake] {detail}"));
    line.note(Step::Bake, Done::new((), detail));
    Ok(verdict.map_or_else(|proof| Verdict::Bad(Box::new(proof)), |_| Verdict::Good))
}

async fn began(line: &Line<'_>) -> Result<i64> {
    let id = line.id.clone();
    let records = line.agent.store.read(move |db| steps::of(db, &id)).await?;
    let bake = records
        .into_iter()
        .find(|record| record.name == Step::Bake.as_str());
    Ok(bake.map_or_else(crate::store::now, |record| record.started_at))
}

/// An instance that has ended fails its probes too.
async fn unhealthy(line: &Line<'_>, release: &Release, why: String) -> Proof {
    let at = Instant::now();
    let mut dead = died(line, release).await;
    if dead.is_none() {
        // Probes may notice it before the engine does.
        tokio::time::sleep(NOTICE).await;
        dead = died(line, release).await;
    }
    match dead {
        Some((instance, message)) => Proof::new(at, Some(instance), "crashed_in_bake", message),
        None => Proof::new(at, None, "unhealthy_in_bake", why),
    }
}

/// What the old release's requests came to before the switch; `None` if there was none, or the proxy
/// is of a version that does not tell.
async fn old_tally(line: &Line<'_>, release: &Release) -> Option<Tally> {
    let was = line.app.was.iter().map(|was| was.as_str());
    for app in [line.app.name.as_str()].into_iter().chain(was) {
        let tallies = line.agent.proxy.tallies(app).await.ok()?;
        let mut others = tallies.into_iter().filter(|it| is_older(it, release));
        if let Some(newest) = others.next() {
            return Some(newest);
        }
    }
    None
}

/// A route that has no release yet has a share without a name.
fn is_older(tally: &Tally, release: &Release) -> bool {
    !tally.release.is_empty() && tally.release != release.id.as_str()
}

/// What the new release's requests came to so far, and why they are reason to roll it back, if so.
async fn judge(
    line: &Line<'_>,
    release: &Release,
    old: Option<&Tally>,
) -> Option<(Count, Option<String>)> {
    let proxy = &line.agent.proxy;
    if let Some(old) = old {
        let tallies = proxy.tallies(line.app.name.as_str()).await.ok()?;
        let new = tallies
            .iter()
            .find(|it| it.release == release.id.as_str())?;
        return Some((Count::from(new), compare::worse(new, old)));
    }
    let all = of_release(&proxy.stats().await.ok()?, release.id.as_str())?;
    let count = Count::from(&all);
    Some((count, compare::too_many(count)))
}

async fn watch(
    line: &Line<'_>,
    release: &Release,
    until: i64,
) -> Result<std::result::Result<String, Proof>> {
    let agent = line.agent;
    let mut changes = agent.hub.changes();
    let mut events = agent.engine.events().ok();
    let old = old_tally(line, release).await;
    let mut seen = Count::default();
    let mut woken = Instant::now();
    while crate::store::now() < until {
        let app = line.app.name.clone();
        let next = agent
            .store
            .read(move |db| deployments::next_waiting(db, &app))
            .await?;
        if let Some(next) = next {
            return Ok(Ok(format!("ended early: `{}` is waiting", next.id)));
        }
        if let Some((instance, message)) = died(line, release).await {
            let proof = Proof::new(woken, Some(instance), "crashed_in_bake", message);
            return Ok(Err(proof));
        }
        if let Some((count, why)) = judge(line, release, old.as_ref()).await {
            seen = count;
            if let Some(message) = why {
                return Ok(Err(Proof::new(woken, None, "errors_in_bake", message)));
            }
        }
        let event = async {
            match &mut events {
                Some(stream) => stream.next().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            _ = changes.changed() => {}
            // It has ended, or something else has happened to it.
            event = event => if event.is_none() {
                events = None;
            },
            () = tokio::time::sleep(LOOK) => {}
        }
        woken = Instant::now();
    }
    Ok(Ok(compare::good(seen, old.as_ref().map(Count::from))))
}

/// An instance that has ended or restarted since the switch, and what is wrong with it.
async fn died(line: &Line<'_>, release: &Release) -> Option<(Instance, String)> {
    let of = release.id.clone();
    let instances = line
        .agent
        .store
        .read(move |db| instances::of_release(db, &of))
        .await
        .ok()?;
    for instance in instances {
        let ours = instance.ours();
        let look = tokio::time::timeout(ANSWER, line.agent.engine.look(&ours)).await;
        // If Docker is unreachable, that says nothing about the release.
        let Ok(Ok(look)) = look else {
            continue;
        };
        if let Some(why) = ended(&instance, &look) {
            return Some((instance, why));
        }
    }
    None
}

fn ended(instance: &Instance, look: &Look) -> Option<String> {
    let who = words::who(&instance.service, "");
    Some(match (look.run, look.restarts) {
        (Run::Missing, _) => {
            let who = words::who(&instance.service, "container");
            format!("{who} was removed")
        }
        (Run::Exited | Run::Restarting, _) if look.out_of_memory => {
            format!("{who} was killed after the switch because it exceeded its memory limit")
        }
        (Run::Exited | Run::Restarting, _) => {
            format!("{who} exited with code {} after the switch", look.exit_code)
        }
        (_, 0) => return None,
        (_, 1) => format!("{who} crashed once after the switch"),
        (_, restarts) => format!("{who} crashed {restarts} times after the switch"),
    })
}

/// The sum of all counters of the release: its errors must not be forgotten when the route's settings
/// change, or its weight goes from a canary's to 100.
fn of_release(stats: &[RouteStats], release: &str) -> Option<RouteStats> {
    let mut its = stats.iter().filter(|stats| stats.release == release);
    let mut all = its.next()?.clone();
    its.for_each(|more| all.add(more));
    Some(all)
}

impl From<&RouteStats> for Count {
    fn from(route: &RouteStats) -> Self {
        Self {
            requests: route.requests,
            failed: route.by_class[4].max(route.failures.total()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proxy::control;

    fn route(requests: u64, bad: u64) -> RouteStats {
        RouteStats {
            app: "hello".into(),
            release: "r".into(),
            generation: 1,
            state: control::State::Serving,
            requests,
            by_class: [0, requests - bad, 0, 0, bad],
            failures: Default::default(),
            retried: 0,
            rescued: 0,
            in_flight: 0,
            websockets: 0,
            websockets_closed: 0,
            long_requests: 0,
            latency_us: vec![],
            latency_sum_us: 0,
        }
    }

    #[test]
    fn errors_before_a_change_of_the_route_count() {
        let other = RouteStats {
            release: "other".into(),
            ..route(100, 100)
        };
        let all = of_release(&[route(50, 1), other, route(12, 9)], "r").unwrap();
        assert_eq!((all.requests, all.by_class[4]), (62, 10));
        assert!(compare::too_many(Count::from(&all)).is_some());
        assert!(of_release(&[], "r").is_none());
    }
}
