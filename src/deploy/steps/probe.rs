//! Probe the new instances until each is healthy, or the deadline has passed.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::time::Instant;

use crate::config::Protocol;
use crate::deploy::line::{Done, Line, Stop};
use crate::deploy::steps::start::service_of;
use crate::engine::Status;
use crate::proxy::probe::probe as ask;
use crate::store::instances::Instance;
use crate::store::releases::Release;
use crate::store::services::Service;

/// The first pause between two probes. It doubles up to the configured interval, and starts over with
/// each success: people should wait for the app, not for our clock.
const FIRST_PAUSE: Duration = Duration::from_millis(5);
const TAIL: usize = 20;

pub async fn probe(
    line: &Line<'_>,
    release: &Release,
    instances: &[Instance],
) -> Result<Done<()>, Stop> {
    let began = Instant::now();
    let (mut probes, mut path) = (0, "");
    for instance in instances {
        let service = service_of(release, instance)?;
        // Without a port there is nothing to probe.
        let Some(target) = instance.endpoint else {
            continue;
        };
        let deadline = began + service.settings.health.deadline;
        probes += until_healthy(line, service, instance, target, deadline).await?;
        path = &service.settings.health.path;
    }
    Ok(Done::new(
        (),
        format!("healthy at `{path}` after {probes} probes"),
    ))
}

async fn until_healthy(
    line: &Line<'_>,
    service: &Service,
    instance: &Instance,
    target: SocketAddr,
    deadline: Instant,
) -> Result<u32, Stop> {
    let health = &service.settings.health;
    let host = line.app.domains.first().map(String::as_str);
    let h2c = service.protocol == Protocol::H2c;
    let mut pause = FIRST_PAUSE;
    let mut in_a_row = 0;
    let mut probes = 0;
    let mut said = String::new();
    loop {
        probes += 1;
        let answer = match ask(target, host, &health.path, h2c, health.timeout).await {
            Ok(status @ 200..=399) => Ok(status),
            Ok(status) => Err(format!("`{}` answered {status}", health.path)),
            Err(error) => Err(error.to_string()),
        };
        match answer {
            Ok(_) => {
                in_a_row += 1;
                pause = FIRST_PAUSE;
                if in_a_row >= health.successes {
                    return Ok(probes);
                }
            }
            Err(why) => {
                in_a_row = 0;
                if let Status::Exited(..) | Status::Missing =
                    line.agent.engine.status(&instance.ours()).await?
                {
                    return Err(exited(line, instance).await?);
                }
                if why != said {
                    line.log.line(&format!("[probe] not healthy yet: {why}"));
                    said = why;
                }
            }
        }
        if Instant::now() + pause > deadline {
            let what = format!(
                "the new version did not become healthy within {:?}: {said}",
                health.deadline
            );
            let tail = line.agent.engine.log_tail(&instance.ours(), TAIL).await?;
            return Err(Stop::failed("unhealthy", what).with_tail(tail));
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(health.interval);
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
    let what = format!("the new version's container {how} before it went live");
    Ok(Stop::failed("exited", what).with_tail(tail))
}
