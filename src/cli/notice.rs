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
    /// Apps that serve although the database does not know of it.
    pub unrecorded: Vec<String>,
    pub notice: Option<String>,
}

/// What the agent goes by. `None`: it says nothing of it, and the verb itself will say why.
pub async fn configuration(client: &Client) -> Option<Configuration> {
    let answer = client.get("/api/v1/configuration").await.ok()?;
    view::read(&answer).ok()
}

/// Says on stderr where the agent goes by something else than its file or its database says.
pub async fn say(client: &Client) {
    let configuration = configuration(client).await.unwrap_or_default();
    let apps = configuration.unrecorded.iter();
    for notice in apps.map(|app| unrecorded(app)).chain(configuration.notice) {
        eprintln!("Note: {notice}");
    }
}

/// An app that serves although the database does not know of it.
pub fn unrecorded(app: &str) -> String {
    format!(
        "`{app}` serves a release that the database does not know (it was lost, damaged or restored \
         from a backup): stop the agent, restore a newer copy of `cutover.db` and start it again, or \
         take the app over with `cutover deploy {app}`"
    )
}

/// An app that serves although the file no longer has it.
pub fn lost(app: &str) -> String {
    format!(
        "`{app}` is no longer in deploy.toml but keeps serving: run `cutover remove {app}` to remove it"
    )
}
