//! `cutover logs`: prints what an app writes, or a deployment's log.

use std::io::{IsTerminal, stdout};

use clap::Args;
use serde::Deserialize;

use super::client::{Client, view};
use super::error::Kind;
use super::{Error, Global, outcome, print};
use crate::deploy::short_name;
use crate::ids::DeploymentId;

/// Print what an app writes, over all its instances, or the log of a deployment
#[derive(Debug, Args)]
pub struct Logs {
    /// Name of the app, as in `[apps.NAME]`, or id of a deployment
    #[arg(value_name = "APP|DEPLOYMENT")]
    of: String,
    /// Print the log of this deployment instead
    #[arg(long, value_name = "ID", hide = true)]
    deployment: Option<String>,
    /// Keep printing what is written, across switches; of a deployment, until it has ended (exit code 1 if it
    /// fails)
    #[arg(long, short)]
    follow: bool,
    /// How many past lines to print
    #[arg(long, short = 'n', value_name = "LINES", default_value_t = 100)]
    lines: u32,
    /// Only lines since then: a time in RFC 3339, or how long ago, such as 10m
    #[arg(long, value_name = "TIME")]
    since: Option<String>,
    /// Only this instance: the container's name or the end of it, such as web-1 or worker-0
    #[arg(long, value_name = "INSTANCE")]
    instance: Option<String>,
    /// Only this process, such as web or worker
    #[arg(long, value_name = "PROCESS")]
    process: Option<String>,
    /// Only lines that contain this text
    #[arg(long, value_name = "TEXT")]
    grep: Option<String>,
    /// Print each line as a JSON object
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Line {
    time: String,
    stream: String,
    text: String,
    instance: String,
}

/// Prints the log as it is now or, with `--follow`, as it grows.
pub async fn run(args: Logs, global: &Global) -> Result<(), Error> {
    let client = Client::new(global)?;
    if let Some(id) = &args.deployment {
        return of_deployment(&client, &view::segment(id), args.follow).await;
    }
    let of = &args.of;
    if of.parse::<DeploymentId>().is_err() {
        return of_app(&client, &args).await;
    }
    match client.get(&format!("/api/v1/deployments/{of}")).await {
        Ok(_) => of_deployment(&client, of, args.follow).await,
        // An app may be named like an id.
        Err(error) if error.kind() == Kind::Usage => {
            of_app(&client, &args).await.map_err(|_| error)
        }
        Err(error) => Err(error),
    }
}

async fn of_deployment(client: &Client, id: &str, follow: bool) -> Result<(), Error> {
    if follow {
        return outcome::follow(client, id, false).await;
    }
    each(client, &format!("/api/v1/deployments/{id}/log"), |line| {
        print::line(line);
    })
    .await
}

async fn of_app(client: &Client, args: &Logs) -> Result<(), Error> {
    let mut query = url::form_urlencoded::Serializer::new(String::new());
    query.append_pair("follow", if args.follow { "true" } else { "false" });
    query.append_pair("lines", &args.lines.to_string());
    let more = [
        ("since", &args.since),
        ("instance", &args.instance),
        ("process", &args.process),
        ("grep", &args.grep),
    ];
    for (key, value) in more {
        if let Some(value) = value {
            query.append_pair(key, value);
        }
    }
    let app = view::segment(&args.of);
    let path = format!("/api/v1/apps/{app}/logs?{}", query.finish());
    each(client, &path, |line| match args.json {
        true => print::line(line),
        false => print::line(shown(&line)),
    })
    .await?;
    // Without Docker there is only what was kept of instances that are gone.
    match client.look("/readyz").await {
        Ok((_, ready)) => match ready["docker"].as_str() {
            Some(why) if why != "ok" => Err(Error::failed(format!(
                "what runs now cannot be read: {why}"
            ))),
            _ => Ok(()),
        },
        Err(_) => Ok(()),
    }
}

async fn each(client: &Client, path: &str, line: impl Fn(String)) -> Result<(), Error> {
    let mut lines = client.lines(path).await?;
    loop {
        let next = lines.next().await.map_err(|error| {
            Error::unreachable("lost the connection to the agent while reading the log")
                .because(&error)
        })?;
        match next {
            Some(text) => line(text),
            None => return Ok(()),
        }
    }
}

/// `09:30:01 d01m5z8k2q4x7a-0 | text`, in a pipe with the whole time.
fn shown(json: &str) -> String {
    let line: Line = serde_json::from_str(json).unwrap_or_default();
    let time = match stdout().is_terminal() {
        true => line.time.get(11..19),
        false => line.time.get(..23),
    };
    let instance = match short_name(&line.instance) {
        Some(short) if short.contains('-') => short,
        // Those of `web` have their deployment in front.
        _ => match line.instance.rmatch_indices('-').nth(1) {
            Some((at, _)) => &line.instance[at + 1..],
            None => &line.instance,
        },
    };
    let mark = if line.stream == "stderr" { '!' } else { '|' };
    format!(
        "{} {instance} {mark} {}",
        time.unwrap_or_default(),
        line.text
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_names_its_time_and_its_instance() {
        let json = r#"{"time":"2026-05-04T09:30:01.020304050Z","stream":"stderr","text":"oops",
            "instance":"cutover-hello-d01m5z8k2q4x7a-0"}"#;
        assert_eq!(
            shown(json),
            "2026-05-04T09:30:01.020 d01m5z8k2q4x7a-0 ! oops"
        );
        let json = json.replace("7a-0", "7a-my-worker-0");
        assert!(shown(&json).contains(" my-worker-0 ! oops"), "{json}");
        assert_eq!(shown("{"), "  | ");
    }
}
