//! Which endpoint lets in which role, as a table that is tried out.

use std::collections::BTreeSet;

use axum::body::{Body, to_bytes};
use axum::http::Request;
use serde_json::Value;
use tower::ServiceExt;

use super::auth::hashed;
use super::peer::Peer;
use super::{fixture, router};
use crate::principal::{Requester, Role, Scope};
use crate::store::tokens::{self, NewToken};

/// What an endpoint concerns.
#[derive(Clone, Copy, PartialEq)]
enum Of {
    /// The app `hello`, or a deployment of it.
    App,
    /// All apps that the caller may see.
    Seen,
    /// The server: nobody whose token is for some apps only.
    Server,
}
use Of::{App, Seen, Server};
use Role::{Admin, Deploy, Read};

const TABLE: &[(&str, Role, Of)] = &[
    ("GET /api/v1/apps", Read, Seen),
    ("GET /api/v1/apps/{app}", Read, App),
    ("DELETE /api/v1/apps/{app}", Admin, App),
    ("GET /api/v1/apps/{app}/deployments", Read, App),
    ("POST /api/v1/apps/{app}/deployments", Deploy, App),
    ("GET /api/v1/apps/{app}/releases", Read, App),
    ("GET /api/v1/apps/{app}/pushes", Read, App),
    ("GET /api/v1/apps/{app}/logs", Read, App),
    ("POST /api/v1/apps/{app}/rollback", Deploy, App),
    ("POST /api/v1/apps/{app}/restart", Deploy, App),
    ("GET /api/v1/apps/{app}/scale", Read, App),
    ("POST /api/v1/apps/{app}/scale", Deploy, App),
    ("GET /api/v1/apps/{app}/instances", Read, App),
    ("GET /api/v1/apps/{app}/env", Deploy, App),
    ("POST /api/v1/apps/{app}/env", Deploy, App),
    ("POST /api/v1/apps/{app}/stop", Deploy, App),
    ("POST /api/v1/apps/{app}/start", Deploy, App),
    ("POST /api/v1/apps/{app}/pin", Deploy, App),
    ("POST /api/v1/apps/{app}/unpin", Deploy, App),
    ("POST /api/v1/apps/{app}/maintenance", Deploy, App),
    ("GET /api/v1/apps/{app}/run", Admin, App),
    ("GET /api/v1/apps/{app}/exec", Admin, App),
    ("GET /api/v1/apps/{app}/cron", Read, App),
    ("GET /api/v1/apps/{app}/cron/{name}/runs", Read, App),
    ("POST /api/v1/apps/{app}/cron/{name}/runs", Deploy, App),
    ("GET /api/v1/apps/{app}/secrets", Admin, App),
    ("POST /api/v1/apps/{app}/secrets", Admin, App),
    ("POST /api/v1/secrets/rekey", Admin, Server),
    ("GET /api/v1/deployments/{id}", Read, App),
    ("GET /api/v1/deployments/{id}/log", Read, App),
    ("POST /api/v1/deployments/{id}/cancel", Deploy, App),
    ("POST /api/v1/pushes", Deploy, Seen),
    ("GET /api/v1/configuration", Read, Server),
    ("POST /api/v1/reload", Admin, Server),
    ("GET /api/v1/actions", Admin, Seen),
    ("GET /api/v1/actions/check", Admin, Server),
    ("GET /api/v1/certificates", Read, Seen),
    ("POST /api/v1/certificates/{name}/renew", Admin, Seen),
    ("GET /api/v1/orphans", Admin, Server),
    ("POST /api/v1/gc", Admin, Server),
    ("POST /api/v1/adopt", Admin, Server),
    ("POST /api/v1/links", Read, Seen),
    ("POST /api/v1/notify/test", Admin, Server),
    ("GET /api/v1/log-level", Admin, Server),
    ("POST /api/v1/log-level", Admin, Server),
    ("GET /api/v1/tokens", Admin, Server),
    ("POST /api/v1/tokens", Admin, Server),
    ("DELETE /api/v1/tokens/{token}", Admin, Server),
    ("POST /api/v1/tokens/{token}/rotate", Admin, Server),
];

