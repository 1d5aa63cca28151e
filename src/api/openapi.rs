//! The API's description, for programs. Kept as a file, since the shapes are fixed.

use axum::http::header;
use axum::response::{IntoResponse, Response};

const DOCUMENT: &str = include_str!("openapi.json");

pub async fn document() -> Response {
    ([(header::CONTENT_TYPE, "application/json")], DOCUMENT).into_response()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::sync::Arc;

    use axum::Router;
    use axum::body::Body;
    use axum::http::Request;
    use serde_json::{Value, json};
    use tower::ServiceExt;

    use super::*;
    use crate::api::{
        Api, Bodies, Health, Refusals, WebhookSecrets, auth::Token, peer::Peer, router,
    };
    use crate::deploy::Agent;
    use crate::engine::Engine;
    use crate::proxy::control::Client;
    use crate::state::State;
    use crate::store::Store;

    fn document() -> Value {
        serde_json::from_str(DOCUMENT).unwrap()
    }

    /// Follows a `$ref`.
    fn deref<'a>(document: &'a Value, value: &'a Value) -> &'a Value {
        match value["$ref"].as_str() {
            Some(place) => document.pointer(&place[1..]).expect(place),
            None => value,
        }
    }

    #[test]
    fn every_state_is_described() {
        let states =
            &document()["components"]["schemas"]["Deployment"]["properties"]["state"]["enum"];
        let names: Vec<_> = State::ALL.iter().map(|state| state.as_str()).collect();
        assert_eq!(*states, json!(names));
    }

    /// An agent without workers, Docker or a proxy.
    async fn api(folder: &std::path::Path) -> Router {
        let path = folder.join("deploy.toml");
        let app = "[agent]\ndata_dir = 'data'\n[apps.hello]\nrepo = 'hello.git'\nport = 80\n\
                   [apps.far]\nrepo = 'far.git'\nport = 80\ndomains = ['far.example']\n\
                   webhook.networks = ['203.0.113.0/24']";
        std::fs::write(&path, app).unwrap();
        let config = crate::config::load(&path).unwrap_or_else(|problems| panic!("{problems}"));
        let store = Store::open(folder).unwrap();
        let id = store.write(crate::store::apps::agent_id).await.unwrap();
        let engine = Engine::new("unix:///nowhere".parse().unwrap(), id.clone(), folder);
        let proxy = Client::new(folder.join("nowhere"));
        router(Arc::new(Api {
            agent: Arc::new(Agent::new(config, id, store, engine, proxy)),
            token: Token::new("right"),
            health: Health::default(),
            bodies: Bodies::default(),
            refusals: Refusals::default(),
            webhook_secrets: WebhookSecrets::default(),
        }))
    }

    /// Whether the value has exactly the keys that the schema describes, all the way down.
    fn fits(document: &Value, schema: &Value, value: &Value, place: &str) {
        let schema = deref(document, schema);
        if let Some(all) = schema["anyOf"].as_array() {
            if !value.is_null() {
                fits(document, &all[0], value, place);
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
        match (&schema["type"], &schema["enum"]) {
            (Value::Null, Value::Array(all)) => assert!(all.contains(value), "{place}: {value}"),
            (Value::Array(kinds), _) => assert!(kinds.iter().any(named), "{place}: {value}"),
            (kind, _) => assert!(named(kind), "{place}: {value}"),
        }
        if let (Some(described), Some(found)) =
            (schema["properties"].as_object(), value.as_object())
        {
            let keys =
                |map: &serde_json::Map<String, Value>| map.keys().cloned().collect::<Vec<_>>();
            assert_eq!(keys(described), keys(found), "{place}");
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
        let (router, document) = (api(folder.path()).await, document());
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
        // Who is refused too often for one of them is somebody else at the next.
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
                let of = |app: &str, id: &str| path.replace("{app}", app).replace("{id}", id);
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
                for (path, token, body) in right.into_iter().chain(wrong) {
                    let (status, _) = ask(client, &asked, &path, token, body).await;
                    seen.insert(status.to_string());
                }
                // What takes more than a request.
                let rare = ["408", "409", "503"];
                let described = operation["responses"].as_object().unwrap().keys();
                for status in described.filter(|status| !rare.contains(&status.as_str())) {
                    let place = format!("{path} {status}");
                    let is_rare = ["/hooks/{app} 202", "/readyz 200"].contains(&place.as_str())
                        || place.ends_with("/rollback 202");
                    assert!(
                        is_rare || seen.contains(status),
                        "{asked} never gives {status}"
                    );
                }
            }
        }
    }
}
