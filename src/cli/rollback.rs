//! `cutover rollback`: go back to an earlier release.

use clap::Args;
use serde_json::{Value, json};

use super::client::{Client, view};
use super::{Error, Global, notice, outcome, print};

/// Roll back to the release that was live before, or to another one, without building unless told to
///
/// Run it again to go further back. Releases that failed in their own bake are skipped, and so is a
/// commit that was only deployed again.
#[derive(Debug, Args)]
pub struct Rollback {
    /// Name of the app
    app: String,
    /// Where to: an image tag, a commit, a release or a deployment (each may be shortened to 7 characters),
    /// or `-1`, `-2` for so many releases back; `cutover releases APP` lists them
    #[arg(long, value_name = "RELEASE", allow_hyphen_values = true)]
    to: Option<String>,
    /// Build the release's commit again, for one whose image is gone
    #[arg(long)]
    rebuild: bool,
    /// Give the secrets that Cutover keeps the values that the release started with; without this they stay
    /// as they are
    #[arg(long)]
    secrets: bool,
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
    let mut body = json!({});
    if args.rebuild {
        body["rebuild"] = json!(true);
    }
    if args.secrets {
        body["secrets"] = json!(true);
    }
    if let Some(to) = &args.to {
        body["to"] = json!(to);
    }
    let app = format!("/api/v1/apps/{}", view::segment(&args.app));
    let from: view::App = view::read(&client.get(&app).await?)?;
    let answer = client.post(&format!("{app}/rollback"), &body).await?;
    if !args.follow && !args.json {
        say(&client, &app, from.release, &answer).await?;
    }
    outcome::after(&client, answer, args.follow, args.json).await
}

/// Says what is replaced by what.
async fn say(
    client: &Client,
    app: &str,
    from: Option<view::Release>,
    answer: &Value,
) -> Result<(), Error> {
    let deployment: view::Deployment = view::read(answer)?;
    let list = client.get(&format!("{app}/releases?limit=200")).await?;
    let list: view::List<view::Release> = view::read(&list)?;
    let mut to = list.items.into_iter();
    let to = to.find(|release| Some(&release.id) == deployment.release.as_ref());
    for (word, release) in [("From", from), ("To", to)] {
        if let Some(release) = release {
            print::line(format_args!("{word:<4} {}", release.described()));
        }
    }
    Ok(())
}
