//! `cutover releases`: lists what a rollback can go back to.

use clap::Args;

use super::client::{Client, view};
use super::table::Table;
use super::{Error, Global, print, words};

/// List an app's releases, newest first; a rollback can go back to those that are kept
#[derive(Debug, Args)]
pub struct Releases {
    /// Name of the app
    app: String,
    /// Maximum number of entries
    #[arg(long, default_value_t = 20, value_name = "COUNT", value_parser = clap::value_parser!(u32).range(1..=200))]
    limit: u32,
    /// Print the API's response as JSON
    #[arg(long)]
    json: bool,
}

/// Prints one line for each release.
pub async fn run(args: Releases, global: &Global) -> Result<(), Error> {
    let client = Client::new(global)?;
    let (app, limit) = (view::segment(&args.app), args.limit);
    let path = format!("/api/v1/apps/{app}/releases?limit={limit}");
    let answer = client.get(&path).await?;
    if args.json {
        print::json(&answer);
        return Ok(());
    }
    let list: view::List<view::Release> = view::read(&answer)?;
    if list.items.is_empty() {
        let app = &args.app;
        eprintln!("`{app}` has no releases yet: its first deployment makes one");
        return Ok(());
    }
    let headers = [
        "RELEASE",
        "IMAGE",
        "STATUS",
        "BUILT",
        "DEPLOYMENT",
        "SUBJECT",
    ];
    let table = Table {
        headers: &headers,
        spare: &["DEPLOYMENT", "BUILT"],
        margin: "",
    };
    table.show(list.items.iter().map(row).collect());
    if let Some(release) = list.items.iter().find(|release| release.gone) {
        let app = &args.app;
        print::line(format_args!(
            "! An image that is gone was removed from Docker: `cutover rollback {app} --to {} --rebuild` pulls it or \
             builds its commit again",
            release.id
        ));
    }
    Ok(())
}

fn row(release: &view::Release) -> Vec<String> {
    let note = match release {
        release if release.current && release.gone => "current, image gone",
        release if release.current => "current",
        release if release.live_at.is_none() => "never live",
        release if release.gone => "gone",
        release if !release.kept => "removed",
        release if release.failed_bake => "failed bake",
        _ => "kept",
    };
    vec![
        release.id.clone(),
        release.image.clone(),
        note.to_owned(),
        words::ago(&release.created_at),
        release.deployment.clone(),
        match &release.changed {
            Some(changed) => format!(
                "{} ({})",
                words::subject(&release.message),
                words::changed(changed)
            ),
            None => words::subject(&release.message),
        },
    ]
}
