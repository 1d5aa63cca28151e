//! `cutover doctor`: checks everything that has to work together, and reports what does not.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::Duration;

use clap::Args;
use console::style;

use super::client::Client;
use super::notice::Configuration;
use super::{Error, Global, certificates, configuration, gc, notice, print, words};
use crate::certificates::names::{self, Name, Source};
use crate::config::{self, Config};
use crate::deploy::space::Space;
use crate::engine::{self, Version};
use crate::proxy::control;

/// How long DNS may take to answer.
const LOOK_UP: Duration = Duration::from_secs(3);

/// How long Docker may take to list what it has.
const ORPHANS: Duration = Duration::from_secs(10);

/// How many things that the database does not know are named.
const SHOWN: usize = 20;

/// Check the configuration, Docker, the agent and the proxy, and report what is wrong
#[derive(Debug, Args)]
pub struct Doctor {}

/// The result of one check.
enum Found {
    Good(String),
    /// It works, but not well.
    Odd(String),
    /// It was not looked at, and why.
    Skipped(String),
    Bad(String),
}

/// Checks everything, changes nothing, and fails if anything is wrong.
pub async fn run(_: Doctor, global: &Global) -> Result<(), Error> {
    let (path, config) = configuration::load(global)?;
    let mut found = vec![Found::Good(format!("`{}` is valid", path.display()))];
    let client = Client::local(&config.agent.data_dir);
    let in_force = notice::configuration(&client).await;
    // Secrets are read from the agent's environment, not from this one.
    let warnings = in_force.as_ref().and_then(|it| it.warnings.clone());
    let warnings = warnings.unwrap_or_else(|| config::warnings(&config));
    let warnings = warnings.into_iter().chain(crate::source::warnings(&config));
    found.extend(warnings.map(Found::Odd));
    // Beside each other: what does not answer is waited for once.
    let (docker, (runs, agent), tls, orphans, proxy, links) = tokio::join!(
        docker(&config.docker.host),
        agent(&config),
        tls(&config),
        orphans(&config),
        proxy(&config),
        links(&config),
    );
    found.push(docker);
    found.extend(data_dir(&config.agent.data_dir));
    found.extend(database(&config.agent.data_dir));
    found.extend(agent);
    if let Some(in_force) = in_force {
        found.extend(differences(&path, in_force));
    }
    found.extend(tls);
    found.extend(orphans);
    found.push(match proxy {
        // Before the first start there is none.
        Found::Bad(_) if !runs && !config.agent.data_dir.join("cutover.db").exists() => {
            Found::Skipped("the proxy, which the agent starts".to_owned())
        }
        proxy => proxy,
    });
    found.extend(links);
    let mut wrong = 0;
    for found in found {
        match found {
            Found::Good(what) => say(style("✔").green(), &what),
            Found::Odd(what) => say(style("!").yellow(), &what),
            Found::Skipped(what) => say(style("-").dim(), &format!("skipped: {what}")),
            Found::Bad(what) => {
                wrong += 1;
                say(style("✘").red(), &what);
            }
        }
    }
    match wrong {
        0 => Ok(()),
        1 => Err(Error::failed("1 check failed")),
        n => Err(Error::failed(format!("{n} checks failed"))),
    }
}

fn say(mark: console::StyledObject<&str>, what: &str) {
    print::line(format_args!("{mark} {what}"));
}

async fn docker(host: &str) -> Found {
    match engine::version(host).await {
        Ok(Version { engine, api }) => {
            Found::Good(format!("Docker {engine} (API {api}) answers at `{host}`"))
        }
        Err(error) => {
            let hint = "`cutover setup` can install and start it";
            Found::Bad(format!("{error}; {hint}"))
        }
    }
}

fn data_dir(path: &Path) -> Vec<Found> {
    let shown = path.display();
    let space = match Space::of(path) {
        Ok(space) => space,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            let text = format!("`{shown}` does not exist yet; `cutover serve` creates it");
            return vec![Found::Odd(text)];
        }
        Err(error) => return vec![Found::Bad(format!("`{shown}` cannot be read: {error}"))],
    };
    let text = format!("{} free in `{shown}`", free_space(space.free));
    vec![match space.is_little() {
        true => Found::Bad(format!("only {text}")),
        false => Found::Good(text),
    }]
}

