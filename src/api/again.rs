//! Requests that come again, and what is told to those who have no token.

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::http::{HeaderMap, Request, StatusCode};
use serde_json::Value;
use tower::ServiceExt;

use super::peer::Peer;
use super::{fixture, router};
use crate::store::releases::{self, Release};
use crate::store::{apps, fixture as rows};

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
async fn a_rollback_and_a_restart_with_a_key_are_done_once() {
    let folder = tempfile::tempdir().unwrap();
    let api = fixture::api(folder.path()).await;
    let live = |db: &_, release: &Release| {
        releases::set_went_live(db, &release.id)?;
        apps::set_live(db, &release.app, &release.id)
    };
    let write = api.agent.store.write(move |db| {
        let (old, new) = (rows::release(db, 1)?, rows::release(db, 1)?);
        live(db, &old)?;
        live(db, &new)?;
        Ok(old)
    });
    let old = write.await.unwrap();
    let (store, router) = (api.agent.store.clone(), router(api));
    let ask = async |what: &str, key: &str, body: &str| {
        let path = format!("/api/v1/apps/hello/{what}");
        let headers = [RIGHT, ("idempotency-key", key)];
        let (status, headers, body) = send(&router, "POST", &path, &headers, body).await;
        let body: Value = serde_json::from_str(&body).unwrap();
        let id = body["id"].as_str().unwrap_or_default().to_owned();
        let is_replayed = headers.contains_key("idempotent-replayed");
        (status.as_u16(), id, is_replayed)
    };
    let back = format!(r#"{{"to":"{}"}}"#, old.id);
    let at_once = [(); 8].map(|()| ask("rollback", "a", &back));
    let at_once = futures_util::future::join_all(at_once).await;
    let id = at_once[0].1.clone();
    assert!(
        at_once.iter().all(|it| (it.0, &it.1) == (202, &id)),
        "{at_once:?}"
    );
    assert_eq!(at_once.iter().filter(|it| !it.2).count(), 1);
    // It has been done: without the key there is nothing to go back to.
    let done = store.write(move |db| live(db, &old));
    done.await.unwrap();
    assert_eq!(ask("rollback", "b", &back).await.0, 409);
    assert_eq!(ask("rollback", "a", &back).await, (202, id, true));

    let (status, first, is_replayed) = ask("restart", "c", "").await;
    assert_eq!((status, is_replayed), (202, false));
    assert_eq!(ask("restart", "c", "").await, (202, first, true));
    // What a key was for is more than the body.
    assert_eq!(ask("rollback", "c", "").await.0, 422);
    assert_eq!(ask("deployments", "c", "").await.0, 422);
    assert_eq!(ask("restart", "a", "").await.0, 422);
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
    for list in ["releases", "pushes"] {
        for (since, expected) in [("7d", 200), ("soon", 400)] {
            let path = format!("/api/v1/apps/hello/{list}?since={since}");
            let (status, ..) = send(&router, "GET", &path, &[READER], "").await;
            assert_eq!(status.as_u16(), expected, "{path}");
        }
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
async fn the_apps_come_in_pages_if_one_asks_for_it() {
    let folder = tempfile::tempdir().unwrap();
    let more = ["a", "m", "z"].map(|name| {
        format!("[apps.{name}]\nrepo = '{name}.git'\nport = 80\ndomains = ['{name}.example']\n")
    });
    let router = router(fixture::api_with(folder.path(), &more.concat()).await);
    let page = async |query: &str| {
        let path = format!("/api/v1/apps{query}");
        let (status, _, body) = send(&router, "GET", &path, &[RIGHT], "").await;
        assert_eq!(status, 200, "{body}");
        let body: Value = serde_json::from_str(&body).unwrap();
        let items = body["items"].as_array().unwrap().iter();
        let names: Vec<_> = items
            .map(|it| it["name"].as_str().unwrap().to_owned())
            .collect();
        (names, body["next"].as_str().map(str::to_owned))
    };
    let (all, next) = page("").await;
    assert!(all.len() > 3 && next.is_none(), "{all:?}");
    let (mut seen, mut next) = page("?limit=2").await;
    while let Some(cursor) = next {
        let (more, following) = page(&format!("?limit=2&cursor={cursor}")).await;
        assert!(!more.is_empty());
        seen.extend(more);
        next = following;
    }
    assert_eq!(seen, all);
    let (status, ..) = send(&router, "GET", "/api/v1/apps?limit=0", &[RIGHT], "").await;
    assert_eq!(status, 400);
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
