//! `cutover gc`: removes from Docker what the database does not know.

use clap::Args;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::client::{Client, view};
use super::{Error, Global, confirm, print, words};

/// How many items one request names; the API limits the size of its body.
const AT_ONCE: usize = 200;

/// Remove containers, images and networks that Cutover made but its database no longer knows
#[derive(Debug, Args)]
pub struct Gc {
    /// Show what would be removed, and remove nothing
    #[arg(long)]
    dry_run: bool,
    /// Remove it without asking
    #[arg(long, short)]
    yes: bool,
    /// Remove volumes too, and the data in them
    #[arg(long)]
    volumes: bool,
    /// Print what there is, or what was removed, as JSON
    #[arg(long)]
    json: bool,
}

/// Something that no record names.
#[derive(Debug, Clone, Default, Deserialize, Serialize)]
#[serde(default)]
pub struct Orphan {
    pub kind: String,
    pub id: String,
    pub name: String,
    pub app: Option<String>,
    pub created_at: String,
    pub size: Option<u64>,
    pub reason: String,
    pub in_use: Option<String>,
}

#[derive(Debug, Default, Deserialize, Serialize)]
#[serde(default)]
struct Done {
    removed: Vec<Orphan>,
    left: Vec<Left>,
}

#[derive(Debug, Default, Deserialize, Serialize)]
#[serde(default)]
struct Left {
    kind: String,
    id: String,
    reason: String,
}

impl Orphan {
    /// `container `x` of `hello`, 3 h ago, 12 MiB`.
    pub fn shown(&self) -> String {
        let mut text = format!("{} `{}`", self.kind, self.name);
        if let Some(app) = &self.app {
            text += &format!(" of `{app}`");
        }
        text += &format!(", made {}", words::ago(&self.created_at));
        if let Some(size) = self.size {
            text += &format!(", {}", words::size(size));
        }
        text
    }
}

/// What no record names.
pub async fn orphans(client: &Client) -> Result<Vec<Orphan>, Error> {
    let answer = client.get("/api/v1/orphans").await?;
    let list: view::List<Orphan> = view::read(&answer)?;
    Ok(list.items)
}

/// Shows what would be removed, asks, and removes exactly that.
pub async fn run(args: Gc, global: &Global) -> Result<(), Error> {
    let client = Client::new(global)?;
    let all = orphans(&client).await?;
    let is_doomed = |it: &Orphan| it.in_use.is_none() && (args.volumes || it.kind != "volume");
    let doomed: Vec<&Orphan> = all.iter().filter(|it| is_doomed(it)).collect();
    // With --json, only the result goes to stdout.
    let say = |text: &str| match args.json {
        true => eprintln!("{text}"),
        false => print::line(text),
    };
    for it in &all {
        say(&line(it, is_doomed(it)));
    }
    if args.dry_run || doomed.is_empty() {
        match args.json {
            true => print::json(&all),
            false if doomed.is_empty() => print::line("There is nothing to remove"),
            false => print::line("Nothing was removed (dry run)"),
        }
        return Ok(());
    }
    let bytes: u64 = doomed.iter().filter_map(|it| it.size).sum();
    let (count, size) = (doomed.len(), words::size(bytes));
    if !args.yes {
        let without = "nothing is removed without confirmation";
        let question = match count {
            1 => format!("Remove it ({size})?"),
            _ => format!("Remove these {count} ({size})?"),
        };
        confirm::confirm(&question, without, "pass `--yes`")?;
    }
    let mut done = Done::default();
    for some in doomed.chunks(AT_ONCE) {
        let items = some
            .iter()
            .map(|it| json!({ "kind": it.kind, "id": it.id }));
        let body = json!({ "items": items.collect::<Vec<_>>() });
        let answer: Done = view::read(&client.post("/api/v1/gc", &body).await?)?;
        done.removed.extend(answer.removed);
        done.left.extend(answer.left);
    }
    for Left { kind, id, reason } in &done.left {
        let name = all.iter().find(|it| it.id == *id).map_or(id, |it| &it.name);
        say(&format!("{kind} `{name}` was not removed: {reason}"));
    }
    match args.json {
        true => print::json(&done),
        false => print::line(format_args!("Removed {} of {count}", done.removed.len())),
    }
    match done.left.is_empty() {
        true => Ok(()),
        false => Err(Error::failed("not everything was removed")),
    }
}

fn line(it: &Orphan, is_doomed: bool) -> String {
    let (what, reason) = (it.shown(), &it.reason);
    match &it.in_use {
        _ if is_doomed => format!("remove {what}: {reason}"),
        Some(why) => format!("keep {what}: {why}"),
        None => format!("keep {what}: {reason} (`--volumes` removes it, with its data)"),
    }
}
