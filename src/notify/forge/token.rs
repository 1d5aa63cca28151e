//! The tokens that authenticate requests to a forge.

use std::collections::HashMap;
use std::time::{Duration, SystemTime};

use http::Method;
use parking_lot::Mutex;
use serde_json::json;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::answer::{Problem, judge};
use super::api::Request;
use super::app_token;
use super::http::Http;
use crate::config::{self, Auth, ForgeApi, GitHubApp, Secret};
use crate::ids::AppName;

/// A token that expires sooner than this is no longer used.
const MARGIN: Duration = Duration::from_secs(5 * 60);

/// The installation tokens of GitHub Apps, by app. They are valid for an hour, and their format is
/// opaque.
#[derive(Default)]
pub struct Tokens(Mutex<HashMap<AppName, Kept>>);

#[derive(Clone)]
struct Kept {
    token: String,
    until: SystemTime,
}

impl Tokens {
    /// The current token.
    pub async fn get(
        &self,
        http: &Http,
        app: &AppName,
        report: &config::Report,
    ) -> Result<String, Problem> {
        let github = match &report.auth {
            Auth::Token(secret) => {
                let secret = secret.clone();
                return blocking(move || secret.read_text().map_err(|e| e.to_string())).await;
            }
            Auth::App(github) => github,
        };
        let now = SystemTime::now();
        let kept = self.0.lock().get(app).cloned();
        if let Some(kept) = kept.filter(|kept| kept.until > now + MARGIN) {
            return Ok(kept.token);
        }
        let fresh = installation(http, report, github).await?;
        self.0.lock().insert(app.clone(), fresh.clone());
        Ok(fresh.token)
    }

    /// Drops a cached token that was refused. False if there was none: reading the token again
    /// would give the same one.
    pub fn forget(&self, app: &AppName) -> bool {
        self.0.lock().remove(app).is_some()
    }
}

/// Requests a token of the App's installation, limited to this repository.
async fn installation(
    http: &Http,
    report: &config::Report,
    github: &GitHubApp,
) -> Result<Kept, Problem> {
    let (id, key) = (github.id.clone(), github.private_key.clone());
    let proof = blocking(move || sign(&id, &key)).await?;
    let address = &report.address;
    let ask = async |method: Method, path: String, body| {
        let request = Request { method, path, body };
        let headers = address.forge.headers(&proof);
        let answer = http.send(&address.api, &request, &headers).await;
        judge(
            address.forge,
            &answer.map_err(Problem::later)?,
            SystemTime::now(),
        )
    };
    let lost = |what: &str| Problem::Refused(format!("GitHub did not return the App's {what}"));
    let id = match github.installation {
        Some(id) => id,
        None => {
            let path = format!("/repos/{}/installation", address.repository());
            let found = ask(Method::GET, path, None).await.map_err(not_installed)?;
            found["id"].as_u64().ok_or_else(|| lost("installation"))?
        }
    };
    let path = format!("/app/installations/{id}/access_tokens");
    let body = json!({ "repositories": [address.owner_and_name().1] });
    let answer = ask(Method::POST, path, Some(body)).await?;
    let token = answer["token"].as_str().ok_or_else(|| lost("token"))?;
    let until = answer["expires_at"].as_str().unwrap_or_default();
    let until = OffsetDateTime::parse(until, &Rfc3339).map(SystemTime::from);
    Ok(Kept {
        token: token.to_owned(),
        // Without an expiry time it is used only once.
        until: until.unwrap_or(SystemTime::UNIX_EPOCH),
    })
}

fn sign(id: &str, key: &Secret) -> Result<String, String> {
    let key = key.read().map_err(|error| error.to_string())?;
    app_token::sign(id, &key, SystemTime::now())
}

/// A 404 has only one meaning here.
fn not_installed(problem: Problem) -> Problem {
    match problem {
        Problem::Refused(why) if why.contains("404") => Problem::Refused(format!(
            "{} answered 404: the App is not installed at the repository",
            ForgeApi::GitHub
        )),
        other => other,
    }
}

/// Reads files off the async threads. An error is a sentence; it is a fault on this machine that
/// can be fixed, so the status is retried.
async fn blocking(
    read: impl FnOnce() -> Result<String, String> + Send + 'static,
) -> Result<String, Problem> {
    let read = tokio::task::spawn_blocking(read).await;
    let read = read.unwrap_or_else(|error| Err(format!("failed to read the token: {error}")));
    read.map_err(Problem::later)
}
