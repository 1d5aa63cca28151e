//! `cutover remove`: removes an app.

use std::time::Duration;

use clap::Args;
use serde::Deserialize;
use tokio::time::{Instant, sleep};

use super::client::{Client, view};
use super::{Error, Global, confirm, notice, print};

/// How long the verb waits for the removal, which continues after that.
const PATIENCE: Duration = Duration::from_secs(120);

/// Remove an app: its containers, its images and its route
#[derive(Debug, Args)]
pub struct Remove {
    /// Name of the app
    app: String,
    /// Remove it without asking
    #[arg(long, short)]
    yes: bool,
    /// Remove its volumes and secrets too, and the data in them
    #[arg(long)]
    volumes: bool,
    /// Print the API's response as JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Removal {
    app: String,
    configured: bool,
    removing: bool,
    live: Option<String>,
    containers: Vec<String>,
    images: Vec<String>,
    named_volumes: Vec<String>,
    deployments: Vec<String>,
}

/// Shows what would be removed, asks for confirmation, and waits until it is gone.
pub async fn run(args: Remove, global: &Global) -> Result<(), Error> {
    let client = Client::new(global)?;
    notice::say(&client).await;
    let path = format!(
        "/api/v1/apps/{}?volumes={}",
        view::segment(&args.app),
        args.volumes
    );
    let plan: Removal = view::read(&client.delete(&format!("{path}&dry_run=true")).await?)?;
    let app = &plan.app;
    // With --json, only the answer goes to stdout.
    let say = |text: &str| match args.json {
        true => eprintln!("{text}"),
        false => print::line(text),
    };
    for line in lines(&plan, args.volumes) {
        say(&line);
    }
    if !args.yes {
        confirm(app, plan.configured)?;
    }
    let answer = client.delete(&path).await?;
    let begun = Instant::now();
    let plan = format!("{path}&dry_run=true");
    while begun.elapsed() < PATIENCE {
        let left: Removal = view::read(&client.delete(&plan).await?)?;
        if !left.removing {
            match args.json {
                true => print::json(&answer),
                false => print::line(format_args!("Removed `{app}`")),
            }
            return Ok(());
        }
        sleep(Duration::from_millis(100)).await;
    }
    let seconds = PATIENCE.as_secs();
    Err(
        Error::failed(format!("`{app}` is still being removed after {seconds} s"))
            .hint("the agent goes on with it; its log says what it waits for"),
    )
}

fn lines(plan: &Removal, volumes: bool) -> Vec<String> {
    let mut lines = Vec::new();
    if let Some(live) = &plan.live {
        lines.push(format!("stop serving release `{live}`"));
    }
    let mut list = |what: &str, names: &[String]| {
        lines.extend(names.iter().map(|name| format!("{what} `{name}`")));
    };
    list("cancel deployment", &plan.deployments);
    list("remove container", &plan.containers);
    list("remove image", &plan.images);
    if volumes {
        list("remove, with all its data, volume", &plan.named_volumes);
    }
    if lines.is_empty() {
        lines.push(format!("there is nothing of `{}` to remove", plan.app));
    }
    lines.push(match volumes {
        true => "remove the containers' anonymous volumes, with all their data, and its secrets"
            .to_owned(),
        false => "keep its volumes, with their data, and its secrets (`--volumes` removes them)"
            .to_owned(),
    });
    if plan.configured {
        lines.push(format!(
            "`{}` is still in deploy.toml: its next push or deployment brings it back",
            plan.app
        ));
    }
    lines
}

/// Returns an error unless a person confirms.
fn confirm(app: &str, configured: bool) -> Result<(), Error> {
    let hint = match configured {
        true => "take it out of deploy.toml first, or pass `--yes`",
        false => "pass `--yes`",
    };
    let without = format!("`{app}` is not removed without confirmation");
    confirm::confirm(&format!("Remove `{app}`?"), &without, hint)
}
