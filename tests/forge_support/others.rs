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
    let commit = path.strip_prefix("/repos/ada/hello/statuses/");
    endpoint(method, commit.is_some_and(is_commit))?;
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
    let commit = path
        .strip_prefix("/repositories/ada/hello/commit/")
        .and_then(|rest| rest.strip_suffix("/statuses/build"));
    endpoint(method, commit.is_some_and(is_commit))?;
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
    let commit = path
        .strip_prefix("/projects/ada/repos/hello/commits/")
        .and_then(|rest| rest.strip_suffix("/builds"));
    endpoint(method, commit.is_some_and(is_commit))?;
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

fn endpoint(method: &Method, there: bool) -> Result<(), String> {
    match there && method == Method::POST {
        true => Ok(()),
        false => Err("there is no such endpoint".into()),
    }
}
