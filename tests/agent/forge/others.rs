//! The forges that take commit statuses alone.

use http::{HeaderMap, Method, StatusCode};
use serde_json::Value;

use super::TOKEN;
use super::schema::{Is, check, header, is_commit};

/// Gitea and Forgejo, `/api/v1`.
pub fn gitea(
    method: &Method,
    path: &str,
    headers: &HeaderMap,
    body: &Value,
) -> Result<(StatusCode, Value), String> {
    header(headers, "authorization", &format!("token {TOKEN}"))?;
    endpoint(method, path, ["/repos/ada/hello/statuses/", ""])?;
    check(
        body,
        &[
            (
                "state",
                false,
                Is::OneOf(&["pending", "success", "error", "failure", "warning"]),
            ),
            ("target_url", false, Is::Url(2000)),
            ("description", false, Is::Text(255)),
            ("context", false, Is::Text(255)),
        ],
    )?;
    Ok((StatusCode::CREATED, body.clone()))
}

/// Bitbucket Cloud, `/2.0`.
pub fn bitbucket(
    method: &Method,
    path: &str,
    headers: &HeaderMap,
    body: &Value,
) -> Result<(StatusCode, Value), String> {
    header(headers, "authorization", &format!("Bearer {TOKEN}"))?;
    let around = ["/repositories/ada/hello/commit/", "/statuses/build"];
    endpoint(method, path, around)?;
    check(
        body,
        &[
            (
                "state",
                true,
                Is::OneOf(&["SUCCESSFUL", "FAILED", "INPROGRESS", "STOPPED"]),
            ),
            ("key", true, Is::Text(39)),
            ("url", true, Is::Url(2000)),
            ("name", false, Is::Text(255)),
            ("description", false, Is::Text(255)),
            ("refname", false, Is::Text(255)),
        ],
    )?;
    Ok((StatusCode::CREATED, body.clone()))
}

/// Bitbucket Data Center, `/rest/api/latest`.
pub fn data_center(
    method: &Method,
    path: &str,
    headers: &HeaderMap,
    body: &Value,
) -> Result<(StatusCode, Value), String> {
    header(headers, "authorization", &format!("Bearer {TOKEN}"))?;
    let around = ["/projects/ada/repos/hello/commits/", "/builds"];
    endpoint(method, path, around)?;
    check(
        body,
        &[
            (
                "state",
                true,
                Is::OneOf(&["INPROGRESS", "SUCCESSFUL", "FAILED", "CANCELLED", "UNKNOWN"]),
            ),
            ("key", true, Is::Text(255)),
            ("url", true, Is::Url(450)),
            ("name", false, Is::Text(255)),
            ("description", false, Is::Text(255)),
            ("ref", false, Is::Text(255)),
        ],
    )?;
    Ok((StatusCode::NO_CONTENT, Value::Null))
}

/// Whether there is one, with a commit in between.
fn endpoint(method: &Method, path: &str, [before, after]: [&str; 2]) -> Result<(), String> {
    let commit = path.strip_prefix(before);
    let commit = commit.and_then(|rest| rest.strip_suffix(after));
    match commit.is_some_and(is_commit) && method == Method::POST {
        true => Ok(()),
        false => Err("there is no such endpoint".into()),
    }
}
