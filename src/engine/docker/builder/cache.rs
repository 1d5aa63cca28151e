//! The builder's cache, which is one for everybody who builds on the engine.

use std::time::{Duration, Instant};

use bollard::models::BuildPruneResponse;
use http::header::HOST;
use http::request::Builder;
use http::{Request, StatusCode};
use http_body_util::{BodyExt, Limited};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::json;
use time::OffsetDateTime;
use url::form_urlencoded::Serializer;

use super::super::{Docker, EngineError, Result};
use super::call::{Body, call};
use super::{LONGEST, refusal};

/// How many pieces of the cache one build is thought to leave at most.
const MOST: usize = 500;
const PASSES: usize = 4;
/// How long an engine may be without the room to remove anything.
const PATIENCE: Duration = Duration::from_secs(5);
const PAUSE: Duration = Duration::from_millis(250);

/// What an engine tells of its cache, up to Docker 28 and since.
#[derive(Deserialize)]
struct Usage {
    #[serde(rename = "BuildCache")]
    records: Option<Vec<Record>>,
    #[serde(rename = "BuildCacheUsage")]
    items: Option<Items>,
}

#[derive(Deserialize)]
struct Items {
    #[serde(rename = "Items")]
    items: Option<Vec<Record>>,
}

#[derive(Deserialize)]
struct Record {
    #[serde(rename = "ID")]
    id: String,
    #[serde(rename = "CreatedAt", with = "time::serde::rfc3339")]
    created_at: OffsetDateTime,
}

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

    pub async fn forget_build_cache(&self, since: OffsetDateTime) -> Result<u64> {
        let (begun, mut passes, mut freed) = (Instant::now(), 0, 0);
        // A build that has just failed lets go of its last pieces only now, without which the engine may have no room
        // to count or to remove any; and what is built on stays until what was built on it is gone.
        while passes < PASSES {
            match self.forget_once(since, &mut freed).await {
                Ok(true) => break,
                Ok(false) => passes += 1,
                Err(EngineError::Refused { .. }) if begun.elapsed() < PATIENCE => {}
                Err(error) => return Err(error),
            }
            tokio::time::sleep(PAUSE).await;
        }
        Ok(freed)
    }

    /// Whether nothing is left that was made since then.
    async fn forget_once(&self, since: OffsetDateTime, freed: &mut u64) -> Result<bool> {
        let found = self.cached_since(since).await?;
        for record in found.iter().take(MOST) {
            let filters = json!({ "id": [format!("^{}$", record.id)] }).to_string();
            *freed += self.prune(&[("filters", &filters)]).await?;
        }
        Ok(found.is_empty())
    }

    /// What was made since then, the newest first. What was there before and has been used may be another's.
    async fn cached_since(&self, since: OffsetDateTime) -> Result<Vec<Record>> {
        let asked = Request::get("/system/df?type=build-cache&verbose=1");
        let usage: Usage = self.cache_call(asked).await?;
        let items = usage.items.and_then(|usage| usage.items);
        let all = usage.records.or(items).unwrap_or_default().into_iter();
        let mut new: Vec<_> = all.filter(|record| record.created_at >= since).collect();
        new.sort_by_key(|record| std::cmp::Reverse(record.created_at));
        Ok(new)
    }

    async fn prune(&self, what: &[(&str, &str)]) -> Result<u64> {
        let query = Serializer::new(String::new())
            .append_pair("all", "1")
            .extend_pairs(what)
            .finish();
        let asked = Request::post(format!("/build/prune?{query}"));
        let pruned: BuildPruneResponse = self.cache_call(asked).await?;
        Ok(pruned.space_reclaimed.unwrap_or_default().max(0) as u64)
    }

    async fn cache_call<T: DeserializeOwned>(&self, asked: Builder) -> Result<T> {
        let refused = |cause: String| EngineError::Refused {
            what: "shrink its build cache".into(),
            cause,
        };
        let request = asked.header(HOST, "docker").body(Body::default());
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
        serde_json::from_slice(&body).map_err(|error| refused(error.to_string()))
    }
}
