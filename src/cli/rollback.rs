//! `cutover rollback`: go back to an earlier release.

use clap::Args;
use serde_json::json;

use super::client::{Client, view};
use super::{Error, Global, notice, outcome};

/// Roll back to the previously live release, or to another one, without building
#[derive(Debug, Args)]
pub struct Rollback {
    /// Name of the app, as in `[apps.NAME]`
    app: String,
    /// Image tag, release or deployment to go back to, as listed by `cutover releases APP`
    #[arg(long, value_name = "IMAGE|RELEASE|DEPLOYMENT")]
    to: Option<String>,
    /// Follow the log until the rollback has ended
    #[arg(long, short)]
    follow: bool,
    /// Print the deployment as JSON
    #[arg(long)]
    json: bool,
}

/// Queues the rollback; with `--follow`, the way it ends decides the exit code.
pub async fn run(args: Rollback, global: &Global) -> Result<(), Error> {
    let client = Client::new(global)?;
    if !args.follow {
        // With `--follow`, the log says it.
        notice::say(&client).await;
    }
    let body = match &args.to {
        Some(to) => json!({ "to": to }),
        None => json!({}),
    };
    let path = format!("/api/v1/apps/{}/rollback", view::segment(&args.app));
    let answer = client.post(&path, &body).await?;
    outcome::after(&client, answer, args.follow, args.json).await
}
