//! `cutover audit`: who did what, and whether the record of it is whole.

use clap::Args;
use serde::Deserialize;
use serde_json::Value;

use super::client::{Client, view};
use super::table::Table;
use super::{Error, Global, print, words};
use crate::deploy::detail;
use crate::principal::Requester;

/// Show the audit log, newest first: who did what, and from where
#[derive(Debug, Args)]
pub struct Audit {
    /// Only what concerns this app
    #[arg(long)]
    app: Option<String>,
    /// Only this kind, such as rollback or refused
    #[arg(long, value_name = "KIND")]
    action: Option<String>,
    /// Only since then: a time, or how long ago, such as 7d
    #[arg(long, value_name = "TIME")]
    since: Option<String>,
    /// Maximum number of entries [default: 50; with --json all]
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u32).range(1..))]
    limit: Option<u32>,
    /// Print each entry as one line of JSON
    #[arg(long)]
    json: bool,
    /// Check that no entry was changed or deleted, and print the hash of the newest
    #[arg(long, conflicts_with_all = ["app", "action", "since", "limit"])]
    verify: bool,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Entry {
    seq: i64,
    action: String,
    app: Option<String>,
    at: String,
    requested_by: Value,
    detail: Value,
}

#[derive(Debug, Deserialize)]
struct Checked {
    count: u64,
    seq: i64,
    hash: String,
    problem: Option<String>,
}

/// The most entries that the agent sends at once.
const PAGE: usize = 200;
const SHOWN: usize = 50;

pub async fn run(args: Audit, global: &Global) -> Result<(), Error> {
    let client = Client::new(global)?;
    if args.verify {
        return verify(&client, args.json).await;
    }
    let wanted = match (args.limit, args.json) {
        (Some(limit), _) => limit as usize,
        (None, true) => usize::MAX,
        (None, false) => SHOWN,
    };
    let (mut rows, mut count, mut cursor) = (Vec::new(), 0, None);
    loop {
        let path = path(&args, (wanted - count).min(PAGE), cursor.as_deref());
        let list: view::List<Value> = view::read(&client.get(&path).await?)?;
        count += list.items.len();
        for item in &list.items {
            match args.json {
                true => print::line(item),
                false => rows.push(row(&view::read(item)?)),
            }
        }
        cursor = list.next.filter(|_| count < wanted);
        if cursor.is_none() {
            break;
        }
    }
    if !args.json && rows.is_empty() {
        print::error("No entries match");
    } else if !args.json {
        let headers = ["ENTRY", "WHEN", "ACTION", "APP", "BY", "FROM", "WHAT"];
        let table = Table {
            headers: &headers,
            spare: &["ENTRY", "FROM"],
            margin: "",
        };
        table.show(rows);
    }
    Ok(())
}

fn path(args: &Audit, limit: usize, cursor: Option<&str>) -> String {
    let mut query = url::form_urlencoded::Serializer::new(String::new());
    query.append_pair("limit", &limit.to_string());
    for (name, value) in [
        ("cursor", cursor),
        ("app", args.app.as_deref()),
        ("action", args.action.as_deref()),
        ("since", args.since.as_deref()),
    ] {
        if let Some(value) = value {
            query.append_pair(name, value);
        }
    }
    format!("/api/v1/actions?{}", query.finish())
}

fn row(entry: &Entry) -> Vec<String> {
    let by: Option<Requester> = serde_json::from_value(entry.requested_by.clone()).ok();
    let from = by.as_ref().and_then(Requester::address);
    let detail = detail::pairs(&entry.detail).into_iter();
    let detail = detail.map(|(name, value)| match value.contains([' ', '"']) {
        true => format!("{name}={value:?}"),
        false => format!("{name}={value}"),
    });
    vec![
        entry.seq.to_string(),
        words::ago(&entry.at),
        entry.action.clone(),
        entry.app.clone().unwrap_or("-".into()),
        by.map_or("?".into(), |by| by.to_string()),
        from.map_or("-".into(), |from| from.to_string()),
        detail.collect::<Vec<_>>().join(" "),
    ]
}

async fn verify(client: &Client, json: bool) -> Result<(), Error> {
    let answer = client.get("/api/v1/actions/check").await?;
    let checked: Checked = view::read(&answer)?;
    if json {
        print::json(&answer);
    } else if checked.problem.is_none() {
        let (count, seq, hash) = (checked.count, checked.seq, &checked.hash);
        print::line(format_args!("The audit log is intact: {count} entries"));
        print::line(format_args!("Entry {seq} has the hash {hash}"));
    }
    match checked.problem {
        None => Ok(()),
        Some(problem) => Err(
            Error::failed(format!("the audit log is not intact: {problem}")).hint(
                "somebody has written to the database: compare with an earlier export or backup",
            ),
        ),
    }
}
