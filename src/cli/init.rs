//! `cutover init`: creates a first deploy.toml.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use clap::Args;

use super::{Error, Global, print};
use crate::config::{self, EXAMPLE, Source};
use crate::source::Mirror;

mod checkout;

const TEMPLATE: &str = include_str!("init.toml");
/// How long the repository may take to report its default branch.
const ASKING: Duration = Duration::from_secs(5);

/// Create a commented deploy.toml
///
/// In the work tree of a repository, it takes its address, its name, its branch and the port of its Dockerfile.
#[derive(Debug, Args)]
pub struct Init {
    /// Name of the app [default: the repository's name, or `hello`]
    app: Option<String>,
    /// Repository: an HTTPS or SSH address, or the path of a bare repository on this machine [default:
    /// that of `origin`, or an example]
    #[arg(long, value_name = "REPO")]
    repo: Option<String>,
    /// Branch whose pushes are deployed [default: the one that is
    /// checked out, or the repository's default branch]
    #[arg(long, value_name = "BRANCH")]
    branch: Option<String>,
}

/// Writes to `--config`, by default `./deploy.toml`; an existing file is left unchanged.
pub fn run(args: Init, global: &Global) -> Result<(), Error> {
    let found = checkout::look(Path::new("."), args.repo.as_deref());
    let app = args.app.or(found.app).unwrap_or("hello".into());
    if let Err(error) = app.parse::<crate::ids::AppName>() {
        return Err(Error::usage(error.to_string()));
    }
    let repo = args.repo.or(found.repo.clone());
    let (repo, login) = checkout::without_login(repo.as_deref().unwrap_or(EXAMPLE));
    let path = global.config.clone().unwrap_or("deploy.toml".into());
    let usual = || default_branch(&repo, path.parent().unwrap_or(Path::new("")));
    let (branch, usual) = match (args.branch, found.branch.filter(|_| found.repo.is_some())) {
        (Some(branch), _) => (branch, None),
        (None, Some(branch)) => (branch, usual()),
        (None, None) => (usual().unwrap_or("main".into()), None),
    };
    let filled_in = filled_in(&app, &repo, &branch, found.port);
    write(&path, &filled_in).map_err(|error| {
        let shown = path.display();
        match error.kind() {
            std::io::ErrorKind::AlreadyExists => {
                Error::usage(format!("`{shown}` already exists and was not changed")).hint(format!(
                    "to add an app, add a section `[apps.{}]` to it; to create another file, use \
                         `--config PATH`",
                    app
                ))
            }
            _ => Error::usage(format!("failed to write `{shown}`")).because(&error),
        }
    })?;
    if login {
        let variable = variable(&app);
        eprintln!(
            "Warning: the user name and the token in the repository's address were left out, since \
             deploy.toml holds no secrets. If the repository is private, add:\n  [apps.{app}.source]\n  \
             token = {{ env = \"{variable}_REPO_TOKEN\" }}\nand start `cutover serve` with that variable set"
        );
    }
    if found.repo.is_some() {
        let port = found
            .port
            .map_or(String::new(), |port| format!(", port {port}"));
        print::line(format_args!(
            "Taken from this repository: `{repo}`, branch `{branch}`{port}"
        ));
    }
    if let Some(usual) = usual.filter(|usual| *usual != branch) {
        print::line(format_args!(
            "`{branch}` is what is checked out here; the repository's default branch is `{usual}`: set \
             `branch` to that one to deploy pushes to it"
        ));
    }
    if let Some(dir) = found.site {
        print::line(format_args!(
            "There is no Dockerfile, but an index.html: to serve its folder as a static site, add to \
             `[apps.{app}]`:\n  kind = \"static\"\n  dir  = \"{dir}\""
        ));
    }
    print::line(format_args!(
        "Wrote `{}`. Edit it, then run:\n  cutover check\n  cutover serve",
        path.display()
    ));
    Ok(())
}

fn write(path: &PathBuf, text: &str) -> std::io::Result<()> {
    std::fs::File::create_new(path)?.write_all(text.as_bytes())
}

/// Asks the repository, without a login, for its default branch.
fn default_branch(repo: &str, folder: &Path) -> Option<String> {
    if repo == EXAMPLE {
        return None;
    }
    let repo = config::repository(folder, repo).ok()?;
    let (sender, receiver) = std::sync::mpsc::channel();
    // A thread of its own: if the server does not answer, the thread ends with the process.
    std::thread::spawn(move || {
        let mirror = Mirror::new(PathBuf::new(), repo, Source::default());
        sender.send(mirror.default_branch(Instant::now() + ASKING))
    });
    receiver.recv_timeout(ASKING).ok()?
}

fn variable(app: &str) -> String {
    app.to_uppercase().replace('-', "_")
}

fn filled_in(app: &str, repo: &str, branch: &str, port: Option<u16>) -> String {
    let variable = variable(app);
    // Written by JSON's rules, which are the same as TOML's for what a repository's name can contain.
    let text = |text: &str| serde_json::Value::from(text).to_string();
    // What others have named comes last: it may contain any of these words.
    TEMPLATE
        .replace("= 8080", &format!("= {:<4}", port.unwrap_or(8080)))
        .replace("APP", app)
        .replace("VARIABLE", &variable)
        .replace("\"BRANCH\"", &text(branch))
        .replace("\"REPO\"", &text(repo))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_others_stay_as_they_are() {
        let text = filled_in("shop", "/srv/APP.git", "APP-1-VARIABLE", Some(8080));
        assert!(text.contains("\"/srv/APP.git\""), "{text}");
        assert!(text.contains("\"APP-1-VARIABLE\""), "{text}");
        assert!(text.contains("[apps.shop]"), "{text}");
    }

    #[test]
    fn an_address_loses_its_token_and_nothing_else() {
        for (given, kept, had) in [
            (
                "https://x-token:s3cret@example.com/a.git",
                "https://example.com/a.git",
                true,
            ),
            (
                "https://s3cret@example.com/a.git",
                "https://example.com/a.git",
                true,
            ),
            (
                "https://example.com/a.git",
                "https://example.com/a.git",
                false,
            ),
            (
                "ssh://git@example.com/a.git",
                "ssh://git@example.com/a.git",
                false,
            ),
            (
                "ssh://git:pw@example.com/a.git",
                "ssh://git@example.com/a.git",
                false,
            ),
            ("git@example.com:a.git", "git@example.com:a.git", false),
            ("/srv/git/a.git", "/srv/git/a.git", false),
        ] {
            assert_eq!(
                checkout::without_login(given),
                (kept.to_owned(), had),
                "{given}"
            );
        }
    }

    #[test]
    fn what_it_writes_is_a_configuration_without_mistakes() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("deploy.toml");
        let repo = "git@example.com:ada/my-app.git";
        write(&path, &filled_in("my-app", repo, "trunk", Some(80))).unwrap();
        let config = config::load(&path).unwrap();
        let app = &config.apps[&"my-app".parse().unwrap()];
        assert_eq!(app.branch, "trunk");
        assert_eq!(app.domains, ["my-app.example.com"]);
        assert_eq!(app.repo, config::Repo::Ssh(repo.into()));
        assert_eq!(app.port, Some(80));
        let secret = config::Secret::Env("MY_APP_WEBHOOK_SECRET".into());
        assert_eq!(app.webhook.secrets, [secret]);

        let again = write(&path, "").unwrap_err();
        assert_eq!(again.kind(), std::io::ErrorKind::AlreadyExists);
    }
}
