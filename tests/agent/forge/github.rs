//! GitHub's REST API, version 2022-11-28: commit statuses and deployments.

use http::{HeaderMap, Method, StatusCode};
use serde_json::{Value, json};

use super::schema::{Is, Query, check, header, is_commit};
use super::{TOKEN, jwt};

#[derive(Default)]
pub struct GitHub {
    statuses: u64,
    /// The tokens that the App was given; the last one counts.
    pub given: Vec<String>,
    /// Whether the last one has been revoked.
    pub is_revoked: bool,
    pub deployments: Vec<Deployment>,
}

/// One of GitHub's own deployments.
#[derive(Debug, Clone)]
pub struct Deployment {
    pub id: usize,
    pub made: Value,
    /// Oldest first.
    pub statuses: Vec<Value>,
}

impl Deployment {
    /// Its states, oldest first.
    pub fn states(&self) -> Vec<&str> {
        let states = self.statuses.iter().map(|status| status["state"].as_str());
        states.map(Option::unwrap).collect()
    }
}

impl GitHub {
    pub fn take(
        &mut self,
        method: &Method,
        path: &str,
        query: &Query,
        headers: &HeaderMap,
        body: &Value,
    ) -> Result<(StatusCode, Value), String> {
        header(headers, "accept", "application/vnd.github+json")?;
        header(headers, "x-github-api-version", "2022-11-28")?;
        if !headers.contains_key("user-agent") {
            return Err("GitHub refuses requests without a `User-Agent`".into());
        }
        let path: Vec<&str> = path.split('/').collect();
        let shown = headers.get("authorization").and_then(|it| it.to_str().ok());
        let shown = shown.and_then(|it| it.strip_prefix("Bearer "));
        let shown = shown.ok_or("the `Authorization` is not `Bearer …`")?;
        match (method.as_str(), path.as_slice()) {
            ("GET", ["", "repos", "ada", "hello", "installation"]) => {
                jwt::check(shown)?;
                return Ok((StatusCode::OK, json!({ "id": 42 })));
            }
            ("POST", ["", "app", "installations", "42", "access_tokens"]) => {
                jwt::check(shown)?;
                return self.give(body);
            }
            _ => {}
        }
        match self.given.last() {
            Some(last) if last != shown => return Err("the token is of no use any more".into()),
            Some(_) if self.is_revoked => {
                let body = json!({ "message": "Bad credentials" });
                return Ok((StatusCode::UNAUTHORIZED, body));
            }
            None if shown != TOKEN => return Err("the token is wrong".into()),
            _ => {}
        }
        match (method.as_str(), path.as_slice()) {
            ("POST", ["", "repos", "ada", "hello", "statuses", commit]) if is_commit(commit) => {
                self.status(body)
            }
            ("GET", ["", "repos", "ada", "hello", "deployments"]) => self.list(query),
            ("POST", ["", "repos", "ada", "hello", "deployments"]) => self.deployment(body),
            ("POST", ["", "repos", "ada", "hello", "deployments", id, "statuses"]) => {
                self.progress(id, body)
            }
            _ => Err("there is no such endpoint".into()),
        }
    }

    fn give(&mut self, body: &Value) -> Result<(StatusCode, Value), String> {
        check(
            body,
            &[("repositories", false, Is::Exactly(json!(["hello"])))],
        )?;
        // GitHub promises nothing about their form.
        let token = format!("ghs_{}/+=.{}", self.given.len(), "x".repeat(500));
        self.given.push(token.clone());
        self.is_revoked = false;
        let answer = json!({ "token": token, "expires_at": "2096-01-01T00:00:00Z" });
        Ok((StatusCode::CREATED, answer))
    }

    fn status(&mut self, body: &Value) -> Result<(StatusCode, Value), String> {
        check(
            body,
            &[
                (
                    "state",
                    true,
                    Is::OneOf(&["error", "failure", "pending", "success"]),
                ),
                ("target_url", false, Is::Url(2000)),
                ("description", false, Is::Text(140)),
                ("context", false, Is::Text(255)),
            ],
        )?;
        self.statuses += 1;
        let mut answer = body.clone();
        answer["id"] = json!(self.statuses);
        Ok((StatusCode::CREATED, answer))
    }

    fn deployment(&mut self, body: &Value) -> Result<(StatusCode, Value), String> {
        check(
            body,
            &[
                ("ref", true, Is::Commit),
                ("task", false, Is::Text(128)),
                // Else GitHub merges, or refuses what its checks have not passed.
                ("auto_merge", true, Is::Exactly(json!(false))),
                ("required_contexts", true, Is::Exactly(json!([]))),
                ("payload", false, Is::Object),
                ("environment", false, Is::Text(255)),
                ("description", false, Is::Text(140)),
                ("transient_environment", false, Is::Boolean),
                ("production_environment", false, Is::Boolean),
            ],
        )?;
        let id = self.deployments.len() + 1;
        let mut made = body.clone();
        made["id"] = json!(id);
        made["sha"] = body["ref"].clone();
        self.deployments.push(Deployment {
            id,
            made: made.clone(),
            statuses: vec![],
        });
        Ok((StatusCode::CREATED, made))
    }

    fn list(&self, query: &Query) -> Result<(StatusCode, Value), String> {
        query.allow(&["sha", "ref", "task", "environment", "per_page", "page"])?;
        let newest = self.deployments.iter().rev().map(|it| it.made.clone());
        let wanted = newest.filter(|made| {
            ["sha", "task", "environment"]
                .iter()
                .all(|key| query.get(key).is_none_or(|value| made[*key] == *value))
        });
        Ok((StatusCode::OK, Value::Array(wanted.collect())))
    }

    fn progress(&mut self, id: &str, body: &Value) -> Result<(StatusCode, Value), String> {
        check(
            body,
            &[
                (
                    "state",
                    true,
                    Is::OneOf(&[
                        "error",
                        "failure",
                        "inactive",
                        "in_progress",
                        "queued",
                        "pending",
                        "success",
                    ]),
                ),
                ("log_url", false, Is::Url(2000)),
                ("description", false, Is::Text(140)),
                ("environment", false, Is::Text(255)),
                ("environment_url", false, Is::Url(2000)),
                ("auto_inactive", false, Is::Boolean),
            ],
        )?;
        let mut all = self.deployments.iter_mut();
        let found = all.find(|deployment| deployment.id.to_string() == id);
        let found = found.ok_or("there is no such deployment")?;
        found.statuses.push(body.clone());
        Ok((StatusCode::CREATED, body.clone()))
    }
}
