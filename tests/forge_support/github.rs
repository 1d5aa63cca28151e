//! GitHub's REST API, version 2022-11-28: commit statuses and deployments.

use http::{HeaderMap, Method, StatusCode};
use serde_json::{Value, json};

use super::TOKEN;
use super::schema::{Is, check, header, is_commit};

#[derive(Default)]
pub struct GitHub {
    statuses: u64,
}

impl GitHub {
    pub fn take(
        &mut self,
        method: &Method,
        path: &str,
        headers: &HeaderMap,
        body: &Value,
    ) -> Result<(StatusCode, Value), String> {
        header(headers, "authorization", &format!("Bearer {TOKEN}"))?;
        header(headers, "accept", "application/vnd.github+json")?;
        header(headers, "x-github-api-version", "2022-11-28")?;
        if !headers.contains_key("user-agent") {
            return Err("GitHub refuses requests without a `User-Agent`".into());
        }
        let path: Vec<&str> = path.split('/').collect();
        match (method.as_str(), path.as_slice()) {
            ("POST", ["", "repos", "ada", "hello", "statuses", commit]) if is_commit(commit) => {
                self.status(body)
            }
            _ => Err("there is no such endpoint".into()),
        }
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
}
