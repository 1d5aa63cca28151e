//! What `cutover init` takes from the repository in whose work tree it runs.

use std::path::Path;

use crate::build::exposed;
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
    /// The branch that is checked out.
    pub branch: Option<String>,
    /// The first port that the Dockerfile in its root exposes.
    pub port: Option<u16>,
    /// The folder of a site: there is an index.html in it, and no Dockerfile in the root.
    pub site: Option<&'static str>,
}

/// Where generators of sites put them, and where people do.
const SITES: [&str; 7] = [".", "public", "dist", "site", "www", "docs", "html"];

/// `repo`: what the user gave in place of `origin`. Empty outside of a work tree.
pub fn look(folder: &Path, repo: Option<&str>) -> Checkout {
    if let Some(repo) = repo {
        return Checkout {
            app: name(repo),
            ..Default::default()
        };
    }
    let Some(tree) = source::work_tree(folder) else {
        return Checkout::default();
    };
    let root = tree.root;
    let is_known = |it: &String| config::repository(folder, &without_login(it).0).is_ok();
    let repo = tree.origin.filter(is_known);
    let of_folder = || name(root.canonicalize().ok()?.to_str()?);
    let is_site = |dir: &&str| root.join(dir).join("index.html").is_file();
    let has_dockerfile = root.join("Dockerfile").exists();
    Checkout {
        app: repo.as_deref().and_then(name).or_else(of_folder),
        repo,
        branch: tree.branch,
        port: dockerfile(&root.join("Dockerfile")).and_then(|text| exposed(&text)),
        site: SITES.into_iter().find(is_site).filter(|_| !has_dockerfile),
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

/// The address without the user name and password of an HTTP address, and whether it had any.
pub fn without_login(repo: &str) -> (String, bool) {
    let Ok(mut url) = url::Url::parse(repo) else {
        return (repo.to_owned(), false);
    };
    let has_login = !url.username().is_empty() || url.password().is_some();
    let is_ssh = url.scheme() == "ssh";
    if !has_login || (is_ssh && url.password().is_none()) {
        return (repo.to_owned(), false);
    }
    // Both succeed for an address with a host, and only such has a login. With ssh, the user is no secret.
    let _ = url.set_password(None);
    if !is_ssh {
        let _ = url.set_username("");
    }
    (url.to_string(), !is_ssh)
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
    fn a_work_tree_says_where_it_comes_from() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(look(folder.path(), None), Checkout::default());
        let git = git2::Repository::init(folder.path()).unwrap();
        git.remote("origin", "git@example.com:ada/shop.git")
            .unwrap();
        std::fs::write(folder.path().join("Dockerfile"), "FROM a\nEXPOSE 3000\n").unwrap();
        let below = folder.path().join("docs");
        std::fs::create_dir(&below).unwrap();
        git.set_head("refs/heads/next").unwrap();
        let found = Checkout {
            repo: Some("git@example.com:ada/shop.git".into()),
            app: Some("shop".into()),
            branch: Some("next".into()),
            port: Some(3000),
            site: None,
        };
        assert_eq!(look(&below, None), found);
        let given = look(&below, Some("/srv/git/other.git"));
        assert_eq!((given.app.as_deref(), given.port), (Some("other"), None));
    }

    #[test]
    fn an_origin_with_a_token_counts_and_a_site_is_seen() {
        let folder = tempfile::tempdir().unwrap();
        let git = git2::Repository::init(folder.path()).unwrap();
        let origin = "https://ada:s3cret@example.com/ada/shop.git";
        git.remote("origin", origin).unwrap();
        let dist = folder.path().join("dist");
        std::fs::create_dir(&dist).unwrap();
        std::fs::write(dist.join("index.html"), "<p>").unwrap();
        let found = look(folder.path(), None);
        assert_eq!(found.repo.as_deref(), Some(origin));
        assert_eq!(
            (found.app.as_deref(), found.site),
            (Some("shop"), Some("dist"))
        );
        std::fs::write(folder.path().join("Dockerfile"), "FROM a\n").unwrap();
        assert_eq!(look(folder.path(), None).site, None);
    }
}
