//! The APIs of the forges that accept statuses: one file each, pure.

mod bitbucket;
mod data_center;
mod gitea;
mod github;
mod gitlab;

use http::Method;
use serde_json::{Value, json};

use super::fact::Fact;
use crate::config::{ForgeAddress, ForgeApi};

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

impl ForgeApi {
    /// The headers that each request carries.
    pub fn headers(self, token: &str) -> Vec<(&'static str, String)> {
        match self {
            ForgeApi::GitHub => github::headers(token),
            ForgeApi::GitLab => gitlab::headers(token),
            ForgeApi::Gitea => gitea::headers(token),
            ForgeApi::Bitbucket | ForgeApi::DataCenter => {
                vec![("authorization", format!("Bearer {token}"))]
            }
        }
    }

    /// Sets the status of a commit.
    pub fn status(self, address: &ForgeAddress, fact: &Fact) -> Request {
        match self {
            ForgeApi::GitHub => github::status(address, fact),
            ForgeApi::GitLab => gitlab::status(address, fact),
            ForgeApi::Gitea => gitea::status(address, fact),
            ForgeApi::Bitbucket => bitbucket::status(address, fact),
            ForgeApi::DataCenter => data_center::status(address, fact),
        }
    }

    /// Creates a deployment of the forge's own; `None` if there is nothing to report with one yet, or
    /// the forge has none.
    pub fn deployment(self, address: &ForgeAddress, fact: &Fact) -> Option<Request> {
        match self {
            ForgeApi::GitHub => github::deployment(address, fact),
            ForgeApi::GitLab => gitlab::deployment(address, fact),
            ForgeApi::Gitea | ForgeApi::Bitbucket | ForgeApi::DataCenter => None,
        }
    }

    /// The id in the answer to [`ForgeApi::deployment`].
    pub fn made(self, answer: &Value) -> Option<String> {
        // Both forges number them.
        answer["id"].as_u64().map(|id| id.to_string())
    }

    /// Looks for a deployment that an earlier [`ForgeApi::deployment`] may have created without a
    /// response.
    pub fn find(self, address: &ForgeAddress, fact: &Fact) -> Option<Request> {
        match self {
            ForgeApi::GitHub => Some(github::find(address, fact)),
            ForgeApi::GitLab => Some(gitlab::find(address, fact)),
            ForgeApi::Gitea | ForgeApi::Bitbucket | ForgeApi::DataCenter => None,
        }
    }

    /// The id in the answer to [`ForgeApi::find`], if it was found.
    pub fn found(self, answer: &Value, fact: &Fact) -> Option<String> {
        let ours = |one: &&Value| match self {
            ForgeApi::GitHub => github::is_of(one, fact),
            _ => gitlab::is_of(one, fact),
        };
        self.made(answer.as_array()?.iter().find(ours)?)
    }

    /// Sets the status of the forge's own deployment `id`; `None` if the forge knows it already.
    pub fn progress(self, address: &ForgeAddress, fact: &Fact, id: &str) -> Option<Request> {
        match self {
            ForgeApi::GitHub => Some(github::progress(address, fact, id)),
            ForgeApi::GitLab => gitlab::progress(address, fact, id),
            ForgeApi::Gitea | ForgeApi::Bitbucket | ForgeApi::DataCenter => None,
        }
    }

    /// Reads the environment, if the forge keeps its URL apart from the deployments.
    pub fn environment(self, address: &ForgeAddress, fact: &Fact) -> Option<Request> {
        match self {
            ForgeApi::GitLab => gitlab::environment(address, fact),
            _ => None,
        }
    }

    /// Creates or corrects the environment, given the answer to [`ForgeApi::environment`].
    pub fn correction(
        self,
        address: &ForgeAddress,
        fact: &Fact,
        answer: &Value,
    ) -> Option<Request> {
        match self {
            ForgeApi::GitLab => gitlab::correction(address, fact, answer),
            _ => None,
        }
    }

    /// Whether an error response says that the requested state is already the current one.
    pub fn is_so_already(self, status: http::StatusCode, body: &[u8]) -> bool {
        self == ForgeApi::GitLab && gitlab::is_so_already(status, body)
    }
}

/// Adds `key` if there is a value.
fn put(body: &mut Value, key: &str, value: Option<&String>) {
    if let Some(value) = value {
        body[key] = json!(value);
    }
}

#[cfg(test)]
mod tests;
