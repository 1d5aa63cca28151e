//! The API's tokens: for people and programs that are not to have all rights.

use axum::Json;
use axum::body::Bytes;
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::error::ErrorBody;
use super::page::{NamesQuery, Page};
use super::path::known;
use super::responses::{Forbidden, Malformed, TooLarge, UnknownApp, UnknownToken};
use super::view::rfc3339;
use super::{ApiError, Shared, auth, json};
use crate::principal::{Principal, Role, Scope};
use crate::store::actions;
use crate::store::tokens::{self as table, NewToken, Token};

/// How a token begins, so that tools that look for leaked secrets know one.
const BEGIN: &str = "cutover_";
/// How many of its characters are kept, by which its owner recognises it.
const PREFIX: usize = BEGIN.len() + 6;

/// A token, without its text.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Token)]
pub struct TokenView {
    #[schema(example = "ci")]
    name: String,
    /// How its text begins.
    #[schema(example = "cutover_5f0c2a")]
    prefix: String,
    /// `read`, `deploy` or `admin`; each includes the one before.
    #[schema(example = "deploy")]
    role: String,
    /// The apps that it is for; null: all of them, and the server itself.
    #[schema(required, example = json!(["hello"]))]
    apps: Option<Vec<String>>,
    #[schema(format = DateTime, example = "2026-05-04T09:30:00.125Z")]
    created_at: String,
    #[schema(example = "local user (uid 0)")]
    created_by: String,
    /// Null: never.
    #[schema(required, format = DateTime)]
    expires_at: Option<String>,
    /// To the minute; null if it has not been used.
    #[schema(required, format = DateTime)]
    used_at: Option<String>,
}

impl From<Token> for TokenView {
    fn from(token: Token) -> Self {
        Self {
            name: token.name,
            prefix: token.prefix,
            role: token.role.as_str().to_owned(),
            apps: match token.apps {
                Scope::All => None,
                Scope::Apps(apps) => Some(apps.into_iter().map(String::from).collect()),
            },
            created_at: rfc3339(token.created_at),
            created_by: token.created_by.map_or(String::new(), |by| by.to_string()),
            expires_at: token.expires_at.map(rfc3339),
            used_at: token.used_at.map(rfc3339),
        }
    }
}

/// A token to create.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = TokenRequest)]
struct TokenBody {
    /// 1 to 40 of a-z, 0-9, `-`, `_` and `.`.
    #[schema(example = "ci")]
    name: String,
    /// `read`, `deploy` or `admin`.
    #[schema(example = "deploy")]
    role: String,
    /// The apps that it is for; if absent, all of them, and the server itself.
    #[schema(nullable = false, example = json!(["hello"]))]
    apps: Option<Vec<String>>,
    /// How long it is good for, in hours or days; for ever if absent.
    #[schema(nullable = false, example = "90d")]
    expires: Option<String>,
}

/// A new token.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = TokenCreated)]
pub struct CreatedView {
    /// The token itself. It cannot be read again.
    secret: String,
    token: TokenView,
}

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Path)]
pub struct TokenPath {
    /// The token's name.
    #[param(example = "ci")]
    token: String,
}

/// List the tokens
///
/// By name, without the one that the agent was started with, `admin`; in one page unless there is a `limit`.
#[utoipa::path(
    get,
    path = "/api/v1/tokens",
    operation_id = "listTokens",
    tag = "agent",
    params(NamesQuery),
    responses(
        (status = 200, description = "A page of tokens", body = Page<TokenView>),
        (status = 400, response = Malformed),
        (status = 403, response = Forbidden),
    ),
)]
pub async fn list(
    State(api): Shared,
    caller: Principal,
    Query(query): Query<NamesQuery>,
) -> Result<Json<Page<TokenView>>, ApiError> {
    auth::check_server(&caller, Role::Admin)?;
    let all = api.agent.store.read(table::all).await?;
    let items = all.into_iter().map(TokenView::from);
    Page::by_name(items, query, |it| &it.name).map(Json)
}

