//! `POST /hooks/{app}`: verify, parse, store, and only then 202.

use std::sync::Arc;
use std::time::Instant;

use axum::Json;
use axum::extract::{Path, Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, StatusCode};

use super::error::ErrorBody;
use super::error::Kind;
use super::path::{AppPath, named};
use super::responses::{TooManyRefusals, UnknownApp};
use super::webhook_secrets::{self, Read, WebhookSecrets};
use super::{Api, ApiError, Shared, peer};
use crate::config::App;
use crate::deploy::filter;
use crate::deploy::intake::{self, Asked};
use crate::ids::CommitId;
use crate::store::deliveries::{Move, NewDelivery, Outcome};
use crate::store::deployments::{Goal, NewDeployment, Trigger};
use crate::webhook::{self, Content, Push, Received, Ref, Refusal};

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
        (status = 202, description = "The delivery is stored", body = Outcome),
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
                "hint": "set the same secret in the forge's webhook and in `[apps.NAME.webhook]`",
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
) -> Result<(StatusCode, Json<Outcome>), ApiError> {
    let app = named(&api, &path.app);
    let app = app.map_err(|error| error.refusing(Kind::UnknownApp))?;
    let (request, body) = request.into_parts();
    allowed(&api, &app, &request)?;
    let headers = &request.headers;
    let body = api.bodies.read(headers, body).await?;
    let received = verified(&api, &app, headers, &body)
        .await
        .map_err(refused)?;
    let asked = match wanted(&app, received.content.clone()) {
        Ok((push, left)) => Asked::Deployment(deployment(&app, push), left),
        Err(reason) => Asked::Nothing(reason),
    };
    let outcome = intake::delivery(&api.agent, delivery(&app, &received), asked).await?;
    Ok((StatusCode::ACCEPTED, Json(outcome)))
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
            let hint = "`networks` in `[apps.NAME.webhook]` and `webhook_networks` in `[agent]` \
                        say from where they are";
            Err(
                ApiError::new(StatusCode::FORBIDDEN, "network_not_allowed", message, hint)
                    .refusing(Kind::Network),
            )
        }
        _ => Ok(()),
    }
}

/// Checks the signature and parses the delivery. Before a delivery is refused the secrets are read again:
/// its own may have been added a moment ago.
async fn verified(
    api: &Arc<Api>,
    app: &App,
    headers: &HeaderMap,
    body: &[u8],
) -> Result<Received, Refusal> {
    let now = Instant::now();
    let receive =
        |secrets: &Read| webhook::receive(app.webhook.forge, &secrets.values, headers, body);
    let recent = now.checked_sub(webhook_secrets::FRESH).unwrap_or(now);
    let recent = WebhookSecrets::since(api, app, recent).await;
    let received = receive(&recent);
    if received != Err(Refusal::Unauthenticated) {
        return received;
    }
    let newest = WebhookSecrets::since(api, app, now).await;
    match newest.values == recent.values {
        true => received,
        false => receive(&newest),
    }
}

fn refused(refusal: Refusal) -> ApiError {
    match refusal {
        // One answer for wrong, missing and outdated: who forges learns nothing from it.
        Refusal::Unauthenticated => ApiError::new(
            StatusCode::UNAUTHORIZED,
            "bad_signature",
            "the signature is missing or wrong",
            "set the same secret in the forge's webhook and in `[apps.NAME.webhook]`",
        )
        .refusing(Kind::Signature),
        Refusal::Malformed(why) => {
            let hint = "send the forge's own JSON, or a form with it in `payload`";
            ApiError::new(StatusCode::BAD_REQUEST, "malformed", why, hint).refusing(Kind::Malformed)
        }
    }
}

/// The push that is to be deployed, and why not another that came with it; or why none is.
fn wanted(app: &App, content: Content) -> Result<(Push, Option<String>), String> {
    let pushes = match content {
        Content::Ping => return Err("ping: the webhook is set up".into()),
        Content::Ignored(reason) => return Err(reason),
        Content::Pushes(pushes) => pushes,
    };
    let mut reason = "the delivery contains no push".to_owned();
    let mut wanted = Vec::new();
    for push in pushes {
        match filter::wants(app, &push) {
            Ok(()) => wanted.push(push),
            Err(why) => reason = why,
        }
    }
    // One release serves at a time: the app's own branch goes before other branches and tags.
    let own = wanted
        .iter()
        .position(|push| matches!(&push.git_ref, Ref::Branch(name) if *name == app.branch));
    if wanted.is_empty() {
        return Err(reason);
    }
    let chosen = wanted.remove(own.unwrap_or(0));
    let left = wanted.iter().find(|push| push.new != chosen.new);
    let left = left.map(|left| {
        let (left, chosen) = (&left.git_ref, &chosen.git_ref);
        format!("the {left} came with the {chosen}, which is deployed in its place")
    });
    Ok((chosen, left))
}

fn deployment(app: &App, push: Push) -> NewDeployment {
    let commit: Option<CommitId> = push.new;
    NewDeployment {
        app: app.name.clone(),
        trigger: Trigger::Webhook,
        goal: commit.clone().map_or(Goal::Branch, Goal::Pushed),
        git_ref: Some(push.git_ref.full()),
        commit,
        message: push.message.as_deref().and_then(first_line),
        author: push.author,
        no_cache: false,
    }
}

/// What people read of a message; the rest may be long.
fn first_line(message: &str) -> Option<String> {
    message.lines().next().map(str::to_owned)
}

fn delivery(app: &App, received: &Received) -> NewDelivery {
    NewDelivery {
        app: app.name.clone(),
        forge: received.forge.to_string(),
        forge_delivery: received.delivery.clone(),
        event: received.event.clone(),
        body_hash: hex::encode(received.body_hash),
        moves: match &received.content {
            Content::Pushes(pushes) => pushes.iter().map(moved).collect(),
            _ => vec![],
        },
    }
}

fn moved(push: &Push) -> Move {
    Move {
        git_ref: push.git_ref.full(),
        old: push.old.clone(),
        new: push.new.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_several_pushes_the_apps_own_branch_is_deployed_and_the_rest_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("deploy.toml");
        let text = "[apps.a]\nrepo = 'a.git'\nport = 1\nbranches = ['*']\ntags = '*'\n";
        std::fs::write(&path, text).unwrap();
        let config = crate::config::load(&path).unwrap_or_else(|problems| panic!("{problems}"));
        let app = config.apps.values().next().unwrap();
        let push = |git_ref: &Ref, digit: char| Push {
            repository: String::new(),
            git_ref: git_ref.clone(),
            old: None,
            new: digit.to_string().repeat(40).parse().ok(),
            message: None,
            author: None,
            forced: false,
        };
        let (next, main) = (Ref::Branch("next".into()), Ref::Branch("main".into()));
        let tag = Ref::Tag("main".into());
        let chosen = |pushes: Vec<Push>| {
            let (push, left) = wanted(app, Content::Pushes(pushes)).unwrap();
            (push.git_ref, left)
        };
        let (first, left) = chosen(vec![push(&next, '1'), push(&tag, '2'), push(&main, '2')]);
        assert_eq!(first, main);
        assert!(left.unwrap().starts_with("the branch `next` came with"));
        // What leads to the same commit is not left.
        let (first, left) = chosen(vec![push(&tag, '2'), push(&next, '2')]);
        assert_eq!((first, left), (tag, None));
    }
}
