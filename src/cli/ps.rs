//! `cutover ps`: shows an app's instances.

use clap::Args;
use serde::Deserialize;

use super::client::{Client, view};
use super::{Error, Global, print, table, words};

/// Show the instances of an app, those that are starting or stopping included
#[derive(Debug, Args)]
pub struct Ps {
    /// Name of the app, as in `[apps.NAME]`
    app: String,
    /// Print the API's response as JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Instance {
    name: String,
    process: String,
    commit: Option<String>,
    state: String,
    detail: Option<String>,
}

pub async fn run(args: Ps, global: &Global) -> Result<(), Error> {
    let client = Client::new(global)?;
    let path = format!("/api/v1/apps/{}/instances", view::segment(&args.app));
    let answer = client.get(&path).await?;
    if args.json {
        print::json(&answer);
        return Ok(());
    }
    let list: view::List<Instance> = view::read(&answer)?;
    if list.items.is_empty() {
        print::line(format_args!("`{}` has no instances", args.app));
        return Ok(());
    }
    let rows = list.items.into_iter().map(|it| {
        let commit = it.commit.unwrap_or_default();
        let state = match it.detail {
            Some(detail) => format!("{}: {detail}", it.state),
            None => it.state,
        };
        vec![it.process, words::short(&commit).to_owned(), it.name, state]
    });
    table::show(&["PROCESS", "COMMIT", "CONTAINER", "STATE"], rows.collect());
    Ok(())
}