/// Create a token
///
/// The answer is the only place where it can be read.
#[utoipa::path(
    post,
    path = "/api/v1/tokens",
    operation_id = "createToken",
    tag = "agent",
    request_body = TokenBody,
    responses(
        (status = 201, description = "The token", body = CreatedView),
        (status = 400, response = Malformed),
        (status = 403, response = Forbidden),
        (status = 404, response = UnknownApp),
        (
            status = 409,
            description = "There is one of this name",
            body = ErrorBody,
            example = json!({"error": {
                "code": "refused",
                "message": "there is a token `ci` already",
                "hint": "`cutover token revoke ci` ends it",
            }}),
        ),
        (status = 413, response = TooLarge),
    ),
)]
pub async fn create(
    State(api): Shared,
    caller: Principal,
    body: Bytes,
) -> Result<(StatusCode, Json<CreatedView>), ApiError> {
    auth::check_server(&caller, Role::Admin)?;
    let body: TokenBody = json::parse(&body)?;
    let name = checked(body.name)?;
    let role: Role = body.role.parse().map_err(wrong)?;
    let apps = match body.apps {
        None => Scope::All,
        Some(names) if names.is_empty() => {
            return Err(ApiError::bad_request("`apps` must name at least one app"));
        }
        Some(names) => {
            let mut apps = Vec::new();
            for name in names {
                apps.push(known(&api, &caller, Role::Admin, &name).await?);
            }
            Scope::Apps(apps)
        }
    };
    let expires_at = body
        .expires
        .as_deref()
        .map(|text| until("expires", text))
        .transpose()?;
    let (secret, hash, prefix) = made()?;
    let (wanted, by) = (name.clone(), caller.who);
    let written = api.agent.store.write(move |db| {
        let new = NewToken {
            name: &wanted,
            hash: &hash,
            prefix: &prefix,
            role,
            apps: &apps,
            expires_at,
            by: &by,
        };
        table::insert(db, &new)?;
        let apps = match &apps {
            Scope::All => None,
            Scope::Apps(apps) => Some(apps),
        };
        let detail = serde_json::json!({ "name": wanted, "role": role.as_str(), "apps": apps });
        actions::insert(db, actions::Kind::CreateToken, None, &detail, &by)?;
        table::get(db, &wanted)
    });
    let hint = format!("`cutover token revoke {name}` ends it");
    let written = written
        .await
        .map_err(|error| ApiError::from(error).or_hint(hint));
    let token = written?.ok_or_else(|| unknown(&name))?;
    let created = CreatedView {
        secret,
        token: token.into(),
    };
    Ok((StatusCode::CREATED, Json(created)))
}

/// How a token is replaced.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = TokenRotation)]
struct RotateBody {
    /// How long the old text is still good, in hours or days; if absent, not at all.
    #[schema(nullable = false, example = "24h")]
    keep: Option<String>,
}

/// Replace the text of a token
///
/// Its name, role, apps and expiry stay. The answer is the only place where the new text can be read. Without
/// `keep`, the old one is refused from now on, and whoever was signed in with it is signed out.
#[utoipa::path(
    post,
    path = "/api/v1/tokens/{token}/rotate",
    operation_id = "rotateToken",
    tag = "agent",
    params(TokenPath),
    request_body = Option<RotateBody>,
    responses(
        (status = 200, description = "The token with its new text", body = CreatedView),
        (status = 400, response = Malformed),
        (status = 403, response = Forbidden),
        (status = 404, response = UnknownToken),
        (status = 413, response = TooLarge),
    ),
)]
pub async fn rotate(
    State(api): Shared,
    caller: Principal,
    Path(path): Path<TokenPath>,
    body: Bytes,
) -> Result<Json<CreatedView>, ApiError> {
    auth::check_server(&caller, Role::Admin)?;
    let body: RotateBody = json::parse(&body)?;
    let keep = body
        .keep
        .as_deref()
        .map(|text| until("keep", text))
        .transpose()?;
    let (secret, hash, prefix) = made()?;
    let (name, by) = (path.token.clone(), caller.who);
    let written = api.agent.store.write(move |db| {
        if table::get(db, &name)?.is_none() {
            return Ok(None);
        }
        let detail = serde_json::json!({ "name": name });
        actions::insert(db, actions::Kind::RotateToken, None, &detail, &by)?;
        table::rotate(db, &name, &hash, &prefix, keep)?;
        table::get(db, &name)
    });
    let token = written.await?.ok_or_else(|| unknown(&path.token))?;
    let token = token.into();
    Ok(Json(CreatedView { secret, token }))
}