/// In MiB, so that a full disk has none.
fn free_space(bytes: u64) -> String {
    match bytes {
        ..1_048_576 => "0 MiB".to_owned(),
        _ => words::size(bytes),
    }
}

fn database(data_dir: &Path) -> Option<Found> {
    let why = crate::store::examine(data_dir).err()?;
    let path = data_dir.join("cutover.db");
    Some(Found::Bad(format!(
        "the database `{}` cannot be used: {why}; what is live serves on. Make space on its disk; if it \
         is damaged, stop the agent, restore a copy of `cutover.db` without `cutover.db-wal` (or move \
         the database away) and start the agent again",
        path.display()
    )))
}

/// Whether the agent answers, and what it says of itself.
async fn agent(config: &Config) -> (bool, Vec<Found>) {
    let client = Client::local(&config.agent.data_dir);
    let listen = config.agent.listen;
    let (status, answer) = match client.look("/readyz").await {
        Ok(answered) => answered,
        Err(error) => return (false, vec![Found::Bad(one_line(&error))]),
    };
    let mut found = vec![match status.is_success() {
        true => Found::Good(format!("the agent is ready; it listens on `{listen}`")),
        false => {
            let parts = ["docker", "proxy"]
                .iter()
                .filter_map(|part| answer[*part].as_str());
            let why: Vec<_> = parts.filter(|it| *it != "ok").collect();
            let why = why.join("; ");
            Found::Bad(format!("the agent is running, but not ready: {why}"))
        }
    }];
    let said = |key: &str| {
        let all = answer[key].as_array().into_iter().flatten();
        let all = all.filter_map(|it| it.as_str()).map(str::to_owned);
        all.collect::<Vec<_>>()
    };
    found.extend(said("differences").into_iter().map(Found::Bad));
    found.extend(said("warnings").into_iter().map(Found::Odd));
    (true, found)
}

/// Where the settings that the agent uses differ from the file.
fn differences(path: &Path, configuration: Configuration) -> Vec<Found> {
    let mut found: Vec<_> = configuration.notice.into_iter().map(Found::Odd).collect();
    let file = configuration.file;
    if std::path::absolute(path).is_ok_and(|own| own != Path::new(&file)) {
        let own = path.display();
        found.push(Found::Odd(format!("the agent uses `{file}`, not `{own}`")));
    }
    let unrecorded = configuration.unrecorded.iter();
    found.extend(unrecorded.map(|app| Found::Bad(notice::unrecorded(app))));
    let lost = configuration.lost.iter();
    found.extend(lost.map(|app| Found::Odd(notice::lost(app))));
    found.extend(configuration.secrets.into_iter().map(Found::Bad));
    let unreached = configuration.unreached.iter();
    found.extend(unreached.map(|it| Found::Bad(it.said())));
    found
}

/// What the database does not know, up to a number that people read.
async fn orphans(config: &Config) -> Vec<Found> {
    let client = Client::local(&config.agent.data_dir);
    let Ok(Ok(all)) = tokio::time::timeout(ORPHANS, gc::orphans(&client)).await else {
        // Why the agent or Docker does not answer is said already.
        return vec![];
    };
    let mut found: Vec<_> = all
        .iter()
        .take(SHOWN)
        .map(|it| {
            let (what, reason) = (it.shown(), it.in_use.as_ref().unwrap_or(&it.reason));
            Found::Odd(format!("{what}, is not in the database: {reason}"))
        })
        .collect();
    if all.len() > SHOWN {
        let more = all.len() - SHOWN;
        found.push(Found::Odd(format!("{more} more are not in the database")));
    }
    if !all.is_empty() {
        found.push(Found::Odd(
            "the database was lost or restored from a backup: `cutover adopt` records again what serves, \
             `cutover gc` removes the rest after a look"
                .to_owned(),
        ));
    }
    found
}