#[tokio::test]
async fn every_endpoint_lets_in_whom_the_table_says() {
    let folder = tempfile::tempdir().unwrap();
    let api = fixture::api(folder.path()).await;
    let scopes = [
        ("all", Scope::All),
        ("hello", Scope::Apps(vec!["hello".parse().unwrap()])),
        ("far", Scope::Apps(vec!["far".parse().unwrap()])),
    ];
    let made = scopes.clone();
    let write = api.agent.store.write(move |db| {
        for (scope, apps) in &made {
            for role in [Read, Deploy, Admin] {
                let name = format!("{scope}-{}", role.as_str());
                let new = NewToken {
                    name: &name,
                    hash: &hashed(&name),
                    prefix: "",
                    role,
                    apps,
                    expires_at: None,
                    by: &Requester::Agent,
                };
                tokens::insert(db, &new)?;
            }
        }
        Ok(())
    });
    write.await.unwrap();
    let router = router(api);
    let mut client = 0u16;
    let mut ask = async |asked: &str, token: &str| {
        let (method, path) = asked.split_once(' ').unwrap();
        client += 1;
        let mut request = Request::builder()
            .method(method)
            .uri(path)
            .header("authorization", format!("Bearer {token}"))
            .body(Body::empty())
            .unwrap();
        // Each from an address of its own, because a client that is refused too often gets 429.
        let [high, low] = client.to_be_bytes();
        request
            .extensions_mut()
            .insert(Peer([192, 0, high, low].into()));
        let answer = router.clone().oneshot(request).await.unwrap();
        let status = answer.status().as_u16();
        let body = to_bytes(answer.into_body(), 1 << 20).await.unwrap();
        let body: Value = serde_json::from_slice(&body).unwrap_or_default();
        (status, body)
    };
    let deploy = "POST /api/v1/apps/hello/deployments";
    let (_, deployment) = ask(deploy, "right").await;
    let id = deployment["id"].as_str().unwrap().to_owned();
    for (endpoint, least, of) in TABLE {
        let asked = endpoint
            .replace("{app}", "hello")
            .replace("{id}", &id)
            .replace("{token}", "nobody")
            .replace("{name}", "nobody");
        assert_eq!(ask(&asked, "nobody").await.0, 401, "{endpoint}");
        // The lowest last: an app that was removed is not there for the next one.
        for (scope, _) in &scopes {
            for role in [Read, Deploy, Admin] {
                let token = format!("{scope}-{}", role.as_str());
                let (status, body) = ask(&asked, &token).await;
                let code = body["error"]["code"].as_str().unwrap_or_default();
                let place = format!("{endpoint} by {token}: {status} {body}");
                match (*of, *scope) {
                    (App, "far") => {
                        let hidden = ["unknown_app", "unknown_deployment"].contains(&code);
                        assert!(status == 404 && hidden, "{place}");
                    }
                    (Server, "hello" | "far") => {
                        assert_eq!((status, code), (403, "forbidden"), "{place}")
                    }
                    _ if role < *least => assert_eq!((status, code), (403, "forbidden"), "{place}"),
                    _ => {
                        let refused = [401, 403].contains(&status)
                            || code.starts_with("unknown_app")
                            || code == "unknown_deployment";
                        assert!(!refused && status != 405, "{place}");
                    }
                }
            }
        }
    }
    // Only the part of a list that a token is for.
    let (_, apps) = ask("GET /api/v1/apps", "far-read").await;
    assert_eq!(apps["items"].as_array().unwrap().len(), 1, "{apps}");
}

#[test]
fn no_endpoint_is_missing_in_the_table() {
    let guarded = super::guarded();
    let mut all = BTreeSet::new();
    for (path, item) in &guarded.get_openapi().paths.paths {
        for (method, operation) in [
            ("GET", &item.get),
            ("POST", &item.post),
            ("PUT", &item.put),
            ("PATCH", &item.patch),
            ("DELETE", &item.delete),
        ] {
            if operation.is_some() {
                all.insert(format!("{method} {path}"));
            }
        }
    }
    let known: BTreeSet<_> = TABLE
        .iter()
        .map(|(endpoint, ..)| (*endpoint).to_owned())
        .collect();
    assert_eq!(all, known);
}
