//! The API's description, generated from the handlers and from the types that they read and write.

use std::sync::{Arc, LazyLock};

use axum::http::header;
use axum::response::{IntoResponse, Response};
use utoipa::ToResponse;
use utoipa::openapi::path::Operation;
use utoipa::openapi::schema::ArrayItems;
use utoipa::openapi::security::{Http, HttpAuthScheme, SecurityRequirement, SecurityScheme};
use utoipa::openapi::tag::TagBuilder;
use utoipa::openapi::{
    Components, ComponentsBuilder, InfoBuilder, OpenApi, OpenApiBuilder, Ref, RefOr, Schema,
};
use utoipa_axum::router::OpenApiRouter;

use super::responses::{
    Forbidden, KeyReused, Malformed, NotConfigured, NotModified, NotStored, TooLarge,
    TooManyRefusals, TooManySessions, Unauthorized, UnknownApp, UnknownDeployment, UnknownToken,
};

static DOCUMENT: LazyLock<String> = LazyLock::new(|| {
    let document = describe().to_json();
    document.expect("the description is made of strings and numbers")
});

/// Get this document
#[utoipa::path(
    get,
    path = "/api/v1/openapi.json",
    operation_id = "getOpenApi",
    tag = "agent",
    responses((status = 200, description = "OpenAPI 3.1", body = Object)),
)]
pub async fn document() -> Response {
    let kind = [(header::CONTENT_TYPE, "application/json")];
    (kind, DOCUMENT.as_str()).into_response()
}

fn describe() -> OpenApi {
    let mut guarded = super::guarded();
    for path in guarded.get_openapi_mut().paths.paths.values_mut() {
        if let Some(get) = &mut path.get {
            let unchanged = Ref::from_response_name(NotModified::response().0).into();
            get.responses.responses.insert("304".into(), unchanged);
        }
        let operations = [
            &mut path.get,
            &mut path.post,
            &mut path.put,
            &mut path.delete,
        ];
        operations.into_iter().flatten().for_each(guard);
    }
    let mut document = OpenApiRouter::<Arc<super::Api>>::with_openapi(base())
        .merge(super::open())
        .merge(guarded)
        .into_openapi();
    let schemas = document
        .components
        .iter_mut()
        .flat_map(|all| &mut all.schemas);
    schemas.for_each(|(name, schema)| name_items(name, schema));
    document
}

/// Replaces the copy of `T`'s schema that utoipa puts into that of `Page<T>` by a reference, which
/// tells clients that both are one type.
fn name_items(name: &str, schema: &mut RefOr<Schema>) {
    if let Some(item) = name.strip_prefix("Page_")
        && let RefOr::T(Schema::Object(page)) = schema
        && let Some(RefOr::T(Schema::Array(items))) = page.properties.get_mut("items")
    {
        items.items = ArrayItems::RefOrSchema(Box::new(Ref::from_schema_name(item).into()));
    }
}

/// Adds what all requests with a token have in common.
fn guard(operation: &mut Operation) {
    let none: [&str; 0] = [];
    operation.security = Some(vec![SecurityRequirement::new("token", none)]);
    for (status, (name, _)) in [
        ("401", Unauthorized::response()),
        ("429", TooManyRefusals::response()),
        ("503", NotStored::response()),
    ] {
        let response = Ref::from_response_name(name).into();
        operation
            .responses
            .responses
            .insert(status.into(), response);
    }
}

fn base() -> OpenApi {
    let info = InfoBuilder::new().title("Cutover").version("1").description(Some(
        "Deployments over HTTP. Errors are `{\"error\": {\"code\", \"message\", \"hint\"}}`. Times are RFC 3339 \
         in UTC. Lists are newest first.",
    ));
    let tag = |name, description| {
        TagBuilder::new()
            .name(name)
            .description(Some(description))
            .build()
    };
    OpenApiBuilder::new()
        .info(info)
        .components(Some(components()))
        .tags(Some([
            tag(
                "webhooks",
                "What tells Cutover that a branch or tag has moved.",
            ),
            tag("apps", "The apps of deploy.toml and their releases."),
            tag("deployments", "Deploy, roll back, follow and cancel."),
            tag("agent", "The agent's health and metrics."),
        ]))
        .build()
}

