//! The forges that take reports: one file each, pure.

mod bitbucket;
mod data_center;
mod gitea;
mod github;
mod gitlab;

use std::fmt;

use http::Method;
use serde_json::{Value, json};

use super::{Address, Fact};
use crate::webhook;

/// One request to a forge's API.
#[derive(Debug, Clone, PartialEq)]
pub struct Request {
    pub method: Method,
    /// After the API's address; begins with `/`.
    pub path: String,
    pub body: Option<Value>,
}

impl Request {
    fn post(path: String, body: Value) -> Self {
        Self {
            method: Method::POST,
            path,
            body: Some(body),
        }
    }
}

/// A forge by the API that it has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Forge {
    GitHub,
    GitLab,
    /// Forgejo too.
    Gitea,
    Bitbucket,
    DataCenter,
}

impl Forge {
    /// The one whose deliveries are read as `forge`; the others take no reports.
    pub fn of(forge: webhook::Forge) -> Option<Self> {
        match forge {
            webhook::Forge::GitHub => Some(Forge::GitHub),
            webhook::Forge::GitLab => Some(Forge::GitLab),
            webhook::Forge::Gitea | webhook::Forge::Forgejo => Some(Forge::Gitea),
            webhook::Forge::Bitbucket => Some(Forge::Bitbucket),
            webhook::Forge::BitbucketDataCenter => Some(Forge::DataCenter),
            webhook::Forge::Gogs | webhook::Forge::Azure | webhook::Forge::Standard => None,
        }
    }

    /// The one that is known to be at `host`.
    pub(super) fn at(host: &str) -> Option<Self> {
        match host {
            "github.com" => Some(Forge::GitHub),
            "gitlab.com" => Some(Forge::GitLab),
            "bitbucket.org" => Some(Forge::Bitbucket),
            "codeberg.org" | "gitea.com" => Some(Forge::Gitea),
            host if host.ends_with(".ghe.com") => Some(Forge::GitHub),
            _ => None,
        }
    }

    /// The API's address of the forge at `web`.
    pub(super) fn api(self, web: &str) -> String {
        match self {
            Forge::GitHub => github::api(web),
            Forge::GitLab => format!("{web}/api/v4"),
            Forge::Gitea => format!("{web}/api/v1"),
            Forge::Bitbucket => bitbucket::api(web),
            Forge::DataCenter => format!("{web}/rest/api/latest"),
        }
    }

    /// The headers that each request carries.
    pub fn headers(self, token: &str) -> Vec<(&'static str, String)> {
        match self {
            Forge::GitHub => github::headers(token),
            Forge::GitLab => gitlab::headers(token),
            Forge::Gitea => gitea::headers(token),
            Forge::Bitbucket | Forge::DataCenter => {
                vec![("authorization", format!("Bearer {token}"))]
            }
        }
    }

    /// Whether it keeps deployments of its own that Cutover can tell it of.
    pub fn has_deployments(self) -> bool {
        false
    }

    /// Sets the status of a commit.
    pub fn status(self, address: &Address, fact: &Fact) -> Request {
        match self {
            Forge::GitHub => github::status(address, fact),
            Forge::GitLab => gitlab::status(address, fact),
            Forge::Gitea => gitea::status(address, fact),
            Forge::Bitbucket => bitbucket::status(address, fact),
            Forge::DataCenter => data_center::status(address, fact),
        }
    }

    /// Whether an answer that is no success says that what was asked for is so already.
    pub fn is_so_already(self, status: http::StatusCode, body: &[u8]) -> bool {
        self == Forge::GitLab && gitlab::is_so_already(status, body)
    }
}

/// Adds `key` where there is a value.
fn put(body: &mut Value, key: &str, value: Option<&String>) {
    if let Some(value) = value {
        body[key] = json!(value);
    }
}

impl fmt::Display for Forge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Forge::GitHub => "GitHub",
            Forge::GitLab => "GitLab",
            Forge::Gitea => "Gitea",
            Forge::Bitbucket => "Bitbucket",
            Forge::DataCenter => "Bitbucket Data Center",
        })
    }
}

#[cfg(test)]
mod tests;
