//! `cutover logs`: prints a deployment's log.

use clap::Args;

use super::client::{Client, view};
use super::error::Kind;
use super::{Error, Global, outcome, print};
use crate::ids::DeploymentId;

/// Print the log of a deployment, or of an app's newest one
#[derive(Debug, Args)]
pub struct Logs {
    /// Name of the app, or id of a deployment
    #[arg(value_name = "APP|ID")]
    app: String,
    /// Print the log of this deployment instead
    #[arg(long, value_name = "ID")]
    deployment: Option<String>,
    /// Follow the log until the deployment has ended; exit with 1 if it fails
    #[arg(long, short)]
    follow: bool,
}

/// Prints the log as it is now or, with `--follow`, as it grows.
pub async fn run(args: Logs, global: &Global) -> Result<(), Error> {
    let client = Client::new(global)?;
    let id = match args.deployment {
        Some(id) => view::segment(&id),
        None => named(&client, &args.app).await?,
    };
    if args.follow {
        return outcome::follow(&client, &id, false).await;
    }
    let mut lines = client
        .lines(&format!("/api/v1/deployments/{id}/log"))
        .await?;
    loop {
        let line = lines.next().await.map_err(|error| {
            Error::unreachable("lost the connection to the agent while reading the log")
                .because(&error)
        })?;
        match line {
            Some(line) => print::line(line),
            None => return Ok(()),
        }
    }
}

/// The deployment with this id, or else the newest of the app with this name.
async fn named(client: &Client, text: &str) -> Result<String, Error> {
    if text.parse::<DeploymentId>().is_err() {
        return newest(client, text).await;
    }
    match client.get(&format!("/api/v1/deployments/{text}")).await {
        Ok(_) => Ok(text.to_owned()),
        // An app may be named like an id.
        Err(error) if error.kind() == Kind::Usage => newest(client, text).await.map_err(|_| error),
        Err(error) => Err(error),
    }
}

async fn newest(client: &Client, app: &str) -> Result<String, Error> {
    let path = format!("/api/v1/apps/{}/deployments?limit=1", view::segment(app));
    let list: view::List<view::Deployment> = view::read(&client.get(&path).await?)?;
    match list.items.into_iter().next() {
        Some(deployment) => Ok(deployment.id),
        None => Err(Error::usage(format!("`{app}` has no deployments yet"))
            .hint(format!("push to its branch, or run `cutover deploy {app}`"))),
    }
}
