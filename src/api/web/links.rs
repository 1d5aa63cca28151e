//! One-time links that sign in: `cutover open` prints one.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use axum::Json;
use axum::extract::State;
use axum::http::HeaderMap;
use parking_lot::Mutex;
use serde::Serialize;
use utoipa::ToSchema;

use crate::api::auth::{self, bearer, hashed, random};
use crate::api::{ApiError, Shared};
use crate::principal::{Principal, Requester};
use crate::store::sessions::Holder;

/// How long a link can be used.
const GOOD_FOR: Duration = Duration::from_secs(120);
/// How many unused links there may be.
const MOST: usize = 100;

/// The links that have not been used, by the hash of their code. A restart forgets them.
#[derive(Default)]
pub struct Links(Mutex<HashMap<String, (Holder, Instant)>>);

impl Links {
    fn add(&self, code: &str, holder: Holder, now: Instant) {
        let mut links = self.0.lock();
        links.retain(|_, (_, made)| now < *made + GOOD_FOR);
        if links.len() < MOST {
            links.insert(hashed(code), (holder, now));
        }
    }

    /// For whom a code is, which works once.
    pub fn take(&self, code: &str, now: Instant) -> Option<Holder> {
        let (holder, made) = self.0.lock().remove(&hashed(code))?;
        (now < made + GOOD_FOR).then_some(holder)
    }
}

/// A link to the dashboard.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = SignInLink)]
pub struct LinkView {
    /// Below the agent's address. It can be used once, within two minutes.
    #[schema(example = "/open?code=5f0c")]
    path: String,
}

/// Create a link that signs in to the dashboard
///
/// Whoever opens it is signed in as the caller.
#[utoipa::path(
    post,
    path = "/api/v1/links",
    operation_id = "createLink",
    tag = "agent",
    responses((status = 200, description = "The link", body = LinkView)),
)]
pub async fn create(
    State(api): Shared,
    caller: Principal,
    headers: HeaderMap,
) -> Result<Json<LinkView>, ApiError> {
    let holder = match (&caller.who, bearer(&headers)) {
        (Requester::Local { uid }, _) => Holder::Local(*uid),
        (_, Some(token)) => Holder::Token(hashed(token)),
        _ => return Err(auth::unauthorized()),
    };
    let code = random()?;
    api.links.add(&code, holder, Instant::now());
    Ok(Json(LinkView {
        path: format!("/open?code={code}"),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_works_once_and_for_two_minutes() {
        let (links, now) = (Links::default(), Instant::now());
        links.add("one", Holder::Local(7), now);
        assert_eq!(links.take("two", now), None);
        assert_eq!(links.take("one", now), Some(Holder::Local(7)));
        assert_eq!(links.take("one", now), None);
        links.add("late", Holder::Local(7), now);
        assert_eq!(links.take("late", now + GOOD_FOR), None);
        for number in 0..2 * MOST {
            links.add(&number.to_string(), Holder::Local(7), now);
        }
        assert_eq!(links.0.lock().len(), MOST);
    }
}
