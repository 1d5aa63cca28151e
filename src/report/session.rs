//! Asking a forge for one thing after the other.

use std::time::SystemTime;

use serde_json::Value;

use super::answer::{Problem, judge};
use super::forge::Request;
use super::http::Http;
use super::token;
use crate::config;

pub struct Session<'a> {
    pub http: &'a Http,
    pub report: &'a config::Report,
}

impl Session<'_> {
    /// The answer's JSON; `null` where it says that this is so already.
    pub async fn ask(&self, request: &Request) -> Result<Value, Problem> {
        let address = &self.report.address;
        let forge = address.forge;
        let token = token::read(self.report).await?;
        let headers = forge.headers(&token);
        let answer = self.http.send(&address.api, request, &headers).await;
        let answer = answer.map_err(Problem::later)?;
        if forge.is_so_already(answer.status, &answer.body) {
            return Ok(Value::Null);
        }
        judge(forge, &answer, SystemTime::now())
    }
}
