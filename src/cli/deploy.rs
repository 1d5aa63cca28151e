//! `cutover deploy`: request a deployment.

use clap::Args;
use serde_json::json;

use super::client::{Client, view};
use super::{Error, Global, notice, outcome};

/// Deploy an app: the tip of its branch, or another branch, tag or commit; or its image
#[derive(Debug, Args)]
pub struct Deploy {
    /// Name of the app
    app: String,
    /// Branch, tag or commit to deploy [default: the tip of the app's branch]
    #[arg(long = "ref", value_name = "REF")]
    git_ref: Option<String>,
    /// Another tag or digest of an app's `image`, or the whole name with one [default: as in deploy.toml]
    #[arg(long, value_name = "REF", conflicts_with = "git_ref")]
    image: Option<String>,
    /// Build without the cache of earlier images
    #[arg(long)]
    no_cache: bool,
    /// Ask the registries for newer base images of the same names
    #[arg(long)]
    pull: bool,
    /// Follow the log until the deployment has ended
    #[arg(long, short)]
    follow: bool,
    /// Print the deployment as JSON
    #[arg(long)]
    json: bool,
}

/// Queues the deployment; with `--follow`, the way it ends decides the exit code.
pub async fn run(args: Deploy, global: &Global) -> Result<(), Error> {
    let client = Client::new(global)?;
    if !args.follow {
        // With `--follow`, the log says it.
        notice::say(&client).await;
    }
    let mut body = json!({ "trigger": "cli" });
    // An older agent knows neither.
    for (name, given) in [("no_cache", args.no_cache), ("pull", args.pull)] {
        if given {
            body[name] = json!(true);
        }
    }
    for (name, given) in [("ref", &args.git_ref), ("image", &args.image)] {
        if let Some(given) = given {
            body[name] = json!(given);
        }
    }
    let path = format!("/api/v1/apps/{}/deployments", view::segment(&args.app));
    let answer = client.post(&path, &body).await?;
    outcome::after(&client, answer, args.follow, args.json).await
}
