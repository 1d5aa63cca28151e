//! An app's repository address and branch. Both are passed to git, so both are checked for anything
//! that git could mistake for an option, a command or another protocol.

use std::path::{Path, PathBuf};

use url::Url;

use super::{Image, paths};

/// The repository that an app's commits come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Repo {
    /// An `https://` or `http://` address.
    Http(String),
    /// `ssh://user@host[:port]/path` or `user@host:path`.
    Ssh(String),
    /// A bare repository on this machine.
    Local(PathBuf),
    /// None: what is deployed is in a registry.
    Image(Image),
}

pub(super) const REPO: &str = "an `https://` or `ssh://` address, `user@host:path`, or the path of a \
                               bare repository on this machine";

/// Parses a repository's address; a relative path is resolved against `folder`. The error says what
/// was expected.
pub(crate) fn repo(folder: &Path, text: &str) -> Result<Repo, String> {
    if text.is_empty() || text.contains(char::is_control) {
        return Err(format!("{REPO}, without control characters"));
    }
    if text.starts_with('-') {
        return Err(format!(
            "{REPO}; a leading `-` could be mistaken for an option"
        ));
    }
    let before_path = text.split('/').next().unwrap_or(text);
    if before_path.contains("::") && !before_path.contains('[') {
        return Err(format!(
            "{REPO}; git's remote helpers (such as `ext::`) are not supported"
        ));
    }
    if let Some((scheme, _)) = text.split_once("://") {
        return address(folder, &scheme.to_ascii_lowercase(), text);
    }
    if before_path.contains(':') {
        return scp(text);
    }
    paths::on_this_machine(folder, text).map(Repo::Local)
}

fn address(folder: &Path, scheme: &str, text: &str) -> Result<Repo, String> {
    if text.contains(char::is_whitespace) {
        return Err("an address without spaces (write `%20`)".into());
    }
    let url = Url::parse(text).map_err(|error| format!("{REPO}; invalid address: {error}"))?;
    match scheme {
        "http" | "https" => {
            if !url.username().is_empty() || url.password().is_some() {
                return Err(
                    "an address without a user name or token in it: put them into `username` and \
                     `token` of the app's section `source`"
                        .into(),
                );
            }
            Ok(Repo::Http(text.into()))
        }
        "ssh" => {
            if url.password().is_some() {
                return Err(
                    "an address without a password: use an ssh key, `ssh_key` of the app's section \
                     `source`"
                        .into(),
                );
            }
            let host = url.host_str().unwrap_or_default();
            match plain(url.username()) && plain(host) && url.path().len() > 1 {
                true => Ok(Repo::Ssh(text.into())),
                false => Err("`ssh://user@host/path`, where the user is mostly `git`".into()),
            }
        }
        "file" => match url.host_str().is_none_or(str::is_empty) {
            true => {
                let path = url.to_file_path().map_err(|()| "the path itself")?;
                let path = path.to_str().ok_or("a path that is UTF-8")?;
                paths::on_this_machine(folder, path).map(Repo::Local)
            }
            false => Err("the path of a bare repository on this machine, without a host".into()),
        },
        _ => Err(format!("{REPO}; `{scheme}://` is not supported")),
    }
}

fn scp(text: &str) -> Result<Repo, String> {
    let expected = || {
        "`user@host:path`, where the user is mostly `git`; a local path with a colon in it is \
         written `./a:b`"
            .to_owned()
    };
    let (user, rest) = text.split_once('@').ok_or_else(expected)?;
    let (host, path) = rest
        .rsplit_once("]:")
        .map_or_else(
            || rest.split_once(':'),
            |(host, path)| Some((host.strip_prefix('[')?, path)),
        )
        .ok_or_else(expected)?;
    match plain(user) && plain(host) && !path.is_empty() && !path.starts_with('-') {
        true => Ok(Repo::Ssh(text.into())),
        false => Err(expected()),
    }
}

/// Whether the text contains nothing that ssh, or a program that git runs, could mistake for an
/// option or a second argument.
fn plain(text: &str) -> bool {
    !text.is_empty()
        && !text.starts_with('-')
        && text
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || "._-:[]~+".contains(c))
}

