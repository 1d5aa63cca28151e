//! Differences between the agent and its deploy.toml or its database, reported besides a verb's own
//! output.

use serde::Deserialize;

use super::client::{Client, view};
use super::{print, words};

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Configuration {
    /// The file that the agent reads.
    pub file: String,
    /// Apps that serve although the file no longer has them.
    pub lost: Vec<String>,
    /// Apps that serve although they are not in the database.
    pub unrecorded: Vec<String>,
    /// What the agent warns of; an older one does not say.
    pub warnings: Option<Vec<String>>,
    /// Why stored secrets cannot be used.
    pub secrets: Vec<String>,
    /// Receivers of notifications that cannot be reached.
    pub unreached: Vec<Unreached>,
    pub notice: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Unreached {
    receiver: String,
    error: String,
    since: String,
    waiting: u64,
}

impl Unreached {
    pub fn said(&self) -> String {
        let since = words::since(&self.since).unwrap_or_default();
        words::unreached(&self.receiver, since, &self.error, self.waiting)
    }
}

/// The configuration in force. `None`: the agent did not report it, and the verb itself will say why.
pub async fn configuration(client: &Client) -> Option<Configuration> {
    let answer = client.get("/api/v1/configuration").await.ok()?;
    view::read(&answer).ok()
}

/// Reports on stderr where the agent differs from its file or its database; returns all that it says.
pub async fn say(client: &Client) -> Configuration {
    let configuration = configuration(client).await.unwrap_or_default();
    let apps = configuration.unrecorded.iter();
    let notice = configuration.notice.clone();
    for notice in apps.map(|app| unrecorded(app)).chain(notice) {
        print::error(format_args!("Note: {notice}"));
    }
    configuration
}

/// The notice for an app that serves although it is not in the database.
pub fn unrecorded(app: &str) -> String {
    format!(
        "`{app}` serves a release that the database does not know (it was lost, damaged or restored \
         from a backup): record it again with `cutover adopt {app}`, or stop the agent, restore a newer \
         copy of `cutover.db` and start it again"
    )
}

/// The notice for an app that serves although it is no longer in the file.
pub fn lost(app: &str) -> String {
    format!(
        "`{app}` is no longer in deploy.toml but keeps serving: run `cutover remove {app}` to remove it"
    )
}
