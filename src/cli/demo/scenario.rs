//! The acts: a first push, a push under load, a broken push, a rollback.

use std::cell::RefCell;
use std::time::Duration;

use serde_json::json;

use super::agent::Agent;
use super::http;
use super::load::{self, Load, Plan};
use super::sample::files;
use super::screen::Screen;
use super::stage::{APP, Stage};
use crate::cli::Error;
use crate::cli::client::{follow, view};
use crate::cli::words::took;

/// How long the load may take to see the new version.
const SOON: Duration = Duration::from_secs(20);

/// Plays all acts and prints the tables. An error means that something was not as promised.
pub async fn play(screen: &Screen, stage: &Stage, agent: &Agent) -> Result<(), Error> {
    let v1 = push(screen, stage, agent, None, "v1", "").await?;
    expect(&v1, "live")?;
    expect_version(agent, "v1").await?;
    screen.done(format_args!(
        "pushed v1: {} from the push, at http://{}",
        live_after(&v1),
        agent.proxy
    ));

    let load = load::start(Plan::new(agent.proxy, "localhost"));
    screen.wait("starting the load");
    seen(&load, "v1").await?;
    let v2 = push(screen, stage, agent, Some(&load), "v2", "").await?;
    expect(&v2, "live")?;
    seen(&load, "v2").await?;
    screen.done(format_args!(
        "pushed v2 under load: {}; {}",
        live_after(&v2),
        so_far(&load)
    ));

    let broken = "exit-at-start";
    let v3 = push(screen, stage, agent, Some(&load), "v3", broken).await?;
    expect(&v3, "failed")?;
    expect_version(agent, "v2").await?;
    screen.done(format_args!(
        "pushed v3, which is broken: v2 stays; {}",
        so_far(&load)
    ));
    if let Some(error) = &v3.error {
        screen.quote(&error.message);
        screen.quote(error.log_tail.last().map_or("", String::as_str));
    }

    screen.wait("rolling back to v1");
    let to = v1.image.as_deref().unwrap_or_default();
    let path = format!("/api/v1/apps/{APP}/rollback");
    let answer = stage.client().post(&path, &json!({ "to": to })).await?;
    let asked: view::Deployment = view::read(&answer)?;
    let what = "rolling back to v1";
    let back = watch(screen, stage, Some(&load), &asked.id, what).await?;
    expect(&back, "live")?;
    seen(&load, "v1").await?;
    load.until_more(200).await;
    screen.done(format_args!(
        "rolled back to v1: {}; {}",
        live_after(&back),
        so_far(&load)
    ));

    screen.wait("waiting for the last requests");
    let report = load.stop().await;
    screen.clear();
    screen.timeline(&[("v1", &v1), ("v2", &v2), ("v3", &v3), ("rollback", &back)]);
    screen.report(&report);
    if report.failures.is_empty() {
        return Ok(());
    }
    Err(Error::failed(format!(
        "{} of {} requests failed\n{report}",
        report.failures.len(),
        report.requests()
    )))
}

async fn push(
    screen: &Screen,
    stage: &Stage,
    agent: &Agent,
    load: Option<&Load>,
    version: &str,
    behaviour: &str,
) -> Result<view::Deployment, Error> {
    let what = format!("pushing {version}");
    screen.wait(&what);
    let message = format!("Say {version}");
    let id = stage
        .push(agent, &files(version, behaviour)?, &message)
        .await?;
    watch(screen, stage, load, &id, &what).await
}

/// Follows a deployment to its end, and shows its progress.
async fn watch(
    screen: &Screen,
    stage: &Stage,
    load: Option<&Load>,
    id: &str,
    what: &str,
) -> Result<view::Deployment, Error> {
    let last = RefCell::new(String::new());
    let client = stage.client();
    let line = |line: &str| line.clone_into(&mut last.borrow_mut());
    let ended = follow::to_the_end(&client, id, line);
    let mut ended = std::pin::pin!(ended);
    let mut tick = tokio::time::interval(Duration::from_millis(100));
    loop {
        tokio::select! {
            ended = &mut ended => return ended,
            _ = tick.tick() => {
                let load = load.map(so_far).map(|text| format!(" ({text})"));
                let load = load.unwrap_or_default();
                screen.wait(&format!("{what}{load}: {}", last.borrow()));
            }
        }
    }
}

fn expect(deployment: &view::Deployment, state: &str) -> Result<(), Error> {
    if deployment.state == state {
        return Ok(());
    }
    let view::Deployment { id, state: is, .. } = deployment;
    let error = Error::failed(format!("deployment `{id}` is {is}, not {state}"));
    match &deployment.error {
        Some(failure) => {
            let tail = failure.log_tail.join("\n  ");
            Err(error.hint(format!("{}\n  {tail}", failure.message)))
        }
        None => Err(error),
    }
}

async fn expect_version(agent: &Agent, version: &str) -> Result<(), Error> {
    let answer = http::get(agent.proxy, "localhost", "/").await?;
    let seen = answer.headers.get("x-version");
    if seen.is_some_and(|seen| seen == version) {
        return Ok(());
    }
    let (status, text) = (answer.status, answer.text());
    Err(Error::failed(format!(
        "the app answered {status} `{}` instead of {version}",
        text.trim()
    )))
}

async fn seen(load: &Load, version: &str) -> Result<(), Error> {
    match load.until_version(version, SOON).await {
        true => Ok(()),
        false => Err(Error::failed(format!(
            "{version} was not serving {} s after it went live",
            SOON.as_secs()
        ))),
    }
}

fn so_far(load: &Load) -> String {
    let (requests, failed) = load.so_far();
    format!("{requests} requests, {failed} failed")
}

fn live_after(deployment: &view::Deployment) -> String {
    match deployment.live_after() {
        Some(time) => format!("live after {}", took(time)),
        None => "live".to_owned(),
    }
}
