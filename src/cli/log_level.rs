//! `cutover log-level`: what the agent or its proxy logs, for a while.

use clap::Args;
use serde::Deserialize;
use serde_json::json;

use super::client::{Client, view};
use super::{Error, Global, print, words};

/// Show what the agent or its proxy logs, or change it for a while
#[derive(Debug, Args)]
pub struct LogLevel {
    /// `error`, `warn`, `info`, `debug`, `trace`, directives such as `cutover::deploy=trace`, or `usual`
    level: Option<String>,
    /// For how long, at most `24h`
    #[arg(long, value_name = "TIME", default_value = "10m", requires = "level")]
    r#for: String,
    /// The proxy's log in place of the agent's
    #[arg(long)]
    proxy: bool,
    /// Print the API's response as JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Level {
    usual: String,
    level: Option<String>,
    until: Option<String>,
}

pub async fn run(args: LogLevel, global: &Global) -> Result<(), Error> {
    let client = Client::new(global)?;
    let path = "/api/v1/log-level";
    let of = if args.proxy { "proxy" } else { "agent" };
    let answer = match args.level.as_deref() {
        None => client.get(&format!("{path}?of={of}")).await?,
        Some("usual") => client.post(path, &json!({ "of": of })).await?,
        Some(level) => {
            let body = json!({ "of": of, "level": level, "for": args.r#for });
            client.post(path, &body).await?
        }
    };
    if args.json {
        print::json(&answer);
        return Ok(());
    }
    let now: Level = view::read(&answer)?;
    match (&now.level, &now.until) {
        (Some(level), Some(until)) => print::line(format_args!(
            "The {of} logs at `{level}`; {} it goes back to its usual level (`cutover log-level usual{}` does so at once)",
            words::until(until).unwrap_or_default(),
            if args.proxy { " --proxy" } else { "" }
        )),
        _ => print::line(format_args!("The {of} logs as usual: `{}`", now.usual)),
    }
    Ok(())
}
