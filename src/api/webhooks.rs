//! `POST /hooks/{app}`: verify, parse, store, and only then answer 202.

use std::sync::Arc;
use std::time::Instant;

use axum::Json;
use axum::extract::{Path, Request, State};
use axum::http::StatusCode;
use axum::http::request::Parts;

use super::error::ErrorBody;
use super::error::Kind;
use super::path::{AppPath, configured};
use super::responses::{TooManyRefusals, UnknownApp};
use super::webhook_secrets::{self, WebhookSecrets};
use super::{Api, ApiError, Shared, peer};
use crate::config::App;
use crate::deploy::intake::{self, Answer};
use crate::webhook::{self, Refusal};

/// A form, in which some forges send their JSON.
#[derive(utoipa::ToSchema)]
#[allow(dead_code, reason = "only described here; `webhook` reads it")]
struct PayloadForm {
    payload: String,
}

/// Receive a webhook
///
/// The delivery is on disk before it is answered. Sending the same signed body again returns the first
/// deployment. The forge, its signature and its event are detected from the request headers.
///
/// For an app with `image`, a registry sends: signed as its forge signs, with the secret as `Authorization`, or
/// with `?token=`.
#[utoipa::path(
    post,
    path = "/hooks/{app}",
    operation_id = "receiveWebhook",
    tag = "webhooks",
    params(AppPath),
    request_body(
        description = "The forge's payload, as JSON or as a form with the JSON in `payload`. At most 25 MiB.",
        content((Object = "application/json"), (PayloadForm = "application/x-www-form-urlencoded")),
    ),
    responses(
        (status = 202, description = "The delivery is stored", body = Answer),
        (
            status = 400,
            description = "The body is malformed",
            body = ErrorBody,
            example = json!({"error": {
                "code": "malformed",
                "message": "the body is not JSON",
                "hint": "send the forge's own JSON, or a form with it in `payload`",
            }}),
        ),
        (
            status = 401,
            description = "The signature is missing or wrong",
            body = ErrorBody,
            example = json!({"error": {
                "code": "bad_signature",
                "message": "the signature is missing or wrong",
                "hint": "set the same secret in the forge's webhook and in the app's `webhook.secrets` in deploy.toml",
            }}),
        ),
        (status = 403, description = "Deliveries from this network are not accepted", body = ErrorBody),
        (status = 404, response = UnknownApp),
        (status = 408, description = "The body did not arrive within 30 seconds", body = ErrorBody),
        (status = 413, description = "The body is larger than 25 MiB", body = ErrorBody),
        (status = 429, response = TooManyRefusals),
        (status = 503, description = "The delivery cannot be stored; send it again", body = ErrorBody),
    ),
)]
pub async fn receive(
    State(api): Shared,
    Path(path): Path<AppPath>,
    request: Request,
) -> Result<(StatusCode, Json<Answer>), ApiError> {
    let app = configured(&api, &path.app);
    let app = app.map_err(|error| error.refusing(Kind::UnknownApp))?;
    let (request, body) = request.into_parts();
    allowed(&api, &app, &request)?;
    let headers = &request.headers;
    let client = peer::address(&api.agent.in_force().config, &request);
    let body = api.bodies.read(client, headers, body).await?;
    let answer = match app.image() {
        None => {
            let forge = app.webhook.forge;
            let receive = |secrets: &[Vec<u8>]| webhook::receive(forge, secrets, headers, &body);
            let received = verified(&api, &app, receive).await.map_err(refused)?;
            intake::delivery(&api.agent, &app, received, client).await?
        }
        Some(image) => {
            let query = request.uri.query();
            let receive =
                |secrets: &[Vec<u8>]| webhook::registry::receive(secrets, headers, query, &body);
            let notice = verified(&api, &app, receive).await.map_err(refused)?;
            intake::image::told(&api.agent, &app, image, notice, client).await?
        }
    };
    Ok((StatusCode::ACCEPTED, Json(answer)))
}

/// Checks that deliveries from the client's network are accepted.
fn allowed(api: &Api, app: &App, request: &Parts) -> Result<(), ApiError> {
    let in_force = api.agent.in_force();
    let config = &in_force.config;
    let everyones = config.agent.webhook_networks.as_ref();
    let Some(networks) = app.webhook.networks.as_ref().or(everyones) else {
        return Ok(());
    };
    match peer::address(config, request) {
        Some(client) if !networks.iter().any(|network| network.contains(&client)) => {
            let message = "deliveries from this address are not accepted";
            let hint = "the app's `webhook.networks` and `agent.webhook_networks` in deploy.toml list \
                        the networks that are";
            Err(
                ApiError::new(StatusCode::FORBIDDEN, "network_not_allowed", message, hint)
                    .refusing(Kind::Network),
            )
        }
        _ => Ok(()),
    }
}

/// Verifies the signature and parses the delivery. Before a delivery is refused, the secrets are read
/// again, because the one that signed it may have been added a moment ago.
async fn verified<T>(
    api: &Arc<Api>,
    app: &App,
    receive: impl Fn(&[Vec<u8>]) -> Result<T, Refusal>,
) -> Result<T, Refusal> {
    let now = Instant::now();
    let recent = now.checked_sub(webhook_secrets::FRESH).unwrap_or(now);
    let recent = WebhookSecrets::since(api, app, recent).await;
    let received = receive(&recent.values);
    if !matches!(received, Err(Refusal::Unauthenticated)) {
        return received;
    }
    let newest = WebhookSecrets::since(api, app, now).await;
    match newest.values == recent.values {
        true => received,
        false => receive(&newest.values),
    }
}

fn refused(refusal: Refusal) -> ApiError {
    match refusal {
        // The same response for wrong, missing and outdated signatures, so that a forger learns
        // nothing.
        Refusal::Unauthenticated => ApiError::new(
            StatusCode::UNAUTHORIZED,
            "bad_signature",
            "the signature is missing or wrong",
            "set the same secret in the forge's webhook and in the app's `webhook.secrets` in deploy.toml",
        )
        .refusing(Kind::Signature),
        Refusal::Malformed(why) => {
            let hint = "send the forge's own JSON, or a form with it in `payload`";
            ApiError::new(StatusCode::BAD_REQUEST, "malformed", why, hint).refusing(Kind::Malformed)
        }
    }
}
