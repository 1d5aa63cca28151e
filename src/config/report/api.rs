//! Forges, by the API that they provide.

use std::fmt;

use crate::webhook;

/// A forge, by the API that it provides.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ForgeApi {
    GitHub,
    GitLab,
    /// Also Forgejo, whose API is the same.
    Gitea,
    Bitbucket,
    /// Bitbucket Data Center.
    DataCenter,
}

impl ForgeApi {
    /// The API of the forge that sends a webhook's deliveries; `None` if it accepts no statuses.
    pub fn of(forge: webhook::Forge) -> Option<Self> {
        match forge {
            webhook::Forge::GitHub => Some(ForgeApi::GitHub),
            webhook::Forge::GitLab => Some(ForgeApi::GitLab),
            webhook::Forge::Gitea | webhook::Forge::Forgejo => Some(ForgeApi::Gitea),
            webhook::Forge::Bitbucket => Some(ForgeApi::Bitbucket),
            webhook::Forge::BitbucketDataCenter => Some(ForgeApi::DataCenter),
            webhook::Forge::Gogs | webhook::Forge::Azure | webhook::Forge::Standard => None,
        }
    }

    /// The API of the public forge at `host`.
    pub(super) fn at(host: &str) -> Option<Self> {
        match host {
            "github.com" => Some(ForgeApi::GitHub),
            "gitlab.com" => Some(ForgeApi::GitLab),
            "bitbucket.org" => Some(ForgeApi::Bitbucket),
            "codeberg.org" | "gitea.com" => Some(ForgeApi::Gitea),
            host if host.ends_with(".ghe.com") => Some(ForgeApi::GitHub),
            _ => None,
        }
    }

    /// The base address of the API of the forge at `web`.
    pub(super) fn base(self, web: &str) -> String {
        match self {
            ForgeApi::GitHub => github(web),
            ForgeApi::GitLab => format!("{web}/api/v4"),
            ForgeApi::Gitea => format!("{web}/api/v1"),
            ForgeApi::Bitbucket if web == "https://bitbucket.org" => {
                "https://api.bitbucket.org/2.0".into()
            }
            ForgeApi::Bitbucket => format!("{web}/2.0"),
            ForgeApi::DataCenter => format!("{web}/rest/api/latest"),
        }
    }

    /// Whether the forge keeps deployments of its own, whose statuses Cutover can set.
    pub fn has_deployments(self) -> bool {
        matches!(self, ForgeApi::GitHub | ForgeApi::GitLab)
    }
}

fn github(web: &str) -> String {
    match web.strip_prefix("https://") {
        Some(host @ "github.com") => format!("https://api.{host}"),
        Some(host) if host.ends_with(".ghe.com") => format!("https://api.{host}"),
        _ => format!("{web}/api/v3"),
    }
}

impl fmt::Display for ForgeApi {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            ForgeApi::GitHub => "GitHub",
            ForgeApi::GitLab => "GitLab",
            ForgeApi::Gitea => "Gitea",
            ForgeApi::Bitbucket => "Bitbucket",
            ForgeApi::DataCenter => "Bitbucket Data Center",
        })
    }
}
