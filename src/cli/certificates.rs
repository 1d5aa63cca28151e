//! `cutover certificates`: lists the certificates, and renews one.

use clap::{Args, Subcommand};
use serde::Deserialize;
use serde_json::json;

use super::client::{Client, view};
use super::table::Table;
use super::{Error, Global, print, words};

/// List the certificates, or renew one
#[derive(Debug, Args)]
pub struct Certificates {
    #[command(subcommand)]
    verb: Option<Verb>,
    /// Print the API's response as JSON
    #[arg(long, global = true)]
    json: bool,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Order a new certificate now, with a new key
    Renew {
        /// The domain, as in deploy.toml
        name: String,
    },
}

/// A name as the API tells of it.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Certificate {
    pub name: String,
    source: String,
    file: Option<String>,
    issuer: Option<String>,
    expires_at: Option<String>,
    renews_at: Option<String>,
    renewal_explanation: Option<String>,
    ordering: bool,
    next_try: Option<String>,
    pub problem: Option<String>,
}

pub async fn run(args: Certificates, global: &Global) -> Result<(), Error> {
    let client = Client::new(global)?;
    if let Some(Verb::Renew { name }) = &args.verb {
        let path = format!("/api/v1/certificates/{}/renew", view::segment(name));
        let answer = client.post(&path, &json!({})).await?;
        match args.json {
            true => print::json(&answer),
            false => print::line(format_args!(
                "A new certificate for `{name}` is being ordered; `cutover certificates` shows what \
                 becomes of it"
            )),
        }
        return Ok(());
    }
    let answer = client.get("/api/v1/certificates").await?;
    if args.json {
        print::json(&answer);
        return Ok(());
    }
    let all: view::List<Certificate> = view::read(&answer)?;
    if all.items.is_empty() {
        print::line("Nothing is served over TLS: set `proxy.https` and an app's `domains`");
        return Ok(());
    }
    let table = Table {
        headers: &["NAME", "SOURCE", "ISSUER", "EXPIRES", "RENEWED"],
        spare: &["ISSUER"],
        margin: "",
    };
    table.show(all.items.iter().map(row).collect());
    for unused in all.items.iter().filter(|it| it.source == "unused") {
        print::line(format_args!(
            "`{}` is no longer in deploy.toml: its certificate is removed when it has expired",
            unused.name
        ));
    }
    for it in &all.items {
        if let Some(url) = &it.renewal_explanation {
            print::line(format_args!(
                "`{}`: the authority explains its renewal date at {url}",
                it.name
            ));
        }
    }
    for problem in all.items.iter().filter_map(Certificate::told) {
        print::line(format_args!("! {problem}"));
    }
    Ok(())
}

/// The names whose certificates have a problem, each with what is wrong; `None` if the agent does not say,
/// as an older one.
pub async fn problems(client: &Client) -> Option<Vec<(String, String)>> {
    let answer = client.get("/api/v1/certificates").await.ok()?;
    let all: view::List<Certificate> = view::read(&answer).ok()?;
    let told = |it: Certificate| Some((it.name.clone(), it.told()?));
    Some(all.items.into_iter().filter_map(told).collect())
}

impl Certificate {
    /// What is wrong with it, with the next attempt.
    pub fn told(&self) -> Option<String> {
        let problem = self.problem.as_ref()?;
        let next = self.next_try.as_deref().and_then(words::until);
        let next = next.map(|left| format!(" (next attempt {left})"));
        Some(format!(
            "`{}`: {problem}{}",
            self.name,
            next.unwrap_or_default()
        ))
    }
}

fn row(it: &Certificate) -> Vec<String> {
    let in_time = |at: &Option<String>| at.as_deref().and_then(words::until);
    vec![
        it.name.clone(),
        match (&it.file, it.source.as_str()) {
            (Some(file), _) => file.clone(),
            (None, source) => source.to_owned(),
        },
        it.issuer.clone().unwrap_or("-".into()),
        in_time(&it.expires_at).unwrap_or("-".into()),
        match it.ordering {
            true => "now".into(),
            false => in_time(&it.renews_at).unwrap_or("-".into()),
        },
    ]
}
