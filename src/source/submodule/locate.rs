//! Which repository a submodule's address names, and whether it may be fetched, with what.

use std::net::{IpAddr, ToSocketAddrs};
use std::path::{Component, Path, PathBuf};

use url::{Host, Url};

use crate::config::{self, Repo, Source};

/// Why a submodule is not fetched: what is wrong, and what to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Refused {
    pub(super) why: String,
    pub(super) hint: String,
}

/// The repository at `url`, which is relative to that of `parent`. The app's own access goes to its own
/// host only; that to others has to be configured.
pub(super) fn locate(
    own: &Repo,
    access: &Source,
    parent: &Repo,
    url: &str,
) -> Result<(Repo, Source), Refused> {
    let wrong = |why: String| Refused {
        why,
        hint: "correct its `url` in .gitmodules".into(),
    };
    let text = match url.starts_with("./") || url.starts_with("../") {
        true => joined(parent, url).ok_or_else(|| wrong(format!("`{url}` leads nowhere")))?,
        false => without_user(url),
    };
    let repo = config::repository(Path::new("/"), &text)
        .map_err(|expected| wrong(format!("its address is not {expected}")))?;
    let alone = |access: &Source| Source {
        hosts: Default::default(),
        ..access.clone()
    };
    let Some(host) = host(&repo) else {
        return match (&repo, own) {
            (Repo::Local(path), Repo::Local(own)) if is_beside(path, own) => {
                Ok((repo, Source::default()))
            }
            _ => Err(Refused {
                why: "it names a path of this machine".into(),
                hint:
                    "only a repository on this machine can have such a submodule, and only in the \
                       folder that it is in itself"
                        .into(),
            }),
        };
    };
    if self::host(own).as_ref() == Some(&host) {
        let repo = like(own, &repo).unwrap_or(repo);
        return Ok((repo, alone(access)));
    }
    let Some(access) = access.hosts.get(&host) else {
        return Err(Refused {
            why: format!("it is on another host, `{host}`"),
            hint: format!(
                "allow it in deploy.toml: `[apps.NAME.source.hosts.\"{host}\"]`, with `token` or \
                 `ssh_key` if it needs one; or exclude the submodule in .dockerignore"
            ),
        });
    };
    check_address(own, &host)?;
    Ok((repo, alone(access)))
}

/// A user name in an address of http is of no use; a password has no place there.
fn without_user(text: &str) -> String {
    match Url::parse(text) {
        Ok(mut url) if matches!(url.scheme(), "http" | "https") && url.password().is_none() => {
            let _ = url.set_username("");
            url.to_string()
        }
        _ => text.to_owned(),
    }
}

/// `../lib.git` and the like, resolved as git does it: from the parent's address as if it were a folder.
fn joined(parent: &Repo, relative: &str) -> Option<String> {
    let base = match parent {
        Repo::Http(text) | Repo::Ssh(text) => text.clone(),
        Repo::Local(path) => path.to_str()?.to_owned(),
        Repo::Image(_) => return None,
    };
    let mut base = base.trim_end_matches('/').to_owned();
    let mut rest = relative;
    let mut separator = '/';
    loop {
        if let Some(after) = rest.strip_prefix("../") {
            let end = base.rfind(['/', ':'])?;
            separator = if base[end..].starts_with(':') {
                ':'
            } else {
                '/'
            };
            base.truncate(end);
            rest = after;
        } else if let Some(after) = rest.strip_prefix("./") {
            rest = after;
        } else {
            break;
        }
    }
    let rest = rest.trim_end_matches('/');
    (!rest.is_empty() && !base.ends_with('/')).then(|| format!("{base}{separator}{rest}"))
}

/// In lower case; `None` for a path.
fn host(repo: &Repo) -> Option<String> {
    let (server, _) = match repo {
        Repo::Local(_) | Repo::Image(_) => return None,
        Repo::Http(text) => (Url::parse(text).ok()?.host_str()?.to_owned(), ()),
        Repo::Ssh(text) => (ssh(text)?.1, ()),
    };
    Some(server.to_ascii_lowercase())
}

