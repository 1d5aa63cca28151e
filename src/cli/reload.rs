//! `cutover reload`: makes the agent use deploy.toml as it is now.

use clap::Args;
use serde::Deserialize;
use serde_json::Value;

use super::client::{Client, view};
use super::{Error, Global, print};

/// Apply deploy.toml as it is now, without restarting the agent
#[derive(Debug, Args)]
pub struct Reload {
    /// Check the file and show what would change, and change nothing
    #[arg(long)]
    dry_run: bool,
    /// Print the API's response as JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Done {
    file: String,
    applied: bool,
    changes: Vec<Change>,
    renamed: Vec<Rename>,
    left: Vec<String>,
    needs_restart: Vec<String>,
    warnings: Vec<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Change {
    key: String,
    change: String,
    applies: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Rename {
    from: String,
    to: String,
}

/// Prints each change. If the file has mistakes, nothing changes, and all of them are printed.
pub async fn run(args: Reload, global: &Global) -> Result<(), Error> {
    let client = Client::new(global)?;
    let path = format!("/api/v1/reload?dry_run={}", args.dry_run);
    let answer = client.post(&path, &Value::Null).await?;
    if args.json {
        print::json(&answer);
        return Ok(());
    }
    let done: Done = view::read(&answer)?;
    for line in lines(&done) {
        print::line(line);
    }
    Ok(())
}

fn lines(done: &Done) -> Vec<String> {
    let mut lines: Vec<String> = done.changes.iter().map(change).collect();
    for Rename { from, to } in &done.renamed {
        lines.push(format!(
            "`{from}` is now `{to}`, with its releases and history"
        ));
    }
    for app in &done.left {
        lines.push(super::notice::lost(app));
    }
    if !done.needs_restart.is_empty() {
        let keys = done.needs_restart.join("`, `");
        lines.push(format!("`{keys}`: restart `cutover serve` to apply"));
    }
    lines.extend(
        done.warnings
            .iter()
            .map(|warning| format!("Warning: {warning}")),
    );
    let file = &done.file;
    lines.push(match (done.applied, done.changes.is_empty()) {
        (true, true) => format!("Reloaded `{file}`; no setting has changed"),
        (true, false) => format!("Reloaded `{file}`"),
        (false, true) => format!("`{file}` has no mistakes; no setting would change"),
        (false, false) => format!("`{file}` has no mistakes; nothing was changed (dry run)"),
    });
    lines
}

fn change(change: &Change) -> String {
    let when = match change.applies.as_str() {
        "next_deployment" => ", from the next deployment on",
        "restart" => ", at the next restart",
        _ => "",
    };
    format!("`{}` {}{when}", change.key, change.change)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn each_change_says_when_it_counts() {
        let done = json!({
            "file": "/etc/deploy.toml", "applied": true,
            "changes": [
                {"key": "apps.a.repo", "change": "changed", "applies": "now"},
                {"key": "apps.a.run.env.X", "change": "added", "applies": "next_deployment"},
                {"key": "agent.listen", "change": "removed", "applies": "restart"},
            ],
            "renamed": [{"from": "old", "to": "new"}],
            "left": ["gone"],
            "needs_restart": ["agent.listen"],
            "warnings": ["there is no app"],
        });
        let done: Done = view::read(&done).unwrap();
        assert_eq!(
            lines(&done),
            [
                "`apps.a.repo` changed",
                "`apps.a.run.env.X` added, from the next deployment on",
                "`agent.listen` removed, at the next restart",
                "`old` is now `new`, with its releases and history",
                "`gone` is no longer in deploy.toml but keeps serving: run `cutover remove gone` to remove it",
                "`agent.listen`: restart `cutover serve` to apply",
                "Warning: there is no app",
                "Reloaded `/etc/deploy.toml`",
            ]
        );
    }
}
