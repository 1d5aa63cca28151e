//! Probe the new instances until each is healthy, or the deadline has passed.

use std::time::Duration;

use futures_util::future::try_join_all;
use tokio::time::Instant;

use crate::config::Check;
use crate::deploy::health::{Asker, Unwell};
use crate::deploy::line::{Done, Line, Stop};
use crate::deploy::steps::instance::service_of;
use crate::deploy::steps::unhealthy::unhealthy;
use crate::deploy::words::{self, counted};
use crate::engine::Status;
use crate::store::instances::Instance;
use crate::store::releases::Release;
use crate::store::services::Service;

/// The first pause between two probes. Where an app answers, but not well, it doubles up to the
/// configured interval.
const FIRST_PAUSE: Duration = Duration::from_millis(5);
/// The longest pause while connections are refused: people should wait for the app, not for our clock.
const REFUSED_PAUSE: Duration = Duration::from_millis(50);
/// Connections are refused at every start; it is said only if it lasts.
const SAID_AFTER: Duration = Duration::from_secs(1);
/// The pause between two looks at an instance when waiting for its end failed.
const LOOK: Duration = Duration::from_millis(100);
pub(super) const TAIL: usize = 20;

pub async fn probe(
    line: &Line<'_>,
    release: &Release,
    instances: &[Instance],
) -> Result<Done<()>, Stop> {
    let began = Instant::now();
    let mut probed = Vec::new();
    for instance in instances {
        let service = service_of(release, instance)?;
        probed.push(until_healthy_or_ended(line, service, instance, began));
    }
    let probes: u32 = try_join_all(probed).await?.into_iter().sum();
    let web = release.web().map(|web| &web.settings.health.path);
    Ok(Done::new(
        (),
        match web {
            Some(path) => {
                let probes = counted(probes.into(), "probe");
                format!("healthy at `{path}` after {probes}")
            }
            None => "every process is healthy".to_owned(),
        },
    ))
}

async fn until_healthy_or_ended(
    line: &Line<'_>,
    service: &Service,
    instance: &Instance,
    began: Instant,
) -> Result<u32, Stop> {
    tokio::select! {
        biased;
        ended = ended(line, instance) => {
            ended?;
            Err(exited(line, instance).await?)
        }
        healthy = until_healthy(line, service, instance, began) => healthy,
    }
}

/// Returns once the instance does not run any more.
async fn ended(line: &Line<'_>, instance: &Instance) -> Result<(), Stop> {
    let (engine, ours) = (&line.agent.engine, instance.ours());
    loop {
        let waited = engine.ended(&ours).await;
        if engine.status(&ours).await? != Status::Running {
            return Ok(());
        }
        if let Err(error) = waited {
            tracing::debug!(%error, "failed to wait for the end of a container");
        }
        tokio::time::sleep(LOOK).await;
    }
}

async fn until_healthy(
    line: &Line<'_>,
    service: &Service,
    instance: &Instance,
    began: Instant,
) -> Result<u32, Stop> {
    let health = &service.settings.health;
    if let Check::Running { ms } = health.check {
        tokio::time::sleep(Duration::from_millis(ms)).await;
        return Ok(0);
    }
    let asker = Asker::of(line.agent, line.app, service);
    let deadline = began + health.deadline;
    let mut unwell_pause = FIRST_PAUSE;
    let mut in_a_row = 0;
    let mut probes = 0;
    let mut said = String::new();
    let mut last = None;
    loop {
        probes += 1;
        let pause = match asker.ask(instance).await {
            Ok(()) => {
                in_a_row += 1;
                if in_a_row >= health.successes {
                    return Ok(probes);
                }
                health.interval
            }
            Err(unwell) => {
                in_a_row = 0;
                let why = unwell.to_string();
                let is_start = unwell.is_refused() && began.elapsed() < SAID_AFTER;
                if why != said && !is_start {
                    line.log.line(&format!("[probe] not healthy yet: {why}"));
                    said = why;
                }
                let pause = pause_after(&unwell, began.elapsed(), unwell_pause);
                unwell_pause = (unwell_pause * 2).min(health.interval);
                last = Some(unwell);
                pause
            }
        };
        if Instant::now() + pause > deadline {
            let what = unhealthy(line, service, instance, last.as_ref()).await;
            let tail = line.agent.engine.log_tail(&instance.ours(), TAIL).await?;
            return Err(Stop::failed("unhealthy", what).with_tail(tail));
        }
        tokio::time::sleep(pause).await;
    }
}

/// A refused connection costs next to nothing, so the pause is a sixteenth of the time that the app
/// has taken so far.
fn pause_after(unwell: &Unwell, waited: Duration, unwell_pause: Duration) -> Duration {
    match unwell.is_refused() {
        true => (waited / 16).clamp(FIRST_PAUSE, REFUSED_PAUSE),
        false => unwell_pause,
    }
}

/// Why an instance that should be running is not, with the last lines of its log.
pub(super) async fn exited(line: &Line<'_>, instance: &Instance) -> Result<Stop, Stop> {
    let engine = &line.agent.engine;
    let how = match engine.status(&instance.ours()).await? {
        Status::Exited(_, true) => "was killed because it exceeded its memory limit".to_owned(),
        Status::Exited(code, false) => format!("exited with code {code}"),
        Status::Missing => "was removed".to_owned(),
        Status::Running => "exited and was restarted".to_owned(),
    };
    let tail = engine.log_tail(&instance.ours(), TAIL).await?;
    let who = words::who(&instance.service, "container");
    let what = format!("{who} {how} before it went live");
    Ok(Stop::failed("exited", what).with_output(tail))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proxy::probe::ProbeError;

    #[test]
    fn while_connections_are_refused_nobody_waits_longer_than_50_ms() {
        let refused = ProbeError::Refused("127.0.0.1:80".parse().unwrap()).into();
        let after = |ms| {
            let interval = Duration::from_millis(500);
            pause_after(&refused, Duration::from_millis(ms), interval).as_millis()
        };
        assert_eq!([after(0), after(320), after(10_000)], [5, 20, 50]);
    }
}
