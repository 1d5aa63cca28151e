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
    let id = view::segment(&args.id);
    client
        .post(&format!("/api/v1/deployments/{id}/cancel"), &Value::Null)
        .await?;
    print::line(format_args!("Deployment `{id}` is being cancelled"));
    Ok(())
}
