//! What `cutover init` takes from the repository in whose work tree it runs.

use std::path::Path;

use crate::ids::AppName;
use crate::{config, source};

/// In bytes. A longer Dockerfile is not looked at.
const LONGEST: u64 = 1 << 20;

#[derive(Debug, Default, PartialEq, Eq)]
pub struct Checkout {
    /// The address of `origin`, if it can be deployed from.
    pub repo: Option<String>,
    /// After the repository or its folder.
    pub app: Option<String>,
    /// The first port that the Dockerfile in its root exposes.
    pub port: Option<u16>,
}

/// `repo`: what the user gave in place of `origin`. Empty outside of a work tree.
pub fn look(folder: &Path, repo: Option<&str>) -> Checkout {
    if let Some(repo) = repo {
        return Checkout {
            app: name(repo),
            ..Default::default()
        };
    }
    let Some((root, origin)) = source::work_tree(folder) else {
        return Checkout::default();
    };
    let repo = origin.filter(|it| config::repository(folder, it).is_ok());
    let of_folder = || name(root.canonicalize().ok()?.to_str()?);
    Checkout {
        app: repo.as_deref().and_then(name).or_else(of_folder),
        repo,
        port: dockerfile(&root.join("Dockerfile")).and_then(|text| port(&text)),
    }
}

/// `My_App` of `git@example.com:ada/My_App.git` becomes `my-app`.
fn name(repo: &str) -> Option<String> {
    let last = repo.trim_end_matches('/').rsplit(['/', ':']).next()?;
    let last = last.strip_suffix(".git").unwrap_or(last);
    let word = |c: char| match c.to_ascii_lowercase() {
        c if c.is_ascii_alphanumeric() => c,
        _ => '-',
    };
    let name: String = last.chars().map(word).collect();
    let name = name.trim_matches('-').to_owned();
    name.parse::<AppName>().is_ok().then_some(name)
}

fn dockerfile(path: &Path) -> Option<String> {
    let small = path.metadata().ok()?.len() <= LONGEST;
    small.then(|| std::fs::read_to_string(path).ok()).flatten()
}

/// Of the last stage, which is the one that runs.
fn port(dockerfile: &str) -> Option<u16> {
    let mut port = None;
    for line in dockerfile.lines() {
        let mut words = line.split_whitespace();
        match words.next().map(str::to_ascii_uppercase).as_deref() {
            Some("FROM") => port = None,
            Some("EXPOSE") if port.is_none() => {
                let text = words.next().unwrap_or_default();
                port = text.strip_suffix("/tcp").unwrap_or(text).parse().ok();
            }
            _ => {}
        }
    }
    port.filter(|port| *port > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_repository_names_the_app() {
        for (repo, app) in [
            ("https://github.com/ada/My_App.git", Some("my-app")),
            ("git@example.com:shop.git", Some("shop")),
            ("/srv/git/hello.git/", Some("hello")),
            ("https://example.com/a/.git", None),
        ] {
            assert_eq!(name(repo).as_deref(), app, "{repo}");
        }
    }

    #[test]
    fn the_port_is_the_first_of_the_stage_that_runs() {
        for (text, found) in [
            ("FROM a\nEXPOSE 3000/tcp 9229\nexpose 4000\n", Some(3000)),
            ("FROM a AS build\nEXPOSE 1\nFROM b\nCMD x\n", None),
            ("FROM a\nEXPOSE $PORT\n", None),
        ] {
            assert_eq!(port(text), found, "{text}");
        }
    }

    #[test]
    fn a_work_tree_says_where_it_comes_from() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(look(folder.path(), None), Checkout::default());
        let git = git2::Repository::init(folder.path()).unwrap();
        git.remote("origin", "git@example.com:ada/shop.git")
            .unwrap();
        std::fs::write(folder.path().join("Dockerfile"), "FROM a\nEXPOSE 3000\n").unwrap();
        let below = folder.path().join("docs");
        std::fs::create_dir(&below).unwrap();
        let found = Checkout {
            repo: Some("git@example.com:ada/shop.git".into()),
            app: Some("shop".into()),
            port: Some(3000),
        };
        assert_eq!(look(&below, None), found);
        let given = look(&below, Some("/srv/git/other.git"));
        assert_eq!((given.app.as_deref(), given.port), (Some("other"), None));
    }
}
