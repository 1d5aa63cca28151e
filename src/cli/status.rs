//! `cutover status`: shows what is live, and what is being deployed.

use clap::Args;

use super::client::{Client, view};
use super::table::Table;
use super::{Error, Global, certificates, notice, print, words};

/// Show what is live and what is being deployed
#[derive(Debug, Args)]
pub struct Status {
    /// Show only this app
    app: Option<String>,
    /// Print the API's response as JSON
    #[arg(long)]
    json: bool,
}

/// Prints one line for each app.
pub async fn run(args: Status, global: &Global) -> Result<(), Error> {
    let client = Client::new(global)?;
    let server = notice::say(&client).await;
    let (answer, apps) = match &args.app {
        Some(app) => {
            let path = format!("/api/v1/apps/{}", view::segment(app));
            let answer = client.get(&path).await?;
            let app = view::read(&answer)?;
            (answer, vec![app])
        }
        None => {
            let answer = client.get("/api/v1/apps").await?;
            let apps: view::List<view::App> = view::read(&answer)?;
            (answer, apps.items)
        }
    };
    if args.json {
        print::json(&answer);
        return Ok(());
    }
    if apps.is_empty() {
        print::line(
            "There are no apps yet: add a section such as `[apps.hello]` to deploy.toml, then run \
             `cutover reload`",
        );
        return Ok(());
    }
    let headers = [
        "APP",
        "LIVE",
        "SINCE",
        "INSTANCES",
        "DEPLOYMENT",
        "STATE",
        "DOMAINS",
    ];
    let table = Table {
        headers: &headers,
        spare: &["SINCE"],
        margin: "",
    };
    table.show(apps.iter().flat_map(rows).collect());
    for app in &apps {
        if app.removing {
            let name = &app.name;
            print::line(format_args!(
                "`{name}` is being removed: deployments that are queued now wait until it is gone"
            ));
        }
        if let Some(stopped) = &app.stopped {
            let (name, ago, by) = (&app.name, words::ago(&stopped.at), &stopped.by);
            print::line(format_args!(
                "`{name}` was stopped {ago} by {by}: `cutover start {name}` starts it"
            ));
        }
        let name = &app.name;
        let said = |held: &view::Held| {
            let text = held.text.as_ref().map(|text| format!(" (\"{text}\")"));
            let (ago, by) = (words::ago(&held.at), &held.by);
            format!("{ago} by {by}{}", text.unwrap_or_default())
        };
        if let Some(held) = &app.pinned {
            print::line(format_args!(
                "`{name}` was pinned {}: `cutover unpin {name}` lets pushes go live again",
                said(held)
            ));
        }
        if let Some(held) = &app.maintenance {
            print::line(format_args!(
                "`{name}` was put under maintenance {}: `cutover maintenance {name} --off` ends it",
                said(held)
            ));
        }
    }
    let mut problems: Vec<_> = apps.iter().flat_map(|app| &app.problems).collect();
    // A problem with Docker is reported for every app.
    problems.dedup();
    for problem in problems {
        print::line(format_args!("! {problem}"));
    }
    for (_, problem) in certificates::problems(&client).await.unwrap_or_default() {
        print::line(format_args!("! {problem}"));
    }
    for receiver in &server.unreached {
        print::line(format_args!("! {}", receiver.said()));
    }
    for deployment in apps.iter().filter_map(|app| app.deployment.as_ref()) {
        if let Some(missed) = deployment.missed() {
            print::line(format_args!("{missed}"));
        }
    }
    for app in apps.iter().filter(|app| app.configured == Some(false)) {
        print::line(notice::lost(&app.name));
    }
    Ok(())
}

/// `2`, `1 of 2`, `web 2, worker 1 of 2`, `3 (deploy.toml: 2)`
fn instances(of: &view::Instances) -> String {
    let count = |serving: u32, wanted: u32| match serving == wanted {
        true => serving.to_string(),
        false => format!("{serving} of {wanted}"),
    };
    let process = |it: &view::Process| {
        let file = it.configured.map(|file| format!(" (deploy.toml: {file})"));
        count(it.serving, it.wanted) + &file.unwrap_or_default()
    };
    match of.processes.as_slice() {
        [] => count(of.serving, of.wanted),
        [only] => process(only),
        all => {
            let each = all.iter();
            let each = each.map(|it| format!("{} {}", it.name, process(it)));
            each.collect::<Vec<_>>().join(", ")
        }
    }
}

/// One line for the app, with the deployment that is under way or else the newest one; another for one
/// that waits behind it.
fn rows(app: &view::App) -> Vec<Vec<String>> {
    let live = app.release.as_ref();
    let since = live.and_then(|release| release.live_at.as_deref());
    let newest = app.deployment.as_ref();
    let first = app.running.as_ref().or(newest);
    let mut rows = vec![vec![
        app.name.clone(),
        live.map_or("-".into(), |r| words::short(&r.commit).to_owned()),
        since.map_or("-".into(), words::ago),
        app.instances.as_ref().map_or("-".into(), instances),
        first.map_or("-".into(), |d| d.id.clone()),
        match (first, app.waiting_for.as_deref()) {
            (Some(first), Some("docker")) => format!("{}, waiting for Docker", first.state),
            (first, _) => first.map_or("-".into(), |d| d.state.clone()),
        },
        match app.domains.as_slice() {
            [] => "any".into(),
            domains => domains.join(" "),
        },
    ]];
    if let (Some(first), Some(newest)) = (first, newest)
        && first.id != newest.id
    {
        let mut row = vec![String::new(); rows[0].len()];
        row[4] = newest.id.clone();
        row[5] = newest.state.clone();
        rows.push(row);
    }
    rows
}
