//! `cutover receive`, which `hooks/post-receive` calls: reports a push to the agent, and prints the
//! deployment's log to whoever pushed.

use std::io::{ErrorKind, Read};
use std::path::{Path, PathBuf};

use clap::Args;
use serde_json::json;

use super::client::follow::{self, Following};
use super::client::{Client, view};
use super::error::Kind;
use super::{Error, Global, configuration, print};
use crate::api::push_option;
use crate::config::Repo;
use crate::deploy::ending::{self, Said};
use crate::deploy::follow::Until;
use crate::deploy::intake::Outcome;

/// The most that is read, in bytes: more updates than any push has.
const MOST_INPUT: u64 = 1 << 20;

/// More options than anybody passes.
const MOST_OPTIONS: usize = 100;

/// Report a push to the agent (called by hooks/post-receive; reads its stdin)
#[derive(Debug, Args)]
pub struct Receive {
    /// The bare repository that was pushed to
    #[arg(long, value_name = "PATH", default_value = ".")]
    repo: PathBuf,
}

/// Reads git's lines of `old new ref`. The push itself is done, and nothing here can undo it, so errors
/// also say what to do next.
pub async fn run(args: Receive, global: &Global) -> Result<(), Error> {
    let mut input = String::new();
    std::io::stdin()
        .take(MOST_INPUT)
        .read_to_string(&mut input)
        .map_err(|error| Error::usage("failed to read git's update lines").because(&error))?;
    let repository = std::path::absolute(&args.repo)
        .and_then(std::fs::canonicalize)
        .map_err(|error| {
            Error::usage(format!("failed to find `{}`", args.repo.display())).because(&error)
        })?;
    let mut global = global.clone();
    if global.config.is_none() {
        global.config = configured(&repository);
    }
    let client = match configuration::data_dir(&global) {
        Ok(folder) => Client::local(&folder),
        Err(error) if is_closed(&global) => {
            return Err(error.hint(other_user(&global, &repository)));
        }
        Err(error) => {
            return Err(error.hint(
                "the commits are stored in the repository, but not deployed: correct the \
                 configuration, then run `cutover deploy APP`",
            ));
        }
    };
    let updates: Vec<_> = input.lines().filter_map(update).collect();
    let options = push_options(|name| std::env::var(name).ok());
    let has = |option: &str| options.iter().any(|given| given == option);
    if let Some(why) = push_option::unknown(&options) {
        let verbs = by_hand(&global, &repository);
        return Err(Error::usage(format!("stored, not deployed: {why}"))
            .hint(format!("run {verbs} to deploy it")));
    }
    let skip = push_option::SKIP.iter().any(|option| has(option));
    let body = json!({
        "repository": repository,
        "updates": updates,
        "no_cache": has("cutover.no-cache"),
        "pull": has("cutover.pull"),
        "skip": skip,
    });
    let answer = match client.post("/api/v1/pushes", &body).await {
        Ok(answer) => answer,
        Err(error) if error.kind() == Kind::Unreachable && skip => {
            print::line("stored, not deployed: the pusher asked for it");
            return Ok(());
        }
        Err(error) if error.is_denied() => {
            return Err(error.hint(other_user(&global, &repository)));
        }
        Err(error) if error.kind() == Kind::Unreachable => {
            return Err(error.hint(format!(
                "the commits are stored in the repository, but not deployed: start the agent with \
                 `cutover serve`, then run {}",
                by_hand(&global, &repository)
            )));
        }
        Err(error) => return Err(error),
    };
    let outcomes = view::read::<view::List<Outcome>>(&answer)?.items;
    for outcome in &outcomes {
        print::line(outcome);
    }
    show(&client, &outcomes, push_option::wait(has)).await
}

/// Shows the log of each deployment that the push led to. A failure is printed below its own log, where
/// there are several.
async fn show(client: &Client, outcomes: &[Outcome], until: Until) -> Result<(), Error> {
    let led_to = Outcome::deployments(outcomes);
    let mut failed = Vec::new();
    for (app, id) in &led_to {
        if until == Until::Now {
            print::line(push_option::not_waited_for(id.as_str()));
            continue;
        }
        if led_to.len() > 1 {
            print::line(ending::section(app.as_str(), id.as_str()));
        }
        match show_one(client, id.as_str(), until).await {
            Ok(()) => {}
            Err(error) if led_to.len() == 1 => return Err(error),
            Err(error) => {
                print::line(&error);
                failed.push(format!("`{app}`"));
            }
        }
    }
    match failed.as_slice() {
        [] => Ok(()),
        apps => Err(Error::failed(format!(
            "{} of {} apps did not get what was pushed: {}",
            apps.len(),
            led_to.len(),
            apps.join(", ")
        ))),
    }
}

