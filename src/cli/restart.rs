//! `cutover restart`: start the live release again.

use clap::Args;
use serde_json::json;

use super::client::{Client, view};
use super::{Error, Global, notice, outcome};

/// Replace an app's instances with new ones of the live release, without losing a request
#[derive(Debug, Args)]
pub struct Restart {
    /// Name of the app, as in `[apps.NAME]`
    app: String,
    /// Follow the log until the deployment has ended
    #[arg(long, short)]
    follow: bool,
    /// Print the deployment as JSON
    #[arg(long)]
    json: bool,
}

/// Queues it; with `--follow`, the way it ends decides the exit code.
pub async fn run(args: Restart, global: &Global) -> Result<(), Error> {
    let client = Client::new(global)?;
    if !args.follow {
        // With `--follow`, the log says it.
        notice::say(&client).await;
    }
    let path = format!("/api/v1/apps/{}/restart", view::segment(&args.app));
    let answer = client.post(&path, &json!({ "trigger": "cli" })).await?;
    outcome::after(&client, answer, args.follow, args.json).await
}
