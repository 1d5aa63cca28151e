//! `cutover cancel`: stop a deployment before its switch.

use clap::Args;
use serde_json::Value;

use super::client::{Client, view};
use super::{Error, Global, notice, print};

/// Cancel a deployment that has not switched yet; the live release keeps serving
#[derive(Debug, Args)]
pub struct Cancel {
    /// Id of the deployment
    id: String,
}

/// Requests the cancellation. The deployment ends as `cancelled` once its work has been undone.
pub async fn run(args: Cancel, global: &Global) -> Result<(), Error> {
    let client = Client::new(global)?;
    notice::say(&client).await;
    let path = format!("/api/v1/deployments/{}", view::segment(&args.id));
    let before: view::Deployment = view::read(&client.get(&path).await?)?;
    let answer = client.post(&format!("{path}/cancel"), &Value::Null).await?;
    let after: view::Deployment = view::read(&answer)?;
    let (id, app) = (&after.id, &after.app);
    let said = match (before.state.as_str(), after.state.as_str()) {
        ("cancelled", _) => "was already cancelled",
        (_, "cancelled") => "is cancelled",
        _ => "is being cancelled",
    };
    print::line(format_args!("Deployment `{id}` of `{app}` {said}"));
    Ok(())
}
