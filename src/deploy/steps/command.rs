//! The app's own commands in the new image: its tests, and what must happen before it gets traffic.

use std::time::Duration;

use crate::deploy::line::{Done, Line, Stop};
use crate::engine::Command;
use crate::state::Step;
use crate::store::releases::Release;

/// A migration may take long; one that takes longer than this is taken for one that never ends.
const DEADLINE: Duration = Duration::from_secs(30 * 60);
const TAIL: usize = 20;

pub async fn test(line: &Line<'_>, release: &Release) -> Result<(), Stop> {
    step(
        line,
        release,
        Step::Test,
        line.app.hooks.test.as_deref(),
        "test_failed",
    )
    .await
}

pub async fn release(line: &Line<'_>, release: &Release) -> Result<(), Stop> {
    let hook = line.app.hooks.release.as_deref();
    step(line, release, Step::Release, hook, "release_command_failed").await
}

async fn step(
    line: &Line<'_>,
    release: &Release,
    step: Step,
    hook: Option<&str>,
    code: &str,
) -> Result<(), Stop> {
    match hook {
        Some(hook) => line.step(step, run(line, release, step, hook, code)).await,
        None => Ok(()),
    }
}

async fn run(
    line: &Line<'_>,
    release: &Release,
    step: Step,
    hook: &str,
    code: &str,
) -> Result<Done<()>, Stop> {
    let network = line.agent.engine.network().await?;
    let Some(service) = release.web() else {
        let what = format!("the release `{}` has no service `web`", release.id);
        return Err(Stop::failed("no_service", what));
    };
    let command = Command {
        name: format!("cutover-{}-{}-{step}", line.app.name, line.id),
        deployment: &line.id,
        release,
        service,
        network: &network,
        line: hook,
        deadline: DEADLINE,
    };
    match line
        .agent
        .engine
        .run(&command, &line.log, &line.cancel)
        .await?
    {
        0 => Ok(Done::new((), format!("`{hook}` succeeded"))),
        exit => {
            let stop = Stop::failed(code, format!("`{hook}` ended with exit code {exit}"));
            Err(stop.with_tail(line.log.tail(TAIL)))
        }
    }
}
