//! Requests that come again, and what is told to those who have no token.

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::http::{HeaderMap, Request, StatusCode};
use serde_json::Value;
use tower::ServiceExt;

use super::peer::Peer;
use super::{fixture, router};

async fn send(
    router: &Router,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &str,
) -> (StatusCode, HeaderMap, String) {
    let mut request = Request::builder().method(method).uri(path);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let mut request = request.body(Body::from(body.to_owned())).unwrap();
    request.extensions_mut().insert(Peer([192, 0, 2, 1].into()));
    let answer = router.clone().oneshot(request).await.unwrap();
    let (head, body) = answer.into_parts();
    let body = to_bytes(body, 1 << 22).await.unwrap();
    let body = String::from_utf8_lossy(&body).into_owned();
    (head.status, head.headers, body)
}

const RIGHT: (&str, &str) = ("authorization", "Bearer right");
const READER: (&str, &str) = ("authorization", "Bearer reader");
const DEPLOYMENTS: &str = "/api/v1/apps/hello/deployments";

#[tokio::test]
async fn a_request_with_a_key_is_done_once() {
    let folder = tempfile::tempdir().unwrap();
    let router = router(fixture::api(folder.path()).await);
    let deploy = async |key: &str, body: &str| {
        let headers = [RIGHT, ("idempotency-key", key)];
        let (status, headers, body) = send(&router, "POST", DEPLOYMENTS, &headers, body).await;
        let body: Value = serde_json::from_str(&body).unwrap();
        let id = body["id"].as_str().unwrap_or_default().to_owned();
        (
            status.as_u16(),
            id,
            headers.contains_key("idempotent-replayed"),
        )
    };
    let (status, first, replayed) = deploy("pipeline-7", r#"{"ref":"main"}"#).await;
    assert_eq!((status, replayed), (202, false));
    let again = deploy("pipeline-7", r#"{"ref":"main"}"#).await;
    assert_eq!(again, (202, first.clone(), true));
    assert_eq!(deploy("pipeline-7", r#"{"ref":"other"}"#).await.0, 422);
    assert_eq!(deploy("", "").await.0, 400);
    let (_, second, _) = deploy("pipeline-8", r#"{"ref":"main"}"#).await;
    assert_ne!(first, second);
}

#[tokio::test]
async fn a_list_is_filtered_and_not_sent_twice() {
    let folder = tempfile::tempdir().unwrap();
    let router = router(fixture::api(folder.path()).await);
    let (status, ..) = send(
        &router,
        "POST",
        DEPLOYMENTS,
        &[RIGHT],
        r#"{"trigger":"cli"}"#,
    )
    .await;
    assert_eq!(status, 202);
    let count = async |query: &str| {
        let path = format!("{DEPLOYMENTS}?{query}");
        let (status, _, body) = send(&router, "GET", &path, &[READER], "").await;
        let body: Value = serde_json::from_str(&body).unwrap();
        (
            status.as_u16(),
            body["items"].as_array().map_or(0, Vec::len),
        )
    };
    for (query, found) in [
        ("state=queued", 1),
        ("state=live", 0),
        ("trigger=cli", 1),
        ("trigger=auto-rollback&state=queued", 0),
        ("since=1h", 1),
        ("since=2999-01-01T00:00:00Z", 0),
        (
            "since=1970-01-01T00:00:00Z&state=queued&trigger=cli&limit=1",
            1,
        ),
    ] {
        assert_eq!(count(query).await, (200, found), "{query}");
    }
    for wrong in ["state=lively", "trigger=me", "since=soon", "sort=up"] {
        assert_eq!(count(wrong).await.0, 400, "{wrong}");
    }
    let (_, headers, _) = send(&router, "GET", DEPLOYMENTS, &[READER], "").await;
    let tag = headers["etag"].to_str().unwrap().to_owned();
    let known = [READER, ("if-none-match", &tag)];
    let (status, headers, body) = send(&router, "GET", DEPLOYMENTS, &known, "").await;
    assert_eq!((status.as_u16(), body.as_str()), (304, ""));
    assert_eq!(headers["etag"], tag.as_str());
    send(&router, "POST", DEPLOYMENTS, &[RIGHT], "").await;
    let (status, ..) = send(&router, "GET", DEPLOYMENTS, &known, "").await;
    assert_eq!(status, 200, "it has changed");
}

#[tokio::test]
async fn with_a_domain_only_those_with_a_token_see_how_the_server_is() {
    let folder = tempfile::tempdir().unwrap();
    let more =
        "[apps.shown]\nrepo = 'shown.git'\nport = 80\ndomains = ['shown.example']\nbadge = true\n";
    let open = router(fixture::api_with(folder.path(), more).await);
    assert_eq!(send(&open, "GET", "/metrics", &[], "").await.0, 200);
    let (_, _, ready) = send(&open, "GET", "/readyz", &[], "").await;
    assert!(ready.contains("nowhere"), "{ready}");
    let (status, headers, badge) = send(&open, "GET", "/badge/shown.svg", &[], "").await;
    assert_eq!(
        (status.as_u16(), &headers["content-type"]),
        (200, &"image/svg+xml".parse().unwrap())
    );
    assert!(badge.contains("shown: nothing live"), "{badge}");
    for hidden in ["hello.svg", "nobody.svg", "shown", "%ff"] {
        let path = format!("/badge/{hidden}");
        let (status, ..) = send(&open, "GET", &path, &[], "").await;
        assert!([400, 404].contains(&status.as_u16()), "{hidden}: {status}");
    }
    drop(open);

    let folder = tempfile::tempdir().unwrap();
    let closed = fixture::api_with(folder.path(), "agent.domain = 'deploy.example'");
    let closed = router(closed.await);
    assert_eq!(send(&closed, "GET", "/metrics", &[], "").await.0, 401);
    assert_eq!(send(&closed, "GET", "/metrics", &[READER], "").await.0, 200);
    let (status, _, ready) = send(&closed, "GET", "/readyz", &[], "").await;
    assert!(status == 503 && !ready.contains("nowhere"), "{ready}");
    let (_, _, ready) = send(&closed, "GET", "/readyz", &[READER], "").await;
    assert!(ready.contains("nowhere"), "{ready}");
}
