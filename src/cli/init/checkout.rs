//! What `cutover init` takes from the repository in whose work tree it runs.

use std::collections::HashMap;
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
        port: dockerfile(&root.join("Dockerfile")).and_then(|text| port(&text)),
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

/// What is known of a stage of a Dockerfile.
#[derive(Default, Clone)]
struct Stage {
    values: HashMap<String, String>,
    port: Option<u16>,
}

/// Of the last stage, which is the one that runs. A port may be written as a variable that `ENV` or `ARG`
/// gives a value.
fn port(dockerfile: &str) -> Option<u16> {
    let (mut stage, mut stages) = (Stage::default(), HashMap::<String, Stage>::new());
    // Those before the first stage, which a stage has to ask for.
    let (mut global, mut begun, mut named) = (HashMap::new(), false, None);
    let joined = dockerfile.replace("\\\r\n", " ").replace("\\\n", " ");
    for line in joined.lines() {
        let mut words = line.split_whitespace();
        let instruction = words.next().unwrap_or_default().to_ascii_uppercase();
        let words: Vec<_> = words.collect();
        match instruction.as_str() {
            "FROM" => {
                if !begun {
                    global = std::mem::take(&mut stage).values;
                }
                begun = true;
                if let Some(name) = named.take() {
                    stages.insert(name, std::mem::take(&mut stage));
                }
                let mut words = words.iter().filter(|word| !word.starts_with("--"));
                let image = words.next().map(|image| image.to_ascii_lowercase());
                stage = image
                    .and_then(|it| stages.get(&it).cloned())
                    .unwrap_or_default();
                named = words.nth(1).map(|name| name.to_ascii_lowercase());
            }
            "ENV" | "ARG" => {
                let sets = set(&words).into_iter().map(|(name, value)| {
                    let known = value.map(|value| resolved(&value, &stage.values));
                    let value = known.or_else(|| global.get(&name).cloned());
                    (name, value)
                });
                let sets: Vec<_> = sets.collect();
                for (name, value) in sets {
                    // A build may give an `ARG` another value, but mostly does not.
                    let is_free = instruction == "ENV" || !stage.values.contains_key(&name);
                    if let Some(value) = value.filter(|_| is_free) {
                        stage.values.insert(name, value);
                    }
                }
            }
            "EXPOSE" => {
                let text = resolved(words.first().unwrap_or(&""), &stage.values);
                let given = text.strip_suffix("/tcp").unwrap_or(&text).parse().ok();
                stage.port = stage.port.or(given);
            }
            _ => {}
        }
    }
    stage.port.filter(|port| *port > 0)
}

/// The names of an `ENV` or `ARG`, with their values if it has them.
fn set(words: &[&str]) -> Vec<(String, Option<String>)> {
    let unquoted = |value: &str| value.trim_matches(['"', '\'']).to_owned();
    match words {
        // As it was written once.
        [name, value] if !name.contains('=') && !value.contains('=') => {
            vec![((*name).to_owned(), Some(unquoted(value)))]
        }
        words => {
            let one = |word: &&str| match word.split_once('=') {
                Some((name, value)) => (name.to_owned(), Some(unquoted(value))),
                None => ((*word).to_owned(), None),
            };
            words.iter().map(one).collect()
        }
    }
}

/// `$NAME`, `${NAME}` and `${NAME:-8080}` by their values.
fn resolved(text: &str, values: &HashMap<String, String>) -> String {
    let Some(begin) = text.find('$') else {
        return text.to_owned();
    };
    let (before, rest) = (&text[..begin], &text[begin + 1..]);
    let (name, after) = match rest.strip_prefix('{').and_then(|it| it.split_once('}')) {
        Some(braced) => braced,
        None => {
            let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
            rest.split_at(rest.find(|c| !is_name(c)).unwrap_or(rest.len()))
        }
    };
    let (name, usual) = name.split_once(":-").unwrap_or((name, ""));
    let value = values.get(name).map_or(usual, String::as_str);
    format!("{before}{value}{after}")
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
    fn the_port_is_the_first_of_the_stage_that_runs() {
        for (text, found) in [
            ("FROM a\nEXPOSE 3000/tcp 9229\nexpose 4000\n", Some(3000)),
            ("FROM a AS build\nEXPOSE 1\nFROM b\nCMD x\n", None),
            ("FROM a\nEXPOSE $PORT\n", None),
            ("FROM a\nENV PORT=3000 A=b\nEXPOSE $PORT\n", Some(3000)),
            (
                "FROM a\nENV A=b \\\n  PORT=\"3000\"\nEXPOSE ${PORT}/tcp\n",
                Some(3000),
            ),
            ("FROM a\nENV PORT 3000\nEXPOSE $PORT\n", Some(3000)),
            (
                "FROM a\nARG PORT=3000\nENV P=$PORT\nEXPOSE $P\n",
                Some(3000),
            ),
            (
                "ARG PORT=3000\nFROM a\nARG PORT\nEXPOSE $PORT\n",
                Some(3000),
            ),
            ("ARG PORT=3000\nFROM a\nEXPOSE $PORT\n", None),
            ("FROM a\nEXPOSE ${PORT:-3000}\n", Some(3000)),
            (
                "FROM a AS base\nENV PORT=3000\nFROM base\nEXPOSE $PORT\n",
                Some(3000),
            ),
            (
                "FROM a AS base\nEXPOSE 3000\nFROM --platform=x base AS b\nCMD x\n",
                Some(3000),
            ),
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
