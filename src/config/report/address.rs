//! Which forge hosts a repository, and where its API is: detected from the repository's address
//! where possible.

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use url::Url;

use super::api::ForgeApi;
use super::remote::Remote;
use crate::config::Repo;
use crate::webhook;

/// Where the statuses of a repository are sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ForgeAddress {
    pub forge: ForgeApi,
    /// The API's base address, without a slash at its end.
    pub api: String,
    /// The forge's own address, without a slash at its end.
    pub web: String,
    /// `acme/hello`, as the forge shows it.
    path: String,
}

/// What deploy.toml says in addition to the repository's address.
#[derive(Debug, Clone, Default)]
pub struct Asked<'a> {
    pub forge: Option<webhook::Forge>,
    /// The forge's own address.
    pub url: Option<&'a Url>,
    /// `acme/hello`.
    pub repository: Option<&'a str>,
}

/// What could not be detected and has to be configured.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Missing {
    /// The URL of the forge.
    Url,
    /// The path of the repository at the forge.
    Repository,
    /// Which forge is at `host`.
    Forge { host: String },
}

const SEGMENT: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~');

impl ForgeAddress {
    /// Detects whatever `asked` leaves out from the repository's address. The error says what has
    /// to be configured.
    pub fn find(repo: &Repo, asked: &Asked<'_>) -> Result<Self, Missing> {
        let remote = Remote::of(repo);
        let own = asked.url.map(trimmed);
        let web = own.or(remote.as_ref().map(|remote| remote.web.clone()));
        let mut web = web.ok_or(Missing::Url)?;
        let host = Url::parse(&web).ok();
        let host = host.as_ref().and_then(Url::host_str).unwrap_or_default();
        let forge = match asked.forge {
            Some(forge) => ForgeApi::of(forge),
            None => ForgeApi::at(host),
        };
        let forge = forge.ok_or_else(|| Missing::Forge {
            host: host.to_owned(),
        })?;
        let path = asked.repository.map(str::to_owned);
        let path = path.or_else(|| {
            let mut path = remote?.path;
            if forge == ForgeApi::DataCenter
                && let Some((before, after)) = path.clone().split_once("scm/")
                && (before.is_empty() || before.ends_with('/'))
            {
                // What precedes `scm` is the path that Bitbucket itself is served under.
                if asked.url.is_none() {
                    web = format!("{web}/{before}").trim_end_matches('/').to_owned();
                }
                path = after.to_owned();
            }
            // If the forge is served under a path, its repositories' addresses begin with it.
            let below = Url::parse(&web).ok();
            let below = below.as_ref().map(|url| url.path().trim_matches('/'));
            if let Some(rest) = below.and_then(|below| path.strip_prefix(below)) {
                path = rest.trim_start_matches('/').to_owned();
            }
            Some(path)
        });
        let path = path.filter(|path| path.contains('/'));
        Ok(Self {
            forge,
            api: forge.base(&web),
            path: path.ok_or(Missing::Repository)?,
            web,
        })
    }

    /// The repository's path, `acme/hello`, with each segment percent-encoded.
    pub fn repository(&self) -> String {
        let segments = self.path.split('/').map(encoded);
        segments.collect::<Vec<_>>().join("/")
    }

    /// The same path as a single segment, `acme%2Fhello`.
    pub fn repository_id(&self) -> String {
        encoded(&self.path)
    }

    /// What precedes the last slash, and what follows it, each percent-encoded as a single segment.
    pub fn owner_and_name(&self) -> (String, String) {
        let (owner, name) = self.path.rsplit_once('/').unwrap_or(("", &self.path));
        (encoded(owner), encoded(name))
    }
}

/// Percent-encodes one segment of a path.
pub fn encoded(text: &str) -> String {
    utf8_percent_encode(text, SEGMENT).to_string()
}

