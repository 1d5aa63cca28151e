//! `cutover stop` and `cutover start`.

use clap::Args;
use serde::Deserialize;
use serde_json::{Value, json};

use super::client::{Client, view};
use super::{Error, Global, outcome, print};

/// Stop an app until it is started again; its visitors get 503, and what is pushed waits
#[derive(Debug, Args)]
pub struct Stop {
    /// Name of the app, as in `[apps.NAME]`
    app: String,
}

/// Start an app that was stopped
#[derive(Debug, Args)]
pub struct Start {
    /// Name of the app, as in `[apps.NAME]`
    app: String,
    /// Follow the log until the deployment has ended
    #[arg(long, short)]
    follow: bool,
    /// Print the API's response as JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Started {
    deployment: Option<Value>,
}

pub async fn stop(args: Stop, global: &Global) -> Result<(), Error> {
    let path = format!("/api/v1/apps/{}/stop", view::segment(&args.app));
    Client::new(global)?.post(&path, &json!({})).await?;
    let app = &args.app;
    print::line(format_args!(
        "`{app}` is stopped; `cutover start {app}` starts it"
    ));
    Ok(())
}

pub async fn start(args: Start, global: &Global) -> Result<(), Error> {
    let client = Client::new(global)?;
    let path = format!("/api/v1/apps/{}/start", view::segment(&args.app));
    let answer = client.post(&path, &json!({ "trigger": "cli" })).await?;
    let started: Started = view::read(&answer)?;
    match started.deployment {
        Some(queued) => outcome::after(&client, queued, args.follow, args.json).await,
        None if args.json => {
            print::json(&answer);
            Ok(())
        }
        None => {
            let app = &args.app;
            print::line(format_args!(
                "`{app}` is not stopped: its next push or deployment goes live"
            ));
            Ok(())
        }
    }
}
