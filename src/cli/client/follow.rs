//! Follows a deployment to its end.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::{Client, Error, view};
use crate::cli::error::Kind;

/// How long to wait for an agent that has gone away (an update, a crash) to come back.
const PATIENCE: Duration = Duration::from_secs(60);

/// Calls `line` for each line of the deployment's log as it arrives, and returns the deployment in its
/// rest state. If the agent is restarted meanwhile, continues where it was.
pub async fn to_the_end(
    client: &Client,
    id: &str,
    mut line: impl FnMut(&str),
) -> Result<view::Deployment, Error> {
    let mut seen = 0;
    let mut lost: Option<Instant> = None;
    loop {
        let before = seen;
        match read(client, id, &mut seen, &mut line).await {
            Ok(Some(deployment)) => return Ok(deployment),
            // The stream ended before the deployment did.
            Ok(None) => {}
            Err(error) if error.kind() != Kind::Unreachable => return Err(error),
            Err(error) => {
                if seen > before {
                    lost = None;
                }
                if lost.get_or_insert_with(Instant::now).elapsed() > PATIENCE {
                    return Err(error);
                }
            }
        }
        sleep(Duration::from_millis(300)).await;
    }
}

/// Reads the log from line `seen` on. The last line of a followed log does not belong to the log but
/// says how the deployment ended, so one line is always held back.
async fn read(
    client: &Client,
    id: &str,
    seen: &mut usize,
    line: &mut impl FnMut(&str),
) -> Result<Option<view::Deployment>, Error> {
    let path = format!("/api/v1/deployments/{id}");
    let mut lines = client.lines(&format!("{path}/log?follow=true")).await?;
    let mut number = 0;
    let mut held: Option<String> = None;
    loop {
        let next = lines.next().await.map_err(|error| {
            Error::unreachable("lost the connection to the agent while reading the log")
                .because(&error)
        })?;
        let Some(next) = next else {
            break;
        };
        if let Some(text) = held.replace(next) {
            number += 1;
            if number > *seen {
                line(&text);
                *seen = number;
            }
        }
    }
    let deployment: view::Deployment = view::read(&client.get(&path).await?)?;
    Ok(deployment.ended_at.is_some().then_some(deployment))
}
