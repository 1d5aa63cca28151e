//! Where deploy.toml and the agent differ, said beside what a verb does.

use serde::Deserialize;

use super::client::{Client, view};

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Configuration {
    /// The file that the agent reads.
    pub file: String,
    /// Apps that serve although the file no longer has them.
    pub lost: Vec<String>,
    pub notice: Option<String>,
}

/// What the agent goes by. `None`: it says nothing of it, and the verb itself will say why.
pub async fn configuration(client: &Client) -> Option<Configuration> {
    let answer = client.get("/api/v1/configuration").await.ok()?;
    view::read(&answer).ok()
}

/// Says on stderr where the agent goes by something else than its file says.
pub async fn say(client: &Client) {
    let configuration = configuration(client).await;
    if let Some(notice) = configuration.and_then(|it| it.notice) {
        eprintln!("Note: {notice}");
    }
}

/// An app that serves although the file no longer has it.
pub fn lost(app: &str) -> String {
    format!("`{app}` is not in deploy.toml any more, and serves on: `cutover remove {app}`")
}