/// A new token's text, its hash, and how it begins.
fn made() -> Result<(String, String, String), ApiError> {
    let secret = format!("{BEGIN}{}", auth::random()?);
    let (hash, prefix) = (auth::hashed(&secret), secret[..PREFIX].to_owned());
    Ok((secret, hash, prefix))
}

/// Revoke a token
///
/// It is refused from now on, and whoever was signed in with it is signed out.
#[utoipa::path(
    delete,
    path = "/api/v1/tokens/{token}",
    operation_id = "revokeToken",
    tag = "agent",
    params(TokenPath),
    responses(
        (status = 200, description = "The token as it was", body = TokenView),
        (status = 400, response = Malformed),
        (status = 403, response = Forbidden),
        (status = 404, response = UnknownToken),
    ),
)]
pub async fn revoke(
    State(api): Shared,
    caller: Principal,
    Path(path): Path<TokenPath>,
) -> Result<Json<TokenView>, ApiError> {
    auth::check_server(&caller, Role::Admin)?;
    let (name, by) = (path.token.clone(), caller.who);
    let revoked = api.agent.store.write(move |db| {
        let found = table::get(db, &name)?;
        if found.is_some() {
            let role = found.as_ref().map(|it| it.role.as_str());
            let detail = serde_json::json!({ "name": name, "role": role });
            actions::insert(db, actions::Kind::RevokeToken, None, &detail, &by)?;
            table::delete(db, &name)?;
        }
        Ok(found)
    });
    let revoked = revoked.await?.ok_or_else(|| unknown(&path.token))?;
    Ok(Json(revoked.into()))
}

fn unknown(name: &str) -> ApiError {
    let message = match name {
        auth::ADMIN => "the token `admin` is the agent's own and cannot be revoked".to_owned(),
        name => format!("there is no token `{}`", name.escape_debug()),
    };
    let hint = match name {
        auth::ADMIN => {
            "to replace it, delete `token` in data_dir, or change `CUTOVER_TOKEN`, and restart"
        }
        _ => "`cutover token list` lists them",
    };
    ApiError::new(StatusCode::NOT_FOUND, "unknown_token", message, hint)
}

fn wrong(error: impl std::fmt::Display) -> ApiError {
    ApiError::bad_request(error.to_string())
}

fn checked(name: String) -> Result<String, ApiError> {
    let inner = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-_.".contains(&b);
    let good = (1..=40).contains(&name.len()) && name.bytes().all(inner);
    match good && name != auth::ADMIN {
        true => Ok(name),
        false => Err(ApiError::bad_request(format!(
            "`{}` cannot be a token's name: expected 1 to 40 of a-z, 0-9, `-`, `_` and `.`, other than \
             `admin`",
            name.escape_debug()
        ))),
    }
}

/// When something ends that is good for so long from now on; `key` says where the time was given.
fn until(key: &str, text: &str) -> Result<i64, ApiError> {
    const HOUR: i64 = 3_600_000;
    let wrong = || {
        let shown = text.escape_debug();
        ApiError::bad_request(format!(
            "`{key}` is `{shown}`: expected hours or days, from 1h to 3650d"
        ))
    };
    let (number, unit) = match text.char_indices().last() {
        Some((at, unit)) => (&text[..at], unit),
        None => return Err(wrong()),
    };
    let number: u32 = number.parse().map_err(|_| wrong())?;
    let hours = match unit {
        'h' => i64::from(number),
        'd' => i64::from(number) * 24,
        _ => return Err(wrong()),
    };
    match (1..=3650 * 24).contains(&hours) {
        true => Ok(crate::store::now() + hours * HOUR),
        false => Err(wrong()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_good_for_hours_or_days() {
        let days = |text: &str| {
            (until("expires", text).unwrap() - crate::store::now() + 1000) / 86_400_000
        };
        assert_eq!([days("90d"), days("48h"), days("3650d")], [90, 2, 3650]);
        for wrong in [
            "",
            "d",
            "0d",
            "-1d",
            "90",
            "90m",
            "3651d",
            "9999999999d",
            "1ä",
        ] {
            assert!(until("expires", wrong).is_err(), "{wrong}");
        }
        for wrong in ["", "admin", "A", "a b", "ä", &"x".repeat(41)] {
            assert!(checked(wrong.to_owned()).is_err(), "{wrong}");
        }
    }
}