/// Checks by git's own rules that `name` can be a branch; the error says what was expected.
pub(super) fn branch(name: &str) -> Result<String, String> {
    if let Some(short) = name.strip_prefix("refs/heads/") {
        return Err(format!(
            "the branch's short name, `{}`",
            short.escape_debug()
        ));
    }
    if name.contains(['*', '?', '[']) {
        return Err("the name of one branch; patterns belong in `branches`".into());
    }
    let good = !name.is_empty()
        && name.len() <= 200
        && !name.starts_with('-')
        && name != "HEAD"
        && !name.contains('\0')
        && git2::Reference::is_valid_name(&format!("refs/heads/{name}"));
    good.then(|| name.to_owned())
        .ok_or_else(|| "a branch name that git accepts (see `git check-ref-format`)".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    const FOLDER: &str = "/etc/cutover";

    #[test]
    fn every_kind_of_address_is_recognised() {
        let http = |text: &str| Repo::Http(text.into());
        let ssh = |text: &str| Repo::Ssh(text.into());
        let local = |text: &str| Repo::Local(text.into());
        for (text, expected) in [
            (
                "https://github.com/acme/hello.git",
                http("https://github.com/acme/hello.git"),
            ),
            (
                "http://127.0.0.1:8080/x.git",
                http("http://127.0.0.1:8080/x.git"),
            ),
            ("https://[::1]/x.git", http("https://[::1]/x.git")),
            (
                "ssh://git@host.example/a/b.git",
                ssh("ssh://git@host.example/a/b.git"),
            ),
            (
                "ssh://git@host:2222/a.git",
                ssh("ssh://git@host:2222/a.git"),
            ),
            (
                "git@github.com:acme/hello.git",
                ssh("git@github.com:acme/hello.git"),
            ),
            ("git@[::1]:a/b.git", ssh("git@[::1]:a/b.git")),
            ("/srv/git/hello.git", local("/srv/git/hello.git")),
            ("hello.git", local("/etc/cutover/hello.git")),
            ("./a:b", local("/etc/cutover/a:b")),
            ("file:///srv/git/a%20b.git", local("/srv/git/a b.git")),
        ] {
            assert_eq!(repo(Path::new(FOLDER), text), Ok(expected), "{text}");
        }
    }

    #[test]
    fn dangerous_and_senseless_addresses_are_refused() {
        for (text, reason) in [
            ("", "control characters"),
            ("https://a/b\n", "control characters"),
            ("--upload-pack=/bin/sh", "option"),
            ("-x@host:y", "option"),
            ("ext::sh -c id", "remote helpers"),
            ("fd::17/x", "remote helpers"),
            (
                "https://user:token@github.com/a.git",
                "`token` of the app's section `source`",
            ),
            ("https://token@github.com/a.git", "`username`"),
            ("https://", "invalid address"),
            ("https://a b/c", "without spaces"),
            ("ssh://git:pw@host/a", "ssh_key"),
            ("ssh://host/a", "ssh://user@host"),
            ("ssh://git@-oProxyCommand=id/a", "ssh://user@host"),
            ("ssh://-oProxyCommand=id@host/a", "ssh://user@host"),
            ("ssh://git@host", "ssh://user@host"),
            ("host:path", "user@host:path"),
            ("git@-oX=y:path", "user@host:path"),
            ("git@host:", "user@host:path"),
            ("git@host:-x", "user@host:path"),
            ("a b@host:x", "user@host:path"),
            ("file://host/share", "without a host"),
            ("git://host/a", "not supported"),
            ("ftp://host/a", "not supported"),
            ("~/repo.git", "not expanded"),
        ] {
            let error = repo(Path::new(FOLDER), text).expect_err(text);
            assert!(error.contains(reason), "{text:?}: {error}");
        }
    }

    #[test]
    fn branches_follow_gits_rules() {
        for good in [
            "main",
            "feature/x",
            "v1.2",
            "ünï",
            "a-b",
            "release/2026.1",
            "refs",
        ] {
            assert_eq!(branch(good).as_deref(), Ok(good));
        }
        let long = "x".repeat(201);
        for bad in [
            "",
            "-x",
            "--all",
            "HEAD",
            "a b",
            "a..b",
            "a~1",
            "a^",
            "a:b",
            "a\\b",
            "a\0b",
            "a\nb",
            "/a",
            "a/",
            "a//b",
            "a.lock",
            ".a",
            "a.",
            "a@{b",
            "*",
            "rel/*",
            "refs/heads/main",
            &long,
        ] {
            assert!(branch(bad).is_err(), "{bad:?}");
        }
    }
}
