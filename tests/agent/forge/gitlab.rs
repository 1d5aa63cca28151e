//! GitLab's REST API, version 4: commit statuses, deployments and environments.

use std::collections::HashMap;

use http::{HeaderMap, Method, StatusCode};
use serde_json::{Value, json};

use super::TOKEN;
use super::schema::{Is, Query, check, header, is_commit};

const DEPLOYMENT_STATES: &[&str] = &["running", "success", "failed", "canceled"];

#[derive(Default)]
pub struct GitLab {
    /// The state of each context at each commit.
    statuses: HashMap<(String, String), String>,
    pub deployments: Vec<Value>,
    pub environments: Vec<Value>,
}

impl GitLab {
    pub fn take(
        &mut self,
        method: &Method,
        path: &str,
        query: &Query,
        headers: &HeaderMap,
        body: &Value,
    ) -> Result<(StatusCode, Value), String> {
        header(headers, "private-token", TOKEN)?;
        let path = path
            .strip_prefix("/projects/ada%2Fhello")
            .ok_or("the project is not `ada/hello` as one segment")?;
        let path: Vec<&str> = path.split('/').collect();
        match (method.as_str(), path.as_slice()) {
            ("POST", ["", "statuses", commit]) if is_commit(commit) => self.status(commit, body),
            ("GET", ["", "deployments"]) => self.list(query),
            ("POST", ["", "deployments"]) => self.deployment(body),
            ("PUT", ["", "deployments", id]) => self.progress(id, body),
            ("GET", ["", "environments"]) => {
                query.allow(&["name", "search", "states"])?;
                let all = self.environments.iter();
                let found =
                    all.filter(|it| query.get("name").is_none_or(|name| it["name"] == name));
                Ok((StatusCode::OK, found.cloned().collect()))
            }
            ("POST", ["", "environments"]) => {
                let fields = [
                    ("name", true, Is::Text(255)),
                    ("external_url", false, Is::Url(255)),
                ];
                check(body, &fields)?;
                Ok(self.environment(&body["name"], &body["external_url"]))
            }
            ("PUT", ["", "environments", id]) => {
                check(body, &[("external_url", false, Is::Url(255))])?;
                let mut all = self.environments.iter_mut();
                let found = all.find(|it| it["id"].as_u64() == id.parse().ok());
                let found = found.ok_or("there is no such environment")?;
                found["external_url"] = body["external_url"].clone();
                Ok((StatusCode::OK, found.clone()))
            }
            _ => Err("there is no such endpoint".into()),
        }
    }

    fn environment(&mut self, name: &Value, url: &Value) -> (StatusCode, Value) {
        let made = json!({ "id": self.environments.len() + 1, "name": name, "external_url": url });
        self.environments.push(made.clone());
        (StatusCode::CREATED, made)
    }

    /// GitLab's states are a machine: a state that is not at rest is not entered twice.
    fn status(&mut self, commit: &str, body: &Value) -> Result<(StatusCode, Value), String> {
        check(
            body,
            &[
                (
                    "state",
                    true,
                    Is::OneOf(&[
                        "pending", "running", "success", "failed", "canceled", "skipped",
                    ]),
                ),
                ("ref", false, Is::Text(255)),
                ("name", false, Is::Text(255)),
                ("target_url", false, Is::Url(255)),
                ("description", false, Is::Text(255)),
            ],
        )?;
        let key = (commit.to_owned(), body["name"].to_string());
        let to = body["state"].as_str().unwrap().to_owned();
        let from = self.statuses.get(&key).cloned().unwrap_or_default();
        let refused = match (from.as_str(), to.as_str()) {
            ("pending" | "running", "pending") => Some("enqueue"),
            ("running", "running") => Some("run"),
            _ => None,
        };
        if let Some(event) = refused {
            let message = format!("Cannot transition status via :{event} from :{from}");
            return Ok((StatusCode::BAD_REQUEST, json!({ "message": message })));
        }
        self.statuses.insert(key, to);
        Ok((StatusCode::CREATED, body.clone()))
    }

    fn list(&self, query: &Query) -> Result<(StatusCode, Value), String> {
        query.allow(&["environment", "status", "order_by", "sort"])?;
        let newest = self.deployments.iter().rev();
        let wanted = newest.filter(|it| {
            query
                .get("environment")
                .is_none_or(|name| it["environment"]["name"] == name)
                && query
                    .get("status")
                    .is_none_or(|status| it["status"] == status)
        });
        Ok((StatusCode::OK, wanted.cloned().collect()))
    }

    fn deployment(&mut self, body: &Value) -> Result<(StatusCode, Value), String> {
        check(
            body,
            &[
                ("environment", true, Is::Text(255)),
                ("sha", true, Is::Commit),
                ("ref", true, Is::Text(255)),
                ("tag", true, Is::Boolean),
                ("status", true, Is::OneOf(DEPLOYMENT_STATES)),
            ],
        )?;
        let name = &body["environment"];
        if !self.environments.iter().any(|it| it["name"] == *name) {
            self.environment(name, &Value::Null);
        }
        let mut made = body.clone();
        made["id"] = json!(self.deployments.len() + 1);
        made["environment"] = json!({ "name": name });
        self.deployments.push(made.clone());
        Ok((StatusCode::CREATED, made))
    }

    fn progress(&mut self, id: &str, body: &Value) -> Result<(StatusCode, Value), String> {
        check(body, &[("status", true, Is::OneOf(DEPLOYMENT_STATES))])?;
        let mut all = self.deployments.iter_mut();
        let found = all.find(|it| it["id"].as_u64() == id.parse().ok());
        let found = found.ok_or("there is no such deployment")?;
        if found["status"] == body["status"] || body["status"] == "running" {
            let message = json!({ "status": ["cannot transition via \"succeed\""] });
            return Ok((StatusCode::BAD_REQUEST, json!({ "message": message })));
        }
        found["status"] = body["status"].clone();
        Ok((StatusCode::OK, found.clone()))
    }
}