fn trimmed(url: &Url) -> String {
    url.as_str().trim_end_matches('/').to_owned()
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(crate) fn address(forge: webhook::Forge) -> ForgeAddress {
        let asked = Asked {
            forge: Some(forge),
            ..Asked::default()
        };
        let repo = Repo::Http("https://git.example.com/acme/hello.git".into());
        ForgeAddress::find(&repo, &asked).unwrap()
    }

    fn found(repo: Repo, asked: Asked<'_>) -> (ForgeApi, String, String) {
        let address =
            ForgeAddress::find(&repo, &asked).unwrap_or_else(|e| panic!("{repo:?}: {e:?}"));
        (address.forge, address.api.clone(), address.path)
    }

    #[test]
    fn the_public_forges_are_known_by_their_host() {
        let api = "https://api.github.com";
        for (text, forge, api, path) in [
            (
                "https://github.com/acme/hello.git",
                ForgeApi::GitHub,
                api,
                "acme/hello",
            ),
            (
                "https://github.com/acme/hello",
                ForgeApi::GitHub,
                api,
                "acme/hello",
            ),
            (
                "https://GitHub.com/acme/hello/",
                ForgeApi::GitHub,
                api,
                "acme/hello",
            ),
            (
                "git@github.com:acme/hello.git",
                ForgeApi::GitHub,
                api,
                "acme/hello",
            ),
            (
                "git@GitHub.com:/acme/hello.git",
                ForgeApi::GitHub,
                api,
                "acme/hello",
            ),
            (
                "ssh://git@ssh.github.com:443/acme/hello.git",
                ForgeApi::GitHub,
                api,
                "acme/hello",
            ),
            (
                "https://octo.ghe.com/acme/hello.git",
                ForgeApi::GitHub,
                "https://api.octo.ghe.com",
                "acme/hello",
            ),
            (
                "https://gitlab.com/acme/team/hello.git",
                ForgeApi::GitLab,
                "https://gitlab.com/api/v4",
                "acme/team/hello",
            ),
            (
                "git@codeberg.org:acme/hello.git",
                ForgeApi::Gitea,
                "https://codeberg.org/api/v1",
                "acme/hello",
            ),
            (
                "git@bitbucket.org:acme/hello.git",
                ForgeApi::Bitbucket,
                "https://api.bitbucket.org/2.0",
                "acme/hello",
            ),
        ] {
            let repo = match text.starts_with("http") {
                true => Repo::Http(text.into()),
                false => Repo::Ssh(text.into()),
            };
            let expected = (forge, api.to_owned(), path.to_owned());
            assert_eq!(found(repo, Asked::default()), expected, "{text}");
        }
    }

    #[test]
    fn a_forge_of_ones_own_is_where_the_repository_is() {
        use webhook::Forge as Named;
        let cases = [
            (
                "http://git.lan:3000/acme/hello.git",
                Named::Gitea,
                "http://git.lan:3000/api/v1",
                "acme/hello",
            ),
            (
                "https://git.lan/acme/hello.git",
                Named::GitHub,
                "https://git.lan/api/v3",
                "acme/hello",
            ),
            (
                "https://git.lan/scm/PROJ/hello.git",
                Named::BitbucketDataCenter,
                "https://git.lan/rest/api/latest",
                "PROJ/hello",
            ),
            (
                "https://git.lan/bitbucket/scm/~ada/hello.git",
                Named::BitbucketDataCenter,
                "https://git.lan/bitbucket/rest/api/latest",
                "~ada/hello",
            ),
        ];
        for (text, forge, api, path) in cases {
            let asked = Asked {
                forge: Some(forge),
                ..Asked::default()
            };
            let (_, found_api, found_path) = found(Repo::Http(text.into()), asked);
            assert_eq!(
                (found_api.as_str(), found_path.as_str()),
                (api, path),
                "{text}"
            );
        }
        let asked = Asked {
            forge: Some(Named::Forgejo),
            ..Asked::default()
        };
        let ssh = Repo::Ssh("ssh://git@git.lan:2222/acme/hello.git".into());
        assert_eq!(found(ssh, asked).1, "https://git.lan/api/v1");
        let asked = Asked {
            forge: Some(Named::BitbucketDataCenter),
            ..Asked::default()
        };
        let ssh = Repo::Ssh("ssh://git@git.lan:7999/PROJ/hello.git".into());
        assert_eq!(found(ssh, asked).2, "PROJ/hello");
    }

    #[test]
    fn what_is_said_counts_more_than_what_is_found() {
        let url = Url::parse("https://git.lan/gitlab/").unwrap();
        let asked = Asked {
            forge: Some(webhook::Forge::GitLab),
            url: Some(&url),
            repository: None,
        };
        let repo = Repo::Http("https://git.lan/gitlab/acme/team/hello.git".into());
        let (_, api, path) = found(repo, asked.clone());
        assert_eq!(api, "https://git.lan/gitlab/api/v4");
        assert_eq!(path, "acme/team/hello");
        let asked = Asked {
            repository: Some("other/place"),
            ..asked
        };
        assert_eq!(
            found(Repo::Local("/srv/x.git".into()), asked).2,
            "other/place"
        );
    }

    #[test]
    fn what_cannot_be_found_out_is_named() {
        let find = |repo: Repo, asked| ForgeAddress::find(&repo, &asked);
        let own = Repo::Ssh("git@git.lan:acme/hello.git".into());
        let host = "git.lan".into();
        assert_eq!(find(own, Asked::default()), Err(Missing::Forge { host }));
        let local = || Repo::Local("/srv/hello.git".into());
        assert_eq!(find(local(), Asked::default()), Err(Missing::Url));
        let url = Url::parse("https://github.com").unwrap();
        let asked = Asked {
            url: Some(&url),
            ..Asked::default()
        };
        assert_eq!(find(local(), asked), Err(Missing::Repository));
    }

    #[test]
    fn a_path_is_encoded_once() {
        let repo = Repo::Http("https://gitlab.com/a%20b/c+d/x.git".into());
        let address = ForgeAddress::find(&repo, &Asked::default()).unwrap();
        assert_eq!(address.repository(), "a%20b/c%2Bd/x");
        assert_eq!(address.repository_id(), "a%20b%2Fc%2Bd%2Fx");
    }
}
