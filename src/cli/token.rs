//! `cutover token`: creates, lists, replaces and revokes tokens; without a verb, prints the agent's own.

use std::io::{self, IsTerminal, stdout};

use clap::{Args, Subcommand, ValueEnum};
use serde::Deserialize;
use serde_json::json;

use super::client::{Client, view};
use super::{Error, Global, configuration, print, table, words};

/// Create, list, replace and revoke tokens; without a verb, print the agent's own, for use from other machines
#[derive(Debug, Args)]
pub struct Token {
    #[command(subcommand)]
    verb: Option<Verb>,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Create a token and print it; it cannot be printed again
    Create(Create),
    /// List the tokens, without their text
    List(List),
    /// Replace the text of a token and print the new one; name, role, apps and expiry stay
    Rotate(Rotate),
    /// Revoke a token, and sign out whoever signed in with it
    Revoke(Revoke),
}

#[derive(Debug, Args)]
struct Create {
    /// Name of the token, such as the program or person that it is for
    name: String,
    /// What it may do: `read`, also `deploy` (roll back, cancel, push), or everything
    #[arg(long, value_enum)]
    role: RoleName,
    /// Only for this app; may be given several times [default: all apps and the server itself]
    #[arg(long = "app", value_name = "APP")]
    apps: Vec<String>,
    /// How long it is good for, such as 90d or 12h [default: for ever]
    #[arg(long, value_name = "TIME")]
    expires: Option<String>,
    /// Print the API's response as JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum RoleName {
    Read,
    Deploy,
    Admin,
}

#[derive(Debug, Args)]
struct List {
    /// Print the API's response as JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
struct Rotate {
    /// Name of the token
    name: String,
    /// How long the old text is still good, such as 24h [default: not at all]
    #[arg(long, value_name = "TIME")]
    keep: Option<String>,
}

#[derive(Debug, Args)]
struct Revoke {
    /// Name of the token
    name: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Listed {
    name: String,
    prefix: String,
    role: String,
    apps: Option<Vec<String>>,
    expires_at: Option<String>,
    used_at: Option<String>,
}

pub async fn run(args: Token, global: &Global) -> Result<(), Error> {
    match args.verb {
        None => own(global),
        Some(Verb::Create(args)) => create(args, global).await,
        Some(Verb::List(args)) => list(args, global).await,
        Some(Verb::Rotate(args)) => rotate(args, global).await,
        Some(Verb::Revoke(args)) => revoke(args, global).await,
    }
}

/// Only the token goes to stdout, so that it can be piped into a CI's settings.
async fn create(args: Create, global: &Global) -> Result<(), Error> {
    let client = Client::new(global)?;
    let role = match args.role {
        RoleName::Read => "read",
        RoleName::Deploy => "deploy",
        RoleName::Admin => "admin",
    };
    let mut body = json!({ "name": args.name, "role": role });
    if !args.apps.is_empty() {
        body["apps"] = json!(args.apps);
    }
    if let Some(expires) = &args.expires {
        body["expires"] = json!(expires);
    }
    let answer = client.post("/api/v1/tokens", &body).await?;
    if args.json {
        print::json(&answer);
        return Ok(());
    }
    secret(&answer);
    Ok(())
}

fn secret(answer: &serde_json::Value) {
    print::line(answer["secret"].as_str().unwrap_or_default());
    if stdout().is_terminal() {
        print::error("This is the only time that it is shown.");
    }
}

async fn rotate(args: Rotate, global: &Global) -> Result<(), Error> {
    let client = Client::new(global)?;
    let path = format!("/api/v1/tokens/{}/rotate", view::segment(&args.name));
    let body = match &args.keep {
        Some(keep) => json!({ "keep": keep }),
        None => json!({}),
    };
    secret(&client.post(&path, &body).await?);
    Ok(())
}

async fn list(args: List, global: &Global) -> Result<(), Error> {
    let client = Client::new(global)?;
    let answer = client.get("/api/v1/tokens").await?;
    if args.json {
        print::json(&answer);
        return Ok(());
    }
    let list: view::List<Listed> = view::read(&answer)?;
    let row = |it: &Listed| {
        let day = |time: &String| time.get(..10).unwrap_or(time).to_owned();
        vec![
            it.name.clone(),
            format!("{}…", it.prefix),
            it.role.clone(),
            it.apps
                .as_ref()
                .map_or("all".to_owned(), |apps| apps.join(" ")),
            it.used_at.as_deref().map_or("never".to_owned(), words::ago),
            it.expires_at.as_ref().map_or("never".to_owned(), day),
        ]
    };
    let headers = ["TOKEN", "BEGINS", "ROLE", "APPS", "USED", "EXPIRES"];
    table::show(&headers, list.items.iter().map(row).collect());
    Ok(())
}

async fn revoke(args: Revoke, global: &Global) -> Result<(), Error> {
    let client = Client::new(global)?;
    let path = format!("/api/v1/tokens/{}", view::segment(&args.name));
    client.delete(&path).await?;
    print::line(format_args!("Token `{}` is revoked", args.name));
    Ok(())
}

/// Prints the agent's token named `admin`.
fn own(global: &Global) -> Result<(), Error> {
    let path = configuration::data_dir(global)?.join("token");
    let shown = path.display();
    match std::fs::read_to_string(&path) {
        Ok(token) => {
            print::line(token.trim());
            Ok(())
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Err(Error::usage(format!(
            "there is no token at `{shown}`"
        ))
        .hint(
            "`cutover serve` creates it at its first start, unless `CUTOVER_TOKEN` is set there",
        )),
        Err(error) => Err(Error::usage(format!("`{shown}` cannot be read"))
            .because(&error)
            .hint("run this as the agent's user, for example with sudo")),
    }
}