/// The user, host and path of an address for ssh.
fn ssh(text: &str) -> Option<(String, String, String)> {
    if text.contains("://") {
        let url = Url::parse(text).ok()?;
        let (user, host) = (url.username().to_owned(), url.host_str()?.to_owned());
        return Some((user, host, url.path().to_owned()));
    }
    let (user, rest) = text.split_once('@')?;
    let (host, path) = match rest.strip_prefix('[') {
        Some(rest) => rest.split_once("]:")?,
        None => rest.split_once(':')?,
    };
    Some((user.to_owned(), host.to_owned(), path.to_owned()))
}

/// The address on the same host in the way in which the app's own repository is reached: a repository
/// that is fetched over https may name its submodules for ssh.
fn like(own: &Repo, repo: &Repo) -> Option<Repo> {
    match (own, repo) {
        (Repo::Http(own), Repo::Ssh(text)) => {
            let mut url = Url::parse(own).ok()?;
            let (_, _, path) = ssh(text)?;
            url.set_path(path.trim_start_matches('/'));
            Some(Repo::Http(url.to_string()))
        }
        (Repo::Ssh(own), Repo::Http(text)) => {
            let path = Url::parse(text)
                .ok()?
                .path()
                .trim_start_matches('/')
                .to_owned();
            let own = match own.contains("://") {
                true => {
                    let mut url = Url::parse(own).ok()?;
                    url.set_path(&path);
                    url.to_string()
                }
                false => format!("{}:{path}", own.rsplit_once(':')?.0),
            };
            Some(Repo::Ssh(own))
        }
        _ => None,
    }
}

/// Whether a repository on this machine is in the folder of the app's own.
fn is_beside(path: &Path, own: &Path) -> bool {
    let whole = |path: &Path| std::fs::canonicalize(path).ok();
    let plain = !path.components().any(|part| part == Component::ParentDir);
    let folder = |path: PathBuf| path.parent().map(Path::to_owned);
    match (whole(path), whole(own).and_then(folder)) {
        (Some(path), Some(folder)) => plain && path.starts_with(folder),
        // It says itself that it is not there.
        _ => plain && path.parent() == own.parent(),
    }
}

/// What a configured name leads to must not be this machine's own network, unless the app's repository
/// is there too. Blocks.
fn check_address(own: &Repo, host: &str) -> Result<(), Refused> {
    let refused = |address: IpAddr| Refused {
        why: format!("its host `{host}` is at `{address}`, an address of a private network"),
        hint: "fetch it from a public address; a private one is allowed only if the app's own \
               repository has one too"
            .into(),
    };
    let inner = addresses(host).into_iter().find(|it| is_private(*it));
    let Some(inner) = inner else {
        return Ok(());
    };
    let is_at_home = self::host(own).is_some_and(|own| addresses(&own).into_iter().any(is_private));
    match is_at_home && !is_link_local(inner) {
        true => Ok(()),
        false => Err(refused(inner)),
    }
}

fn addresses(host: &str) -> Vec<IpAddr> {
    match Host::parse(host) {
        Ok(Host::Ipv4(ip)) => vec![ip.into()],
        Ok(Host::Ipv6(ip)) => vec![ip.into()],
        _ => {
            let found = (host, 443).to_socket_addrs();
            found.into_iter().flatten().map(|it| it.ip()).collect()
        }
    }
}

fn is_private(ip: IpAddr) -> bool {
    match ip.to_canonical() {
        IpAddr::V4(v4) => {
            v4.is_loopback() || v4.is_private() || v4.is_unspecified() || is_link_local(ip)
                // Shared address space, where clouds keep services too.
                || v4.octets()[0] == 100 && v4.octets()[1] & 0xc0 == 64
        }
        IpAddr::V6(v6) => {
            v6.is_loopback() || v6.is_unspecified() || v6.is_unique_local() || is_link_local(ip)
        }
    }
}

