//! `cutover pin`, `cutover unpin` and `cutover maintenance`.

use clap::Args;
use serde_json::json;

use super::client::{Client, view};
use super::{Error, Global, print};

/// Pin an app to its live release: pushes, also those under way, are recorded, but not deployed
#[derive(Debug, Args)]
pub struct Pin {
    /// Name of the app, as in `[apps.NAME]`
    app: String,
    /// Why, for those whose push is not deployed
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
}

/// Let pushes to an app go live again
#[derive(Debug, Args)]
pub struct Unpin {
    /// Name of the app, as in `[apps.NAME]`
    app: String,
}

/// Answer an app's visitors with 503 while its instances go on
#[derive(Debug, Args)]
pub struct Maintenance {
    /// Name of the app, as in `[apps.NAME]`
    app: String,
    /// What visitors read
    #[arg(long, value_name = "TEXT", conflicts_with = "off")]
    message: Option<String>,
    /// End the maintenance
    #[arg(long)]
    off: bool,
}

pub async fn pin(args: Pin, global: &Global) -> Result<(), Error> {
    let path = format!("/api/v1/apps/{}/pin", view::segment(&args.app));
    let mut body = json!({});
    if let Some(reason) = args.reason {
        body["reason"] = reason.into();
    }
    Client::new(global)?.post(&path, &body).await?;
    let app = &args.app;
    print::line(format_args!(
        "`{app}` is pinned: what is pushed is recorded and not deployed, until `cutover unpin {app}`"
    ));
    Ok(())
}

pub async fn unpin(args: Unpin, global: &Global) -> Result<(), Error> {
    let path = format!("/api/v1/apps/{}/unpin", view::segment(&args.app));
    Client::new(global)?.post(&path, &json!({})).await?;
    let app = &args.app;
    print::line(format_args!(
        "`{app}` is no longer pinned: the next push goes live; `cutover deploy {app}` deploys what was pushed before"
    ));
    Ok(())
}

pub async fn maintenance(args: Maintenance, global: &Global) -> Result<(), Error> {
    let path = format!("/api/v1/apps/{}/maintenance", view::segment(&args.app));
    let mut body = json!({ "off": args.off });
    if let Some(message) = args.message {
        body["message"] = message.into();
    }
    Client::new(global)?.post(&path, &body).await?;
    let app = &args.app;
    match args.off {
        true => print::line(format_args!("`{app}` is no longer under maintenance")),
        false => print::line(format_args!(
            "`{app}` is under maintenance: its visitors get 503, until `cutover maintenance {app} --off`"
        )),
    }
    Ok(())
}
