//! `cutover adopt`: records again what serves and the database does not know.

use clap::Args;
use serde::Deserialize;
use serde_json::json;

use super::client::{Client, view};
use super::{Error, Global, print};

/// Record again what serves, after the database was lost or restored from a backup
#[derive(Debug, Args)]
pub struct Adopt {
    /// Only this app [default: every app of deploy.toml]
    app: Option<String>,
    /// Print the API's response as JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Answer {
    adopted: Vec<Adopted>,
    left: Vec<Left>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Adopted {
    app: String,
    release: String,
    image: String,
    containers: Vec<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Left {
    name: String,
    reason: String,
}

/// Prints what was adopted, and what was not with the reason.
pub async fn run(args: Adopt, global: &Global) -> Result<(), Error> {
    let client = Client::new(global)?;
    let body = match &args.app {
        Some(app) => json!({ "app": app }),
        None => json!({}),
    };
    let answer = client.post("/api/v1/adopt", &body).await?;
    let done: Answer = view::read(&answer)?;
    match args.json {
        true => print::json(&answer),
        false => lines(&done).iter().for_each(print::line),
    }
    match &args.app {
        Some(app) if done.adopted.is_empty() => {
            let failed = Error::failed(format!("nothing of `{app}` was adopted"));
            Err(failed.hint(format!("`cutover deploy {app}` takes over what serves")))
        }
        _ => Ok(()),
    }
}

fn lines(done: &Answer) -> Vec<String> {
    let mut lines = Vec::new();
    for it in &done.adopted {
        let containers = it.containers.join("`, `");
        lines.push(format!(
            "`{}` serves release `{}` (`{}`), which is in the database again: `{containers}`",
            it.app, it.release, it.image
        ));
    }
    let left = done.left.iter();
    lines.extend(left.map(|it| format!("`{}` was not adopted: {}", it.name, it.reason)));
    if lines.is_empty() {
        lines.push("There is nothing to adopt".to_owned());
    }
    lines
}
