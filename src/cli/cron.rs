//! `cutover cron`: an app's scheduled commands and their runs.

use clap::Args;
use serde::Deserialize;
use serde_json::json;

use super::client::{Client, view};
use super::{Error, Global, print, table, words};

/// Show an app's scheduled commands, or the last runs of one
#[derive(Debug, Args)]
pub struct Cron {
    /// Name of the app, as in `[apps.NAME]`
    app: String,
    /// Name of the command, as in `[apps.APP.cron.NAME]`
    name: Option<String>,
    /// Run it now
    #[arg(long, requires = "name")]
    run: bool,
    /// Print the API's response as JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Scheduled {
    name: String,
    schedule: String,
    timezone: String,
    command: String,
    next_at: Option<String>,
    last: Option<Run>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Run {
    id: String,
    state: String,
    started_at: String,
    ended_at: Option<String>,
    exit_code: Option<i64>,
    outcome: Option<String>,
    log_tail: Vec<String>,
}

pub async fn run(args: Cron, global: &Global) -> Result<(), Error> {
    let client = Client::new(global)?;
    let path = format!("/api/v1/apps/{}/cron", view::segment(&args.app));
    let Some(name) = &args.name else {
        let answer = client.get(&path).await?;
        if args.json {
            print::json(&answer);
            return Ok(());
        }
        let list: view::List<Scheduled> = view::read(&answer)?;
        commands(&args.app, &list.items);
        return Ok(());
    };
    let path = format!("{path}/{}/runs", view::segment(name));
    if args.run {
        let answer = client.post(&path, &json!({})).await?;
        if args.json {
            print::json(&answer);
            return Ok(());
        }
        let run: Run = view::read(&answer)?;
        let app = &args.app;
        print::line(format_args!("`{name}` runs in the container `{}`", run.id));
        print::line(format_args!(
            "`cutover cron {app} {name}` shows how it ends"
        ));
        return Ok(());
    }
    let answer = client.get(&path).await?;
    if args.json {
        print::json(&answer);
        return Ok(());
    }
    let list: view::List<Run> = view::read(&answer)?;
    runs(name, &list.items);
    Ok(())
}

fn commands(app: &str, all: &[Scheduled]) {
    if all.is_empty() {
        print::line(format_args!(
            "`{app}` has no scheduled commands: add `[apps.{app}.cron.NAME]` to deploy.toml"
        ));
        return;
    }
    let rows = all.iter().map(|it| {
        let last = it.last.as_ref();
        vec![
            it.name.clone(),
            format!("{} {}", it.schedule, it.timezone),
            it.next_at.clone().unwrap_or("-".into()),
            last.map_or("-".into(), |run| words::ago(&run.started_at)),
            last.map_or("-".into(), how),
            it.command.clone(),
        ]
    });
    let headers = ["NAME", "SCHEDULE", "NEXT", "LAST", "STATE", "COMMAND"];
    table::show(&headers, rows.collect());
}

fn runs(name: &str, all: &[Run]) {
    let Some(newest) = all.first() else {
        print::line(format_args!("`{name}` has not run yet"));
        return;
    };
    let rows = all.iter().map(|run| {
        let took = run.ended_at.as_deref();
        let took = took.and_then(|ended| words::between(&run.started_at, ended));
        vec![
            run.started_at.clone(),
            took.map_or("-".into(), words::took),
            how(run),
        ]
    });
    table::show(&["STARTED", "TOOK", "STATE"], rows.collect());
    if !newest.log_tail.is_empty() {
        print::line("\nThe last lines of the newest:");
        for line in &newest.log_tail {
            print::line(format_args!("  {line}"));
        }
    }
}

/// `failed with code 3`
fn how(run: &Run) -> String {
    match (&run.outcome, run.exit_code) {
        (Some(outcome), _) => outcome.clone(),
        (None, Some(code)) if code != 0 => format!("{} with code {code}", run.state),
        _ => run.state.clone(),
    }
}
