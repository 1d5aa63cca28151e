//! Responses that several requests share, for the API's description.

// These types exist only for the description: the agent sends an `ApiError`.
#![allow(dead_code)]

use std::collections::BTreeMap;

use utoipa::openapi::{Content, Header, Object, Ref, RefOr, Response, ResponseBuilder, Type};
use utoipa::{IntoResponses, ToResponse};

use super::error::ErrorBody;

type Responses = BTreeMap<String, RefOr<Response>>;

/// Why a request with a body is refused, whatever it asks for.
pub struct Refused;

impl IntoResponses for Refused {
    fn responses() -> Responses {
        BTreeMap::from([
            reference::<Malformed>(400),
            reference::<Forbidden>(403),
            reference::<TooLarge>(413),
        ])
    }
}

/// The same, of a request about an app.
pub struct RefusedOfApp;

impl IntoResponses for RefusedOfApp {
    fn responses() -> Responses {
        let mut all = Refused::responses();
        all.extend([reference::<UnknownApp>(404)]);
        all
    }
}

/// A request that queues a deployment of an app.
pub struct Queued;

impl IntoResponses for Queued {
    fn responses() -> Responses {
        let text = || Object::with_type(Type::String);
        let mut id = Header::new(text());
        id.description = Some("The deployment's id".to_owned());
        let queued = ResponseBuilder::new()
            .description("Queued. With `follow=true`, the log as text")
            .header("Cutover-Deployment", id)
            .content(
                "application/json",
                Content::new(Some(Ref::from_schema_name("Deployment"))),
            )
            .content("text/plain", Content::new(Some(text())));
        let mut all = RefusedOfApp::responses();
        all.extend([reference::<KeyReused>(422)]);
        all.insert("202".to_owned(), queued.build().into());
        all
    }
}

fn reference<'a, R: ToResponse<'a>>(status: u16) -> (String, RefOr<Response>) {
    let (name, _) = R::response();
    (status.to_string(), Ref::from_response_name(name).into())
}

/// Nothing has changed since the answer with the `ETag` in `If-None-Match`.
#[derive(ToResponse)]
pub struct NotModified;

/// The request is malformed.
#[derive(ToResponse)]
#[response(example = json!({"error": {
    "code": "bad_request",
    "message": "`limit` must be a number from 1 to 200",
    "hint": "see /api/v1/openapi.json",
}}))]
pub struct Malformed(ErrorBody);

/// The token is missing or wrong.
#[derive(ToResponse)]
#[response(example = json!({"error": {
    "code": "unauthorized",
    "message": "the token is missing or wrong",
    "hint": "send `Authorization: Bearer TOKEN`; `cutover token` prints it on the server",
}}))]
pub struct Unauthorized(ErrorBody);

/// The token does not have the role that this needs.
#[derive(ToResponse)]
#[response(example = json!({"error": {
    "code": "forbidden",
    "message": "token `ci` has the role `read`; this needs `deploy`",
    "hint": "use a token with that role",
}}))]
pub struct Forbidden(ErrorBody);

/// There is no such app.
#[derive(ToResponse)]
#[response(example = json!({"error": {
    "code": "unknown_app",
    "message": "there is no app `helo`",
    "hint": "did you mean `hello`?",
}}))]
pub struct UnknownApp(ErrorBody);

/// There is no such token.
#[derive(ToResponse)]
#[response(example = json!({"error": {
    "code": "unknown_token",
    "message": "there is no token `cl`",
    "hint": "`cutover token list` lists them",
}}))]
pub struct UnknownToken(ErrorBody);

/// The app is no longer in deploy.toml; its live release keeps serving.
#[derive(ToResponse)]
#[response(example = json!({"error": {
    "code": "not_configured",
    "message": "`hello` is no longer in deploy.toml",
    "hint": "add it back and run `cutover reload`, or remove it with `cutover remove hello`",
}}))]
pub struct NotConfigured(ErrorBody);

/// The `Idempotency-Key` came with another request.
#[derive(ToResponse)]
#[response(example = json!({"error": {
    "code": "key_reused",
    "message": "this `Idempotency-Key` came with another request before",
    "hint": "use another key for each request",
}}))]
pub struct KeyReused(ErrorBody);

/// There is no such deployment.
#[derive(ToResponse)]
#[response(example = json!({"error": {
    "code": "unknown_deployment",
    "message": "there is no deployment `d01m5z8k2q4x7a`",
    "hint": "`cutover deployments APP` lists the deployments of an app",
}}))]
pub struct UnknownDeployment(ErrorBody);

/// The body is larger than 64 KiB.
#[derive(ToResponse)]
#[response(example = json!({"error": {
    "code": "too_large",
    "message": "length limit exceeded",
    "hint": "see /api/v1/openapi.json",
}}))]
pub struct TooLarge(ErrorBody);

/// No more programs may run at the same time.
#[derive(ToResponse)]
#[response(example = json!({"error": {
    "code": "too_many_sessions",
    "message": "64 programs of `run` and `exec` are running already",
    "hint": "end one of them, or wait",
}}))]
pub struct TooManySessions(ErrorBody);

/// In place of 401, 403, 404 and 413: too many requests of this client, or for this app, were refused.
/// A request with the right signature or token is always let in.
#[derive(ToResponse)]
#[response(
    headers(("Retry-After" = u64, description = "How long to wait, in seconds")),
    example = json!({"error": {
        "code": "too_many_refusals",
        "message": "too many requests of this client, or for this app, were refused",
        "hint": "wait 3 s; the right signature or token is always let in",
    }}),
)]
pub struct TooManyRefusals(ErrorBody);

/// The database cannot be read or written; try again.
#[derive(ToResponse)]
#[response(example = json!({"error": {
    "code": "not_stored",
    "message": "the request cannot be stored at the moment",
    "hint": "try again; see the agent's log",
}}))]
pub struct NotStored(ErrorBody);
