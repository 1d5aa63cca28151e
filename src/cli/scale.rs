//! `cutover scale`: how many instances an app has.

use std::collections::BTreeMap;

use clap::Args;
use serde::Deserialize;
use serde_json::{Value, json};

use super::client::{Client, view};
use super::{Error, Global, notice, outcome, print};

/// Set how many instances an app's processes have, kept through deployments; without a number, show it
#[derive(Debug, Args)]
pub struct Scale {
    /// Name of the app, as in `[apps.NAME]`
    app: String,
    /// Number of instances, such as `3` or `web=3 worker=2`; `default` for what deploy.toml says
    #[arg(value_name = "PROCESS=N")]
    numbers: Vec<String>,
    /// Follow the log until the deployment has ended
    #[arg(long, short)]
    follow: bool,
    /// Print the API's response as JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Scaled {
    processes: Vec<Process>,
    deployment: Option<Value>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Process {
    name: String,
    replicas: Option<u32>,
    configured: u32,
}

pub async fn run(args: Scale, global: &Global) -> Result<(), Error> {
    let client = Client::new(global)?;
    let path = format!("/api/v1/apps/{}/scale", view::segment(&args.app));
    let wanted = args.numbers.iter().map(|text| number(text));
    let wanted = wanted.collect::<Result<BTreeMap<_, _>, _>>()?;
    let answer = match wanted.is_empty() {
        true => client.get(&path).await?,
        false => {
            let body = json!({ "processes": wanted, "trigger": "cli" });
            notice::say(&client).await;
            client.post(&path, &body).await?
        }
    };
    let scaled: Scaled = view::read(&answer)?;
    if args.json && !args.follow {
        print::json(&answer);
        return Ok(());
    }
    if !args.json {
        let all = scaled.processes.iter().map(shown).collect::<Vec<_>>();
        print::line(format_args!("`{}`: {}", args.app, all.join(", ")));
    }
    match scaled.deployment {
        Some(queued) => outcome::after(&client, queued, args.follow, args.json).await,
        None => Ok(()),
    }
}

fn shown(process: &Process) -> String {
    let (name, file) = (&process.name, process.configured);
    match process.replicas {
        Some(asked) => format!("{name}={asked} (deploy.toml: {file})"),
        None => format!("{name}={file}"),
    }
}

fn number(text: &str) -> Result<(String, Option<u32>), Error> {
    let (name, number) = text.split_once('=').unwrap_or(("web", text));
    if number == "default" {
        return Ok((name.to_owned(), None));
    }
    let number = number.parse().map_err(|_| {
        Error::usage(format!(
            "`{}` is not a number of instances: expected for example `3` or `web=3`",
            text.escape_debug()
        ))
    });
    Ok((name.to_owned(), Some(number?)))
}