async fn show_one(client: &Client, id: &str, until: Until) -> Result<(), Error> {
    let until = match until {
        Until::End => follow::Until::End,
        _ => follow::Until::Switch,
    };
    let line = |line: &str| print::line(line);
    let followed = Following::new(client, id).until(until, line).await;
    let deployment = followed.map_err(|error| match error.kind() {
        Kind::Unreachable => error.hint(format!(
            "the deployment is queued and continues when the agent is back: see `cutover show {id}`"
        )),
        _ => error,
    })?;
    match deployment.ending().said_to_pusher() {
        Said::Good(text) => {
            print::line(text);
            Ok(())
        }
        Said::Bad { what, hint } => Err(Error::failed(what).hint(hint)),
    }
}

fn update(line: &str) -> Option<serde_json::Value> {
    let mut words = line.splitn(3, ' ');
    let (old, new, git_ref) = (words.next()?, words.next()?, words.next()?);
    Some(json!({ "ref": git_ref, "old": old, "new": new }))
}

/// The values that were passed to git with `-o`, which git sets in a hook's environment.
fn push_options(env: impl Fn(&str) -> Option<String>) -> Vec<String> {
    let count = env("GIT_PUSH_OPTION_COUNT").and_then(|count| count.parse().ok());
    let all = (0..count.unwrap_or(0).min(MOST_OPTIONS)).map(|i| format!("GIT_PUSH_OPTION_{i}"));
    all.filter_map(|name| env(&name)).collect()
}

/// The value of `git config cutover.config` in the repository. Read by path: a hook's GIT_DIR and
/// quarantine are for git itself.
fn configured(repository: &Path) -> Option<PathBuf> {
    crate::source::init();
    let repository = git2::Repository::open_bare(repository).ok()?;
    repository.config().ok()?.get_path("cutover.config").ok()
}

/// Whether this user may not read the configuration.
fn is_closed(global: &Global) -> bool {
    let file = crate::config::find(global.config.as_deref()).ok();
    let opened = file.map(std::fs::File::open);
    opened.is_some_and(|it| it.is_err_and(|e| e.kind() == ErrorKind::PermissionDenied))
}

/// What to do if the hook runs as a user that may not reach the agent.
fn other_user(global: &Global, repository: &Path) -> String {
    let own = rustix::process::geteuid().as_raw();
    format!(
        "the commits are stored in the repository, but not deployed: this hook runs as user id {own}, \
         who may not use the agent's socket. Push as the user that the agent runs as, or to the agent's \
         own address with its token; to deploy now, run {} as that user",
        by_hand(global, repository)
    )
}

/// The commands that deploy what is in the repository.
fn by_hand(global: &Global, repository: &Path) -> String {
    let apps = configuration::load(global).map(|(_, config)| config.apps);
    let same = |path: &Path| path.canonicalize().is_ok_and(|path| path == repository);
    let verbs: Vec<String> = apps
        .unwrap_or_default()
        .values()
        .filter(|app| matches!(&app.repo, Repo::Local(path) if same(path)))
        .map(|app| format!("`cutover deploy {}`", app.name))
        .collect();
    match verbs.as_slice() {
        [] => "`cutover deploy APP`".to_owned(),
        verbs => verbs.join(", "),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn push_options_are_counted_in_the_environment() {
        let env = |name: &str| match name {
            "GIT_PUSH_OPTION_COUNT" => Some("2".to_owned()),
            "GIT_PUSH_OPTION_0" => Some("a".to_owned()),
            "GIT_PUSH_OPTION_1" => Some("b=c".to_owned()),
            _ => panic!("{name}"),
        };
        assert_eq!(push_options(env), ["a", "b=c"]);
        assert!(push_options(|_| None).is_empty());
    }

    #[test]
    fn an_update_line_has_three_words() {
        let read = update("0000 1234 refs/heads/main").unwrap();
        assert_eq!(read["ref"], "refs/heads/main");
        assert_eq!(read["new"], "1234");
        assert!(update("0000 1234").is_none());
    }
}
