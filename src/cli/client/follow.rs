//! Follows a deployment to its end.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::{Client, Error, view};
use crate::cli::error::Kind;

/// How long to wait for an agent that has gone away (an update, a crash) to come back.
const PATIENCE: Duration = Duration::from_secs(60);

/// Where following a deployment stops, at the latest in its rest state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Until {
    /// Requests go to its release.
    Switch,
    End,
}

/// A deployment's log, read once from its beginning on.
pub struct Following<'a> {
    client: &'a Client,
    id: &'a str,
    /// How many lines have been read.
    seen: usize,
}

/// Calls `line` for each line of the deployment's log as it arrives, and returns the deployment in its
/// rest state. If the agent is restarted meanwhile, continues where it was.
pub async fn to_the_end(
    client: &Client,
    id: &str,
    line: impl FnMut(&str),
) -> Result<view::Deployment, Error> {
    Following::new(client, id).until(Until::End, line).await
}

impl<'a> Following<'a> {
    pub fn new(client: &'a Client, id: &'a str) -> Self {
        Self {
            client,
            id,
            seen: 0,
        }
    }

    /// Calls `line` for each further line, and returns the deployment as it is then.
    pub async fn until(
        &mut self,
        until: Until,
        mut line: impl FnMut(&str),
    ) -> Result<view::Deployment, Error> {
        let mut lost: Option<Instant> = None;
        loop {
            let before = self.seen;
            match self.read(until, &mut line).await {
                Ok(Some(deployment)) => return Ok(deployment),
                // The stream ended before the deployment did.
                Ok(None) => {}
                Err(error) if error.kind() != Kind::Unreachable => return Err(error),
                Err(error) => {
                    if self.seen > before {
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

    /// Reads the log from line `seen` on. The last line of a followed log does not belong to the log
    /// but says how the deployment ended, so one line is always held back.
    async fn read(
        &mut self,
        until: Until,
        line: &mut impl FnMut(&str),
    ) -> Result<Option<view::Deployment>, Error> {
        let path = format!("/api/v1/deployments/{}", self.id);
        let more = match until {
            Until::Switch => "&until=switch",
            Until::End => "",
        };
        let log = format!("{path}/log?follow=true{more}");
        let mut lines = self.client.lines(&log).await?;
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
                if number > self.seen {
                    line(&text);
                    self.seen = number;
                }
            }
        }
        let deployment: view::Deployment = view::read(&self.client.get(&path).await?)?;
        let reached =
            deployment.ended_at.is_some() || until == Until::Switch && deployment.is_serving();
        Ok(reached.then_some(deployment))
    }
}
