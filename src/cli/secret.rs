//! `cutover secret`: the secrets that Cutover keeps for an app; without a verb, a new webhook secret.

use std::collections::BTreeMap;
use std::io::{IsTerminal, Read, stdin, stdout};
use std::path::PathBuf;

use clap::{Args, Subcommand};
use serde::Deserialize;
use serde_json::json;

use super::client::{Client, view};
use super::kept::{Kept, Then, change};
use super::{Error, Global, print, table, words};
use crate::config::env_file;

/// Keep an app's secrets; without a verb, print a new random webhook secret
#[derive(Debug, Args)]
pub struct Secret {
    #[command(subcommand)]
    verb: Option<Verb>,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Set a secret to a value that is asked for, or read from a pipe, and deploy it
    Set(Set),
    /// Remove secrets, and deploy without them
    Unset(Unset),
    /// List an app's secrets, without their values
    List(List),
    /// Set all variables of a .env file as secrets, in one deployment
    Import(Import),
    /// Encrypt every secret of every app with a new key, unless systemd hands the key over
    Rekey(Rekey),
}

#[derive(Debug, Args)]
struct Set {
    /// Name of the app, as in `[apps.NAME]`
    app: String,
    /// Name of the secret, which is the variable that the app finds it in
    name: String,
    #[command(flatten)]
    then: Then,
}

#[derive(Debug, Args)]
struct Unset {
    /// Name of the app, as in `[apps.NAME]`
    app: String,
    /// Names of the secrets
    #[arg(required = true, value_name = "NAME")]
    names: Vec<String>,
    #[command(flatten)]
    then: Then,
}

#[derive(Debug, Args)]
struct Import {
    /// Name of the app, as in `[apps.NAME]`
    app: String,
    /// File of NAME=VALUE lines; `-` is the standard input
    file: PathBuf,
    #[command(flatten)]
    then: Then,
}

#[derive(Debug, Args)]
struct List {
    /// Name of the app, as in `[apps.NAME]`
    app: String,
    /// Print the API's response as JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
struct Rekey {
    /// Print the API's response as JSON
    #[arg(long)]
    json: bool,
}

/// The longest input that is read, in bytes; the API takes 64 KiB.
const LONGEST: u64 = 1 << 20;

const SECRETS: Kept = Kept {
    route: "secrets",
    noun: "secret",
};

pub async fn run(args: Secret, global: &Global) -> Result<(), Error> {
    match args.verb {
        None => random(),
        Some(Verb::Set(args)) => {
            let value = value(&args.name)?;
            let set = BTreeMap::from([(args.name, value)]);
            change(
                global,
                SECRETS,
                &args.app,
                json!({ "set": set }),
                &args.then,
            )
            .await
        }
        Some(Verb::Unset(args)) => {
            let body = json!({ "unset": args.names });
            change(global, SECRETS, &args.app, body, &args.then).await
        }
        Some(Verb::Import(args)) => {
            let read = match args.file.to_str() {
                Some("-") => env_file::parse(&input()?),
                _ => env_file::read(&args.file),
            };
            let set: BTreeMap<String, String> = read.map_err(Error::usage)?.into_iter().collect();
            if set.is_empty() {
                return Err(Error::usage("the file has no variables"));
            }
            change(
                global,
                SECRETS,
                &args.app,
                json!({ "set": set }),
                &args.then,
            )
            .await
        }
        Some(Verb::List(args)) => list(args, global).await,
        Some(Verb::Rekey(args)) => rekey(args, global).await,
    }
}

/// Never an argument: every user of the machine can see those.
fn value(name: &str) -> Result<String, Error> {
    if stdin().is_terminal() {
        let asked = rpassword::prompt_password(format!("Value of {name}: "));
        return asked.map_err(|error| Error::usage("no value was read").because(&error));
    }
    let mut value = input()?;
    // As of a file that holds a secret.
    if value.ends_with('\n') {
        value.pop();
        if value.ends_with('\r') {
            value.pop();
        }
    }
    Ok(value)
}

fn input() -> Result<String, Error> {
    let mut text = String::new();
    let read = stdin().take(LONGEST).read_to_string(&mut text);
    read.map_err(|error| Error::usage("the input cannot be read").because(&error))?;
    Ok(text)
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Listed {
    name: String,
    version: u32,
    set_at: String,
    set_by: String,
}

async fn list(args: List, global: &Global) -> Result<(), Error> {
    let client = Client::new(global)?;
    let path = format!("/api/v1/apps/{}/secrets", view::segment(&args.app));
    let answer = client.get(&path).await?;
    if args.json {
        print::json(&answer);
        return Ok(());
    }
    let list: view::List<Listed> = view::read(&answer)?;
    let row = |it: &Listed| {
        let version = it.version.to_string();
        vec![
            it.name.clone(),
            version,
            words::ago(&it.set_at),
            it.set_by.clone(),
        ]
    };
    let headers = ["SECRET", "VERSION", "SET", "BY"];
    table::show(&headers, list.items.iter().map(row).collect());
    Ok(())
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Rekeyed {
    secrets: u64,
    left: String,
}

async fn rekey(args: Rekey, global: &Global) -> Result<(), Error> {
    let client = Client::new(global)?;
    let answer = client.post("/api/v1/secrets/rekey", &json!({})).await?;
    if args.json {
        print::json(&answer);
        return Ok(());
    }
    let done: Rekeyed = view::read(&answer)?;
    let what = words::counted(done.secrets, "secret");
    print::line(format_args!(
        "Encrypted {what} with a new key: {}",
        done.left
    ));
    Ok(())
}

/// Prints 32 random bytes in hexadecimal. The explanation goes to stderr, so that the secret can be
/// piped.
fn random() -> Result<(), Error> {
    let mut bytes = [0u8; 32];
    getrandom::fill(&mut bytes).map_err(|error| {
        Error::failed("failed to get random bytes from the operating system").because(&error)
    })?;
    print::line(hex::encode(bytes));
    if stdout().is_terminal() {
        eprintln!(
            "\nStore it where only the agent can read it, in a file or in its environment:\n\
             \n    [apps.NAME.webhook]\
             \n    secrets = [{{ file = \"/etc/cutover/NAME.secret\" }}]   # or {{ env = \"NAME_WEBHOOK_SECRET\" }}\n\
             \nand paste it into the forge's webhook settings as the secret, next to the address\n\
             https://YOUR-AGENT/hooks/NAME with content type application/json.\n\
             While rotating, list the new secret first and keep the old one until the forge uses the new one."
        );
    }
    Ok(())
}