fn components() -> Components {
    let description = "`cutover token` prints it on the server. No token is needed over the Unix socket \
                       `agent.sock`.";
    let mut scheme = Http::new(HttpAuthScheme::Bearer);
    scheme.description = Some(description.into());
    ComponentsBuilder::new()
        .security_scheme("token", SecurityScheme::Http(scheme))
        .response_from::<Malformed>()
        .response_from::<Unauthorized>()
        .response_from::<Forbidden>()
        .response_from::<UnknownApp>()
        .response_from::<UnknownToken>()
        .response_from::<KeyReused>()
        .response_from::<UnknownDeployment>()
        .response_from::<NotConfigured>()
        .response_from::<NotModified>()
        .response_from::<TooLarge>()
        .response_from::<TooManyRefusals>()
        .response_from::<TooManySessions>()
        .response_from::<NotStored>()
        .schema_from::<super::error::ErrorBody>()
        .build()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use axum::body::Body;
    use axum::http::Request;
    use serde_json::{Value, json};
    use tower::ServiceExt;

    use super::*;
    use crate::api::{fixture, peer::Peer, router};
    use crate::state::State;

    fn document() -> Value {
        serde_json::from_str(&DOCUMENT).unwrap()
    }

    /// Resolves a `$ref`.
    fn deref<'a>(document: &'a Value, value: &'a Value) -> &'a Value {
        match value["$ref"].as_str() {
            Some(place) => document.pointer(&place[1..]).expect(place),
            None => value,
        }
    }

    #[test]
    fn every_state_is_described() {
        let states = &document()["components"]["schemas"]["State"]["enum"];
        let names: Vec<_> = State::ALL.iter().map(|state| state.as_str()).collect();
        assert_eq!(*states, json!(names));
    }

    /// Checks that the value has exactly the keys that the schema describes, at every level.
    fn fits(document: &Value, schema: &Value, value: &Value, place: &str) {
        let schema = deref(document, schema);
        if let Some(all) = schema["oneOf"].as_array() {
            let (null, others): (Vec<_>, Vec<_>) =
                all.iter().partition(|one| **one == json!({"type": "null"}));
            assert_eq!((null.len(), others.len()), (1, 1), "{place}: {all:?}");
            if !value.is_null() {
                fits(document, others[0], value, place);
            }
            return;
        }
        let named = |kind: &Value| match value {
            Value::Null => kind == "null",
            Value::Bool(_) => kind == "boolean",
            Value::Number(_) => kind == "integer",
            Value::String(_) => kind == "string",
            Value::Array(_) => kind == "array",
            Value::Object(_) => kind == "object",
        };
        match &schema["type"] {
            Value::Array(kinds) => assert!(kinds.iter().any(named), "{place}: {value}"),
            kind => assert!(named(kind), "{place}: {value}"),
        }
        if let Some(all) = schema["enum"].as_array() {
            assert!(all.contains(value), "{place}: {value}");
        }
        if let (Some(described), Some(found)) =
            (schema["properties"].as_object(), value.as_object())
        {
            let keys =
                |map: &serde_json::Map<String, Value>| map.keys().cloned().collect::<Vec<_>>();
            assert_eq!(keys(described), keys(found), "{place}");
            let required = schema["required"].as_array().map_or(0, Vec::len);
            assert_eq!(required, described.len(), "{place}: {schema}");
            for (key, value) in found {
                fits(document, &described[key], value, &format!("{place}.{key}"));
            }
        }
        for item in value.as_array().into_iter().flatten() {
            fits(document, &schema["items"], item, &format!("{place}[]"));
        }
    }

    #[tokio::test]
    async fn every_answer_is_described() {
        let folder = tempfile::tempdir().unwrap();
        let (router, document) = (router(fixture::api(folder.path()).await), document());
        let ask = async |client: u8, asked: &str, path: &str, token: &str, body: String| {
            let (method, described) = asked.split_once(' ').unwrap();
            let mut request = Request::builder()
                .method(method)
                .uri(path)
                .header("authorization", format!("Bearer {token}"))
                .body(Body::from(body))
                .unwrap();
            request
                .extensions_mut()
                .insert(Peer([192, 0, 2, client].into()));
            let answer = router.clone().oneshot(request).await.unwrap();
            let (head, body) = answer.into_parts();
            let body = axum::body::to_bytes(body, 1 << 20).await.unwrap();
            let operation = &document["paths"][described][method.to_lowercase()];
            let status = head.status.as_u16();
            let described = deref(&document, &operation["responses"][status.to_string()]);
            let place = format!("{asked} {path} {status}");
            assert!(described.is_object(), "{place}: {body:?}");
            for (name, _) in described["headers"].as_object().into_iter().flatten() {
                assert!(head.headers.contains_key(name), "{place}: {name}");
            }
            let kind = head.headers["content-type"].to_str().unwrap();
            let kind = kind.split(';').next().unwrap();
            let described = &described["content"][kind];
            assert!(described.is_object(), "{place}: {kind}");
            let value = serde_json::from_slice(&body).unwrap_or_default();
            if let (Some(schema), "application/json") = (described.get("schema"), kind) {
                fits(&document, schema, &value, &place);
            }
            (status, value)
        };
        let nothing = String::new;
        let long = "x".repeat(70_000);
        // A new client address for each request, because a client that is refused too often gets 429.
        let mut client = 1;
        for (path, operations) in document["paths"].as_object().unwrap() {
            for (method, operation) in operations.as_object().unwrap() {
                client += 1;
                let (deploy, hello) = (
                    "POST /api/v1/apps/{app}/deployments",
                    "/api/v1/apps/hello/deployments",
                );
                let (_, deployment) = ask(1, deploy, hello, "right", nothing()).await;
                let id = deployment["id"].as_str().unwrap();
                let asked = format!("{} {path}", method.to_uppercase());
                let of = |app: &str, id: &str| {
                    let path = path.replace("{app}", app).replace("{id}", id);
                    let name = if path.contains("/cron/") {
                        "cleanup"
                    } else {
                        id
                    };
                    path.replace("{name}", name).replace("{token}", app)
                };
                let good = of("hello", id);
                let huge = if path.starts_with("/hooks") {
                    26 << 20
                } else {
                    0
                };
                let wrong = vec![(good.clone(), "wrong", nothing()); 102];
                let right = [
                    (good.clone(), nothing()),
                    (good.clone(), "{}".into()),
                    (good.clone(), "[".into()),
                    (good.clone(), r#"{"repository":"/x","updates":[]}"#.into()),
                    (format!("{good}?follow=perhaps&limit=0"), nothing()),
                    (of("nobody", "d0000000000000"), nothing()),
                    (of("far", "nobody"), nothing()),
                    (of("%ff", "%ff"), nothing()),
                    (good.clone(), long.clone()),
                    (good, "x".repeat(huge)),
                ];
                let right = right.map(|(path, body)| (path, "right", body));
                let mut seen = BTreeSet::new();
                let reader = [(of("hello", id), "reader", nothing())];
                for (path, token, body) in right.into_iter().chain(reader).chain(wrong) {
                    let (status, _) = ask(client, &asked, &path, token, body).await;
                    seen.insert(status.to_string());
                }
                // Responses that take more than a single request to provoke.
                let rare = ["101", "204", "304", "408", "409", "503"];
                let described = operation["responses"].as_object().unwrap().keys();
                for status in described.filter(|status| !rare.contains(&status.as_str())) {
                    let place = format!("{path} {status}");
                    let is_rare = ["/hooks/{app} 202", "/readyz 200"].contains(&place.as_str())
                        || place.ends_with("/rollback 202")
                        || place.ends_with("/restart 202")
                        || place.ends_with("/renew 202")
                        || place.ends_with("/runs 202")
                        || place.ends_with("/reload 422")
                        || place.ends_with("/orphans 200")
                        || place.ends_with("/adopt 200")
                        || place.ends_with("/tokens 201")
                        || place.ends_with("/tokens 404")
                        || place.ends_with("/rotate 200")
                        || place.ends_with("/metrics 401")
                        || place.ends_with("/deployments 422")
                        || place.ends_with("/rollback 422")
                        || place.ends_with("/restart 422")
                        // In a test, nothing is logged that could be changed.
                        || asked.starts_with("POST") && place.ends_with("/log-level 200")
                        || place.ends_with("/configuration 403")
                        || asked.starts_with("DELETE") && status == "200";
                    assert!(
                        is_rare || seen.contains(status),
                        "{asked} never gives {status}"
                    );
                }
            }
        }
    }
}
