//! `cutover env`: the variables that Cutover keeps for an app.

use std::collections::BTreeMap;

use clap::{Args, Subcommand};
use serde::Deserialize;
use serde_json::json;

use super::client::{Client, view};
use super::kept::{Kept, Then, change};
use super::{Error, Global, print, table, words};
use crate::config::looks_secret;

/// Keep variables for an app, in place of those of deploy.toml
#[derive(Debug, Args)]
pub struct Env {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Set variables, and deploy them in one deployment without a build
    Set(Set),
    /// Remove variables; those of deploy.toml apply again
    Unset(Unset),
    /// List the variables that are kept
    List(List),
}

#[derive(Debug, Args)]
struct Set {
    /// Name of the app, as in `[apps.NAME]`
    app: String,
    /// Variables, such as LOG_LEVEL=debug
    #[arg(required = true, value_name = "NAME=VALUE")]
    variables: Vec<String>,
    #[command(flatten)]
    then: Then,
}

#[derive(Debug, Args)]
struct Unset {
    /// Name of the app, as in `[apps.NAME]`
    app: String,
    /// Names of the variables
    #[arg(required = true, value_name = "NAME")]
    names: Vec<String>,
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

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Variable {
    name: String,
    value: String,
    set_at: String,
    set_by: String,
}

const VARIABLES: Kept = Kept {
    route: "env",
    noun: "variable",
};

pub async fn run(args: Env, global: &Global) -> Result<(), Error> {
    match args.verb {
        Verb::Set(args) => {
            let pairs = args.variables.iter().map(|text| {
                text.split_once('=').ok_or_else(|| {
                    Error::usage(format!("`{}` is not NAME=VALUE", text.escape_debug()))
                })
            });
            let set: BTreeMap<_, _> = pairs.collect::<Result<_, _>>()?;
            for name in set.keys().filter(|name| looks_secret(name)) {
                let name = name.escape_debug();
                eprintln!(
                    "Hint: `{name}` looks like a secret, which `cutover secret set` keeps encrypted"
                );
            }
            change(
                global,
                VARIABLES,
                &args.app,
                json!({ "set": set }),
                &args.then,
            )
            .await
        }
        Verb::Unset(args) => {
            let body = json!({ "unset": args.names });
            change(global, VARIABLES, &args.app, body, &args.then).await
        }
        Verb::List(args) => list(args, global).await,
    }
}

async fn list(args: List, global: &Global) -> Result<(), Error> {
    let client = Client::new(global)?;
    let path = format!("/api/v1/apps/{}/env", view::segment(&args.app));
    let answer = client.get(&path).await?;
    if args.json {
        print::json(&answer);
        return Ok(());
    }
    let list: view::List<Variable> = view::read(&answer)?;
    if list.items.is_empty() {
        let app = &args.app;
        print::line(format_args!(
            "No variables are kept for `{app}`: `cutover env set {app} NAME=VALUE`"
        ));
        return Ok(());
    }
    let rows = list.items.into_iter();
    let rows = rows.map(|it| vec![it.name, it.value, words::ago(&it.set_at), it.set_by]);
    table::show(&["NAME", "VALUE", "SET", "BY"], rows.collect());
    Ok(())
}
