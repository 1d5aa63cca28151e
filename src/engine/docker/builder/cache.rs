//! The builder's cache, which is one for everybody who builds on the engine.

use std::time::Duration;

use bollard::models::BuildPruneResponse;
use http::header::HOST;
use http::{Request, StatusCode};
use http_body_util::{BodyExt, Limited};
use serde_json::json;
use url::form_urlencoded::Serializer;

use super::super::{Docker, EngineError, Result};
use super::call::{Body, call};
use super::{LONGEST, refusal};

impl Docker {
    pub async fn shrink_build_cache(
        &self,
        most: Option<u64>,
        age: Option<Duration>,
    ) -> Result<u64> {
        let mut freed = 0;
        if let Some(age) = age {
            let filters = json!({ "until": [format!("{}s", age.as_secs())] }).to_string();
            freed += self.prune(&[("filters", &filters)]).await?;
        }
        if let Some(most) = most {
            // The bound has one name up to Docker 27 and another since: an engine that does not find its
            // own would remove everything.
            let most = most.to_string();
            freed += self
                .prune(&[("keep-storage", &most), ("max-used-space", &most)])
                .await?;
        }
        Ok(freed)
    }

    async fn prune(&self, what: &[(&str, &str)]) -> Result<u64> {
        let refused = |cause: String| EngineError::Refused {
            what: "shrink its build cache".into(),
            cause,
        };
        let query = Serializer::new(String::new())
            .append_pair("all", "1")
            .extend_pairs(what)
            .finish();
        let request = Request::post(format!("/build/prune?{query}"))
            .header(HOST, "docker")
            .body(Body::default());
        let request = request.map_err(|error| refused(error.to_string()))?;
        let called = call(&self.host, request).await;
        let (answer, _connection) = called.map_err(|error| self.unreachable(&error))?;
        if answer.status() != StatusCode::OK {
            return Err(refused(refusal(answer).await));
        }
        let body = Limited::new(answer.into_body(), 256 * LONGEST)
            .collect()
            .await;
        let body = body.map_err(|error| refused(error.to_string()))?.to_bytes();
        let pruned: BuildPruneResponse =
            serde_json::from_slice(&body).map_err(|error| refused(error.to_string()))?;
        Ok(pruned.space_reclaimed.unwrap_or_default().max(0) as u64)
    }
}