/// Where clouds keep the credentials of a machine.
fn is_link_local(ip: IpAddr) -> bool {
    match ip.to_canonical() {
        IpAddr::V4(v4) => v4.is_link_local(),
        IpAddr::V6(v6) => v6.is_unicast_link_local(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn repo(text: &str) -> Repo {
        config::repository(Path::new("/"), text).unwrap()
    }

    fn at(own: &str, url: &str) -> Result<Repo, String> {
        let mut access = Source::default();
        access.hosts.insert("192.0.2.1".into(), Source::default());
        access
            .hosts
            .insert("169.254.169.254".into(), Source::default());
        access.hosts.insert("10.0.0.1".into(), Source::default());
        let own = repo(own);
        let found = locate(&own, &access, &own, url);
        found.map(|(repo, _)| repo).map_err(|refused| refused.why)
    }

    #[test]
    fn a_relative_address_is_resolved_as_git_does_it() {
        for (own, url, expected) in [
            (
                "https://h.example/a/app.git",
                "../lib.git",
                "https://h.example/a/lib.git",
            ),
            (
                "https://h.example/a/app.git/",
                "../../b/lib",
                "https://h.example/b/lib",
            ),
            (
                "git@h.example:a/app.git",
                "../lib.git",
                "git@h.example:a/lib.git",
            ),
            (
                "git@h.example:app.git",
                "../lib.git",
                "git@h.example:lib.git",
            ),
            (
                "ssh://git@h.example:22/a/app.git",
                "../lib",
                "ssh://git@h.example:22/a/lib",
            ),
            (
                "https://h.example/a/app",
                "./lib",
                "https://h.example/a/app/lib",
            ),
            ("/srv/git/app.git", "../lib.git", "/srv/git/lib.git"),
        ] {
            assert_eq!(at(own, url), Ok(repo(expected)), "{own} {url}");
        }
        for url in ["../../../../../../x", "../", "./"] {
            assert!(at("https://h.example/a.git", url).is_err(), "{url}");
        }
    }

    #[test]
    fn the_apps_own_host_is_reached_as_the_app_is() {
        for (own, url, expected) in [
            (
                "https://H.example:8443/a.git",
                "git@h.example:b/c.git",
                "https://H.example:8443/b/c.git",
            ),
            (
                "https://h.example/a.git",
                "https://ann@h.example/b",
                "https://h.example/b",
            ),
            (
                "git@h.example:a.git",
                "https://h.example/b/c.git",
                "git@h.example:b/c.git",
            ),
            (
                "ssh://git@h.example:22/a.git",
                "https://h.example/b",
                "ssh://git@h.example:22/b",
            ),
        ] {
            let found = at(own, url).unwrap();
            let text = |repo: &Repo| match repo {
                Repo::Http(text) | Repo::Ssh(text) => text.to_ascii_lowercase(),
                Repo::Local(path) => path.display().to_string(),
                Repo::Image(image) => image.to_string(),
            };
            assert_eq!(text(&found), text(&repo(expected)), "{own} {url}");
        }
    }

    #[test]
    fn other_hosts_have_to_be_allowed_and_private_ones_are_not() {
        let own = "https://192.0.2.9/a.git";
        assert!(at(own, "https://192.0.2.1/b.git").is_ok());
        for (url, why) in [
            ("https://192.0.2.2/b.git", "on another host, `192.0.2.2`"),
            ("git@192.0.2.2:b.git", "on another host, `192.0.2.2`"),
            ("http://169.254.169.254/latest", "a private network"),
            ("https://10.0.0.1/b.git", "a private network"),
            ("/etc", "a path of this machine"),
            ("file:///etc", "a path of this machine"),
            ("ext::sh -c id", "its address is not"),
            ("https://ann:pw@192.0.2.1/b.git", "its address is not"),
        ] {
            let said = at(own, url).unwrap_err();
            assert!(said.contains(why), "{url}: {said}");
        }
        // Where the app's own repository is private, the others may be too.
        assert!(at("https://10.1.1.1/a.git", "https://10.0.0.1/b.git").is_ok());
        assert!(at("https://10.1.1.1/a.git", "http://169.254.169.254/x").is_err());
        assert!(at("/srv/git/a.git", "/srv/other/b.git").is_err());
        assert!(at("/srv/git/a.git", "/srv/git/../other/b.git").is_err());
    }
}
