//! `cutover releases`: lists what a rollback can go back to.

use clap::Args;

use super::client::{Client, view};
use super::{Error, Global, print, table, words};

/// List an app's releases, newest first; a rollback can go back to those that are kept
#[derive(Debug, Args)]
pub struct Releases {
    /// Name of the app, as in `[apps.NAME]`
    app: String,
    /// Maximum number of entries
    #[arg(long, default_value_t = 20, value_name = "COUNT")]
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
    let headers = [
        "RELEASE",
        "IMAGE",
        "STATUS",
        "BUILT",
        "DEPLOYMENT",
        "SUBJECT",
    ];
    table::show(&headers, list.items.iter().map(row).collect());
    Ok(())
}

fn row(release: &view::Release) -> Vec<String> {
    let note = match (release.current, release.kept) {
        (true, _) => "current",
        (false, true) => "kept",
        (false, false) => "removed",
    };
    vec![
        release.id.clone(),
        release.image.clone(),
        note.to_owned(),
        words::ago(&release.created_at),
        release.deployment.clone(),
        words::subject(&release.message),
    ]
}
