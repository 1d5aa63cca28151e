//! `cutover deployments`: an app's history.

use clap::Args;

use super::client::{Client, view};
use super::table::Table;
use super::{Error, Global, print, words};

/// List an app's deployments, newest first
#[derive(Debug, Args)]
pub struct Deployments {
    /// Name of the app
    app: String,
    /// Maximum number of entries
    #[arg(long, default_value_t = 20, value_name = "COUNT", value_parser = clap::value_parser!(u32).range(1..=200))]
    limit: u32,
    /// Print the API's response as JSON
    #[arg(long)]
    json: bool,
}

/// Prints one line for each deployment.
pub async fn run(args: Deployments, global: &Global) -> Result<(), Error> {
    let client = Client::new(global)?;
    let (app, limit) = (view::segment(&args.app), args.limit);
    let path = format!("/api/v1/apps/{app}/deployments?limit={limit}");
    let answer = client.get(&path).await?;
    if args.json {
        print::json(&answer);
        return Ok(());
    }
    let list: view::List<view::Deployment> = view::read(&answer)?;
    if list.items.is_empty() {
        let app = &args.app;
        eprintln!(
            "`{app}` has no deployments yet: push to its branch, or run `cutover deploy {app}`"
        );
        return Ok(());
    }
    let headers = [
        "DEPLOYMENT",
        "STATE",
        "TRIGGER",
        "COMMIT",
        "CREATED",
        "TOOK",
        "SUBJECT",
    ];
    let table = Table {
        headers: &headers,
        spare: &["TOOK", "TRIGGER", "CREATED"],
        margin: "",
    };
    table.show(list.items.iter().map(row).collect());
    Ok(())
}

fn row(deployment: &view::Deployment) -> Vec<String> {
    let ended = deployment.ended_at.as_deref();
    let took = ended.and_then(|ended| words::between(&deployment.created_at, ended));
    let state = match deployment.current {
        true => format!("{} (current)", deployment.state),
        false => deployment.state.clone(),
    };
    vec![
        deployment.id.clone(),
        state,
        deployment.trigger.clone(),
        deployment
            .commit
            .as_deref()
            .map_or("-".into(), |commit| words::short(commit).to_owned()),
        words::ago(&deployment.created_at),
        took.map_or("-".into(), words::took),
        words::subject(
            deployment
                .skipped()
                .or(deployment.message.as_deref())
                .unwrap_or_default(),
        ),
    ]
}