/// The certificates, and the files that should be some.
async fn tls(config: &Config) -> Vec<Found> {
    let client = Client::local(&config.agent.data_dir);
    let (look, copy) = (certificates::problems(&client).await, config.clone());
    let read = move || names::all(&copy, &BTreeMap::new());
    let (names, broken) = tokio::task::spawn_blocking(read).await.unwrap_or_default();
    let unasked = look.is_none();
    let look = look.unwrap_or_else(|| {
        let told = |it: &Name| Some(format!("`{}`: {}", it.name, it.problem.as_ref()?));
        // What is ordered, the agent orders.
        let names = names.iter().filter(|it| it.source != Source::Ordered);
        let told = names.filter_map(|it| Some((it.name.clone(), told(it)?)));
        told.collect()
    });
    let broken = broken.into_iter().map(|(path, why)| {
        let path = path.display();
        Found::Bad(format!(
            "the certificate `{path}` cannot be used: {why}; its names are served with the one before, if \
             there was one"
        ))
    });
    let mut found: Vec<_> = broken.collect();
    let ordered = names.iter().filter(|it| it.source == Source::Ordered);
    let ordered = ordered.count() as u64;
    if unasked && ordered > 0 {
        let count = words::counted(ordered, "name");
        found.push(Found::Skipped(format!(
            "the certificates of {count}, which the agent orders"
        )));
    } else if look.is_empty() && found.is_empty() && !names.is_empty() {
        let count = words::counted(names.len() as u64, "name");
        found.push(Found::Good(format!(
            "the certificates of {count} are in order"
        )));
    }
    let more = look.len().saturating_sub(SHOWN);
    let looked = look
        .into_iter()
        .take(SHOWN)
        .map(|(name, problem)| async move {
            let leads = leads_to(&name).await;
            Found::Bad(format!("{problem}{leads}"))
        });
    found.extend(futures_util::future::join_all(looked).await);
    if more > 0 {
        let text = format!("{more} more names have problems: see `cutover certificates`");
        found.push(Found::Bad(text));
    }
    found
}

/// Where a name leads in DNS, which is often the reason.
async fn leads_to(name: &str) -> String {
    if name.contains('*') {
        return String::new();
    }
    let look = tokio::net::lookup_host((name, 443));
    match tokio::time::timeout(LOOK_UP, look).await {
        Err(_) => "; DNS does not answer in time".to_owned(),
        Ok(Err(_)) => {
            "; it does not resolve in DNS: add a record that points to this machine".to_owned()
        }
        Ok(Ok(found)) => {
            let found: BTreeSet<String> = found.map(|it| it.ip().to_string()).collect();
            let found: Vec<String> = found.into_iter().collect();
            format!(
                "; in DNS it points to {}, which must be this machine",
                found.join(", ")
            )
        }
    }
}

async fn proxy(config: &Config) -> Found {
    let socket = config.agent.data_dir.join(control::SOCKET);
    match control::Client::new(socket.clone()).hello().await {
        Ok(hello) if hello.version == env!("CARGO_PKG_VERSION") => Found::Good(format!(
            "the proxy is running as process {} with route table {}",
            hello.pid, hello.generation
        )),
        Ok(hello) => Found::Odd(format!(
            "the proxy is version {}, but this is version {}: restart `cutover serve`",
            hello.version,
            env!("CARGO_PKG_VERSION")
        )),
        Err(error) => Found::Bad(format!(
            "the proxy does not answer at `{}`: {error}",
            socket.display()
        )),
    }
}

/// Where the proxy does not listen for apps that are linked to others.
async fn links(config: &Config) -> Vec<Found> {
    let socket = config.agent.data_dir.join(control::SOCKET);
    let hello = control::Client::new(socket).hello().await;
    let closed = hello.map(|hello| hello.closed_links).unwrap_or_default();
    closed.into_iter().map(Found::Bad).collect()
}

fn one_line(error: &Error) -> String {
    error
        .to_string()
        .trim_start_matches("Error: ")
        .replace("\nCaused by: ", ": ")
        .replace("\nHint: ", "; ")
}
