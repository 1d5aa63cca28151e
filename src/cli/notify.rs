//! `cutover notify test`: tries out who is notified.

use clap::{Args, Subcommand};
use serde::Deserialize;
use serde_json::json;

use super::client::{Client, view};
use super::{Error, Global, print};

/// Try out the notifications of deploy.toml
#[derive(Debug, Args)]
pub struct Notify {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Send a test to each receiver, and say what it answered
    Test(Test),
}

#[derive(Debug, Args)]
struct Test {
    /// Only this receiver, as in `[notify.NAME]`
    receiver: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Told {
    receiver: String,
    error: Option<String>,
}

/// Fails if anybody was not reached.
pub async fn run(args: Notify, global: &Global) -> Result<(), Error> {
    let Verb::Test(args) = args.verb;
    let client = Client::new(global)?;
    let body = match &args.receiver {
        Some(receiver) => json!({ "receiver": receiver }),
        None => json!({}),
    };
    let answer = client.post("/api/v1/notify/test", &body).await?;
    let told: view::List<Told> = view::read(&answer)?;
    if told.items.is_empty() {
        print::line("Nobody is notified: add a section such as `[notify.ops]` to deploy.toml");
    }
    let mut failed = 0;
    for one in &told.items {
        match &one.error {
            None => print::line(format_args!("`{}` was notified", one.receiver)),
            Some(why) => {
                failed += 1;
                print::line(format_args!("`{}` was not notified: {why}", one.receiver));
            }
        }
    }
    match failed {
        0 => Ok(()),
        1 => Err(Error::failed("1 receiver was not notified")),
        n => Err(Error::failed(format!("{n} receivers were not notified"))),
    }
}
