//! Derives the forge's address from the repository's address.

use url::{Host, Url};

use crate::config::Repo;

/// A repository's forge, and its path there.
pub(super) struct Remote {
    /// The forge's address.
    pub web: String,
    /// The repository's path at the forge.
    pub path: String,
}

impl Remote {
    /// `None` for a repository on this machine, or an address that cannot be parsed.
    pub(super) fn of(repo: &Repo) -> Option<Self> {
        let (web, path) = match repo {
            Repo::Local(_) | Repo::Image(_) => return None,
            Repo::Http(text) => {
                let url = Url::parse(text).ok()?;
                (url.origin().ascii_serialization(), url.path().to_owned())
            }
            Repo::Ssh(text) => {
                let (host, path) = match text.strip_prefix("ssh://") {
                    Some(_) => {
                        let url = Url::parse(text).ok()?;
                        (url.host_str()?.to_owned(), url.path().to_owned())
                    }
                    None => scp(text)?,
                };
                // GitHub, GitLab and Bitbucket have a second host name for SSH on port 443.
                let host = match host.as_str() {
                    "ssh.github.com" => "github.com",
                    "altssh.gitlab.com" => "gitlab.com",
                    "altssh.bitbucket.org" => "bitbucket.org",
                    host => host,
                };
                (format!("https://{host}"), path)
            }
        };
        let path = percent_encoding::percent_decode_str(path.trim_matches('/'));
        let path = path.decode_utf8().ok()?;
        let path = path.strip_suffix(".git").unwrap_or(&path).to_owned();
        Some(Self { web, path })
    }
}

/// The host (an IPv6 address in brackets) and the path of `user@host:path`.
fn scp(text: &str) -> Option<(String, String)> {
    let (_, rest) = text.split_once('@')?;
    let (host, path) = match rest.strip_prefix('[') {
        Some(rest) => {
            let (host, path) = rest.split_once("]:")?;
            match Host::parse(&format!("[{host}]")) {
                Ok(address) => (address.to_string(), path),
                Err(_) => (host.to_owned(), path),
            }
        }
        None => {
            let (host, path) = rest.split_once(':')?;
            (host.to_owned(), path)
        }
    };
    Some((host.to_ascii_lowercase(), path.to_owned()))
}
