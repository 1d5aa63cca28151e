//! Changes of what Cutover keeps for an app, its secrets and its variables, and the deployment that follows.

use clap::Args;
use serde::Deserialize;
use serde_json::{Value, json};

use super::client::{Client, view};
use super::{Error, Global, notice, outcome, print, words};

/// A kind of what is kept.
#[derive(Clone, Copy)]
pub struct Kept {
    /// The last part of its path in the API.
    pub route: &'static str,
    pub noun: &'static str,
}

/// What happens after a change.
#[derive(Debug, Args)]
pub struct Then {
    /// Leave the change to the next deployment
    #[arg(long)]
    no_deploy: bool,
    /// Follow the log until the deployment has ended
    #[arg(long, short, conflicts_with = "no_deploy")]
    follow: bool,
    /// Print the API's response as JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Changed {
    changed: u64,
    deployment: Option<Value>,
}

pub async fn change(
    global: &Global,
    kept: Kept,
    app: &str,
    mut body: Value,
    then: &Then,
) -> Result<(), Error> {
    let client = Client::new(global)?;
    if !then.follow {
        notice::say(&client).await;
    }
    body["deploy"] = json!(!then.no_deploy);
    body["trigger"] = json!("cli");
    let path = format!("/api/v1/apps/{}/{}", view::segment(app), kept.route);
    let answer = client.post(&path, &body).await?;
    let done: Changed = view::read(&answer)?;
    if then.json && !then.follow {
        print::json(&answer);
        return Ok(());
    }
    if !then.json {
        print::line(match done.changed {
            0 => "No value has changed".to_owned(),
            count => format!("Changed: {}", words::counted(count, kept.noun)),
        });
    }
    match done.deployment {
        Some(deployment) => outcome::after(&client, deployment, then.follow, then.json).await,
        None if done.changed > 0 => {
            print::line("The app will receive it with its next deployment");
            Ok(())
        }
        None => Ok(()),
    }
}
