//! `cutover scale`: how many instances an app has.

use clap::Args;
use serde::Deserialize;
use serde_json::{Value, json};

use super::client::{Client, view};
use super::{Error, Global, notice, outcome, print};

/// Set how many instances an app has, kept through deployments; without a number, show it
#[derive(Debug, Args)]
pub struct Scale {
    /// Name of the app, as in `[apps.NAME]`
    app: String,
    /// Number of instances, such as 3 or web=3; `default` for what deploy.toml says
    #[arg(value_name = "N")]
    replicas: Option<String>,
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
    replicas: Option<u32>,
    configured: u32,
    deployment: Option<Value>,
}

pub async fn run(args: Scale, global: &Global) -> Result<(), Error> {
    let client = Client::new(global)?;
    let path = format!("/api/v1/apps/{}/scale", view::segment(&args.app));
    let answer = match &args.replicas {
        None => client.get(&path).await?,
        Some(text) => {
            let body = json!({ "replicas": number(text)?, "trigger": "cli" });
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
        let file = scaled.configured;
        print::line(match scaled.replicas {
            Some(asked) => format!("`{}`: web={asked} (deploy.toml: {file})", args.app),
            None => format!("`{}`: web={file}, as in deploy.toml", args.app),
        });
    }
    match scaled.deployment {
        Some(queued) => outcome::after(&client, queued, args.follow, args.json).await,
        None => Ok(()),
    }
}

fn number(text: &str) -> Result<Option<u32>, Error> {
    let number = text.strip_prefix("web=").unwrap_or(text);
    if number == "default" {
        return Ok(None);
    }
    number.parse().map(Some).map_err(|_| {
        Error::usage(format!(
            "`{}` is not a number of instances: expected for example `3` or `web=3`",
            text.escape_debug()
        ))
    })
}
