//! Authenticated requests to one forge for one app.

use std::time::SystemTime;

use http::StatusCode;
use serde_json::Value;

use super::answer::{Problem, judge};
use super::api::Request;
use super::http::{Answer, Http};
use super::token::Tokens;
use crate::config;
use crate::ids::AppName;

pub struct Session<'a> {
    pub http: &'a Http,
    pub tokens: &'a Tokens,
    pub app: &'a AppName,
    pub report: &'a config::Report,
}

impl Session<'_> {
    /// The answer's JSON; `null` if the forge answers that it is already in that state.
    pub async fn ask(&self, request: &Request) -> Result<Value, Problem> {
        let forge = self.report.address.forge;
        let mut answer = self.exchange(request).await?;
        // A cached token may have been revoked before it expires.
        if answer.status == StatusCode::UNAUTHORIZED && self.tokens.forget(self.app) {
            answer = self.exchange(request).await?;
        }
        if forge.is_so_already(answer.status, &answer.body) {
            return Ok(Value::Null);
        }
        judge(forge, &answer, SystemTime::now())
    }

    async fn exchange(&self, request: &Request) -> Result<Answer, Problem> {
        let address = &self.report.address;
        let token = self.tokens.get(self.http, self.app, self.report).await?;
        let headers = address.forge.headers(&token);
        let answer = self.http.send(&address.api, request, &headers).await;
        answer.map_err(Problem::later)
    }
}
