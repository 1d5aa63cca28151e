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
    fn get(path: String) -> Self {
        Self {
            method: Method::GET,
            path,
            body: None,
        }
    }

    fn put(path: String, body: Value) -> Self {
        Self {
            method: Method::PUT,
            path,
            body: Some(body),
        }
    }

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
        matches!(self, Forge::GitHub | Forge::GitLab)
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

    /// Makes a deployment of the forge's own; `None` where there is nothing to say with one, or not
    /// yet.
    pub fn deployment(self, address: &Address, fact: &Fact) -> Option<Request> {
        match self {
            Forge::GitHub => github::deployment(address, fact),
            Forge::GitLab => gitlab::deployment(address, fact),
            Forge::Gitea | Forge::Bitbucket | Forge::DataCenter => None,
        }
    }

    /// The id in the answer to [`Forge::deployment`].
    pub fn made(self, answer: &Value) -> Option<String> {
        // Both forges number them.
        answer["id"].as_u64().map(|id| id.to_string())
    }

    /// Asks for what an earlier [`Forge::deployment`] may have made, of which no answer came.
    pub fn find(self, address: &Address, fact: &Fact) -> Option<Request> {
        match self {
            Forge::GitHub => Some(github::find(address, fact)),
            Forge::GitLab => Some(gitlab::find(address, fact)),
            Forge::Gitea | Forge::Bitbucket | Forge::DataCenter => None,
        }
    }

    /// The id in the answer to [`Forge::find`], where it is there.
    pub fn found(self, answer: &Value, fact: &Fact) -> Option<String> {
        let ours = |one: &&Value| match self {
            Forge::GitHub => github::is_of(one, fact),
            _ => gitlab::is_of(one, fact),
        };
        self.made(answer.as_array()?.iter().find(ours)?)
    }

    /// Tells the forge's own deployment `id` what it has come to; `None` where it knows.
    pub fn progress(self, address: &Address, fact: &Fact, id: &str) -> Option<Request> {
        match self {
            Forge::GitHub => Some(github::progress(address, fact, id)),
            Forge::GitLab => gitlab::progress(address, fact, id),
            Forge::Gitea | Forge::Bitbucket | Forge::DataCenter => None,
        }
    }

    /// Asks for the environment, where its address is kept apart from the deployments.
    pub fn environment(self, address: &Address, fact: &Fact) -> Option<Request> {
        match self {
            Forge::GitLab => gitlab::environment(address, fact),
            _ => None,
        }
    }

    /// Makes or corrects the environment, given the answer to [`Forge::environment`].
    pub fn correction(self, address: &Address, fact: &Fact, answer: &Value) -> Option<Request> {
        match self {
            Forge::GitLab => gitlab::correction(address, fact, answer),
            _ => None,
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
